//! The connection beneath one of HTTP/2, shared by `h2` and the task that drives it.
//!
//! What `h2` writes is gathered and sent when the task has done all it can for now: answers that are ready together
//! leave together. What comes is looked at, frame by frame, before `h2` sees it (`h2_frames`, `h2_marks`).

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{net::Stream, proxy::carry::Buf};

use super::h2_frames::Frames;

/// Looks at the frames of the other side.
pub(super) trait Watch {
    /// This came. So many of the bytes may go on to `h2`: the connection is at its end where that is not all.
    fn look(&mut self, bytes: &[u8]) -> usize;
    /// So many bytes were sent.
    fn sent(&mut self, bytes: usize);
}

impl Watch for Frames {
    fn look(&mut self, bytes: &[u8]) -> usize {
        Self::look(self, bytes)
    }

    fn sent(&mut self, bytes: usize) {
        Self::sent(self, bytes);
    }
}

/// Bytes that are gathered at most.
const GATHERED: usize = 64 * 1024;

/// The room that is kept between two sends.
const KEPT: usize = 16 * 1024;

/// A connection and what waits to be sent on it.
#[derive(Debug)]
pub(super) struct Wire<W> {
    stream: Stream,
    /// What was read already.
    begun: Option<Buf>,
    out: Vec<u8>,
    /// So much of it was sent.
    sent: usize,
    /// `h2` has more than could be taken.
    refused: bool,
    /// What comes is no longer read.
    deaf: bool,
    pub(super) frames: W,
    /// Bytes sent since the connection began.
    pub(super) total: u64,
}

/// What `h2` holds of it.
#[derive(Debug)]
pub(super) struct Handle<W>(pub(super) Rc<RefCell<Wire<W>>>);

impl<W: Watch> Wire<W> {
    pub(super) fn new(stream: Stream, begun: Option<Buf>, frames: W) -> Self {
        Self { stream, begun, out: Vec::new(), sent: 0, refused: false, deaf: false, frames, total: 0 }
    }

    /// Sends all that was gathered. Ready tells whether `h2` has more.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
            self.total += count as u64;
            self.frames.sent(count);
        }
        self.sent = 0;
        self.out.clear();
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
        Poll::Ready(Ok(std::mem::take(&mut self.refused)))
    }

    /// Says that no more will come, as far as that goes without waiting.
    pub(super) fn say_goodbye(&mut self) {
        self.stream.say_goodbye();
    }

    fn gather(&mut self, bytes: &[u8]) -> usize {
        let room = GATHERED.saturating_sub(self.out.len());
        let taken = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        self.out.extend_from_slice(taken);
        taken.len()
    }
}

impl<W: Watch> AsyncRead for Handle<W> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        let before = out.filled().len();
        if wire.deaf {
            // The task has seen why, and ends it.
            return Poll::Pending;
        }
        if let Some(mut begun) = wire.begun.take() {
            let count = begun.len().min(out.remaining());
            out.put_slice(begun.filled().get(..count).unwrap_or_default());
            begun.consume(count);
            wire.begun = Some(begun).filter(|begun| !begun.is_empty());
        } else {
            ready!(Pin::new(&mut wire.stream).poll_read(cx, out))?;
        }
        let came = out.filled().get(before..).unwrap_or_default();
        let (all, good) = (came.len(), wire.frames.look(came));
        if good < all {
            wire.deaf = true;
            out.set_filled(before + good);
            if good == 0 {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: Watch> AsyncWrite for Handle<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        let mut count = 0;
        for part in parts {
            let taken = wire.gather(part);
            count += taken;
            if taken < part.len() {
                break;
            }
        }
        if count == 0 && parts.iter().any(|part| !part.is_empty()) {
            // The task sends next, and asks again then.
            wire.refused = true;
            return Poll::Pending;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The task sees to it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        ready!(wire.poll_send(cx))?;
        Pin::new(&mut wire.stream).poll_shutdown(cx)
    }
}
