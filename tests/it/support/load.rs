//! Many clients at once, and what came of each of their requests.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::task::JoinSet;

use super::{
    client::{Reply, get},
    dormouse::Dormouse,
};

/// Clients that ask for a container again and again until told to end, each of their requests recorded.
#[derive(Debug)]
pub(crate) struct Load {
    end: Arc<AtomicBool>,
    clients: JoinSet<Vec<Asked>>,
}

/// One request of a load, and what came of it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) at: SystemTime,
    pub(crate) took: Duration,
    pub(crate) got: Result<Reply, String>,
}

impl Load {
    /// So many clients, each of which rests 20 ms between its requests.
    pub(crate) fn begin(dormouse: &Dormouse, name: &str, path: &str, clients: usize) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (http, mut tasks) = (dormouse.http, JoinSet::new());
        for _ in 0..clients {
            let (end, name, path) = (Arc::clone(&end), name.to_owned(), path.to_owned());
            tasks.spawn(async move {
                let mut history = Vec::new();
                while !end.load(Ordering::SeqCst) {
                    let (at, since) = (SystemTime::now(), Instant::now());
                    let got = get(http, &name, &path, "").await.map_err(|error| error.to_string());
                    history.push(Asked { at, took: since.elapsed(), got });
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                history
            });
        }
        Self { end, clients: tasks }
    }

    /// Ends it and returns its history in order.
    pub(crate) async fn end(self) -> Vec<Asked> {
        self.end.store(true, Ordering::SeqCst);
        let mut history = self.clients.join_all().await.into_iter().flatten().collect::<Vec<_>>();
        history.sort_by_key(|asked| asked.at);
        history
    }
}

impl Asked {
    /// The status of the answer, or what went wrong in words.
    pub(crate) fn outcome(&self) -> String {
        self.got.as_ref().map_or_else(Clone::clone, |reply| reply.status.to_string())
    }
}

/// How often each outcome is in a history.
pub(crate) fn outcomes(history: &[Asked]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for asked in history {
        *counts.entry(asked.outcome()).or_default() += 1;
    }
    counts
}
