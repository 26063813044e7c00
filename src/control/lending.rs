//! All backends in the hands of another process.

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::keeper::Keeper;
use crate::{
    backend::{Lender, Lent},
    model::BackendId,
};

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lending {
    /// All are in other hands. These are in use here, and must be kept awake until they are freed.
    Done(Vec<BackendId>),
    /// None is: these are on their way up or down.
    Busy(Vec<BackendId>),
}

impl Keeper {
    /// Gives all backends away, or none. Ends when they are back, or at the end of the program.
    pub(super) async fn lend(&mut self, lender: Lender, reply: oneshot::Sender<Lending>, end: &CancellationToken) {
        self.watchers.shutdown().await;
        let (mut in_use, mut busy) = (Vec::new(), Vec::new());
        for backend in self.control.backends() {
            match backend.lend(lender.clone()).await {
                Lent::InUse => in_use.push(backend.id().clone()),
                Lent::Unused => {}
                Lent::Busy => busy.push(backend.id().clone()),
            }
        }
        if busy.is_empty() {
            let _ = reply.send(Lending::Done(in_use));
            tokio::select! {
                () = end.cancelled() => return,
                () = lender.back.cancelled() => {}
            }
        } else {
            lender.back.cancel();
            let _ = reply.send(Lending::Busy(busy));
        }
        self.watch_nodes();
    }
}
