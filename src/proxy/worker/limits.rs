//! Limits and time-outs of the front.

use std::time::Duration;

/// How much and how long a client may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request line.
    pub request_line: usize,
    /// Bytes of a head, request or response.
    pub head: usize,
    /// From the first byte of a request's head to its last.
    pub header_timeout: Duration,
    /// Between two requests.
    pub keep_alive_timeout: Duration,
    /// The window in which a body must make progress.
    pub body_window: Duration,
    /// Bytes that a client must send or take in that window.
    pub body_minimum: u64,
    /// How long, and how many bytes, a client's unread rest is read away before its connection is closed.
    pub linger: (Duration, usize),
    /// Connections of one worker at once.
    pub connections: usize,
    /// Connections of all workers at once.
    pub connections_in_all: usize,
    /// Those of them that one client may have.
    pub connections_per_client: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_line: 8 * 1024,
            head: 32 * 1024,
            header_timeout: Duration::from_secs(15),
            keep_alive_timeout: Duration::from_secs(75),
            body_window: Duration::from_secs(30),
            body_minimum: 3000,
            linger: (Duration::from_secs(2), 256 * 1024),
            connections: 16_384,
            connections_in_all: usize::MAX,
            connections_per_client: usize::MAX,
        }
    }
}

/// What is needed while a head is read, copied so that nothing is borrowed meanwhile.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct HeadLimits {
    pub(in crate::proxy) line: usize,
    pub(in crate::proxy) head: usize,
    pub(in crate::proxy) header: Duration,
    pub(in crate::proxy) keep_alive: Duration,
}

impl Limits {
    pub(in crate::proxy) fn for_heads(&self) -> HeadLimits {
        HeadLimits {
            line: self.request_line,
            head: self.head,
            header: self.header_timeout,
            keep_alive: self.keep_alive_timeout,
        }
    }
}
