//! The pass: entering a backend that is awake, and leaving it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{Refused, gate::Entered, handle::Shared};
use crate::model::{Running, Spot};

/// How an awake backend is reached.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) at: Arc<Running>,
    pub(super) generation: u64,
    pub(super) woke: Option<Woke>,
}

/// The wake that made a backend awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Woke {
    /// How long it took.
    pub took: Duration,
    /// When it was awake.
    pub at: std::time::Instant,
}

/// Where whoever waits to get in is answered.
pub type Waiter = oneshot::Sender<Result<Pass, Refused>>;

/// Proof that a backend is awake. While any exists the backend is in use; the last one dropped starts the idle clock.
#[derive(Debug)]
pub struct Pass {
    shared: Arc<Shared>,
    reach: Arc<Reach>,
    counts: bool,
    waited: bool,
}

impl Shared {
    /// Enters an open gate. `counts`: the use is activity.
    pub(super) fn try_enter(self: &Arc<Self>, counts: bool, waited: bool) -> Option<Pass> {
        match self.gate.enter() {
            Entered::Inside => match self.reach.load_full() {
                Some(reach) => Some(Pass { shared: Arc::clone(self), reach, counts, waited }),
                None => {
                    self.leave(None);
                    None
                }
            },
            Entered::Closed => None,
            Entered::ClosedAndEmptied => {
                self.emptied.notify_one();
                None
            }
        }
    }

    fn leave(&self, stamp: Option<i64>) {
        if self.gate.leave(stamp) {
            self.emptied.notify_one();
        }
    }
}

impl Pass {
    /// Where one of its ports is dialled, and whether that is its own address rather than an engine's forwarder,
    /// which accepts before the app listens.
    pub fn dial(&self, port: u16) -> Option<(Spot, bool)> {
        let spot = self.reach.at.dial(port);
        if spot.is_none() {
            self.tell_if_closed();
        }
        spot
    }

    /// It is awake, and never reached: that is told, and found out by the driver.
    #[cold]
    fn tell_if_closed(&self) {
        if let Some(why) = self.reach.at.closed() {
            tracing::warn!(backend = %self.shared.id, %why, "no port of it can be dialled");
            self.shared.suspect();
        }
    }

    /// How it is reached.
    pub fn running(&self) -> &Running {
        &self.reach.at
    }

    /// Changes with each wake and each new address; connections of older generations are dropped.
    pub fn generation(&self) -> u64 {
        self.reach.generation
    }

    /// The wake that made it awake; absent when it was found running.
    pub fn woke(&self) -> Option<Woke> {
        self.reach.woke
    }

    /// Whether an order has let it down under this caller. What came to nothing by it is not tried again: that would
    /// wake it, against the order.
    pub fn is_ordered_out(&self) -> bool {
        self.shared.ordered_out.load(Ordering::Acquire) == self.reach.generation
    }

    /// Whether this caller waited for the wake.
    pub fn waited(&self) -> bool {
        self.waited
    }

    /// Stamps activity: bytes moved on a stream.
    pub fn touch(&self) {
        if self.counts {
            self.shared.gate.stamp(self.shared.stamp(Instant::now()));
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.shared.leave(self.counts.then(|| self.shared.stamp(Instant::now())));
    }
}
