//! The watcher of one node: lists it, listens to it, and tells the keeper.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    model::{Container, NodeName},
    provider::{Hint, SharedProvider},
};

/// All units are listed this often, whatever the events say.
const RECONCILE: Duration = Duration::from_secs(30);
/// Several events in a row are answered by one list.
const SETTLE: Duration = Duration::from_millis(50);

/// What a watcher tells the keeper.
#[derive(Debug)]
pub(super) enum News {
    /// All units of the node.
    Listed(NodeName, Vec<Container>),
    /// Something happened to one unit: it is to be looked at.
    Hint(NodeName, String),
    /// One unit was started: it is to be looked at.
    Started(NodeName, String),
    /// One unit has ended, with this exit code. A hint follows.
    Ended(NodeName, String, i64),
    /// Something may have happened to all of them.
    HintAll(NodeName),
    /// The node's engine is away, with the reason.
    Away(NodeName, String),
}

/// Watches until the keeper has gone.
pub(super) async fn watch(node: NodeName, provider: SharedProvider, news: mpsc::Sender<News>) {
    let mut events = provider.events();
    let mut list_at = Instant::now();
    loop {
        tokio::select! {
            hint = events.next() => {
                let Some(hint) = hint else { return };
                if lists_anew(&hint) {
                    list_at = list_at.min(Instant::now() + SETTLE);
                }
                if tell(&node, hint, &news).await.is_err() {
                    return;
                }
            }
            () = sleep_until(list_at) => {
                list_at = Instant::now() + RECONCILE;
                let told = match provider.list().await {
                    Ok(units) => news.send(News::Listed(node.clone(), units)).await,
                    Err(error) => news.send(News::Away(node.clone(), crate::telemetry::chain(&error))).await,
                };
                if told.is_err() {
                    return;
                }
            }
        }
    }
}

async fn tell(node: &NodeName, hint: Hint, news: &mpsc::Sender<News>) -> Result<(), mpsc::error::SendError<News>> {
    let node = node.clone();
    news.send(match hint {
        Hint::Unit { name, what } if what == "start" => News::Started(node, name),
        Hint::Unit { name, .. } => News::Hint(node, name),
        Hint::Ended { name, exit_code } => News::Ended(node, name, exit_code),
        Hint::All => News::HintAll(node),
        Hint::Away(why) => News::Away(node, why),
    })
    .await
}

/// Whether labels, ports, names or networks may be others now. Ends, pauses and health concern one unit only.
fn lists_anew(hint: &Hint) -> bool {
    match hint {
        Hint::All => true,
        Hint::Away(_) | Hint::Ended { .. } => false,
        Hint::Unit { what, .. } => {
            matches!(
                what.as_str(),
                "create" | "start" | "destroy" | "remove" | "rename" | "update" | "connect" | "disconnect"
            )
        }
    }
}
