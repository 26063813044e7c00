//! Buffers that are lent: a connection that waits holds none.

use std::{cell::RefCell, fmt, mem, rc::Rc};

/// The size of a lent buffer.
pub(in crate::proxy) const SIZE: usize = 16 * 1024;

/// The size of a buffer for bulk.
const BIG: usize = 128 * 1024;

/// At most so many unused buffers are kept by a worker.
const KEPT: usize = 64;

/// At most so many unused buffers for bulk.
const KEPT_BIG: usize = 8;

/// The unused buffers of one worker.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Buffers {
    free: RefCell<Vec<Vec<u8>>>,
    big: RefCell<Vec<Vec<u8>>>,
}

/// A buffer with a filled part. It goes back to its worker when it is dropped.
pub(in crate::proxy) struct Buf {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    home: Rc<Buffers>,
}

impl Buffers {
    /// Lends an empty buffer.
    pub(in crate::proxy) fn lend(self: &Rc<Self>) -> Buf {
        let bytes = self.free.borrow_mut().pop().unwrap_or_else(|| vec![0; SIZE]);
        Buf { bytes, start: 0, end: 0, home: Rc::clone(self) }
    }

    /// Lends an empty buffer for bulk.
    pub(in crate::proxy) fn lend_big(self: &Rc<Self>) -> Buf {
        let bytes = self.big.borrow_mut().pop().unwrap_or_else(|| vec![0; BIG]);
        Buf { bytes, start: 0, end: 0, home: Rc::clone(self) }
    }
}

impl Buf {
    /// What is in it.
    pub(in crate::proxy) fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// What is in it, to be changed in place.
    pub(in crate::proxy) fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    pub(in crate::proxy) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// There is no room behind the filled part.
    pub(in crate::proxy) fn is_full(&self) -> bool {
        self.end == self.bytes.len()
    }

    /// The room behind the filled part.
    pub(in crate::proxy) fn spare_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// So many bytes were put into the spare room.
    pub(in crate::proxy) fn fill(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Takes so many bytes away from the front.
    pub(in crate::proxy) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Keeps only the first so many bytes.
    pub(in crate::proxy) fn truncate(&mut self, count: usize) {
        self.end = self.end.min(self.start + count);
    }

    /// Empties it, with so many bytes left free in front for [`Buf::prepend`].
    pub(in crate::proxy) fn clear_leaving(&mut self, front: usize) {
        (self.start, self.end) = (front.min(self.bytes.len()), front.min(self.bytes.len()));
    }

    /// Puts bytes in front of the filled part, when there is room.
    pub(in crate::proxy) fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(bytes.len()) else { return false };
        match self.bytes.get_mut(start..self.start) {
            Some(room) => room.copy_from_slice(bytes),
            None => return false,
        }
        self.start = start;
        true
    }

    /// Adds bytes at the end and grows where it must.
    #[inline]
    pub(in crate::proxy) fn push(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        if end > self.bytes.len() {
            self.grow(end);
        }
        if let Some(room) = self.bytes.get_mut(self.end..end) {
            room.copy_from_slice(bytes);
        }
        self.end = end;
    }

    #[cold]
    fn grow(&mut self, end: usize) {
        self.bytes.resize(end.max(self.bytes.len() * 2), 0);
    }

    /// Adds `name: value` and the end of the line.
    pub(in crate::proxy) fn push_field(&mut self, name: &[u8], value: &[u8]) {
        let end = self.end + name.len() + value.len() + 4;
        let Some(room) = self.bytes.get_mut(self.end..end) else {
            return [name, b": ", value, b"\r\n"].into_iter().for_each(|part| self.push(part));
        };
        let (first, room) = room.split_at_mut(name.len());
        first.copy_from_slice(name);
        let (colon, room) = room.split_at_mut(2);
        colon.copy_from_slice(b": ");
        let (second, line_end) = room.split_at_mut(value.len());
        second.copy_from_slice(value);
        line_end.copy_from_slice(b"\r\n");
        self.end = end;
    }

    /// Makes room behind the filled part, up to so many bytes in all; says whether there is any.
    pub(in crate::proxy) fn make_room(&mut self, limit: usize) -> bool {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() && self.end < limit {
            self.bytes.resize((self.bytes.len() * 2).min(limit), 0);
        }
        self.end < self.bytes.len()
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let (shelf, kept) = match self.bytes.len() {
            SIZE => (&self.home.free, KEPT),
            BIG => (&self.home.big, KEPT_BIG),
            _ => return,
        };
        let mut shelf = shelf.borrow_mut();
        if shelf.len() < kept {
            shelf.push(mem::take(&mut self.bytes));
        }
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf").field("start", &self.start).field("end", &self.end).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_shrinks_and_goes_home() {
        let home = Rc::new(Buffers::default());
        let mut buf = home.lend();
        buf.push(b"hello world");
        buf.consume(6);
        assert_eq!(buf.filled(), b"world");
        assert!(buf.prepend(b"a "));
        assert_eq!(buf.filled(), b"a world");
        assert!(!buf.prepend(b"too much"));
        drop(buf);
        assert_eq!(home.free.borrow().len(), 1);
        let mut big = home.lend();
        big.push(&vec![1; SIZE + 1]);
        assert_eq!(big.len(), SIZE + 1);
        drop(big);
        assert_eq!(home.free.borrow().len(), 0, "an odd size is not kept");
    }

    #[test]
    fn room_is_made_up_to_the_limit() {
        let home = Rc::new(Buffers::default());
        let mut buf = home.lend();
        buf.push(&[7; SIZE]);
        assert!(!buf.make_room(SIZE));
        assert!(buf.make_room(2 * SIZE));
        assert_eq!(buf.spare_mut().len(), SIZE);
    }
}
