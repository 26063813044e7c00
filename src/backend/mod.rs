//! The life of one backend (a stand-in that tests script by hand).
#![allow(clippy::expect_used)]
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::model::{BackendId, Cause, IdlePolicy};

/// A handle.
#[derive(Debug, Clone)]
pub struct Backend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: BackendId,
    policy: Arc<IdlePolicy>,
    open: AtomicBool,
    address: Mutex<SocketAddr>,
    generation: AtomicU64,
    status: watch::Sender<Arc<Status>>,
    knocks: AtomicUsize,
    held: AtomicUsize,
    passes: AtomicUsize,
    suspects: AtomicUsize,
    refuse: Mutex<Option<Refused>>,
    woke: Mutex<Option<Woke>>,
}

/// The last wake.
#[derive(Debug, Clone, Copy)]
pub struct Woke {
    /// How long it took.
    pub took: Duration,
    /// When it ended.
    pub at: Instant,
}

/// States.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StatusState {
    Asleep { paused: bool },
    Waking,
    Awake,
    Draining,
    Stopping,
    Failed,
}

/// What is published.
#[derive(Debug, Clone)]
pub struct Status {
    /// The state.
    pub state: StatusState,
    /// Why.
    pub why: Option<String>,
    /// How long a wake takes.
    pub expected_wake: Option<Duration>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Refused {
    TimedOut { after: Duration },
    WakeFailed { why: String, retry_after: Duration },
    CoolingDown { why: String, retry_after: Duration },
    TooManyHeld { retry_after: Duration },
    EngineAway { why: String, retry_after: Duration },
    StaysDown,
    Gone,
    ShuttingDown,
}

impl Refused {
    /// Short, without names.
    pub fn reason(&self) -> String {
        match self {
            Self::TimedOut { after } => format!("the service was not ready within {} s", after.as_secs()),
            Self::WakeFailed { .. } => "the service did not start".into(),
            Self::CoolingDown { .. } => "the service did not start a moment ago".into(),
            Self::TooManyHeld { .. } => "too many requests wait for the service".into(),
            Self::EngineAway { .. } => "the service can not be started now".into(),
            Self::StaysDown => "the service is switched off".into(),
            Self::Gone => "the service is gone".into(),
            Self::ShuttingDown => "the server is going down".into(),
        }
    }
    /// When to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::WakeFailed { retry_after, .. }
            | Self::CoolingDown { retry_after, .. }
            | Self::TooManyHeld { retry_after }
            | Self::EngineAway { retry_after, .. } => Some(*retry_after),
            Self::TimedOut { .. } | Self::StaysDown | Self::Gone | Self::ShuttingDown => None,
        }
    }
}

/// Proof.
#[derive(Debug)]
pub struct Pass {
    inner: Arc<Inner>,
    address: SocketAddr,
    generation: u64,
    waited: bool,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.inner.passes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pass {
    /// Where.
    pub fn dial(&self, _port: u16) -> Option<(SocketAddr, bool)> {
        Some((self.address, true))
    }
    /// Which wake.
    pub fn generation(&self) -> u64 {
        self.generation
    }
    /// The wake.
    pub fn woke(&self) -> Option<Woke> {
        *self.inner.woke.lock().expect("lock")
    }
    /// Whether this caller waited.
    pub fn waited(&self) -> bool {
        self.waited
    }
    /// Activity.
    pub fn touch(&self) {}
}

static GENERATION: AtomicU64 = AtomicU64::new(1);

#[allow(clippy::expect_used, missing_docs)]
impl Backend {
    pub fn scripted(id: BackendId, policy: IdlePolicy, address: SocketAddr) -> Self {
        let status = Status { state: StatusState::Asleep { paused: false }, why: None, expected_wake: None };
        Self(Arc::new(Inner {
            id,
            policy: Arc::new(policy),
            open: AtomicBool::new(false),
            address: Mutex::new(address),
            generation: AtomicU64::new(0),
            status: watch::channel(Arc::new(status)).0,
            knocks: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            passes: AtomicUsize::new(0),
            suspects: AtomicUsize::new(0),
            refuse: Mutex::new(None),
            woke: Mutex::new(None),
        }))
    }
    fn publish(&self, state: StatusState) {
        self.0.status.send_replace(Arc::new(Status { state, why: None, expected_wake: None }));
    }
    pub fn set_awake(&self, address: SocketAddr, took: Duration) {
        *self.0.address.lock().expect("lock") = address;
        self.0.generation.store(GENERATION.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        *self.0.woke.lock().expect("lock") = Some(Woke { took, at: Instant::now() });
        self.0.open.store(true, Ordering::SeqCst);
        self.publish(StatusState::Awake);
    }
    pub fn set_asleep(&self) {
        self.0.open.store(false, Ordering::SeqCst);
        self.publish(StatusState::Asleep { paused: false });
    }
    pub fn set_refusing(&self, refused: Refused) {
        *self.0.refuse.lock().expect("lock") = Some(refused);
        self.publish(StatusState::Failed);
    }
    pub fn knocks(&self) -> usize {
        self.0.knocks.load(Ordering::SeqCst)
    }
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::SeqCst)
    }
    pub fn passes(&self) -> usize {
        self.0.passes.load(Ordering::SeqCst)
    }
    pub fn suspects(&self) -> usize {
        self.0.suspects.load(Ordering::SeqCst)
    }
    pub fn id(&self) -> &BackendId {
        &self.0.id
    }
    pub fn policy(&self) -> Arc<IdlePolicy> {
        Arc::clone(&self.0.policy)
    }
    fn pass(&self, waited: bool) -> Pass {
        self.0.passes.fetch_add(1, Ordering::Relaxed);
        let address = *self.0.address.lock().expect("lock");
        Pass { inner: Arc::clone(&self.0), address, generation: self.0.generation.load(Ordering::Relaxed), waited }
    }
    pub fn try_enter(&self) -> Option<Pass> {
        self.0.open.load(Ordering::SeqCst).then(|| self.pass(false))
    }
    pub async fn enter(&self, _cause: Cause, patience: Duration) -> Result<Pass, Refused> {
        struct Held<'a>(&'a Inner);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                self.0.held.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.0.knocks.fetch_add(1, Ordering::SeqCst);
        self.0.held.fetch_add(1, Ordering::SeqCst);
        let held = Held(&self.0);
        let mut status = self.0.status.subscribe();
        let wait = async {
            loop {
                if let Some(refused) = self.0.refuse.lock().expect("lock").clone() {
                    return Err(refused);
                }
                if self.0.open.load(Ordering::SeqCst) {
                    return Ok(self.pass(true));
                }
                let _ = status.changed().await;
            }
        };
        let result = tokio::time::timeout(patience, wait).await.unwrap_or(Err(Refused::TimedOut { after: patience }));
        drop(held);
        result
    }
    pub fn knock(&self, _cause: Cause) {
        self.0.knocks.fetch_add(1, Ordering::SeqCst);
    }
    pub fn status(&self) -> watch::Receiver<Arc<Status>> {
        self.0.status.subscribe()
    }
    pub fn suspect(&self) {
        self.0.suspects.fetch_add(1, Ordering::SeqCst);
    }
}
