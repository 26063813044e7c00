//! Why a request is refused before it goes anywhere.

/// Why a request is refused before it goes anywhere; the connection is closed after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// It can be read in more than one way, or in none.
    #[error("The request is malformed: {0}.")]
    Malformed(&'static str),
    /// The request line is too long.
    #[error("The address asked for is too long.")]
    TargetTooLong,
    /// Too many fields, or too many bytes of them.
    #[error("The request has too many or too long header fields.")]
    HeadTooLarge,
    /// Not HTTP/1.
    #[error("This version of HTTP is not spoken here.")]
    Version,
    /// A body whose length nobody told.
    #[error("The request must tell the length of its body.")]
    LengthRequired,
    /// An expectation that nobody here knows.
    #[error("The request expects what is not known here.")]
    Expectation,
    /// `CONNECT`, which this is not for, and `TRACE`, which would show what a browser hides and wake a service for nothing.
    #[error("This method is not allowed.")]
    Method,
    /// A tunnel for a protocol that is not carried.
    #[error("This protocol is not carried here.")]
    Protocol,
}

impl BadRequest {
    /// The status that tells it.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Method => 405,
            Self::LengthRequired => 411,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge => 431,
            Self::Protocol => 501,
            Self::Version => 505,
        }
    }
}
