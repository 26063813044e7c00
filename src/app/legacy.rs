//! What a process knows of its backends and has in its journal, as it is told to the one that takes over: words for the line between them.
//!
//! The two may be of different versions: what one does not tell, the other takes from the kept state.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::Instant;

use super::legacy_events::Events;
use crate::{
    backend::{Before, Down, Failed, Failure, Paused, Restored, WakeStats, Woke},
    control::LentBackend,
    model::{self, BackendId},
    telemetry::{Entry, WakesToday},
};

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

/// Reads it, or has nothing: the other process may be of a version that says it otherwise.
pub(super) fn understood<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).unwrap_or_default())
}

/// Reads those of a list that can be read.
pub(super) fn each_understood<'de, T: DeserializeOwned, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let all: Vec<Value> = understood(from)?;
    Ok(all.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect())
}

/// A moment on the clock that all processes of a machine share, in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Moment(i64);

impl Moment {
    fn now() -> Option<i64> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
        Some(now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000)
    }

    fn of(at: Instant) -> Self {
        let (clock, now) = (Self::now().unwrap_or(0), Instant::now());
        let micros = |distance: Duration| i64::try_from(distance.as_micros()).unwrap_or(i64::MAX);
        let ahead = micros(at.saturating_duration_since(now)) - micros(now.saturating_duration_since(at));
        Self(clock.saturating_add(ahead))
    }

    fn instant(self) -> Instant {
        let now = Instant::now();
        let ahead = self.0.saturating_sub(Self::now().unwrap_or(self.0));
        let distance = Duration::from_micros(ahead.unsigned_abs());
        let moved = if ahead < 0 { now.checked_sub(distance) } else { now.checked_add(distance) };
        moved.unwrap_or(now)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Backend {
    id: String,
    #[serde(default, deserialize_with = "understood")]
    quiet_since: Option<Moment>,
    #[serde(default, deserialize_with = "understood")]
    pinned_until: Option<String>,
    #[serde(default, deserialize_with = "understood")]
    put_to_sleep: bool,
    #[serde(default, deserialize_with = "understood")]
    state: Option<State>,
    #[serde(default, deserialize_with = "understood")]
    since: Option<(String, Moment)>,
    #[serde(default, deserialize_with = "understood")]
    cause: Option<Cause>,
    /// How long the wake took, and when it was done.
    #[serde(default, deserialize_with = "understood")]
    woke: Option<(u64, Moment)>,
    #[serde(default, deserialize_with = "understood")]
    proven: Option<u16>,
    #[serde(default, deserialize_with = "understood")]
    wakes: Wakes,
}

#[derive(Debug, Serialize, Deserialize)]
enum State {
    Awake { since: Moment, ours: bool, busy_at: Option<Moment>, sleep_again: Option<(u32, Moment)>, tries: u32 },
    Asleep { paused_since: Option<Moment>, respected_until: Option<Moment>, stays_down: bool },
    Failed { why: Why, until: Moment, tries: u32 },
}

#[derive(Debug, Serialize, Deserialize)]
enum Why {
    Start(String),
    ExitedEarly(Option<i64>),
    TimedOut(u64),
    Dependency(String),
    Died(Option<i64>),
    EngineAway(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Cause {
    Request { method: String, host: String, path: String, client: IpAddr, agent: Option<String> },
    Dependant(String),
    Schedule,
    Person(String),
    Engine(String),
    Idle,
    Dormouse(String),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Wakes {
    count: u64,
    failed: u64,
    last_day: Option<(String, u64)>,
    last_cause: Option<String>,
    last_at: Option<String>,
    took: Vec<u64>,
    asleep: u64,
    counted_since: Option<String>,
    memory: Option<u64>,
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

impl Backend {
    fn of(id: &BackendId, known: &Restored) -> Self {
        Self {
            id: id.to_string(),
            quiet_since: known.quiet_since.map(Moment::of),
            pinned_until: known.pinned_until.map(|until| until.to_string()),
            put_to_sleep: known.put_to_sleep,
            state: known.before.as_ref().map(State::from),
            since: known.since.map(|(wall, instant)| (wall.to_string(), Moment::of(instant))),
            cause: known.cause.as_ref().map(Cause::from),
            woke: known.woke.map(|woke| (micros(woke.took), Moment::of(woke.at.into()))),
            proven: known.proven,
            wakes: Wakes::from(&known.stats),
        }
    }

    fn restored(self) -> Option<(BackendId, Restored)> {
        let restored = Restored {
            quiet_since: self.quiet_since.map(Moment::instant),
            pinned_until: self.pinned_until.as_deref().and_then(time),
            stats: self.wakes.into(),
            put_to_sleep: self.put_to_sleep,
            before: self.state.map(Before::from),
            since: self.since.and_then(|(wall, instant)| Some((time(&wall)?, instant.instant()))),
            cause: self.cause.and_then(Cause::read),
            woke: self.woke.map(|(took, at)| Woke { took: Duration::from_micros(took), at: at.instant().into_std() }),
            proven: self.proven,
        };
        Some((self.id.parse().ok()?, restored))
    }
}

impl From<&Before> for State {
    fn from(before: &Before) -> Self {
        match before {
            Before::Awake { since, ours, busy_at, sleep_again, tries } => Self::Awake {
                since: Moment::of(*since),
                ours: *ours,
                busy_at: busy_at.map(Moment::of),
                sleep_again: sleep_again.map(|(times, at)| (times, Moment::of(at))),
                tries: *tries,
            },
            Before::Asleep(down) => Self::Asleep {
                paused_since: down.paused.as_ref().map(|paused| Moment::of(paused.since)),
                respected_until: down.respected_until.map(Moment::of),
                stays_down: down.stays_down,
            },
            Before::Failed(failed) => {
                Self::Failed { why: Why::from(&failed.why), until: Moment::of(failed.until), tries: failed.tries }
            }
        }
    }
}

impl From<State> for Before {
    fn from(state: State) -> Self {
        match state {
            State::Awake { since, ours, busy_at, sleep_again, tries } => Self::Awake {
                since: since.instant(),
                ours,
                busy_at: busy_at.map(Moment::instant),
                sleep_again: sleep_again.map(|(times, at)| (times, at.instant())),
                tries,
            },
            State::Asleep { paused_since, respected_until, stays_down } => Self::Asleep(Down {
                paused: paused_since.map(|since| Paused { since: since.instant(), at: None }),
                respected_until: respected_until.map(Moment::instant),
                stays_down,
            }),
            State::Failed { why, until, tries } => {
                Self::Failed(Failed { why: why.into(), until: until.instant(), tries })
            }
        }
    }
}

impl From<&Failure> for Why {
    fn from(failure: &Failure) -> Self {
        match failure {
            // No other version need know that word: it is found out again at the next wake.
            Failure::Start(why) | Failure::Barred(why) => Self::Start(why.to_string()),
            Failure::ExitedEarly(code) => Self::ExitedEarly(*code),
            Failure::TimedOut(after) => Self::TimedOut(micros(*after)),
            Failure::Dependency(why) => Self::Dependency(why.to_string()),
            Failure::Died(code) => Self::Died(*code),
            Failure::EngineAway(why) => Self::EngineAway(why.to_string()),
        }
    }
}

impl From<Why> for Failure {
    fn from(why: Why) -> Self {
        match why {
            Why::Start(why) => Self::Start(Arc::from(why)),
            Why::ExitedEarly(code) => Self::ExitedEarly(code),
            Why::TimedOut(after) => Self::TimedOut(Duration::from_micros(after)),
            Why::Dependency(why) => Self::Dependency(Arc::from(why)),
            Why::Died(code) => Self::Died(code),
            Why::EngineAway(why) => Self::EngineAway(Arc::from(why)),
        }
    }
}

impl From<&model::Cause> for Cause {
    fn from(cause: &model::Cause) -> Self {
        match cause {
            model::Cause::Request(facts) => {
                let model::RequestFacts { method, host, path, client, agent } = facts.clone();
                Self::Request { method, host, path, client, agent }
            }
            model::Cause::Dependant(id) => Self::Dependant(id.to_string()),
            model::Cause::Schedule => Self::Schedule,
            model::Cause::Person(name) => Self::Person(name.clone()),
            model::Cause::Engine(what) => Self::Engine(what.clone()),
            model::Cause::Idle => Self::Idle,
            model::Cause::Dormouse(why) => Self::Dormouse(why.to_string()),
        }
    }
}

impl Cause {
    pub(super) fn read(self) -> Option<model::Cause> {
        Some(match self {
            Self::Request { method, host, path, client, agent } => {
                model::Cause::Request(model::RequestFacts { method, host, path, client, agent })
            }
            Self::Dependant(id) => model::Cause::Dependant(id.parse().ok()?),
            Self::Schedule => model::Cause::Schedule,
            Self::Person(name) => model::Cause::Person(name),
            Self::Engine(what) => model::Cause::Engine(what),
            Self::Idle => model::Cause::Idle,
            Self::Dormouse(why) => model::Cause::Dormouse(why.into()),
        })
    }
}

impl From<&WakeStats> for Wakes {
    fn from(stats: &WakeStats) -> Self {
        Self {
            count: stats.count,
            failed: stats.failed,
            last_day: stats.today.last().map(|(day, count)| (day.to_string(), count)),
            last_cause: stats.last_cause.clone(),
            last_at: stats.last_at.map(|at| at.to_string()),
            took: stats.durations.iter().map(micros).collect(),
            asleep: micros(stats.asleep),
            counted_since: stats.counted_since.map(|since| since.to_string()),
            memory: stats.memory,
        }
    }
}

impl From<Wakes> for WakeStats {
    fn from(wakes: Wakes) -> Self {
        let last_day = wakes.last_day.and_then(|(day, count)| Some(WakesToday::new(day.parse().ok()?, count)));
        Self {
            count: wakes.count,
            failed: wakes.failed,
            today: last_day.unwrap_or_default(),
            last_cause: wakes.last_cause,
            last_at: wakes.last_at.as_deref().and_then(time),
            durations: wakes.took.into_iter().map(Duration::from_micros).collect(),
            asleep: Duration::from_micros(wakes.asleep),
            counted_since: wakes.counted_since.as_deref().and_then(time),
            memory: wakes.memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            Failure::TimedOut(Duration::from_secs(180)),
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
