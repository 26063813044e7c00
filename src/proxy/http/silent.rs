//! Clients that have a place and have said nothing yet. When places run out, the one that is silent longest gives its.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

/// So long a client may be silent even when places run out: its first bytes may be on their way.
const GRACE: Duration = Duration::from_secs(1);

/// Spoken-for entries are swept out when so many more than the silent ones have come.
const SWEEP: usize = 64;

/// Held by a connection until its client's first byte has come.
#[derive(Debug)]
pub(super) struct Silence(Rc<Cell<bool>>);

impl Drop for Silence {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[derive(Debug)]
struct Newcomer {
    since: Instant,
    silent: Rc<Cell<bool>>,
    task: AbortHandle,
}

/// The newcomers of one worker, in the order in which they came. Costs one entry for each connection, and nothing for
/// a request.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    queue: RefCell<VecDeque<Newcomer>>,
    /// The length at which those who have spoken are swept out.
    sweep_at: Cell<usize>,
}

impl Newcomers {
    /// A client came. `serve` is given its silence and begins its task.
    pub(super) fn add(&self, serve: impl FnOnce(Silence) -> AbortHandle) {
        let silent = Rc::new(Cell::new(true));
        let task = serve(Silence(Rc::clone(&silent)));
        let mut queue = self.queue.borrow_mut();
        while queue.front().is_some_and(|first| !first.silent.get()) {
            queue.pop_front();
        }
        // Behind a silent one the others stay in the queue. They are swept out before they are too many.
        if queue.len() > self.sweep_at.get() {
            queue.retain(|newcomer| newcomer.silent.get());
            self.sweep_at.set(2 * queue.len() + SWEEP);
        }
        queue.push_back(Newcomer { since: Instant::now(), silent, task });
    }

    /// Ends the connection that is silent longest, if it is so for long enough. Says whether there was one: its place
    /// is free in a moment.
    pub(super) fn end_the_oldest(&self) -> bool {
        let mut queue = self.queue.borrow_mut();
        while let Some(first) = queue.front() {
            let silent = first.silent.get();
            if silent && first.since.elapsed() < GRACE {
                return false;
            }
            if silent {
                first.task.abort();
            }
            queue.pop_front();
            if silent {
                return true;
            }
        }
        false
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.queue.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    /// Adds one who stays silent for ever; whoever takes the silence out makes it speak.
    fn silent_one(newcomers: &Newcomers) -> Rc<RefCell<Option<Silence>>> {
        let held = Rc::new(RefCell::new(None));
        let inside = Rc::clone(&held);
        newcomers.add(|silence| {
            *inside.borrow_mut() = Some(silence);
            let held = Rc::clone(&inside);
            let task = spawn_local(async move {
                pending::<()>().await;
                drop(held);
            });
            task.abort_handle()
        });
        held
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_silent_one_ends_first_and_only_after_a_while() {
        let test = async {
            let newcomers = Newcomers::default();
            let [first, second, third] = [silent_one(&newcomers), silent_one(&newcomers), silent_one(&newcomers)];
            assert!(!newcomers.end_the_oldest(), "they have just come");
            first.borrow_mut().take();
            tokio::time::sleep(GRACE).await;
            let late = silent_one(&newcomers);
            assert!(newcomers.end_the_oldest());
            tokio::time::sleep(Duration::from_millis(1)).await;
            // The task of an ended one is gone, and with it its share.
            let shares = [&first, &second, &third, &late].map(|held| Rc::strong_count(held) > 1);
            assert_eq!(shares, [true, false, true, true]);
            assert!(newcomers.end_the_oldest());
            assert!(!newcomers.end_the_oldest(), "the last one has just come");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_one_in_front_does_not_keep_those_who_spoke() {
        let test = async {
            let newcomers = Newcomers::default();
            let _first = silent_one(&newcomers);
            for _ in 0..1000 {
                silent_one(&newcomers).borrow_mut().take();
            }
            assert!(newcomers.len() <= 3 * SWEEP, "{} are kept", newcomers.len());
        };
        LocalSet::new().run_until(test).await;
    }
}
