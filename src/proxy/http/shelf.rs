//! What a head is kept in, used again and again.
//!
//! With many requests under way at once the allocator's own shelves overflow: four allocations a request cost 1,500
//! instructions, this costs 100.

use std::{
    cell::RefCell,
    fmt, mem,
    ops::{Deref, DerefMut},
    rc::Rc,
};

use super::request_head::Field;

/// At most so many are kept by a worker.
const KEPT: usize = 64;

/// The room of one that is kept, in bytes and in fields: that of nearly all heads.
const LARGEST: (usize, usize) = (4096, 64);

/// What a head is kept in.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// A copy of the head.
    pub(super) bytes: Vec<u8>,
    /// What was understood of its first line.
    pub(super) text: String,
    pub(super) fields: Vec<Field>,
}

/// The unused parts of one worker.
#[derive(Debug, Default)]
pub(super) struct Shelf(RefCell<Vec<Parts>>);

/// Parts that are lent. They go back when this is dropped.
pub(super) struct Lent {
    parts: Parts,
    home: Rc<Shelf>,
}

impl Shelf {
    /// Lends empty parts.
    pub(super) fn lend(self: &Rc<Self>) -> Lent {
        Lent { parts: self.0.borrow_mut().pop().unwrap_or_default(), home: Rc::clone(self) }
    }
}

impl Deref for Lent {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.parts
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Parts { bytes, text, fields } = &mut self.parts;
        if bytes.capacity().max(text.capacity()) > LARGEST.0 || fields.capacity() > LARGEST.1 {
            return;
        }
        bytes.clear();
        text.clear();
        fields.clear();
        let mut shelf = self.home.0.borrow_mut();
        if shelf.len() < KEPT {
            shelf.push(mem::take(&mut self.parts));
        }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_empty_and_not_at_all_when_they_are_large() {
        let shelf = Rc::new(Shelf::default());
        let mut lent = shelf.lend();
        lent.bytes.extend_from_slice(b"head");
        drop(lent);
        let mut again = shelf.lend();
        assert!(again.bytes.is_empty() && again.bytes.capacity() >= 4);
        again.bytes.resize(LARGEST.0 + 1, 0);
        drop(again);
        assert_eq!(shelf.0.borrow().len(), 0);
    }
}
