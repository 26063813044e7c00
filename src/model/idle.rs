//! The idle policy of a backend: when it sleeps, how, and what happens to those who come while it does.

use std::{fmt, str::FromStr, time::Duration};

use super::{AsleepResponse, Ignore, Schedule};

/// The way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SleepMethod {
    /// Signal, grace time, then the engine kills it.
    Stop,
    /// Frozen; memory is kept.
    Pause,
    /// Killed at once.
    Kill,
}

/// A Unix signal by number, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopSignal(u8);

/// What becomes of a backend that did not get ready in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnWakeTimeout {
    /// It is stopped.
    Stop,
    /// It is left as it is.
    Leave,
}

/// What a page load gets while the backend wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The waiting page.
    Page,
    /// It is held, like every other request.
    Hold,
    /// 503 with `Retry-After`; the wake goes on.
    Reject,
}

/// All settings of `idle.md` section 5, checked. One for each backend.
#[derive(Debug, Clone, PartialEq)]
pub struct IdlePolicy {
    /// How long nobody must use it before it sleeps; absent: it never sleeps by itself.
    pub idle_timeout: Option<Duration>,
    /// Sleeps with its last dependant, if Dormouse started it (a negative `idle_timeout`, or a dependency
    /// without a policy of its own).
    pub dependency_only: bool,
    /// The way down.
    pub stop_method: SleepMethod,
    /// The signal of `stop`; absent: the engine's own.
    pub stop_signal: Option<StopSignal>,
    /// The grace time between the signal and the kill.
    pub stop_timeout: Duration,
    /// A backend that stayed paused this long is stopped.
    pub stop_after: Option<Duration>,
    /// From the start call to ready.
    pub wake_timeout: Duration,
    /// The exact path that alone may wake it.
    pub start_endpoint: Option<String>,
    /// What a page load gets meanwhile.
    pub waiting: Waiting,
    /// After a wake, how long a 502, 503 or reset of a request that may be repeated is tried again.
    pub settle: Duration,
    /// Requests that neither wake nor keep awake.
    pub ignore: Ignore,
    /// What those get while it sleeps.
    pub asleep_response: AsleepResponse,
    /// A stream on which no byte moved for this long no longer counts, and is closed.
    pub stream_idle: Option<Duration>,
    /// A UDP flow without a datagram for this long has ended.
    pub flow_timeout: Duration,
    /// A fresh backend stays up at least this long.
    pub min_uptime: Duration,
    /// Windows in which it is kept awake.
    pub schedule: Schedule,
    /// A command that answers with exit code 0 while the backend is busy and must not sleep; runs on the node
    /// of Dormouse itself. Or an `http://` address that answers 2xx while busy.
    pub busy: Option<String>,
    /// Requests held at once.
    pub max_held: usize,
    /// How long a request is held; absent: `wake_timeout`.
    pub hold_timeout: Option<Duration>,
    /// How long an ordered sleep waits for those inside.
    pub drain_timeout: Duration,
    /// What becomes of a backend that did not get ready.
    pub on_wake_timeout: OnWakeTimeout,
    /// Whether a request wakes what its owner stopped by hand; absent: yes when discovered by labels.
    pub wake_after_manual_stop: bool,
}

impl Default for IdlePolicy {
    fn default() -> Self {
        Self {
            idle_timeout: None,
            dependency_only: false,
            stop_method: SleepMethod::Stop,
            stop_signal: None,
            stop_timeout: Duration::from_secs(30),
            stop_after: None,
            wake_timeout: Duration::from_secs(180),
            start_endpoint: None,
            waiting: Waiting::Page,
            settle: Duration::from_secs(2),
            ignore: Ignore::default(),
            asleep_response: AsleepResponse::default(),
            stream_idle: None,
            flow_timeout: Duration::from_secs(60),
            min_uptime: Duration::ZERO,
            schedule: Schedule::default(),
            busy: None,
            max_held: 1000,
            hold_timeout: None,
            drain_timeout: Duration::from_secs(30),
            on_wake_timeout: OnWakeTimeout::Stop,
            wake_after_manual_stop: true,
        }
    }
}

impl IdlePolicy {
    /// Whether Dormouse ever lets it sleep, and so may wake it: by time, by schedule, or with its dependants.
    pub fn sleeps(&self) -> bool {
        self.idle_timeout.is_some() || self.dependency_only || !self.schedule.0.is_empty()
    }

    /// How long a caller is held at most.
    pub fn patience(&self) -> Duration {
        self.hold_timeout.unwrap_or(self.wake_timeout)
    }
}

impl SleepMethod {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Kill => "kill",
        }
    }
}

impl fmt::Display for SleepMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StopSignal {
    type Err = String;

    /// Names with or without `SIG` in any case, or a number from 1 to 64.
    fn from_str(text: &str) -> Result<Self, String> {
        let word = text.trim().to_ascii_uppercase();
        if let Ok(number) = word.parse::<u8>()
            && (1..=64).contains(&number)
        {
            return Ok(Self(number));
        }
        let name = if word.starts_with("SIG") { word } else { format!("SIG{word}") };
        nix::sys::signal::Signal::from_str(&name).map(|signal| Self(signal as u8)).map_err(|_| {
            format!("`{text}` is no signal: use a name such as `TERM` or `SIGINT`, or a number from 1 to 64")
        })
    }
}

impl StopSignal {
    /// The number.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match nix::sys::signal::Signal::try_from(self.number()) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_by_name_or_number() {
        assert_eq!("term".parse::<StopSignal>().unwrap().number(), 15);
        assert_eq!("SIGINT".parse::<StopSignal>().unwrap().to_string(), "SIGINT");
        assert_eq!("40".parse::<StopSignal>().unwrap().to_string(), "40");
        assert!("0".parse::<StopSignal>().is_err());
        assert!("TREM".parse::<StopSignal>().is_err());
    }
}
