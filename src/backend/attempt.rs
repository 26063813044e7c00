//! What was tried last to find a backend ready, and how that failed: told when its time is over.

use std::{
    fmt, io,
    sync::{Mutex, PoisonError},
};

use crate::model::Health;

/// A try that did not find it ready. Small, so that each of a thousand a second can be noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// This port could not be connected to.
    Connect(u16, io::ErrorKind),
    /// The engine's forwarder took a connection to this port and closed it again.
    ClosedAtOnce(u16),
    /// It is to be asked by HTTP, and has no port.
    NoPort,
    /// Nothing leads to this port from here.
    NoWay(u16),
    /// This port answers, and it is another program that does.
    NotItsOwn(u16),
    /// This port was asked by HTTP: the status, or no answer.
    Asked(u16, Option<u16>),
    /// Its log does not show the pattern.
    Log,
    /// The command of `ready` ended with this exit code; absent: it did not end in time, or could not be run.
    Command(Option<i32>),
    /// The pause of `ready` is not over.
    Delay,
    /// Its engine's own check says so.
    Health(Health),
    /// Its engine has not answered the order to start it.
    NotStarted,
    /// Its engine has not told how it is reached.
    NotTold,
}

/// The last try of a wake. It is written by the probe and read by the driver.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// A std mutex: held for a copy, never across an await.
    last: Mutex<Option<Attempt>>,
}

impl Attempts {
    /// Notes a try that has failed.
    pub(super) fn failed(&self, attempt: Attempt) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(attempt);
    }

    /// Notes a try that begins, and may not end in time: it says something only where no other has.
    pub(super) fn begun(&self, attempt: Attempt) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let None | Some(Attempt::NotTold) = *last {
            *last = Some(attempt);
        }
    }

    /// Another wake begins.
    pub(super) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn last(&self) -> Option<Attempt> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Attempt {
    /// For an administrator, with what to do where that is likely.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ANOTHER_PORT: &str = "(does it listen on another port? say so with `port`)";
        match self {
            Self::Connect(port, io::ErrorKind::ConnectionRefused) => {
                write!(f, "port {port} refused the connection {ANOTHER_PORT}")
            }
            Self::Connect(port, io::ErrorKind::TimedOut) => write!(f, "port {port} did not answer"),
            Self::Connect(port, why) => write!(f, "port {port} could not be connected to: {why}"),
            Self::ClosedAtOnce(port) => write!(f, "port {port} closed the connection at once {ANOTHER_PORT}"),
            Self::NoPort => f.write_str("`ready` has no port to ask (say which with `port`)"),
            Self::NoWay(port) => write!(f, "nothing leads to port {port} from here {ANOTHER_PORT}"),
            Self::NotItsOwn(port) => write!(f, "another program listens on port {port}"),
            Self::Asked(port, Some(status)) => {
                write!(f, "port {port} answered with status {status}, which `ready` does not take for ready")
            }
            Self::Asked(port, None) => write!(f, "port {port} gave no answer to the request of `ready`"),
            Self::Log => f.write_str("its log did not show the pattern of `ready`"),
            Self::Command(Some(code)) => write!(f, "the command of `ready` ended with exit code {code}"),
            Self::Command(None) => f.write_str("the command of `ready` could not be run, or did not end in time"),
            Self::Delay => f.write_str("the delay of `ready` was not over (make `wake_timeout` longer than it)"),
            Self::Health(Health::Unhealthy) => f.write_str("its engine's health check calls it unhealthy"),
            Self::Health(Health::Starting | Health::Healthy) => f.write_str("its engine's health check had not passed"),
            Self::NotStarted => f.write_str("its engine did not answer the order to start it"),
            Self::NotTold => f.write_str("its engine did not tell how it is reached"),
        }
    }
}
