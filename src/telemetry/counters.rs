//! Counters of one route: what `/metrics` and the access log sum up.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What a route did since it exists. Relaxed throughout: each number is right by itself, and nothing is concluded
/// from two of them together.
#[derive(Debug, Default)]
pub struct RouteCounters {
    classes: [AtomicU64; 5],
    /// Request body and head bytes taken from clients.
    pub bytes_in: AtomicU64,
    /// Response body and head bytes sent to clients.
    pub bytes_out: AtomicU64,
    /// Requests being worked on now.
    pub in_flight: AtomicI64,
    /// Connects, resets and bad answers of the upstream.
    pub upstream_errors: AtomicU64,
    /// Clients that left before their answer.
    pub client_left: AtomicU64,
}

impl RouteCounters {
    /// Counts an answered request by the class of its status.
    pub fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        if let Some(counter) = self.classes.get(class) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests answered with a status of this class, 1 to 5.
    pub fn class(&self, class: usize) -> u64 {
        self.classes.get(class.wrapping_sub(1)).map_or(0, |counter| counter.load(Ordering::Relaxed))
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
}
