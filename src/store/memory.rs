//! What is remembered of one backend. Plain values and the arithmetic on them; the clock is passed in.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    model::BackendId,
    telemetry::{WakeDurations, WakesToday},
};

/// All that is remembered of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendMemory {
    /// Which backend.
    pub id: BackendId,
    /// How long nobody has used it; absent while it sleeps or is in use.
    pub idle: Option<IdleSoFar>,
    /// Kept awake until then by a person.
    pub pinned_until: Option<Timestamp>,
    /// No new start before this, after failed ones.
    pub cool_down: Option<CoolDown>,
    /// Whether its present sleep is our doing, rather than its owner's.
    pub put_to_sleep: bool,
    /// Since when it sleeps.
    pub asleep_since: Option<Timestamp>,
    /// How long it slept before that, all together.
    pub asleep_for: Duration,
    /// Since when that is counted.
    pub counted_since: Option<Timestamp>,
    /// The memory that it used when it was last let down, in bytes.
    pub memory: Option<u64>,
    /// Its wakes.
    pub wakes: WakeMemory,
    /// Its process, when the engine is our own.
    pub process: Option<ProcessRecord>,
}

/// An idle time as it was at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleSoFar {
    /// How long it had been idle.
    pub idle: Duration,
    /// At this moment.
    pub at: Timestamp,
}

/// A cool-down after failed starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoolDown {
    /// Failed starts in a row.
    pub attempts: u32,
    /// No new start before this.
    pub until: Timestamp,
}

/// What is known of the wakes of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WakeMemory {
    /// All wakes.
    pub total: u64,
    /// Those of one day.
    pub today: WakesToday,
    /// The last one.
    pub last: Option<LastWake>,
    /// How long the last ones took.
    pub recent: WakeDurations,
}

/// The last wake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastWake {
    /// When it was done.
    pub at: Timestamp,
    /// What caused it, in words.
    pub cause: String,
    /// How long it took.
    pub took: Duration,
}

/// A process of ours, told apart from another one that got its number later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRecord {
    /// The process id.
    pub pid: u32,
    /// When it started, in clock ticks since the machine's.
    pub started: u64,
    /// The machine's start (its boot id).
    pub boot: String,
}

/// So much of the idle time remains at least after a restart.
const REMAINS: Duration = Duration::from_secs(30);

impl BackendMemory {
    /// What is known of a backend that was never seen before.
    pub fn new(id: BackendId) -> Self {
        Self {
            id,
            idle: None,
            pinned_until: None,
            cool_down: None,
            put_to_sleep: false,
            asleep_since: None,
            asleep_for: Duration::ZERO,
            counted_since: None,
            memory: None,
            wakes: WakeMemory::default(),
            process: None,
        }
    }

    /// How long it slept, the present sleep included.
    pub fn asleep_total(&self, now: Timestamp) -> Duration {
        self.asleep_for + self.asleep_since.map_or(Duration::ZERO, |since| between(since, now))
    }
}

impl IdleSoFar {
    /// How long it counts as idle after a restart: the time down is added, never less than nothing, and never so much
    /// that less than 30 s of `timeout` remain.
    pub fn restored(self, now: Timestamp, timeout: Duration) -> Duration {
        self.idle.saturating_add(between(self.at, now)).min(timeout.saturating_sub(REMAINS))
    }
}

/// Never less than nothing, also when the wall clock was set back.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_time_down_counts_as_idle_but_leaves_half_a_minute() {
        let idle = IdleSoFar { idle: secs(100), at: at(1_000_000) };
        assert_eq!(idle.restored(at(1_000_060), secs(900)), secs(160));
        assert_eq!(idle.restored(at(1_900_000), secs(900)), secs(870));
        // The clock was set back, and a timeout that is shorter than what must remain.
        assert_eq!(idle.restored(at(900_000), secs(900)), secs(100));
        assert_eq!(idle.restored(at(1_000_060), secs(10)), Duration::ZERO);
    }

    #[test]
    fn the_present_sleep_counts() {
        let mut memory = BackendMemory::new("local/x".parse().unwrap());
        memory.asleep_for = secs(5);
        assert_eq!(memory.asleep_total(at(100)), secs(5));
        memory.asleep_since = Some(at(90));
        assert_eq!(memory.asleep_total(at(100)), secs(15));
    }
}
