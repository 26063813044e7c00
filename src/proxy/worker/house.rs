//! How many may be connected in all. Who comes when every place is taken waits a moment, while those who are quiet are
//! asked for theirs: the bound is one for all workers, and who can be spared may be anywhere, so each worker answers
//! for its own clients.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::telemetry::ConnectionCounters;

/// How long one may wait for a place that somebody gives up.
const PATIENCE: Duration = Duration::from_millis(750);

/// How often it looks whether there is one, and asks for one.
const LOOK: Duration = Duration::from_millis(25);

/// So many wait at once; more are turned away without.
const WAITING: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct House {
    pub(super) counters: Arc<ConnectionCounters>,
    /// Who waits for a place; who does has none.
    waiting: AtomicUsize,
    /// So many places are asked for. A std mutex: held while a worker looks who can be spared, so that no two give up
    /// places for the same one.
    asked: Mutex<usize>,
    /// Tells every worker that there is something to answer.
    asks: Notify,
}

impl House {
    /// Whether there is a place, at once or in a moment. It is taken then, until `leave`.
    pub(super) async fn enter(&self, most: usize) -> bool {
        self.take(most) || Box::pin(self.wait(most)).await
    }

    /// A place that was taken is free.
    pub(super) fn leave(&self) {
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Answers those who ask for a place, by what one worker can give up. Never ends.
    pub(super) async fn answer(&self, mut make_room: impl FnMut() -> bool) -> Infallible {
        loop {
            // From here on it hears of those who ask, also while it looks.
            let asks = self.asks.notified();
            self.give(&mut make_room);
            asks.await;
        }
    }

    fn give(&self, make_room: &mut impl FnMut() -> bool) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        while *asked > 0 && make_room() {
            *asked -= 1;
        }
    }

    fn take(&self, most: usize) -> bool {
        let more = |open| (open < most).then_some(open + 1);
        self.counters.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Has clients who are quiet give up their places, until there is one.
    async fn wait(&self, most: usize) -> bool {
        let Some(_waits) = Waits::begin(&self.waiting) else { return false };
        let since = Instant::now();
        loop {
            self.ask();
            tokio::time::sleep(LOOK).await;
            if self.take(most) {
                return true;
            }
            if since.elapsed() >= PATIENCE {
                return false;
            }
        }
    }

    fn ask(&self) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has gone meanwhile needs none.
        *asked = (*asked + 1).min(self.waiting.load(Ordering::Relaxed));
        drop(asked);
        self.asks.notify_waiters();
    }
}

/// One who waits, until it is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Option<Self> {
        let waits = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < WAITING).then_some(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::{FutureExt, future::join_all};

    use super::*;

    fn open(house: &House) -> usize {
        house.counters.open.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_who_wait_as_many_get_in_as_places_become_free() {
        let house = House::default();
        assert!(house.enter(2).await && house.enter(2).await);
        let leaves = async {
            tokio::time::sleep(PATIENCE / 2).await;
            assert_eq!(open(&house), 2, "who waits has no place");
            house.leave();
        };
        let (entered, ()) = tokio::join!(join_all((0..5).map(|_| house.enter(2))), leaves);
        assert_eq!(entered.iter().filter(|is_in| **is_in).count(), 1);
        assert_eq!(open(&house), 2);
        // Nothing is left behind of the others.
        house.leave();
        assert!(house.enter(2).now_or_never().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lower_bound_lets_nobody_in_until_enough_have_left() {
        let house = House::default();
        assert!(house.enter(3).await && house.enter(3).await && house.enter(3).await);
        house.leave();
        assert!(!house.enter(1).await);
        house.leave();
        assert!(!house.enter(1).await);
        house.leave();
        assert!(house.enter(1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn any_worker_gives_up_places_and_all_together_no_more_than_are_asked_for() {
        let house = House::default();
        for _ in 0..9 {
            assert!(house.enter(9).await);
        }
        // The one that hears of it first has nobody to spare.
        let given = [Cell::new(0), Cell::new(0)];
        let spares = |given: &Cell<usize>| {
            given.set(given.get() + 1);
            house.leave();
            true
        };
        let come = async {
            // By then all listen.
            tokio::time::sleep(LOOK).await;
            join_all((0..3).map(|_| house.enter(9))).await
        };
        let entered = tokio::select! {
            never = house.answer(|| false) => match never {},
            never = house.answer(|| spares(&given[0])) => match never {},
            never = house.answer(|| spares(&given[1])) => match never {},
            entered = come => entered,
        };
        assert_eq!(entered, [true; 3]);
        assert_eq!((given[0].get() + given[1].get(), open(&house)), (3, 9));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_so_many() {
        let house = House::default();
        assert!(house.enter(1).await);
        let mut waiting: Vec<_> = (0..WAITING).map(|_| Box::pin(house.enter(1))).collect();
        assert!(waiting.iter_mut().all(|waits| waits.now_or_never().is_none()));
        assert_eq!(house.enter(1).now_or_never(), Some(false));
        drop(waiting);
        assert_eq!(house.enter(1).now_or_never(), None, "there is room to wait again");
    }
}
