//! Memory for the work on a request, used again and again.
//!
//! A connection waits most of its life, and holds none of it meanwhile. With many requests under way at once the
//! allocator's own shelves overflow, and a piece of this size costs it five hundred instructions.

use std::{cell::RefCell, mem, pin::Pin, rc::Rc};

use bumpalo::{Bump, boxed};

/// At most so many are kept by a worker.
const KEPT: usize = 64;

/// The room of one that is kept, in bytes.
const LARGEST: usize = 8 * 1024;

/// The unused arenas of one worker.
#[derive(Debug, Default)]
pub(super) struct Arenas(RefCell<Vec<Bump>>);

/// An arena that is lent. It goes back when this is dropped, with all that is in it.
#[derive(Debug)]
pub(super) struct Arena {
    bump: Bump,
    home: Rc<Arenas>,
}

/// A future in an arena.
pub(super) type Held<'a, F> = Pin<boxed::Box<'a, F>>;

impl Arenas {
    /// Lends an empty one.
    pub(super) fn lend(self: &Rc<Self>) -> Arena {
        Arena { bump: self.0.borrow_mut().pop().unwrap_or_default(), home: Rc::clone(self) }
    }
}

impl Arena {
    /// A future that is built in its place here: what is built on the stack and copied costs hundreds of instructions.
    #[inline(always)]
    #[allow(unsafe_code, reason = "the library has no way to build what it boxes in its place")]
    pub(super) fn hold<F: Future>(&self, build: impl FnOnce() -> F) -> Held<'_, F> {
        let place = self.bump.alloc_with(build);
        // SAFETY: it was put there by the line above, so nobody else knows of it, and it lives as long as the borrow of
        // the arena, which can not be emptied meanwhile.
        unsafe { boxed::Box::from_raw(place) }.into()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let mut kept = self.home.0.borrow_mut();
        if kept.len() < KEPT && self.bump.allocated_bytes() <= LARGEST {
            self.bump.reset();
            kept.push(mem::take(&mut self.bump));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_is_dropped_and_its_place_used_again() {
        let (arenas, witness) = (Rc::new(Arenas::default()), Rc::new(()));
        let mut places = Vec::new();
        for _ in 0..3 {
            let arena = arenas.lend();
            let inside = Rc::clone(&witness);
            let held = arena.hold(|| async move {
                tokio::task::yield_now().await;
                Rc::strong_count(&inside)
            });
            places.push(std::ptr::from_ref(held.as_ref().get_ref()) as usize);
            assert_eq!(held.await, 2);
            assert_eq!(Rc::strong_count(&witness), 1);
        }
        assert_eq!(places, [places[0]; 3]);
    }

    #[test]
    fn no_more_are_kept_than_a_worker_needs() {
        let arenas = Rc::new(Arenas::default());
        let lent: Vec<_> = (0..KEPT + 1).map(|_| arenas.lend()).collect();
        drop(lent);
        assert_eq!(arenas.0.borrow().len(), KEPT);
        let large = arenas.lend();
        drop(large.hold(|| std::future::ready([0_u8; LARGEST])));
        drop(large);
        assert_eq!(arenas.0.borrow().len(), KEPT - 1);
    }
}
