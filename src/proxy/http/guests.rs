//! Who has a place among the connections of a worker, and who gives it up when places run out: clients that say nothing
//! or have nothing to ask, the longest quiet first; then those that do not finish what they began to ask.
//!
//! A request costs a note of when its connection became quiet, and one that it is busy again. Who is quiet longest is
//! looked for only when there is no place left, and never more often than now and then.

use std::{
    cell::{Cell, RefCell},
    collections::{BinaryHeap, VecDeque},
    fmt,
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

/// So long a client may be quiet even when places run out: its next bytes may be on their way.
const GRACE: Duration = Duration::from_secs(1);

/// So long a head may be unfinished even when places run out.
const HALF: Duration = Duration::from_secs(3);

/// So many are found by one look.
const FOUND: usize = 64;

/// The least time between two looks, and between those of which the first found nobody.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// What a connection is at. In this order places are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    /// Nothing came yet: its task is ended from outside.
    Silent,
    /// Nothing is asked: it is told, and ends as its protocol wants it.
    Quiet,
    /// A head has begun, or a handshake, and is not whole: its task is ended from outside.
    Half,
    /// It keeps its place.
    Busy,
}

/// The place of one connection. Given back when this is dropped.
pub(super) struct Guest(Rc<Taken>);

struct Taken {
    /// Where it stands among all.
    index: Cell<usize>,
    at: Cell<At>,
    /// When that began.
    since: Cell<Instant>,
    /// It is told to give up its place.
    leaves: Cell<bool>,
    waker: Cell<Option<Waker>>,
    task: Cell<Option<AbortHandle>>,
    guests: Rc<Guests>,
}

/// The places of one worker that are taken.
#[derive(Default)]
pub(super) struct Guests {
    all: RefCell<Vec<Rc<Taken>>>,
    /// Those who were quiet longest at the last look, and since when.
    found: RefCell<VecDeque<(Rc<Taken>, At, Instant)>>,
    /// When it is worth looking again.
    next_look: Cell<Option<Instant>>,
}

impl Guests {
    /// A client came. `serve` is given its guest and begins its task.
    pub(super) fn add(self: &Rc<Self>, serve: impl FnOnce(Guest) -> AbortHandle) {
        let mut all = self.all.borrow_mut();
        let taken = Rc::new(Taken {
            index: Cell::new(all.len()),
            at: Cell::new(At::Silent),
            since: Cell::new(Instant::now()),
            leaves: Cell::new(false),
            waker: Cell::default(),
            task: Cell::default(),
            guests: Rc::clone(self),
        });
        all.push(Rc::clone(&taken));
        drop(all);
        let task = serve(Guest(Rc::clone(&taken)));
        // One that is gone already needs none: it would stand here for ever.
        if Rc::strong_count(&taken) > 1 {
            taken.task.set(Some(task));
        }
    }

    /// Has the connection end that can be spared best. Says whether there was one: its place is free in a moment.
    pub(super) fn make_room(&self) -> bool {
        self.end_one_found() || (self.look() && self.end_one_found())
    }

    fn end_one_found(&self) -> bool {
        loop {
            let Some((taken, at, since)) = self.found.borrow_mut().pop_front() else { return false };
            // What has gone on meanwhile is left alone.
            if taken.at.get() == at && taken.since.get() == since && taken.end() {
                return true;
            }
        }
    }

    /// Looks for those who were quiet longest.
    fn look(&self) -> bool {
        let now = Instant::now();
        if self.next_look.get().is_some_and(|next| now < next) {
            return false;
        }
        // The one that can be spared least of those found is on top.
        let mut found = BinaryHeap::with_capacity(FOUND + 1);
        for (index, taken) in self.all.borrow().iter().enumerate() {
            let (at, since) = (taken.at.get(), taken.since.get());
            let patience = match at {
                At::Silent | At::Quiet => GRACE,
                At::Half => HALF,
                At::Busy => continue,
            };
            if now.saturating_duration_since(since) >= patience && !taken.leaves.get() {
                found.push((at == At::Half, since, index));
                if found.len() > FOUND {
                    found.pop();
                }
            }
        }
        let pause = if found.is_empty() { LOOKS.1 } else { LOOKS.0 };
        self.next_look.set(Some(now + pause));
        let all = self.all.borrow();
        let found = found.into_sorted_vec().into_iter();
        let found = found.filter_map(|(_, since, index)| all.get(index).map(|taken| (Rc::clone(taken), since)));
        let found: VecDeque<_> = found.map(|(taken, since)| (Rc::clone(&taken), taken.at.get(), since)).collect();
        let any = !found.is_empty();
        *self.found.borrow_mut() = found;
        any
    }
}

impl Taken {
    fn begin(&self, at: At, since: Instant) {
        self.at.set(at);
        self.since.set(since);
    }

    /// Ends it, unless it is about to.
    fn end(&self) -> bool {
        if self.leaves.replace(true) {
            return false;
        }
        match self.at.get() {
            At::Silent | At::Half => self.task.take().is_some_and(|task| {
                task.abort();
                true
            }),
            At::Quiet => {
                if let Some(waker) = self.waker.take() {
                    waker.wake();
                }
                true
            }
            At::Busy => false,
        }
    }
}

impl Guest {
    /// Nothing is asked since then. One that never said anything stays one.
    #[inline]
    pub(super) fn quiet(&self, since: Instant) {
        if self.0.at.get() != At::Silent {
            self.0.begin(At::Quiet, since);
        }
    }

    /// A head has begun, or a handshake.
    pub(super) fn half(&self, since: Instant) {
        self.0.begin(At::Half, since);
    }

    /// Something is done for its client.
    #[inline]
    pub(super) fn busy(&self) {
        self.0.at.set(At::Busy);
        self.0.leaves.set(false);
    }

    /// It does not leave after all: its client has just gone on.
    pub(super) fn stays(&self, cx: &Context<'_>) {
        self.0.leaves.set(false);
        self.leaves(cx);
    }

    /// Whether it is quiet, and is to give up its place. Otherwise this task is woken when that is so.
    #[inline]
    pub(super) fn leaves(&self, cx: &Context<'_>) -> bool {
        if self.0.leaves.get() && self.0.at.get() == At::Quiet {
            return true;
        }
        let waker = self.0.waker.take();
        self.0.waker.set(Some(waker.filter(|waker| waker.will_wake(cx.waker())).unwrap_or_else(|| cx.waker().clone())));
        false
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let taken = &self.0;
        taken.begin(At::Busy, taken.since.get());
        // Nobody keeps a task that has ended.
        drop((taken.waker.take(), taken.task.take()));
        let mut all = taken.guests.all.borrow_mut();
        let index = taken.index.get();
        if index < all.len() {
            let gone = all.swap_remove(index);
            if let Some(moved) = all.get(index) {
                moved.index.set(index);
            }
            drop(all);
            drop(gone);
        }
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guest").field(&self.0.at.get()).finish()
    }
}

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guests").field("taken", &self.all.borrow().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use std::task::Poll;

    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    type Held = Rc<RefCell<Option<Guest>>>;

    /// A client that is silent, and ends when it is told to; its guest can be seen from outside.
    fn client(guests: &Rc<Guests>) -> Held {
        let held = Rc::new(RefCell::new(None));
        let inside = Rc::clone(&held);
        guests.add(|guest| {
            *inside.borrow_mut() = Some(guest);
            struct Gone(Held);
            impl Drop for Gone {
                fn drop(&mut self) {
                    self.0.borrow_mut().take();
                }
            }
            let gone = Gone(Rc::clone(&inside));
            let task = spawn_local(async move {
                poll_fn(|cx| {
                    let leaves = gone.0.borrow().as_ref().is_none_or(|guest| guest.leaves(cx));
                    if leaves { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            });
            task.abort_handle()
        });
        held
    }

    fn tell(held: &Held, what: impl FnOnce(&Guest)) {
        what(held.borrow().as_ref().unwrap());
    }

    async fn who_stays<const N: usize>(clients: [&Held; N]) -> [bool; N] {
        yield_now().await;
        yield_now().await;
        clients.map(|held| held.borrow().is_some())
    }

    async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_quiet_one_ends_first_and_only_after_a_while() {
        let test = async {
            let guests = Rc::new(Guests::default());
            let [first, second, third] = [client(&guests), client(&guests), client(&guests)];
            assert!(!guests.make_room(), "they have just come");
            tell(&first, Guest::busy);
            pass(GRACE / 2).await;
            tell(&third, Guest::busy);
            tell(&third, |guest| guest.quiet(Instant::now()));
            yield_now().await;
            pass(GRACE).await;
            let late = client(&guests);
            assert!(guests.make_room());
            assert_eq!(who_stays([&first, &second, &third, &late]).await, [true, false, true, true]);
            assert!(guests.make_room());
            assert_eq!(who_stays([&first, &second, &third, &late]).await, [true, false, false, true]);
            assert!(!guests.make_room(), "one is busy, and one has just come");
            pass(GRACE).await;
            assert!(guests.make_room());
            assert_eq!(who_stays([&first, &late]).await, [true, false]);
            assert_eq!(guests.all.borrow().len(), 1);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_finish_is_spared_longer_and_who_went_on_is_left_alone() {
        let test = async {
            let guests = Rc::new(Guests::default());
            let clients: Vec<_> = (0..3).map(|_| client(&guests)).collect();
            let [half, quiet, other] = [&clients[0], &clients[1], &clients[2]];
            tell(half, |guest| guest.half(Instant::now()));
            pass(HALF - GRACE / 2).await;
            tell(quiet, Guest::busy);
            tell(other, Guest::busy);
            tell(quiet, |guest| guest.quiet(Instant::now()));
            tell(other, |guest| guest.quiet(Instant::now()));
            pass(GRACE).await;
            assert!(guests.make_room());
            assert_eq!(who_stays([half, quiet, other]).await, [true, false, true]);
            // It was found, too, and has gone on meanwhile.
            tell(other, Guest::busy);
            assert!(guests.make_room());
            assert_eq!(who_stays([half, quiet, other]).await, [false, false, true]);
            assert!(!guests.make_room());
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_at_the_last_moment_stays_and_may_be_asked_again() {
        let test = async {
            let guests = Rc::new(Guests::default());
            let held: Held = Rc::new(RefCell::new(None));
            let (inside, spoke) = (Rc::clone(&held), Rc::new(Cell::new(true)));
            let unread = Rc::clone(&spoke);
            guests.add(|guest| {
                guest.busy();
                guest.quiet(Instant::now());
                *inside.borrow_mut() = Some(guest);
                let task = spawn_local(async move {
                    poll_fn(|cx| {
                        let held = inside.borrow();
                        let guest = held.as_ref().unwrap();
                        match guest.leaves(cx) {
                            true if unread.take() => guest.stays(cx),
                            true => return Poll::Ready(()),
                            false => {}
                        }
                        Poll::Pending
                    })
                    .await;
                    inside.borrow_mut().take();
                });
                task.abort_handle()
            });
            yield_now().await;
            pass(GRACE).await;
            assert!(guests.make_room());
            assert_eq!((who_stays([&held]).await, spoke.get()), ([true], false));
            pass(LOOKS.1).await;
            assert!(guests.make_room(), "it is found again");
            assert_eq!(who_stays([&held]).await, [false]);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_the_longest_quiet_ones_are_found_at_once() {
        let test = async {
            let guests = Rc::new(Guests::default());
            let mut clients = Vec::new();
            for _ in 0..3 * FOUND {
                clients.push(client(&guests));
                pass(Duration::from_millis(1)).await;
            }
            pass(GRACE).await;
            for ended in 1..=2 * FOUND {
                pass(LOOKS.0).await;
                assert!(guests.make_room());
                yield_now().await;
                yield_now().await;
                let left: Vec<_> = clients.iter().map(|held| held.borrow().is_some()).collect();
                assert!(left[..ended].iter().all(|stays| !stays) && left[ended..].iter().all(|stays| *stays));
            }
            assert!(guests.all.borrow().iter().enumerate().all(|(index, taken)| taken.index.get() == index));
        };
        LocalSet::new().run_until(test).await;
    }
}
