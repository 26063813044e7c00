//! Why there is no certificate.

use std::io;

use instant_acme::Error;

use super::schedule::Kind;
use crate::{net::BadCertificate, telemetry::chain};

/// An order, or a part of it, that came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) kind: Kind,
    pub(super) why: String,
    /// The authority does not know our account any more.
    pub(super) account_is_gone: bool,
}

impl Failed {
    /// Somebody said no, or will.
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, why: why.into(), account_is_gone: false }
    }

    /// Nobody said no: it may go well the next time.
    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self { kind: Kind::Unreachable, ..Self::refused(why) }
    }

    /// Whether it may go well the next time.
    pub(super) fn passes(&self) -> bool {
        self.kind == Kind::Unreachable
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let (kind, account_is_gone) = if let Error::Api(problem) = &error {
            let is = |word: &str| problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(word));
            // A nonce that is not taken says nothing of the order (RFC 8555, 6.5).
            let passes = is(":serverInternal") || is(":badNonce");
            (if passes { Kind::Unreachable } else { Kind::Refused }, is(":accountDoesNotExist"))
        } else if matches!(error, Error::Crypto | Error::KeyRejected | Error::Unsupported(_)) {
            (Kind::Refused, false)
        } else {
            // Whatever else it is did not come from an authority that had made up its mind.
            (Kind::Unreachable, false)
        };
        Self { kind, why: chain(&error), account_is_gone }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::refused(format!("the state directory: {error}"))
    }
}

impl From<BadCertificate> for Failed {
    fn from(error: BadCertificate) -> Self {
        Self::refused(error.to_string())
    }
}
