//! `in_flight_limit`: so many requests at once, of all clients together or of each.

use std::{sync::Arc, time::Duration};

use dashmap::{DashMap, Entry};

use crate::model::InFlightLimit;

use super::{
    super::answer::Answer,
    chain::Refusal,
    ledger::{Key, Ledger},
};

/// How many are in flight. What is zero is not there.
#[derive(Debug, Default)]
pub(super) struct Flights(DashMap<Key, u32>);

impl Flights {
    fn begin(&self, key: Key, most: u32) -> bool {
        let mut count = self.0.entry(key).or_insert(0);
        let fits = *count < most;
        *count += u32::from(fits);
        fits
    }

    fn end(&self, key: Key) {
        if let Entry::Occupied(mut count) = self.0.entry(key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// A place among those in flight, given back when it is dropped.
pub(super) struct Place {
    ledger: Arc<Ledger>,
    key: Key,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ledger.flights.end(self.key);
    }
}

pub(super) fn take(ledger: &Arc<Ledger>, limit: &InFlightLimit, key: Key) -> Result<Place, Refusal> {
    if ledger.flights.begin(key, limit.amount) {
        return Ok(Place { ledger: Arc::clone(ledger), key });
    }
    let (status, detail) = if limit.per_client {
        (429, "Too many requests of yours are in flight.")
    } else {
        (503, "Too many requests are in flight.")
    };
    let answer = Answer::new(status, detail).retry_after(Duration::from_secs(1));
    Err(Refusal::new("too many are in flight", answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_and_nothing_is_kept() {
        let flights = Flights::default();
        assert_eq!([(); 3].map(|()| flights.begin((1, None), 2)), [true, true, false]);
        assert!(flights.begin((2, None), 1));
        flights.end((1, None));
        assert!(flights.begin((1, None), 2));
        [1, 1, 2].into_iter().for_each(|route| flights.end((route, None)));
        assert!(flights.0.is_empty());
    }
}
