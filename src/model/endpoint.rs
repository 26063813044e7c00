//! Endpoints: a port of a backend together with what is spoken on it.

use std::{fmt, str::FromStr};

/// What is spoken on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1 in clear text.
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP/2 in clear text, by prior knowledge.
    H2c,
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
    /// A byte stream and datagrams, on ports of the same number.
    TcpUdp,
}

/// A port of a backend and its scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// What is spoken.
    pub scheme: Scheme,
    /// The backend's own port, 1 to 65535.
    pub port: u16,
}

/// A text that names no scheme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no scheme: use `http`, `https`, `h2c`, `tcp`, `udp` or `tcp+udp`")]
pub struct BadScheme(String);

impl Scheme {
    /// Every scheme, for messages and tables.
    pub const ALL: [Self; 6] = [Self::Http, Self::Https, Self::H2c, Self::Tcp, Self::Udp, Self::TcpUdp];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::TcpUdp => "tcp+udp",
        }
    }

    /// Whether a route with this scheme has a listening port of its own.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::TcpUdp)
    }

    /// Whether the endpoint takes TCP connections.
    pub fn has_tcp(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// Whether the endpoint takes datagrams.
    pub fn has_udp(self) -> bool {
        matches!(self, Self::Udp | Self::TcpUdp)
    }
}

impl FromStr for Scheme {
    type Err = BadScheme;

    fn from_str(text: &str) -> Result<Self, BadScheme> {
        let word = text.trim().to_ascii_lowercase();
        Self::ALL.into_iter().find(|s| s.as_str() == word).ok_or_else(|| BadScheme(text.to_owned()))
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
