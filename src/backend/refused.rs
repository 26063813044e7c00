//! Why a caller was not let in.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::state::{Failure, Refusal, not_ready};

/// Why a caller was not let in. The public texts name no backend, path or address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It did not get ready in time, or the caller's patience ended.
    #[error("{}", not_ready(*.after, .tried.as_deref()))]
    TimedOut {
        /// The time that passed.
        after: Duration,
        /// What was tried last in vain, for an administrator; absent: nothing, or the caller did not wait for it.
        tried: Option<Arc<str>>,
    },
    /// The wake failed just now.
    #[error("it could not be started: {why}")]
    WakeFailed {
        /// For an administrator.
        why: Arc<str>,
        /// When a new try is allowed.
        retry_after: Duration,
    },
    /// A wake failed before, and it is not tried again yet.
    #[error("it could not be started and cools down: {why}")]
    CoolingDown {
        /// For an administrator.
        why: Arc<str>,
        /// It had not been ready in time.
        late: bool,
        /// When a new try is allowed.
        retry_after: Duration,
    },
    /// Too many wait already.
    #[error("too many requests wait for it already")]
    TooManyHeld {
        /// A guess.
        retry_after: Duration,
    },
    /// The engine is away.
    #[error("its engine is away: {why}")]
    EngineAway {
        /// For an administrator.
        why: Arc<str>,
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// A person put it to sleep while it was waited for, or in use.
    #[error("it was put to sleep by an order")]
    PutToSleep,
    /// Its owner stopped it, and it stays down until ordered up.
    #[error("its owner stopped it")]
    StaysDown,
    /// There is no such backend any more.
    #[error("there is no such backend any more")]
    Gone,
}

impl Refused {
    /// What a refusal of the machine means to a caller. `cooling`: it had failed before this caller came.
    pub(super) fn of(refusal: &Refusal, now: Instant, cooling: bool) -> Self {
        let (failure, until) = match refusal {
            Refusal::StaysDown => return Self::StaysDown,
            Refusal::Gone => return Self::Gone,
            Refusal::Failed(failure, until) => (failure, until),
        };
        let retry_after = until.saturating_duration_since(now);
        if let Failure::EngineAway(why) = failure {
            return Self::EngineAway { why: Arc::clone(why), retry_after };
        }
        if cooling {
            let late = matches!(failure, Failure::TimedOut(..));
            return Self::CoolingDown { why: failure.to_string().into(), late, retry_after };
        }
        if let Failure::TimedOut(after, tried) = failure {
            return Self::TimedOut { after: *after, tried: tried.clone() };
        }
        Self::WakeFailed { why: failure.to_string().into(), retry_after }
    }

    /// What a stranger may read.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TimedOut { .. } | Self::CoolingDown { late: true, .. } => "The service did not start in time.",
            Self::WakeFailed { .. } | Self::CoolingDown { .. } => "The service could not be started.",
            Self::TooManyHeld { .. } => "Too many requests wait for this service already.",
            Self::EngineAway { .. } => "The service can not be started right now.",
            Self::PutToSleep => "The service was put to sleep by an order.",
            Self::StaysDown => "The service has been switched off by its owner.",
            Self::Gone => "The service is not there any more.",
        }
    }

    /// When it is worth trying again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::WakeFailed { retry_after, .. }
            | Self::CoolingDown { retry_after, .. }
            | Self::TooManyHeld { retry_after }
            | Self::EngineAway { retry_after, .. } => Some((*retry_after).max(Duration::from_secs(1))),
            Self::TimedOut { .. } => Some(Duration::from_secs(5)),
            // Most that are gone come back under their name.
            Self::Gone => Some(Duration::from_secs(5)),
            Self::PutToSleep => Some(Duration::from_secs(5)),
            Self::StaysDown => None,
        }
    }

    /// One word for metrics: a closed set.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TimedOut { .. } => "timed_out",
            Self::WakeFailed { .. } => "wake_failed",
            Self::CoolingDown { .. } => "cooling_down",
            Self::TooManyHeld { .. } => "too_many_held",
            Self::EngineAway { .. } => "engine_away",
            Self::PutToSleep => "put_to_sleep",
            Self::StaysDown => "stays_down",
            Self::Gone => "gone",
        }
    }
}
