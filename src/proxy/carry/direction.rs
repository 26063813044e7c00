//! One way between two connections: bytes as they come, and then their end.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    buffer::{Buf, Buffers},
    pieces::Pieces,
};
use crate::net::{ReadHalf, WriteHalf};

/// Which side of a direction was cut.
pub(super) enum Side {
    Source,
    Sink,
}

/// What is on its way in one direction.
pub(in crate::proxy) struct Direction {
    out: Pieces,
    /// Bytes written.
    pub(super) sent: u64,
    /// Bytes read.
    pub(super) received: u64,
    /// The last read filled its buffer: bulk.
    bulk: bool,
    /// The sender has ended.
    dry: bool,
    /// That was passed on.
    pub(super) ended: bool,
    home: Rc<Buffers>,
}

impl Direction {
    /// `out` is written first, and then what has come already.
    pub(in crate::proxy) fn new(out: Buf, begun: Option<Buf>, home: &Rc<Buffers>) -> Self {
        let bulk = begun.as_ref().is_some_and(Buf::is_full);
        let mut pieces = Pieces::default();
        pieces.push(out);
        begun.into_iter().for_each(|begun| pieces.push(begun));
        Self { out: pieces, sent: 0, received: 0, bulk, dry: false, ended: false, home: Rc::clone(home) }
    }

    /// Something waits to be written.
    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Moves what can be moved. Ready when this direction is over; an error ends both.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut ReadHalf<'_>,
        sink: &mut WriteHalf<'_>,
    ) -> Poll<Result<(), Side>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.poll_flush(cx, sink)).map_err(|_| Side::Sink)?;
            if self.dry {
                break;
            }
            ready!(self.poll_fill(cx, source)).map_err(|_| Side::Source)?;
        }
        ready!(Pin::new(sink).poll_shutdown(cx)).map_err(|_| Side::Sink)?;
        self.ended = true;
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, sink: &mut WriteHalf<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(self.out.poll_write(cx, sink))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count as u64,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, source: &mut ReadHalf<'_>) -> Poll<io::Result<()>> {
        // No buffer is held while there is nothing to read.
        ready!(source.poll_read_ready(cx))?;
        let mut buf = if self.bulk { self.home.lend_big() } else { self.home.lend() };
        let mut spare = ReadBuf::new(buf.spare_mut());
        ready!(Pin::new(source).poll_read(cx, &mut spare))?;
        let count = spare.filled().len();
        (self.bulk, self.dry) = (spare.remaining() == 0, count == 0);
        self.received += count as u64;
        buf.fill(count);
        self.out.push(buf);
        Poll::Ready(Ok(()))
    }
}
