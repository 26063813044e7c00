//! Words that all that is told to another process is made of: moments, causes, and what can not be understood.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::Instant;

use crate::model;

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
pub(super) struct Moment(i64);

impl Moment {
    fn now() -> Option<i64> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
        Some(now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000)
    }

    pub(super) fn of(at: Instant) -> Self {
        let (clock, now) = (Self::now().unwrap_or(0), Instant::now());
        let micros = |distance: Duration| i64::try_from(distance.as_micros()).unwrap_or(i64::MAX);
        let ahead = micros(at.saturating_duration_since(now)) - micros(now.saturating_duration_since(at));
        Self(clock.saturating_add(ahead))
    }

    pub(super) fn instant(self) -> Instant {
        let now = Instant::now();
        let ahead = self.0.saturating_sub(Self::now().unwrap_or(self.0));
        let distance = Duration::from_micros(ahead.unsigned_abs());
        let moved = if ahead < 0 { now.checked_sub(distance) } else { now.checked_add(distance) };
        moved.unwrap_or(now)
    }
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A time of the wall clock, where it is one.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Why something was done.
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
