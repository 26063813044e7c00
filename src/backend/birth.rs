//! How a backend comes to be: what it lives in, what is known of it from before, and its driver's first moment.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Backend, Status, StatusState, WakeStats,
    driver::Driver,
    gate::Gate,
    handle::{Shared, stamp},
    pass::{Waiter, Woke},
    state::{Before, State},
};
use crate::{
    model::{BackendSpec, Cause, Condition},
    provider::SharedProvider,
    telemetry::{Journal, Phases},
};

/// What a backend lives in.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The engine it runs on.
    pub provider: SharedProvider,
    /// Wakes at once on its node, first come first served.
    pub turns: Arc<Semaphore>,
    /// Where its changes are written.
    pub journal: Journal,
}

/// What is known of it from before this run of the program.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// When somebody last used it; absent: now.
    pub quiet_since: Option<Instant>,
    /// A person's pin.
    pub pinned_until: Option<Timestamp>,
    /// Wakes and sleeps.
    pub stats: WakeStats,
    /// Dormouse had put it to sleep.
    pub put_to_sleep: bool,
    /// What it was, and may still be.
    pub before: Option<Before>,
    /// Since when it was so; absent: that is not known.
    pub since: Option<(Timestamp, Instant)>,
    /// Why it was so.
    pub cause: Option<Cause>,
    /// The wake that made it awake, while it is.
    pub woke: Option<Woke>,
    /// The port that proved it ready when it was woken last.
    pub proven: Option<u16>,
}

impl Backend {
    /// Creates a backend and its driver, which ends with the token. Must be called inside a runtime. The engine is
    /// asked at once what it does.
    pub fn spawn(
        spec: BackendSpec,
        dependencies: Vec<(Backend, Condition)>,
        around: Surroundings,
        restored: Restored,
        end: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        Self::spawn_awaited(spec, dependencies, around, restored, Vec::new(), end)
    }

    /// The same for one that somebody waits for already: where it is up, they are inside from its first moment on.
    pub fn spawn_awaited(
        spec: BackendSpec,
        dependencies: Vec<(Backend, Condition)>,
        around: Surroundings,
        restored: Restored,
        waiters: Vec<Waiter>,
        end: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (letters, inbox) = mpsc::channel(1024);
        let now = Instant::now();
        let status = Status {
            version: 0,
            state: StatusState::Unknown,
            since: Timestamp::now(),
            since_instant: now,
            cause: None,
            failure: None,
            refusal: None,
            retry_at: None,
            tries: 0,
            waits_for: Vec::new(),
            put_to_sleep: restored.put_to_sleep,
            respected_until: None,
            pinned_until: restored.pinned_until,
            wakes: restored.stats.clone(),
        };
        let shared = Arc::new(Shared {
            id: spec.id.clone(),
            gate: Gate::closed(stamp(now, restored.quiet_since.unwrap_or(now))),
            epoch: now,
            emptied: Notify::new(),
            reach: ArcSwapOption::empty(),
            moved: Notify::new(),
            ordered_out: AtomicU64::new(0),
            policy: ArcSwap::from_pointee(spec.policy.clone()),
            held: AtomicUsize::new(0),
            letters,
            metrics: around.journal.metrics().clone(),
            status: watch::Sender::new(Arc::new(status)),
        });
        let driver = Driver {
            shared: Arc::clone(&shared),
            spec: Arc::new(spec),
            around,
            dependencies,
            state: State::Unknown { away: None, again: None, wanted: false, before: restored.before },
            waiters,
            orders: Vec::new(),
            starts: Vec::new(),
            completions: Vec::new(),
            job_of: None,
            jobs: JoinSet::new(),
            epoch: 0,
            looking: false,
            look_again: false,
            start_told: false,
            suspected: false,
            proven: restored.proven,
            probe: None,
            attempts: Arc::default(),
            gathering: None,
            kick: Arc::new(Notify::new()),
            held: Vec::new(),
            turn: None,
            adopted: false,
            adopting: false,
            settling: Vec::new(),
            cause: restored.cause,
            since: restored.since.unwrap_or((Timestamp::now(), now)),
            phases: Phases::default(),
            mark: now,
            put_to_sleep: restored.put_to_sleep,
            pinned_until: restored.pinned_until,
            generation: 0,
            woke: restored.woke,
            thawing: false,
            frozen_at: None,
            stats: restored.stats,
            last_error: None,
            version: 0,
        };
        let task = tokio::spawn(driver.run(inbox, end));
        (Self { shared }, task)
    }
}
