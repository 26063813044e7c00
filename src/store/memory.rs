//! What is remembered of one backend. Plain values and the arithmetic on them; the clock is passed in.

use std::{collections::VecDeque, time::Duration};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use crate::model::BackendId;

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
    /// Its wakes.
    pub wakes: WakeStatistics,
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
pub struct WakeStatistics {
    /// All wakes.
    pub total: u64,
    /// The day (in the system's time zone) that `today` counts.
    pub day: Date,
    /// Wakes on that day.
    pub today: u32,
    /// The last one.
    pub last: Option<LastWake>,
    /// How long the last ones took, oldest first.
    pub recent: VecDeque<Duration>,
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

/// So many wakes are remembered one by one.
const RECENT: usize = 50;

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
            wakes: WakeStatistics::default(),
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

impl WakeStatistics {
    /// Adds a wake.
    pub fn record(&mut self, at: Timestamp, cause: String, took: Duration) {
        self.today = self.on(at) + 1;
        self.day = day_of(at);
        self.total += 1;
        self.last = Some(LastWake { at, cause, took });
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(took);
    }

    /// Wakes on the day of this moment.
    pub fn on(&self, now: Timestamp) -> u32 {
        if self.day == day_of(now) { self.today } else { 0 }
    }

    /// The time that so many of a hundred recent wakes took at most.
    pub fn percentile(&self, percent: u8) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * usize::from(percent.min(100))).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }
}

fn day_of(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::system()).date()
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
    fn percentiles_are_of_the_last_fifty_wakes() {
        let mut wakes = WakeStatistics::default();
        assert_eq!(wakes.percentile(50), None);
        for second in 1..=150 {
            wakes.record(at(second), "x".into(), secs(second as u64));
        }
        assert_eq!((wakes.recent.len(), wakes.total), (50, 150));
        assert_eq!(wakes.percentile(50), Some(secs(125)));
        assert_eq!(wakes.percentile(95), Some(secs(148)));
        assert_eq!((wakes.percentile(0), wakes.percentile(100)), (Some(secs(101)), Some(secs(150))));
    }

    #[test]
    fn wakes_are_counted_by_the_day() {
        let mut wakes = WakeStatistics::default();
        let (monday, thursday) = (at(1_000_000), at(1_000_000 + 3 * 86_400));
        wakes.record(monday, "x".into(), secs(1));
        wakes.record(monday, "x".into(), secs(1));
        assert_eq!((wakes.on(monday), wakes.on(thursday)), (2, 0));
        wakes.record(thursday, "x".into(), secs(1));
        assert_eq!((wakes.on(thursday), wakes.total), (1, 3));
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
