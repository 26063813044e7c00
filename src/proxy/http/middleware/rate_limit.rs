//! `rate_limit`: so many requests of each client in a time.
//!
//! Of each client one time is kept: when all it has asked for would be paid off. Once that has passed it is the same
//! as if the client had never come: such clients are forgotten when there is no room for new ones.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use dashmap::DashMap;

use crate::model::RateLimit;

use super::{super::answer::Answer, chain::Refusal, ledger::Key};

/// Clients that are remembered at most. When there are more, the new ones are let in uncounted: who has so many
/// addresses is not held by a rate for each, and must not shut out all others.
const MOST: usize = 100_000;

/// How often is looked for clients to forget, at most.
const PAUSE: u64 = Duration::from_secs(1).as_nanos() as u64;

/// When each client is quit, in nanoseconds since the beginning.
#[derive(Debug)]
pub(super) struct Rates {
    quit: DashMap<Key, u64>,
    began: Instant,
    looked: AtomicU64,
}

impl Default for Rates {
    fn default() -> Self {
        Self { quit: DashMap::new(), began: Instant::now(), looked: AtomicU64::new(0) }
    }
}

impl Rates {
    /// Counts a request. An error is how long the client has to wait.
    fn count(&self, limit: &RateLimit, key: Key, now: Duration) -> Result<(), Duration> {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let (now, each) = (nanos(now), nanos(limit.each));
        let credit = each.saturating_mul(u64::from(limit.burst - 1));
        if !self.quit.contains_key(&key) && self.quit.len() >= MOST && !self.forget(now) {
            return Ok(());
        }
        let mut quit = self.quit.entry(key).or_insert(now);
        let debt = quit.saturating_sub(now);
        if debt > credit {
            return Err(Duration::from_nanos(debt - credit));
        }
        *quit = now.max(*quit).saturating_add(each);
        Ok(())
    }

    /// Forgets those that are quit; says whether there is room then.
    fn forget(&self, now: u64) -> bool {
        let looked = self.looked.load(Ordering::Relaxed);
        let due = now.saturating_sub(looked) >= PAUSE;
        if due && self.looked.compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.quit.retain(|_, quit| *quit > now);
        }
        self.quit.len() < MOST
    }
}

pub(super) fn check(rates: &Rates, limit: &RateLimit, key: Key) -> Result<(), Refusal> {
    rates.count(limit, key, rates.began.elapsed()).map_err(|wait| {
        let answer = Answer::new(429, "Too many requests came from your address.").retry_after(wait);
        Refusal::new("it asks too often", answer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_average() {
        let rates = Rates::default();
        let limit = RateLimit { each: Duration::from_millis(100), burst: 3 };
        let count = |at: u64| rates.count(&limit, (1, None), Duration::from_millis(at));
        assert_eq!([count(0), count(0), count(0)], [Ok(()); 3]);
        assert_eq!(count(0), Err(Duration::from_millis(100)));
        assert_eq!(count(40), Err(Duration::from_millis(60)));
        assert_eq!(count(100), Ok(()));
        assert!(count(150).is_err());
        assert_eq!([count(1000), count(1000), count(1000)], [Ok(()); 3]);
        assert!(count(1000).is_err());
        // Others have their own.
        assert_eq!(rates.count(&limit, (2, None), Duration::from_millis(1000)), Ok(()));
    }

    #[test]
    fn those_who_are_quit_are_forgotten() {
        let rates = Rates::default();
        let limit = RateLimit { each: Duration::from_secs(1), burst: 1 };
        for client in 0..MOST as u64 {
            assert!(rates.count(&limit, (client, None), Duration::from_secs(2)).is_ok());
        }
        let late = |at| rates.count(&limit, (u64::MAX, None), Duration::from_millis(at));
        // No room: let in, and not counted.
        assert_eq!([late(2500), late(2500)], [Ok(()); 2]);
        assert_eq!(late(9000), Ok(()));
        assert!(late(9000).is_err());
        assert_eq!(rates.quit.len(), 1);
    }
}
