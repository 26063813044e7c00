//! A member that fails is left out for a while, and longer each time. Pure; moments are milliseconds of any clock.

/// So many failures in a row are no chance.
const FAILURES: u8 = 3;

/// How long it is left out the first time, in milliseconds.
const FIRST: u64 = 1_000;

/// It is never left out for longer.
const LONGEST: u64 = 60_000;

/// What is remembered of a member. Fits into a word, so that it can be changed in one atomic step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outlier {
    /// Failures since the last answer, or since it was last left out.
    failures: u8,
    /// How often it was left out since the last answer.
    times: u8,
    /// It is left out until then.
    until: u64,
}

impl Outlier {
    /// Whether it is left out.
    pub fn is_out(self, now: u64) -> bool {
        self.until > now
    }

    /// It took no connection: it is left out at once.
    #[must_use]
    pub fn refused(self, now: u64) -> Self {
        // Those under way to it when it fell ill tell nothing new.
        if self.is_out(now) { self } else { self.leave_out(now) }
    }

    /// It took a request, and gave no proper answer.
    #[must_use]
    pub fn failed(self, now: u64) -> Self {
        match self.failures + 1 {
            _ if self.is_out(now) => self,
            // What came back after it had been left out has one try.
            _ if self.times > 0 => self.leave_out(now),
            FAILURES.. => self.leave_out(now),
            failures => Self { failures, ..self },
        }
    }

    /// It answered: all is forgotten.
    #[must_use]
    pub fn answered(self) -> Self {
        Self::default()
    }

    fn leave_out(self, now: u64) -> Self {
        let pause = (FIRST << self.times.min(16)).min(LONGEST);
        Self { failures: 0, times: self.times.saturating_add(1), until: now + pause }
    }

    /// As a word.
    pub fn to_word(self) -> u64 {
        self.until << 16 | u64::from(self.times) << 8 | u64::from(self.failures)
    }

    /// From such a word.
    pub fn from_word(word: u64) -> Self {
        let [.., times, failures] = word.to_be_bytes();
        Self { failures, times, until: word >> 16 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_takes_no_connection_is_left_out_at_once_and_longer_each_time() {
        let mut now = 5;
        let mut one = Outlier::default();
        for pause in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            one = one.refused(now);
            assert!(one.is_out(now) && one.is_out(now + pause - 1) && !one.is_out(now + pause), "{one:?}");
            now += pause;
        }
        assert!(!one.answered().is_out(now));
        assert_eq!(one.answered().refused(now).until, now + 1_000);
    }

    #[test]
    fn three_failures_in_a_row_leave_it_out_and_one_more_after_that_again() {
        let two = Outlier::default().failed(0).failed(0);
        assert!(!two.is_out(0));
        assert!(!two.answered().failed(0).is_out(0));
        let out = two.failed(0);
        assert!(out.is_out(999) && !out.is_out(1_000));
        assert!(out.failed(1_000).is_out(2_999));
    }

    #[test]
    fn what_was_under_way_when_it_was_left_out_does_not_count() {
        let out = Outlier::default().refused(0);
        assert_eq!(out.refused(10), out);
        assert_eq!(out.failed(10), out);
    }

    proptest! {
        #[test]
        fn it_fits_into_a_word(failures in 0..3u8, times in any::<u8>(), until in 0..1u64 << 47) {
            let one = Outlier { failures, times, until };
            prop_assert_eq!(Outlier::from_word(one.to_word()), one);
        }
    }
}
