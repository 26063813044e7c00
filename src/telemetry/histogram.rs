//! Durations sorted into buckets, counted without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds in microseconds: from what a proxy adds to what a slow wake takes.
const BOUNDS: [u64; 14] = [
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    180_000_000,
];

/// How many durations fell under each bound. Relaxed throughout: a scrape may see a duration in the sum that it does
/// not yet see in its bucket.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// One for each bound, and one for all above.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    pub(super) fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Upper bounds in seconds, each with what fell between it and the one before.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(&self.buckets).map(|(bound, bucket)| (bound, bucket.load(Ordering::Relaxed))).collect()
    }

    /// The sum in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.micros.load(Ordering::Relaxed) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_under_the_first_bound_that_is_not_below_it() {
        let histogram = Histogram::default();
        for millis in [0, 1, 2, 200_000] {
            histogram.add(Duration::from_millis(millis));
        }
        let buckets = histogram.buckets();
        assert_eq!(buckets[0], (0.001, 2));
        assert_eq!(buckets[1], (0.005, 1));
        assert_eq!(buckets[BOUNDS.len()], (f64::INFINITY, 1));
        assert_eq!(histogram.seconds(), 200.003);
    }
}
