//! A process that has taken over, and the one before, which stands by: asks it for what is needed here, and as long as it
//! has not lived for a while has another one take its place should it end.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tokio::{
    process::Child,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    candidate::{Candidate, Sockets},
    legacy::Legacy,
    service_manager,
    upgrade_line::{Line, ToNew, ToOld},
};
use crate::{backend::Ask, control::Control, proxy::Shared, telemetry::chain};

/// When it has lived for so long it is on its own.
const PROBATION: Duration = Duration::from_secs(3);

/// So many may take the place of the first.
const MOST: u32 = 3;

/// So long one whose line is closed may take to end.
const LAST_WORDS: Duration = PROBATION;

/// A process that has taken over.
#[derive(Debug)]
pub(super) struct Heir {
    pub(super) pid: u32,
    child: Child,
    line: Line,
    asks: mpsc::UnboundedReceiver<Ask>,
    /// What it was asked and has not answered, by number.
    asked: HashMap<u64, (String, Reply)>,
    number: u64,
    /// For another one, until it is on its own.
    sockets: Option<Sockets>,
}

type Reply = oneshot::Sender<Result<(), Arc<str>>>;

/// How a time of standing by ended.
enum Over {
    /// It has ended, or ends, as it was told to; or it was on its own.
    Well,
    /// It was to live.
    TooSoon,
}

impl Heir {
    pub(super) fn new(
        candidate: Candidate,
        asks: mpsc::UnboundedReceiver<Ask>,
        sockets: Sockets,
    ) -> Result<Self, String> {
        let pid = candidate.pid;
        let (child, line) = candidate.parts()?;
        Ok(Self { pid, child, line, asks, asked: HashMap::new(), number: 0, sockets: Some(sockets) })
    }

    /// Stands by for as long as this process lives. Once it ends, clients have no time without end any more. The token is
    /// cancelled when it needs this process no more.
    pub(super) async fn stand_by(mut self, shared: Arc<Shared>, control: Control, on_its_own: CancellationToken) {
        // However this ends, nobody waits for it.
        let _let_go = on_its_own.clone().drop_guard();
        for replaced in 0.. {
            if let Over::Well = self.hear(&shared, &on_its_own).await {
                break;
            }
            // A line that broke is no end: two that serve would both start and stop the same backends.
            let Ok(how) = timeout(LAST_WORDS, self.child.wait()).await else {
                tracing::warn!(pid = self.pid, "the new process lives on, though it can not be spoken to");
                self.settle(&on_its_own);
                break;
            };
            let how = how.map_or_else(|_| String::new(), |how| format!(" ({how})"));
            if replaced == MOST {
                tracing::error!(pid = self.pid, "nobody serves any more: process after process has ended{how}");
                break;
            }
            tracing::error!(
                pid = self.pid,
                "the process that took over has ended{how}; another one is to take its place"
            );
            if let Err(why) = self.replace(&control).await {
                tracing::error!("nobody serves any more: no other process could take its place: {why}");
                break;
            }
            tracing::info!(pid = self.pid, "another process has taken over");
        }
        shared.at_leisure.send_replace(false);
    }

    async fn hear(&mut self, shared: &Shared, on_its_own: &CancellationToken) -> Over {
        let settled = Instant::now() + PROBATION;
        let ended = loop {
            tokio::select! {
                biased;
                word = self.line.next_understood() => match word {
                    Ok(Some(ToOld::Held { number, refused })) => {
                        if let Some((_, reply)) = self.asked.remove(&number) {
                            let _ = reply.send(refused.map_or(Ok(()), |why| Err(why.into())));
                        }
                    }
                    // Who connects there is refused at once, rather than left in a queue that nobody serves.
                    Ok(Some(ToOld::Unwanted { sockets })) => {
                        if let Some(ours) = &mut self.sockets {
                            ours.let_go(&sockets);
                        }
                    }
                    // It is the one that tells of its own heir.
                    Ok(Some(ToOld::HandedOn)) if self.sockets.is_some() => self.settle(on_its_own),
                    Ok(Some(ToOld::HandedOn)) => {}
                    Ok(Some(ToOld::Ending)) => {
                        shared.at_leisure.send_replace(false);
                        self.let_go(on_its_own);
                    }
                    Ok(Some(word)) => tracing::debug!(?word, "a word of the new process that was not its turn"),
                    Ok(None) => break "it has ended".to_owned(),
                    Err(error) => break error.to_string(),
                },
                Some(ask) = self.asks.recv() => {
                    if let Err(error) = self.ask(ask).await {
                        break error.to_string();
                    }
                }
                () = sleep_until(settled), if self.sockets.is_some() => {
                    tracing::info!(pid = self.pid, "the new process is on its own");
                    self.settle(on_its_own);
                }
            }
        };
        tracing::debug!(ended, "the line to the new process is closed");
        if self.sockets.is_some() { Over::TooSoon } else { Over::Well }
    }

    /// It is the one that is to be watched from now on.
    fn settle(&mut self, on_its_own: &CancellationToken) {
        service_manager::main_pid(self.pid);
        self.let_go(on_its_own);
    }

    /// Nobody is to take its place any more.
    fn let_go(&mut self, on_its_own: &CancellationToken) {
        self.sockets = None;
        on_its_own.cancel();
    }

    async fn ask(&mut self, ask: Ask) -> io::Result<()> {
        let word = match ask {
            Ask::Hold(id, reply) => {
                self.number += 1;
                self.asked.insert(self.number, (id.to_string(), reply));
                ToNew::Hold { number: self.number, backend: id.to_string() }
            }
            Ask::Free(id) => ToNew::Free { backend: id.to_string() },
        };
        self.line.send(&word).await
    }

    /// Has another one take its place, with the state that it has kept.
    async fn replace(&mut self, control: &Control) -> Result<(), String> {
        let sockets = self.sockets.as_ref().ok_or("the sockets have been let go")?;
        let mut candidate = Candidate::start(sockets).await.map_err(|error| chain(error.as_ref()))?;
        candidate.must_be_ready().await?;
        let in_use = control.backends().into_iter().filter(|backend| backend.passes() > 0);
        let in_use = in_use.map(|backend| backend.id().to_string()).collect();
        candidate.must_serve(ToNew::Go { in_use, legacy: Legacy::default() }).await?;
        self.pid = candidate.pid;
        (self.child, self.line) = candidate.parts()?;
        for (number, (backend, _)) in &self.asked {
            let again = ToNew::Hold { number: *number, backend: backend.clone() };
            self.line.send(&again).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
