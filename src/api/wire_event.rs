//! The journal as it is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    model,
    telemetry::{Entry, Happening, Phases},
};

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts from 1 in each run of the program.
    pub seq: u64,
    /// When.
    pub at: String,
    /// Which backend, as `node/name`; `null`: a node or the whole program.
    pub backend: Option<String>,
    /// One of `waking`, `woke`, `wake_failed`, `draining`, `drain_ended`, `drain_denied`, `stopping`, `slept`,
    /// `sleep_failed`, `ended`, `paused`, `found_running`, `gone`, `pinned`, `unpinned`, `unhealthy`, `healthy`, `note`.
    #[schema(example = "woke")]
    pub what: String,
    /// The same in words, with its particulars.
    pub text: String,
    /// Why.
    pub cause: Cause,
    /// How long the phases of a wake took (`woke`).
    pub phases: Option<PhaseMillis>,
    /// The reason (`wake_failed`, `sleep_failed`, `unhealthy`).
    pub why: Option<String>,
    /// No new try before these seconds have passed (`wake_failed`).
    pub retry_after_s: Option<u64>,
    /// `stopped` or `paused` (`slept`).
    pub how: Option<String>,
    /// How long it took (`slept`).
    pub took_ms: Option<u64>,
    /// Passes that were out (`drain_denied`).
    pub passes: Option<u64>,
    /// The exit code (`ended`).
    pub exit_code: Option<i64>,
    /// Until when (`pinned`).
    pub until: Option<String>,
}

/// Who or what caused something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cause {
    /// `request`, `dependant`, `schedule`, `person`, `engine`, `idle` or `dormouse`.
    #[schema(example = "request")]
    pub kind: String,
    /// In words.
    pub text: String,
    /// The request, when it was one.
    pub request: Option<Request>,
}

/// What is kept of a request; never its query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The host asked for.
    pub host: String,
    /// The path without query.
    pub path: String,
    /// The client's address.
    pub client: String,
    /// The user agent.
    pub agent: Option<String>,
}

/// How long the phases of a wake took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PhaseMillis {
    /// Until all dependencies were up.
    pub dependencies: u64,
    /// The engine's start call.
    pub engine: u64,
    /// From the engine's answer until it was ready.
    pub ready: u64,
    /// The whole.
    pub total: u64,
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole seconds, rounded up: never told as over before it is.
pub(super) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl From<&Phases> for PhaseMillis {
    fn from(phases: &Phases) -> Self {
        Self {
            dependencies: millis(phases.dependencies),
            engine: millis(phases.engine),
            ready: millis(phases.ready),
            total: millis(phases.total),
        }
    }
}

impl From<&model::Cause> for Cause {
    fn from(cause: &model::Cause) -> Self {
        let request = match cause {
            model::Cause::Request(facts) => Some(Request {
                method: facts.method.clone(),
                host: facts.host.clone(),
                path: facts.path.clone(),
                client: facts.client.to_string(),
                agent: facts.agent.clone(),
            }),
            model::Cause::Dependant(_)
            | model::Cause::Schedule
            | model::Cause::Person(_)
            | model::Cause::Engine(_)
            | model::Cause::Idle
            | model::Cause::Dormouse(_) => None,
        };
        Self { kind: cause.kind().to_owned(), text: cause.to_string(), request }
    }
}

impl From<&Entry> for Event {
    fn from(entry: &Entry) -> Self {
        let mut event = Self {
            seq: entry.seq,
            at: entry.at.to_string(),
            backend: entry.backend.as_ref().map(ToString::to_string),
            what: String::new(),
            text: String::new(),
            cause: Cause::from(&entry.cause),
            phases: None,
            why: None,
            retry_after_s: None,
            how: None,
            took_ms: None,
            passes: None,
            exit_code: None,
            until: None,
        };
        event.tell(&entry.what);
        event
    }
}

impl Event {
    fn tell(&mut self, what: &Happening) {
        let word = match what {
            Happening::Waking => "waking",
            Happening::Woke(phases) => {
                self.phases = Some(PhaseMillis::from(phases));
                "woke"
            }
            Happening::WakeFailed { why, retry_after } => {
                self.why = Some(why.clone());
                self.retry_after_s = Some(seconds(*retry_after));
                "wake_failed"
            }
            Happening::Draining => "draining",
            Happening::DrainEnded => "drain_ended",
            Happening::DrainDenied(passes) => {
                self.passes = Some(u64::try_from(*passes).unwrap_or(u64::MAX));
                "drain_denied"
            }
            Happening::Stopping => "stopping",
            Happening::Slept { how, took } => {
                self.how = Some((*how).to_owned());
                self.took_ms = Some(millis(*took));
                "slept"
            }
            Happening::SleepFailed(why) => {
                self.why = Some(why.clone());
                "sleep_failed"
            }
            Happening::Ended(code) => {
                self.exit_code = *code;
                "ended"
            }
            Happening::Paused => "paused",
            Happening::FoundRunning => "found_running",
            Happening::Gone => "gone",
            Happening::Pinned(until) => {
                self.until = Some(until.to_string());
                "pinned"
            }
            Happening::Unpinned => "unpinned",
            Happening::Unhealthy(why) => {
                self.why = Some(why.clone());
                "unhealthy"
            }
            Happening::Healthy => "healthy",
            Happening::Note(_) => "note",
        };
        self.what = word.to_owned();
        self.text = what.to_string();
    }
}
