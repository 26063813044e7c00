//! All backends in the hands of another process.

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::keeper::Keeper;
use crate::{
    backend::{Lender, Lent, Restored},
    model::BackendId,
};

/// What became of it.
#[derive(Debug)]
pub enum Lending {
    /// All are in other hands.
    Done(Vec<LentBackend>),
    /// None is: these are on their way up or down.
    Busy(Vec<BackendId>),
}

/// A backend that is in other hands.
#[derive(Debug)]
pub struct LentBackend {
    /// Which.
    pub id: BackendId,
    /// It is in use here, and must be kept awake until it is freed.
    pub in_use: bool,
    /// What is known of it.
    pub known: Box<Restored>,
}

impl Keeper {
    /// Gives all backends away, or none. Ends when they are back, or at the end of the program.
    pub(super) async fn lend(&mut self, lender: Lender, reply: oneshot::Sender<Lending>, end: &CancellationToken) {
        self.watchers.shutdown().await;
        let (mut lent, mut busy) = (Vec::new(), Vec::new());
        for backend in self.control.backends() {
            match backend.lend(lender.clone()).await {
                Lent::Given { in_use, known } => lent.push(LentBackend { id: backend.id().clone(), in_use, known }),
                Lent::Busy => busy.push(backend.id().clone()),
            }
        }
        if busy.is_empty() {
            let _ = reply.send(Lending::Done(lent));
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
