//! What is to be written next, in a few pieces that stay where they were read.
//!
//! A head and the body that came with it fill more than one buffer. Written together they cost one system call and no
//! copy.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

use crate::net::WriteHalf;

use super::buffer::Buf;

/// At most so many: a head, what of the body came with it, and what was read behind that.
const MOST: usize = 3;

/// Pieces to be written in their order. None is empty, and none comes behind a gap.
#[derive(Debug, Default)]
pub(super) struct Pieces([Option<Buf>; MOST]);

impl Pieces {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.0, [None, ..])
    }

    /// Adds what is in `buf` at the end.
    pub(super) fn push(&mut self, buf: Buf) {
        if buf.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|piece| piece.is_none()) {
            Some(free) => *free = Some(buf),
            None => self.0.iter_mut().rev().flatten().take(1).for_each(|last| last.push(buf.filled())),
        }
    }

    /// Adds a copy of everything at the end of `out`.
    pub(super) fn copy_to(&self, out: &mut Buf) {
        self.0.iter().flatten().for_each(|piece| out.push(piece.filled()));
    }

    /// Writes what the sink takes at once, and says how much that was.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, sink: &mut WriteHalf<'_>) -> Poll<io::Result<usize>> {
        let sink = Pin::new(sink);
        let wrote = match &self.0 {
            [Some(only), None, ..] => sink.poll_write(cx, only.filled()),
            pieces => {
                let slices = pieces.each_ref().map(|piece| IoSlice::new(piece.as_ref().map_or(&[], Buf::filled)));
                sink.poll_write_vectored(cx, &slices)
            }
        };
        wrote.map_ok(|count| {
            self.consume(count);
            count
        })
    }

    /// So much from the front was written.
    fn consume(&mut self, mut count: usize) {
        let mut gone = 0;
        for piece in &mut self.0 {
            let Some(buf) = piece else { break };
            let here = count.min(buf.len());
            buf.consume(here);
            count -= here;
            if !buf.is_empty() {
                break;
            }
            *piece = None;
            gone += 1;
        }
        self.0.rotate_left(gone);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::proxy::http::buffer::Buffers;

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
