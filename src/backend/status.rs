//! What is published of a backend's state.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::Refused;
use crate::{
    model::{BackendId, Cause},
    telemetry::{WakeDurations, WakesToday},
};

/// The states as the outside knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatusState {
    /// Not yet known, or its engine is away.
    Unknown,
    /// Stopped.
    Stopped,
    /// Paused: memory kept.
    Paused,
    /// On its way up.
    Waking,
    /// Up.
    Awake,
    /// Closed, waiting for the last one to leave.
    Draining,
    /// On its way down.
    Stopping,
    /// Cooling down after a failure.
    Failed,
    /// The engine knows no such unit.
    Gone,
}

/// A snapshot, published after each change.
#[derive(Debug, Clone)]
pub struct Status {
    /// Counts changes.
    pub version: u64,
    /// The state.
    pub state: StatusState,
    /// Since when.
    pub since: Timestamp,
    /// The same, on the monotonic clock.
    pub since_instant: Instant,
    /// What caused it.
    pub cause: Option<Cause>,
    /// The last failure, for an administrator, while it matters.
    pub failure: Option<Arc<str>>,
    /// What a caller would be told now, who is not let in.
    pub refusal: Option<Refused>,
    /// No new try before, when failed.
    pub retry_at: Option<Instant>,
    /// Failures in a row, when failed.
    pub tries: u32,
    /// Dependencies that are being woken for it.
    pub waits_for: Vec<BackendId>,
    /// Its present sleep is Dormouse's doing, rather than its owner's.
    pub put_to_sleep: bool,
    /// Another hand has paused it: requests wait until then before they wake it.
    pub respected_until: Option<Instant>,
    /// It is kept awake until then by a person.
    pub pinned_until: Option<Timestamp>,
    /// What is known of its wakes and sleeps.
    pub wakes: WakeStats,
}

impl Status {
    /// The memory that its sleep gives back, in bytes: what it used when it was last let down. Nothing while it is
    /// paused, and unknown until Dormouse itself has let it down once.
    pub fn gives_back(&self) -> Option<u64> {
        self.wakes.memory.filter(|_| self.state == StatusState::Stopped)
    }
}

/// What is known of wakes and sleeps before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WakeStats {
    /// Wakes since the program's first start.
    pub count: u64,
    /// Failed wakes in this run of the program.
    pub failed: u64,
    /// Wakes by day.
    pub today: WakesToday,
    /// The cause of the last wake.
    pub last_cause: Option<String>,
    /// When the last wake began.
    pub last_at: Option<Timestamp>,
    /// How long the last wakes took.
    pub durations: WakeDurations,
    /// Time asleep before the present state.
    pub asleep: Duration,
    /// Since when that is counted.
    pub counted_since: Option<Timestamp>,
    /// The memory that it used when it was last let down, in bytes.
    pub memory: Option<u64>,
}

impl WakeStats {
    /// This share (0 to 1) of the last wakes took at most this long; absent before the first.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        self.durations.quantile(share)
    }

    /// Adds a wake that took this long.
    pub fn woke(&mut self, took: Duration) {
        self.count += 1;
        self.durations.add(took);
        self.today.add(Timestamp::now().to_zoned(jiff::tz::TimeZone::system()).date());
    }
}

impl StatusState {
    /// The word for it: `asleep` for both ways down.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Stopped | Self::Paused => "asleep",
            Self::Waking => "waking",
            Self::Awake => "awake",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }

    /// Whether it is down or not yet up, so that it costs nothing.
    pub fn is_asleep(self) -> bool {
        matches!(self, Self::Stopped | Self::Paused)
    }
}
