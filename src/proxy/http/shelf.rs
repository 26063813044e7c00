//! What a head is kept in, used again and again.
//!
//! With many requests under way at once the allocator's own shelves overflow: four allocations a request cost 1,500
//! instructions, this costs 100.

use std::{
    cell::RefCell,
    fmt,
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
#[allow(clippy::vec_box, reason = "what is lent is moved often, and is a word so")]
pub(super) struct Shelf(RefCell<Vec<Box<Parts>>>);

/// Parts that are lent. They go back when this is dropped.
pub(super) struct Lent {
    /// There until then.
    parts: Option<Box<Parts>>,
    home: Rc<Shelf>,
}

static NONE: Parts = Parts { bytes: Vec::new(), text: String::new(), fields: Vec::new() };

impl Shelf {
    /// Lends empty parts.
    pub(super) fn lend(self: &Rc<Self>) -> Lent {
        let parts = self.0.borrow_mut().pop().unwrap_or_default();
        Lent { parts: Some(parts), home: Rc::clone(self) }
    }
}

impl Deref for Lent {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.parts.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Parts {
        self.parts.get_or_insert_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else { return };
        let Parts { bytes, text, fields } = &mut *parts;
        if bytes.capacity().max(text.capacity()) > LARGEST.0 || fields.capacity() > LARGEST.1 {
            return;
        }
        bytes.clear();
        text.clear();
        fields.clear();
        let mut shelf = self.home.0.borrow_mut();
        if shelf.len() < KEPT {
            shelf.push(parts);
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
