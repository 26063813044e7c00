//! What is remembered across a restart: from the store's words to the backend's, and back.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    backend::{Backend, Before, Failed, Failure, Restored, WakeStats},
    model::IdlePolicy,
    store::{BackendMemory, CoolDown, IdleSoFar, LastWake, WakeMemory},
};

/// What a backend starts with after a restart.
pub(super) fn restored(memory: &BackendMemory, policy: &IdlePolicy) -> Restored {
    let now = Timestamp::now();
    let timeout = policy.idle_timeout.unwrap_or(Duration::MAX);
    let stats = WakeStats {
        count: memory.wakes.total,
        last_cause: memory.wakes.last.as_ref().map(|last| last.cause.clone()),
        last_at: memory.wakes.last.as_ref().map(|last| last.at),
        // What slept when the program ended has slept on: nobody was there to wake it.
        asleep: memory.asleep_total(now),
        counted_since: memory.counted_since.or(Some(now)),
        memory: memory.memory,
        today: memory.wakes.today,
        durations: memory.wakes.recent.clone(),
        ..WakeStats::default()
    };
    Restored {
        quiet_since: memory.idle.and_then(|idle| Instant::now().checked_sub(idle.restored(now, timeout))),
        pinned_until: memory.pinned_until.filter(|until| *until > now),
        stats,
        put_to_sleep: memory.put_to_sleep,
        before: memory.cool_down.and_then(|cool_down| cooling(cool_down, now)).map(Before::Failed),
        ..Restored::default()
    }
}

fn cooling(cool_down: CoolDown, now: Timestamp) -> Option<Failed> {
    let left = Duration::try_from(cool_down.until.duration_since(now)).ok()?;
    let why = Failure::Start("it failed before Dormouse was started again".into());
    Some(Failed { why, until: Instant::now() + left, tries: cool_down.attempts })
}

/// What is to be remembered of a backend.
pub fn remember(backend: &Backend) -> BackendMemory {
    let (now, instant) = (Timestamp::now(), Instant::now());
    let status = backend.status().borrow().clone();
    let asleep = status.state.is_asleep();
    let in_use = backend.passes() > 0;
    let stats = &status.wakes;
    let wall = |at: Instant| now + at.saturating_duration_since(instant);
    BackendMemory {
        idle: (!asleep).then(|| IdleSoFar { idle: if in_use { Duration::ZERO } else { backend.quiet_for() }, at: now }),
        pinned_until: status.pinned_until,
        cool_down: status.retry_at.map(|at| CoolDown { attempts: status.tries, until: wall(at) }),
        put_to_sleep: status.put_to_sleep,
        asleep_since: asleep.then_some(status.since),
        asleep_for: stats.asleep,
        counted_since: stats.counted_since,
        memory: stats.memory,
        wakes: WakeMemory {
            total: stats.count,
            today: stats.today,
            last: stats.last_at.zip(stats.last_cause.clone()).map(|(at, cause)| LastWake {
                at,
                cause,
                took: stats.durations.iter().last().unwrap_or_default(),
            }),
            recent: stats.durations.clone(),
        },
        ..BackendMemory::new(backend.id().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_time_asleep_goes_on_after_a_restart() {
        let now = Timestamp::now();
        let before = |seconds: u64| now - Duration::from_secs(seconds);
        let memory = BackendMemory {
            asleep_for: Duration::from_secs(20),
            asleep_since: Some(before(50)),
            counted_since: Some(before(140)),
            memory: Some(5),
            put_to_sleep: true,
            ..BackendMemory::new("local/app".parse().unwrap())
        };
        let restored = restored(&memory, &IdlePolicy::default());
        // The sleep that went on meanwhile counts.
        assert!((70..100).contains(&restored.stats.asleep.as_secs()), "{:?}", restored.stats.asleep);
        assert_eq!(restored.stats.counted_since, Some(before(140)));
        assert_eq!((restored.stats.memory, restored.put_to_sleep), (Some(5), true));
    }
}
