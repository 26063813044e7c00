//! What wakes and sleeps of a backend sum up to: the numbers of `dormouse ps`. Pure; the clock is passed in.

use std::{collections::VecDeque, time::Duration};

use jiff::civil::Date;

/// The durations of the last wakes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WakeDurations(VecDeque<Duration>);

/// Wakes on one day of the local calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WakesToday {
    day: Option<Date>,
    count: u64,
}

impl WakeDurations {
    const KEPT: usize = 50;

    /// Adds a wake, and forgets the oldest of too many.
    pub fn add(&mut self, took: Duration) {
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    /// All that are kept, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Duration> {
        self.0.iter().copied()
    }

    /// The shortest duration that this share (0 to 1) of the wakes did not exceed; absent before the first wake.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.iter().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() as f64 * share.clamp(0.0, 1.0)).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }
}

impl FromIterator<Duration> for WakeDurations {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        let mut all = Self::default();
        durations.into_iter().for_each(|took| all.add(took));
        all
    }
}

impl WakesToday {
    /// So many on this day.
    pub fn new(day: Date, count: u64) -> Self {
        Self { day: (count > 0).then_some(day), count }
    }

    /// The day of the last wake, and how many there were on it; absent before the first.
    pub fn last(&self) -> Option<(Date, u64)> {
        Some((self.day?, self.count))
    }

    /// Counts a wake on this day; a new day begins at nothing.
    pub fn add(&mut self, today: Date) {
        self.count = self.on(today) + 1;
        self.day = Some(today);
    }

    /// How many there were on this day.
    pub fn on(&self, today: Date) -> u64 {
        if self.day == Some(today) { self.count } else { 0 }
    }
}

/// The share of time asleep, 0 to 1: `asleep` of all the time that was `counted`; absent when that is none.
pub fn asleep_share(asleep: Duration, counted: Duration) -> Option<f64> {
    (!counted.is_zero()).then(|| (asleep.as_secs_f64() / counted.as_secs_f64()).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(values: impl IntoIterator<Item = u64>) -> WakeDurations {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn quantiles_are_durations_that_were_measured() {
        let check = |values: &[u64], share, expected: Option<u64>| {
            let found = millis(values.iter().copied()).quantile(share);
            assert_eq!(found, expected.map(Duration::from_millis), "{values:?} {share}");
        };
        check(&[], 0.5, None);
        check(&[7], 0.5, Some(7));
        check(&[4, 1, 3, 2], 0.5, Some(2));
        check(&[4, 1, 3, 2], 0.95, Some(4));
        check(&(1..=20).collect::<Vec<_>>(), 0.95, Some(19));
        check(&[5, 6], 0.0, Some(5));
    }

    #[test]
    fn only_the_last_fifty_are_kept() {
        let durations = millis(0..120);
        assert_eq!(durations.iter().len(), 50);
        assert_eq!(durations.iter().next(), Some(Duration::from_millis(70)));
    }

    #[test]
    fn a_new_day_begins_at_nothing() {
        let (monday, tuesday) = (jiff::civil::date(2026, 11, 23), jiff::civil::date(2026, 11, 24));
        let mut wakes = WakesToday::default();
        wakes.add(monday);
        wakes.add(monday);
        assert_eq!((wakes.on(monday), wakes.on(tuesday)), (2, 0));
        wakes.add(tuesday);
        assert_eq!((wakes.on(monday), wakes.on(tuesday)), (0, 1));
        assert_eq!(wakes.last(), Some((tuesday, 1)));
        assert_eq!(WakesToday::new(tuesday, 1), wakes);
        assert_eq!(WakesToday::new(monday, 0), WakesToday::default());
    }

    #[test]
    fn the_share_of_time_asleep_is_never_above_one() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert_eq!(asleep_share(minutes(9), minutes(10)), Some(0.9));
        assert_eq!(asleep_share(minutes(11), minutes(10)), Some(1.0));
        assert_eq!(asleep_share(minutes(0), minutes(0)), None);
    }
}
