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

/// So many are found by one look: as many as may come until the next.
const FOUND: usize = 1024;

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
pub(in crate::proxy) struct Guest(Rc<Taken>);

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
pub(in crate::proxy) struct Guests {
    all: RefCell<Vec<Rc<Taken>>>,
    /// Those who were quiet longest at the last look, and since when.
    found: RefCell<VecDeque<(Rc<Taken>, At, Instant)>>,
    /// When it is worth looking again.
    next_look: Cell<Option<Instant>>,
}

impl Guests {
    /// A client came. `serve` is given its guest and begins its task.
    pub(in crate::proxy) fn add(self: &Rc<Self>, serve: impl FnOnce(Guest) -> AbortHandle) {
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
    pub(in crate::proxy) fn make_room(&self) -> bool {
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
    /// It has its place since then, and has said nothing yet.
    pub(in crate::proxy) fn silent(&self, since: Instant) {
        self.0.begin(At::Silent, since);
    }

    /// Nothing is asked since then. One that never said anything stays one.
    #[inline]
    pub(in crate::proxy) fn quiet(&self, since: Instant) {
        if self.0.at.get() != At::Silent {
            self.0.begin(At::Quiet, since);
        }
    }

    /// A head has begun, or a handshake.
    pub(in crate::proxy) fn half(&self, since: Instant) {
        self.0.begin(At::Half, since);
    }

    /// Something is done for its client.
    #[inline]
    pub(in crate::proxy) fn busy(&self) {
        self.0.at.set(At::Busy);
        self.0.leaves.set(false);
    }

    /// It does not leave after all: its client has just gone on.
    pub(in crate::proxy) fn stays(&self, cx: &Context<'_>) {
        self.0.leaves.set(false);
        self.leaves(cx);
    }

    /// Whether it is quiet, and is to give up its place. Otherwise this task is woken when that is so.
    #[inline]
    pub(in crate::proxy) fn leaves(&self, cx: &Context<'_>) -> bool {
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
#[path = "guests_tests.rs"]
mod tests;
