//! Why a command did not succeed, and its exit code.

use std::{fmt, io, process::ExitCode};

/// Why a command ends.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It failed: 1.
    Failed(String),
    /// The usage or the configuration is wrong: 2.
    Wrong(String),
    /// All is told already; only the code is left.
    Told(u8),
    /// The reader of the output has enough: 0.
    Closed,
}

impl Trouble {
    /// The exit code.
    pub(super) fn code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Wrong(_) => ExitCode::from(2),
            Self::Told(code) => ExitCode::from(*code),
            Self::Closed => ExitCode::SUCCESS,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text) | Self::Wrong(text) => write!(f, "error: {text}"),
            Self::Told(_) | Self::Closed => Ok(()),
        }
    }
}

impl From<io::Error> for Trouble {
    /// Errors of writing the answer.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Closed;
        }
        Self::Failed(format!("can not write the answer: {error}"))
    }
}
