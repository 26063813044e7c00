//! Hosts that are asked for and have no certificate: told to whoever can get one.

use std::{
    collections::HashSet,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

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
    active: AtomicBool,
    // Held for one look-up. Hosts that were told without anybody waiting are told once.
    told: Mutex<HashSet<String>>,
}

/// So many hosts are remembered as told.
const MOST: usize = 10_000;

impl Demand {
    /// Wishes go there from now on. Only the first taker is one.
    pub(super) fn listen(&self) -> mpsc::Receiver<Wish> {
        let (sender, receiver) = mpsc::channel(64);
        let _ = self.wishes.set(sender);
        receiver
    }

    /// Whether the taker can do anything about wishes.
    pub(super) fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }

    fn taker(&self) -> Option<&mpsc::Sender<Wish>> {
        self.wishes.get().filter(|_| self.active.load(Ordering::Acquire))
    }

    /// Tells of a host, once, without waiting.
    pub(super) fn tell(&self, host: &str) {
        let Some(wishes) = self.taker() else { return };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.contains(host) || told.len() >= MOST {
            return;
        }
        if wishes.try_send(Wish { host: host.to_owned(), done: None }).is_ok() {
            told.insert(host.to_owned());
        }
    }

    /// Tells of a host and waits until its certificate has come or is not coming soon.
    pub(super) async fn wait(&self, host: &str) {
        let Some(wishes) = self.taker() else { return };
        let (done, told) = oneshot::channel();
        if wishes.try_send(Wish { host: host.to_owned(), done: Some(done) }).is_ok() {
            let _ = tokio::time::timeout(PATIENCE, told).await;
        }
    }
}
