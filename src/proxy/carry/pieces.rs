//! What is to be written next, in a few pieces that stay where they were read.
//!
//! A head and the body that came with it fill more than one buffer. Written together they cost one system call and no
//! copy.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use thin_vec::ThinVec;
use tokio::io::AsyncWrite;

use crate::net::WriteHalf;

use super::buffer::Buf;

/// At most so many behind the first: of what came of the body with its head, and of what was read behind that.
const MORE: usize = 2;

/// Pieces to be written in their order. None is empty. Mostly there is one.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Pieces {
    first: Option<Buf>,
    /// None without a first.
    more: ThinVec<Buf>,
}

impl Pieces {
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Adds what is in `buf` at the end.
    pub(in crate::proxy) fn push(&mut self, buf: Buf) {
        if buf.is_empty() {
            return;
        }
        let is_full = self.more.len() == MORE;
        match (&self.first, self.more.last_mut()) {
            (None, _) => self.first = Some(buf),
            (Some(_), Some(last)) if is_full => last.push(buf.filled()),
            (Some(_), _) => self.more.push(buf),
        }
    }

    /// Adds a copy of everything at the end of `out`.
    pub(in crate::proxy) fn copy_to(&self, out: &mut Buf) {
        self.first.iter().chain(&self.more).for_each(|piece| out.push(piece.filled()));
    }

    /// Writes what the sink takes at once, and says how much that was.
    pub(in crate::proxy) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut WriteHalf<'_>,
    ) -> Poll<io::Result<usize>> {
        let sink = Pin::new(sink);
        let first = self.first.as_ref().map_or(&[][..], Buf::filled);
        let wrote = if self.more.is_empty() {
            sink.poll_write(cx, first)
        } else {
            let mut slices = [IoSlice::new(first); 1 + MORE];
            slices.iter_mut().skip(1).zip(&self.more).for_each(|(slice, piece)| *slice = IoSlice::new(piece.filled()));
            sink.poll_write_vectored(cx, slices.get(..=self.more.len()).unwrap_or_default())
        };
        wrote.map_ok(|count| {
            self.consume(count);
            count
        })
    }

    /// So much from the front was written.
    fn consume(&mut self, mut count: usize) {
        while let Some(first) = &mut self.first {
            let here = count.min(first.len());
            first.consume(here);
            count -= here;
            if !first.is_empty() {
                return;
            }
            self.first = if self.more.is_empty() { None } else { Some(self.more.remove(0)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::proxy::carry::Buffers;

    fn pieces(texts: &[&str]) -> (Pieces, Rc<Buffers>) {
        let home = Rc::new(Buffers::default());
        let mut pieces = Pieces::default();
        for text in texts {
            let mut buf = home.lend();
            buf.push(text.as_bytes());
            pieces.push(buf);
        }
        (pieces, home)
    }

    fn rest(pieces: &Pieces, home: &Rc<Buffers>) -> String {
        let mut out = home.lend();
        pieces.copy_to(&mut out);
        String::from_utf8(out.filled().to_vec()).unwrap()
    }

    #[test]
    fn what_was_written_is_gone_and_the_rest_stays_in_its_order() {
        for count in 0..=9 {
            let (mut pieces, home) = pieces(&["abc", "", "de", "fghi"]);
            pieces.consume(count);
            assert_eq!(rest(&pieces, &home), "abcdefghi"[count..]);
            assert_eq!(pieces.is_empty(), count == 9);
            let mut more = home.lend();
            more.push(b"jk");
            pieces.push(more);
            assert_eq!(rest(&pieces, &home), format!("{}jk", &"abcdefghi"[count..]), "and more comes behind it");
        }
    }

    #[test]
    fn one_too_many_is_added_to_the_last() {
        let (pieces, home) = pieces(&["a", "b", "c", "d", "e"]);
        assert_eq!(rest(&pieces, &home), "abcde");
    }
}
