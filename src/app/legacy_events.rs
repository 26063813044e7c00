//! The journal of a process, as it is told to the one that takes over, so that its events and their numbers go on.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::legacy_words::{Cause, each_understood, micros, time};
use crate::telemetry::{self, Entry, Phases};

/// So many bytes of events are handed over, or a little more: the newest.
const MOST: usize = 4 << 20;

/// What an event takes beside its texts.
const EACH: usize = 150;

/// Events, and the name of the run that counts them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Events {
    /// When the run began, in milliseconds.
    run: i64,
    #[serde(default, deserialize_with = "each_understood")]
    events: Vec<Event>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Event {
    seq: u64,
    at: String,
    backend: Option<String>,
    what: Happening,
    cause: Cause,
}

#[derive(Debug, Serialize, Deserialize)]
enum Happening {
    Waking,
    /// Dependencies, engine, ready, total.
    Woke(u64, u64, u64, u64),
    WakeFailed(String, u64),
    Draining,
    DrainEnded,
    DrainDenied(usize),
    Stopping,
    /// Whether it was paused, and how long that took.
    Slept(bool, u64),
    SleepFailed(String),
    Ended(Option<i64>),
    Paused,
    FoundRunning,
    Gone,
    Pinned(String),
    Unpinned,
    Unhealthy(String),
    Healthy,
    Note(String),
}

impl Events {
    /// The newest of this run.
    pub(super) fn of(run: Timestamp, entries: &[Arc<Entry>]) -> Self {
        let mut room = MOST;
        let fits = |entry: &&Arc<Entry>| {
            let takes = EACH + entry.what.to_string().len() + entry.cause.to_string().len();
            let had = room;
            room = room.saturating_sub(takes);
            had > 0
        };
        let mut events: Vec<_> = entries.iter().rev().take_while(fits).map(|entry| Event::of(entry)).collect();
        events.reverse();
        Self { run: run.as_millisecond(), events }
    }

    /// When the run began, and its entries.
    pub(super) fn read(self) -> Option<(Timestamp, Vec<Entry>)> {
        let run = Timestamp::from_millisecond(self.run).ok()?;
        Some((run, self.events.into_iter().filter_map(Event::read).collect()))
    }
}

impl Event {
    fn of(entry: &Entry) -> Self {
        Self {
            seq: entry.seq,
            at: entry.at.to_string(),
            backend: entry.backend.as_ref().map(ToString::to_string),
            what: Happening::from(&entry.what),
            cause: Cause::from(&entry.cause),
        }
    }

    fn read(self) -> Option<Entry> {
        let backend = match self.backend {
            Some(id) => Some(id.parse().ok()?),
            None => None,
        };
        Some(Entry { seq: self.seq, at: time(&self.at)?, backend, what: self.what.read()?, cause: self.cause.read()? })
    }
}

impl From<&telemetry::Happening> for Happening {
    fn from(what: &telemetry::Happening) -> Self {
        use telemetry::Happening as What;
        match what {
            What::Waking => Self::Waking,
            What::Woke(Phases { dependencies, engine, ready, total }) => {
                Self::Woke(micros(*dependencies), micros(*engine), micros(*ready), micros(*total))
            }
            What::WakeFailed { why, retry_after } => Self::WakeFailed(why.clone(), micros(*retry_after)),
            What::Draining => Self::Draining,
            What::DrainEnded => Self::DrainEnded,
            What::DrainDenied(passes) => Self::DrainDenied(*passes),
            What::Stopping => Self::Stopping,
            What::Slept { how, took } => Self::Slept(*how == PAUSED, micros(*took)),
            What::SleepFailed(why) => Self::SleepFailed(why.clone()),
            What::Ended(code) => Self::Ended(*code),
            What::Paused => Self::Paused,
            What::FoundRunning => Self::FoundRunning,
            What::Gone => Self::Gone,
            What::Pinned(until) => Self::Pinned(until.to_string()),
            What::Unpinned => Self::Unpinned,
            What::Unhealthy(why) => Self::Unhealthy(why.clone()),
            What::Healthy => Self::Healthy,
            What::Note(text) => Self::Note(text.clone()),
        }
    }
}

const PAUSED: &str = "paused";

impl Happening {
    fn read(self) -> Option<telemetry::Happening> {
        use telemetry::Happening as What;
        let duration = Duration::from_micros;
        Some(match self {
            Self::Waking => What::Waking,
            Self::Woke(dependencies, engine, ready, total) => What::Woke(Phases {
                dependencies: duration(dependencies),
                engine: duration(engine),
                ready: duration(ready),
                total: duration(total),
            }),
            Self::WakeFailed(why, retry_after) => What::WakeFailed { why, retry_after: duration(retry_after) },
            Self::Draining => What::Draining,
            Self::DrainEnded => What::DrainEnded,
            Self::DrainDenied(passes) => What::DrainDenied(passes),
            Self::Stopping => What::Stopping,
            Self::Slept(paused, took) => {
                What::Slept { how: if paused { PAUSED } else { "stopped" }, took: duration(took) }
            }
            Self::SleepFailed(why) => What::SleepFailed(why),
            Self::Ended(code) => What::Ended(code),
            Self::Paused => What::Paused,
            Self::FoundRunning => What::FoundRunning,
            Self::Gone => What::Gone,
            Self::Pinned(until) => What::Pinned(time(&until)?),
            Self::Unpinned => What::Unpinned,
            Self::Unhealthy(why) => What::Unhealthy(why),
            Self::Healthy => What::Healthy,
            Self::Note(text) => What::Note(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{
        model::{Cause as Why, RequestFacts},
        telemetry::Happening as What,
    };

    fn told(entries: &[Arc<Entry>]) -> (Timestamp, Vec<Entry>) {
        let run = Timestamp::from_millisecond(17).unwrap();
        let text = serde_json::to_string(&Events::of(run, entries)).unwrap();
        serde_json::from_str::<Events>(&text).unwrap().read().unwrap()
    }

    fn entry(seq: u64, what: What, cause: Why) -> Arc<Entry> {
        let at = "2026-11-22T10:00:00.123456789Z".parse().unwrap();
        Arc::new(Entry { seq, at, backend: Some("jobs/app".parse().unwrap()), what, cause })
    }

    #[test]
    fn every_kind_of_event_arrives_as_it_was() {
        let took = Duration::from_micros(1234);
        let request = RequestFacts {
            method: "GET".into(),
            host: "app.test".into(),
            path: "/".into(),
            client: IpAddr::from([127, 0, 0, 1]),
            agent: None,
        };
        let causes = [
            Why::Request(request),
            Why::Dependant("jobs/other".parse().unwrap()),
            Why::Schedule,
            Why::Person("me".into()),
            Why::Engine("it ended".into()),
            Why::Idle,
            Why::Dormouse("reload".into()),
        ];
        let happenings = [
            What::Waking,
            What::Woke(Phases { dependencies: took, engine: took, ready: took, total: took }),
            What::WakeFailed { why: "no".into(), retry_after: took },
            What::Draining,
            What::DrainEnded,
            What::DrainDenied(3),
            What::Stopping,
            What::Slept { how: "paused", took },
            What::Slept { how: "stopped", took },
            What::SleepFailed("no".into()),
            What::Ended(Some(3)),
            What::Paused,
            What::FoundRunning,
            What::Gone,
            What::Pinned("2031-01-01T00:00:00Z".parse().unwrap()),
            What::Unpinned,
            What::Unhealthy("no".into()),
            What::Healthy,
            What::Note("a note".into()),
        ];
        let all: Vec<_> = (1..)
            .zip(happenings.into_iter().zip(causes.into_iter().cycle()))
            .map(|(seq, (what, cause))| entry(seq, what, cause))
            .collect();
        let (run, read) = told(&all);
        assert_eq!(run.as_millisecond(), 17);
        assert_eq!(read, all.iter().map(|entry| Entry::clone(entry)).collect::<Vec<_>>());
    }

    #[test]
    fn of_too_many_the_newest_are_handed_over() {
        let long = "x".repeat(1 << 20);
        let all: Vec<_> = (1..=10).map(|seq| entry(seq, What::Note(long.clone()), Why::Idle)).collect();
        let (_, read) = told(&all);
        let numbers: Vec<u64> = read.iter().map(|entry| entry.seq).collect();
        assert_eq!(numbers, [7, 8, 9, 10]);
    }
}
