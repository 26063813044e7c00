//! What a process knows of one backend, as it is told to the one that takes over.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::legacy_words::{Cause, Moment, micros, time, understood};
use crate::{
    backend::{Before, Down, Failed, Failure, Paused, Restored, WakeStats, Woke},
    model::BackendId,
    telemetry::WakesToday,
};

/// A backend in words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Backend {
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
    Awake {
        since: Moment,
        ours: bool,
        busy_at: Option<Moment>,
        sleep_again: Option<(u32, Moment)>,
        tries: u32,
    },
    Asleep {
        paused_since: Option<Moment>,
        respected_until: Option<Moment>,
        stays_down: bool,
    },
    Failed {
        why: Why,
        until: Moment,
        tries: u32,
        /// The words of what was tried last, of one that was not ready in time.
        #[serde(default)]
        tried: Option<String>,
    },
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

impl Backend {
    pub(super) fn of(id: &BackendId, known: &Restored) -> Self {
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

    /// What the words mean, and of which backend.
    pub(super) fn restored(self) -> Option<(BackendId, Restored)> {
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
                let tried = if let Failure::TimedOut(_, tried) = &failed.why { tried.as_deref() } else { None };
                let tried = tried.map(str::to_owned);
                Self::Failed {
                    why: Why::from(&failed.why),
                    until: Moment::of(failed.until),
                    tries: failed.tries,
                    tried,
                }
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
            State::Failed { why, until, tries, tried } => {
                let mut why = Failure::from(why);
                if let Failure::TimedOut(_, last) = &mut why {
                    *last = tried.map(Arc::from);
                }
                Self::Failed(Failed { why, until: until.instant(), tries })
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
            Failure::TimedOut(after, _) => Self::TimedOut(micros(*after)),
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
            Why::TimedOut(after) => Self::TimedOut(Duration::from_micros(after), None),
            Why::Dependency(why) => Self::Dependency(Arc::from(why)),
            Why::Died(code) => Self::Died(code),
            Why::EngineAway(why) => Self::EngineAway(Arc::from(why)),
        }
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
