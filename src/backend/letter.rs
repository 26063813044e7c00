//! What reaches the driver of a backend from outside, and how orders are answered.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{Backend, Lender, Lent, Order, Pass, Refused};
use crate::model::{BackendId, BackendSpec, Cause, Condition, ContainerState};

/// What reaches the driver from outside.
#[derive(Debug)]
pub(super) enum Letter {
    /// Somebody wants in; a reply is expected by those who wait.
    Knock(Cause, Option<oneshot::Sender<Result<Pass, Refused>>>),
    Order(Order, String, oneshot::Sender<Answer>),
    Pin(Option<Timestamp>, String, oneshot::Sender<Answer>),
    /// Its wake goes on without its turn and what it needs.
    Start(oneshot::Sender<bool>),
    /// Something may have changed at the engine.
    Hint,
    /// A dependant wants it to have run to its end.
    Complete(BackendId, oneshot::Sender<Result<(), Arc<str>>>),
    /// The engine told that it was started.
    Started,
    /// The engine told that it has ended, with this exit code.
    Ended(i64),
    /// The engine's truth, from a list.
    Seen(ContainerState),
    /// A dial to the awake backend failed.
    Suspect,
    Configure(Box<BackendSpec>, Vec<(Backend, Condition)>),
    /// Another process is to have it.
    Lend(Lender, oneshot::Sender<Lent>),
    /// Somebody wants to know when it has what it needs.
    Settle(oneshot::Sender<()>),
}

/// The outcome of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// It was so before.
    AlreadySo,
    /// It was not done, because.
    Denied(String),
}
