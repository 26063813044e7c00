//! What a process knows of its backends and has in its journal, as it is told to the one that takes over: words for the line between them.
//!
//! The two may be of different versions: what one does not tell, the other takes from the kept state.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    legacy_backend::Backend,
    legacy_events::Events,
    legacy_words::{each_understood, understood},
};
use crate::{backend::Restored, control::LentBackend, model::BackendId, telemetry::Entry};

/// All that one process leaves to another.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Legacy {
    #[serde(deserialize_with = "each_understood")]
    backends: Vec<Backend>,
    #[serde(deserialize_with = "understood")]
    events: Option<Events>,
}

impl Legacy {
    /// Of a process whose backends are in other hands.
    pub(super) fn of(lent: &[LentBackend], events: Events) -> Self {
        let backends = lent.iter().map(|lent| Backend::of(&lent.id, &lent.known)).collect();
        Self { backends, events: Some(events) }
    }

    /// What is known of each backend.
    pub(super) fn take_backends(&mut self) -> HashMap<BackendId, Restored> {
        std::mem::take(&mut self.backends).into_iter().filter_map(Backend::restored).collect()
    }

    /// When the run began that goes on, and its events.
    pub(super) fn take_events(&mut self) -> Option<(Timestamp, Vec<Entry>)> {
        self.events.take()?.read()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::{
        backend::{Before, Down, Failed, Failure, Paused, WakeStats, Woke},
        model,
        telemetry::WakesToday,
    };

    fn told(known: &Restored) -> Restored {
        let id: BackendId = "jobs/app".parse().unwrap();
        let lent = [LentBackend { id: id.clone(), in_use: false, known: Box::new(known.clone()) }];
        let text = serde_json::to_string(&Legacy::of(&lent, Events::of(Timestamp::UNIX_EPOCH, &[]))).unwrap();
        let mut read: Legacy = serde_json::from_str(&text).unwrap();
        read.take_backends().remove(&id).unwrap()
    }

    /// Moments go through a clock that is read twice.
    #[track_caller]
    fn near(one: Instant, other: Instant) {
        let apart = one.saturating_duration_since(other) + other.saturating_duration_since(one);
        assert!(apart < Duration::from_secs(2), "{apart:?} apart");
    }

    #[test]
    fn what_is_known_of_a_backend_arrives_whole() {
        let past = Instant::now() - Duration::from_secs(40);
        let wall: Timestamp = "2026-11-22T10:00:00.123456789Z".parse().unwrap();
        let day = jiff::civil::date(2026, 11, 22);
        let stats = WakeStats {
            count: 7,
            failed: 2,
            today: WakesToday::new(day, 3),
            last_cause: Some("a cause".into()),
            last_at: Some(wall),
            durations: [3, 5].map(Duration::from_micros).into_iter().collect(),
            asleep: Duration::from_secs(9),
            counted_since: Some(wall),
            memory: Some(5),
        };
        let known = Restored {
            quiet_since: Some(past),
            pinned_until: Some(wall),
            stats: stats.clone(),
            put_to_sleep: true,
            before: Some(Before::Awake { since: past, ours: true, busy_at: None, sleep_again: None, tries: 4 }),
            since: Some((wall, past)),
            cause: Some(model::Cause::Dormouse("a reason".into())),
            woke: Some(Woke { took: Duration::from_millis(12), at: past.into_std() }),
            proven: Some(80),
        };
        let read = told(&known);
        near(read.quiet_since.unwrap(), past);
        near(read.since.unwrap().1, past);
        near(Instant::from_std(read.woke.unwrap().at), past);
        assert_eq!(read.stats, stats);
        assert_eq!((read.pinned_until, read.since.unwrap().0), (Some(wall), wall));
        assert_eq!((read.put_to_sleep, read.proven, &read.cause), (true, Some(80), &known.cause));
        assert_eq!(read.woke.unwrap().took, Duration::from_millis(12));
        let Some(Before::Awake { since, ours: true, tries: 4, .. }) = read.before else { panic!("{read:?}") };
        near(since, past);
    }

    #[test]
    fn what_another_version_says_otherwise_is_left_out_and_the_rest_is_read() {
        let text = r#"{"backends": [
            {"id": "jobs/one", "put_to_sleep": true, "cause": {"Later": 1}, "wakes": {"count": 7, "more": 1},
             "state": {"Failed": {"why": {"Later": 1}, "until": 5, "tries": 2}}, "proven": 80},
            {"id": 7},
            {"id": "jobs/two", "cause": "Schedule"}
        ], "events": {"run": 17, "events": [
            {"seq": 1, "at": "2026-11-22T10:00:00Z", "backend": null, "what": "Later", "cause": "Idle"},
            {"seq": 2, "at": "2026-11-22T10:00:00Z", "backend": null, "what": "Waking", "cause": "Idle", "more": 1}
        ]}}"#;
        let mut legacy: Legacy = serde_json::from_str(text).unwrap();
        let mut backends = legacy.take_backends();
        let one = backends.remove(&"jobs/one".parse().unwrap()).unwrap();
        assert_eq!((one.put_to_sleep, one.stats.count, one.proven), (true, 7, Some(80)));
        assert_eq!((one.before, one.cause), (None, None));
        let two = backends.remove(&"jobs/two".parse().unwrap()).unwrap();
        assert_eq!((two.cause, backends.len()), (Some(model::Cause::Schedule), 0));
        let (run, entries) = legacy.take_events().unwrap();
        assert_eq!((run.as_millisecond(), entries.len(), entries[0].seq), (17, 1, 2));
    }

    #[test]
    fn each_failure_and_each_sleep_arrives() {
        let until = Instant::now() + Duration::from_secs(300);
        let failures = [
            Failure::Start("no".into()),
            Failure::ExitedEarly(Some(3)),
            Failure::TimedOut(Duration::from_secs(180), None),
            Failure::TimedOut(Duration::from_secs(180), Some("port 80 refused the connection".into())),
            Failure::Dependency("`db`: no".into()),
            Failure::Died(None),
            Failure::EngineAway("away".into()),
        ];
        for why in failures {
            let before = Some(Before::Failed(Failed { why: why.clone(), until, tries: 2 }));
            let read = told(&Restored { before, ..Restored::default() });
            let Some(Before::Failed(failed)) = read.before else { panic!("{read:?}") };
            assert_eq!((failed.why, failed.tries), (why, 2));
            near(failed.until, until);
        }
        let paused = Some(Paused { since: until, at: None });
        let before = Some(Before::Asleep(Down { paused, respected_until: Some(until), stays_down: true }));
        let read = told(&Restored { before, ..Restored::default() });
        let Some(Before::Asleep(down)) = read.before else { panic!("{read:?}") };
        near(down.paused.unwrap().since, until);
        assert!(down.respected_until.is_some() && down.stays_down);
    }

    #[test]
    fn a_process_that_tells_nothing_leaves_nothing() {
        let mut read: Legacy = serde_json::from_str("{}").unwrap();
        assert!(read.take_backends().is_empty() && read.take_events().is_none());
    }
}
