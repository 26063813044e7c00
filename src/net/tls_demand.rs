//! Hosts that are asked for and have no certificate: told to whoever can get one.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// How long a client's handshake waits for a certificate that is on its way.
const PATIENCE: Duration = Duration::from_secs(8);

/// A host that was asked for.
#[derive(Debug)]
pub struct Wish {
    /// The host, canonical.
    pub host: String,
    /// To be told, or dropped, when there is a certificate or none will come soon.
    pub done: Option<oneshot::Sender<()>>,
}

/// Where wishes go.
#[derive(Debug, Default)]
pub(super) struct Demand {
    wishes: OnceLock<mpsc::Sender<Wish>>,
    /// The time during which the taker can do anything about wishes, by number; 0: it can not.
    epoch: AtomicU64,
}

/// The number of the next epoch. All of the program have their own: what was told in one says nothing of another.
static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);

/// So many hosts are remembered as told.
const MOST: usize = 10_000;

/// Told again after so long.
const TOLD: Duration = Duration::from_secs(3600);

thread_local! {
    /// What this worker has told without anybody waiting, and in which epoch.
    static LAST_TOLD: RefCell<(u64, HashMap<Box<str>, Instant>)> = RefCell::default();
}

impl Demand {
    /// Wishes go there from now on. Only the first taker is one.
    pub(super) fn listen(&self) -> mpsc::Receiver<Wish> {
        let (sender, receiver) = mpsc::channel(64);
        let _ = self.wishes.set(sender);
        receiver
    }

    /// Whether the taker can do anything about wishes. What it was told before, it is told again.
    pub(super) fn set_active(&self, active: bool) {
        let epoch = if active { NEXT_EPOCH.fetch_add(1, Ordering::Relaxed) } else { 0 };
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Whether telling of a host may bring it a certificate.
    pub(super) fn is_heard(&self) -> bool {
        self.taker().is_some()
    }

    /// The taker, and the epoch.
    fn taker(&self) -> Option<(&mpsc::Sender<Wish>, u64)> {
        let epoch = self.epoch.load(Ordering::Acquire);
        self.wishes.get().filter(|_| epoch != 0).map(|wishes| (wishes, epoch))
    }

    /// Tells of a host that may have a certificate, once in a while, without waiting and without a lock that others hold.
    pub(super) fn tell(&self, host: &str, may_have: impl FnOnce() -> bool) {
        let Some((wishes, epoch)) = self.taker() else { return };
        LAST_TOLD.with_borrow_mut(|(last, told)| {
            let now = Instant::now();
            if *last != epoch {
                told.clear();
                *last = epoch;
            }
            if told.get(host).is_some_and(|at| now.duration_since(*at) < TOLD) || !may_have() {
                return;
            }
            if told.len() >= MOST {
                told.retain(|_, at| now.duration_since(*at) < TOLD);
            }
            if told.len() < MOST && wishes.try_send(Wish { host: host.to_owned(), done: None }).is_ok() {
                told.insert(host.into(), now);
            }
        });
    }

    /// Tells of a host and waits until its certificate has come or is not coming soon.
    pub(super) async fn wait(&self, host: &str) {
        let Some((wishes, _)) = self.taker() else { return };
        let (done, told) = oneshot::channel();
        if wishes.try_send(Wish { host: host.to_owned(), done: Some(done) }).is_ok() {
            let _ = tokio::time::timeout(PATIENCE, told).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_is_told_once_an_hour_and_anew_to_a_taker_that_begins_anew() {
        let demand = Demand::default();
        let mut wishes = demand.listen();
        let mut told = |expected: &[&str]| {
            let hosts: Vec<_> = std::iter::from_fn(|| wishes.try_recv().ok()).map(|wish| wish.host).collect();
            assert_eq!(hosts, expected);
        };
        demand.tell("app.test", || true);
        told(&[]);
        demand.set_active(true);
        for host in ["app.test", "app.test", "other.test"] {
            demand.tell(host, || true);
        }
        told(&["app.test", "other.test"]);
        tokio::time::advance(TOLD).await;
        demand.tell("app.test", || true);
        told(&["app.test"]);
        demand.set_active(true);
        demand.tell("app.test", || true);
        told(&["app.test"]);
        demand.tell("random.test", || false);
        demand.set_active(false);
        demand.tell("new.test", || panic!("nobody takes it"));
        told(&[]);
    }
}
