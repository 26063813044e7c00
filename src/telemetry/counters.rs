//! Counters of one route: what `/metrics` and the access log sum up.

use std::{
    ops::Deref,
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::histogram::Histogram;

/// What a route did since it exists; owned by the live route, added to by each worker, read at a scrape. Relaxed
/// throughout: each number is right by itself, and nothing is concluded from two of them together.
///
/// Of many routes most are never asked for: what is counted has room from the first count on.
#[derive(Debug, Default)]
pub struct RouteCounters(OnceLock<Box<RouteCounts>>);

/// What [`RouteCounters`] count.
#[derive(Debug, Default)]
pub struct RouteCounts {
    classes: [AtomicU64; 5],
    /// Request body and head bytes taken from clients.
    pub bytes_in: AtomicU64,
    /// Response body and head bytes sent to clients.
    pub bytes_out: AtomicU64,
    /// Requests being worked on now, and connections and flows that are open.
    pub in_flight: AtomicI64,
    /// Errors of the upstream that are of none of the kinds of [`UpstreamError`].
    pub upstream_errors: AtomicU64,
    /// Connections and flows of a stream route that were let in.
    pub streams: AtomicU64,
    /// Clients that left before their answer.
    pub client_left: AtomicU64,
    kinds: [AtomicU64; UpstreamError::ALL.len()],
    durations: Histogram,
}

/// What went wrong between Dormouse and an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamError {
    /// No connection could be made.
    Connect,
    /// No answer came in time.
    Timeout,
    /// It closed or reset the connection before its answer was whole.
    Closed,
    /// Its answer was no HTTP.
    Malformed,
}

impl UpstreamError {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Timeout, Self::Closed, Self::Malformed];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
        }
    }
}

impl Deref for RouteCounters {
    type Target = RouteCounts;

    fn deref(&self) -> &RouteCounts {
        self.0.get_or_init(Box::default)
    }
}

impl RouteCounters {
    /// What was counted. Looking alone makes no room for it.
    pub fn counted(&self) -> &RouteCounts {
        static NOTHING: LazyLock<RouteCounts> = LazyLock::new(RouteCounts::default);
        self.0.get().map_or(&NOTHING, |counts| counts)
    }
}

impl RouteCounts {
    /// Counts an answered request by the class of its status.
    pub fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        if let Some(counter) = self.classes.get(class) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts the time from a request's arrival to the last byte of its answer.
    pub fn took(&self, time: Duration) {
        self.durations.add(time);
    }

    /// Counts an error of the upstream.
    pub fn upstream_failed(&self, kind: UpstreamError) {
        if let Some(counter) = self.kinds.get(kind as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests answered with a status of this class, 1 to 5.
    pub fn class(&self, class: usize) -> u64 {
        self.classes.get(class.wrapping_sub(1)).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Errors of the upstream by the word for their kind; `other` for those of no kind.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let words = UpstreamError::ALL.map(UpstreamError::as_str).into_iter().chain(["other"]);
        let counters = self.kinds.iter().chain([&self.upstream_errors]);
        words.zip(counters.map(|counter| counter.load(Ordering::Relaxed)))
    }

    pub(super) fn durations(&self) -> &Histogram {
        &self.durations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_class() {
        let counters = RouteCounters::default();
        for status in [200, 204, 301, 404, 503, 504] {
            counters.answered(status);
        }
        let classes: Vec<u64> = (1..=5).map(|class| counters.class(class)).collect();
        assert_eq!(classes, [0, 2, 1, 1, 2]);
        assert_eq!(counters.class(0) + counters.class(6), 0);
    }

    #[test]
    fn errors_are_counted_by_kind() {
        let counters = RouteCounters::default();
        for kind in UpstreamError::ALL {
            counters.upstream_failed(kind);
        }
        counters.upstream_failed(UpstreamError::Closed);
        counters.upstream_errors.fetch_add(3, Ordering::Relaxed);
        let expected = [("connect", 1), ("timeout", 1), ("closed", 2), ("malformed", 1), ("other", 3)];
        assert_eq!(counters.errors().collect::<Vec<_>>(), expected);
    }
}
