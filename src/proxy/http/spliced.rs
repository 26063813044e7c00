//! The part of a body that the kernel moves from one socket to the other without showing it to us (`splice`).
//!
//! Only where nothing has to be seen or changed: a body of known length, as it comes, both ways in clear.

use std::{
    io,
    task::{Context, Poll, ready},
};

use tokio::net::TcpStream;

use crate::net::Pipe;

/// Less than this is copied: the way through a pipe has a price of its own.
pub(super) const LEAST: u64 = 32 * 1024;

/// Where less comes at a time, copying is cheaper.
const LITTLE: usize = 16 * 1024;

/// What is on its way through a pipe.
#[derive(Debug, Default)]
pub(super) struct Spliced {
    /// Held while it is needed alone: a pipe is two descriptors.
    pipe: Option<Pipe>,
    /// Much came at a time, the last time.
    flows: bool,
    /// One of these sockets can not be spliced.
    refused: bool,
}

impl Spliced {
    /// `flows`: much came at a time.
    pub(super) fn new(flows: bool) -> Self {
        Self { flows, ..Self::default() }
    }

    /// So much was read in the usual way.
    pub(super) fn saw(&mut self, count: usize) {
        self.flows = count >= LITTLE;
    }

    /// Nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.pipe.as_ref().is_none_or(Pipe::is_empty)
    }

    /// Nothing more comes, or not this way: the pipe is for others.
    pub(super) fn rest(&mut self) {
        self.pipe = None;
    }

    /// Whether a body of which so much is left goes this way, as things are.
    pub(super) fn takes(&self, left: u64) -> bool {
        self.flows && !self.refused && (left >= LEAST || self.pipe.is_some())
    }

    /// Moves what the sender has of the `left` bytes; the last part must have been written. Nothing: it must be read in
    /// the usual way.
    ///
    /// # Errors
    ///
    /// The sender's connection failed, or ended, which is too early.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        left: u64,
    ) -> Poll<io::Result<Option<u64>>> {
        loop {
            if from.poll_read_ready(cx)?.is_pending() {
                self.pipe = None;
                return Poll::Pending;
            }
            let Some(pipe) = self.pipe.take().or_else(Pipe::lend) else { return Poll::Ready(Ok(None)) };
            let pipe = self.pipe.insert(pipe);
            match pipe.fill(from, usize::try_from(left).unwrap_or(usize::MAX)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    self.saw(count);
                    return Poll::Ready(Ok(Some(count as u64)));
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) if Pipe::is_refusal(&error) => {
                    (self.pipe, self.refused) = (None, true);
                    return Poll::Ready(Ok(None));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes what is on its way; says how much of it was.
    ///
    /// # Errors
    ///
    /// The receiver's connection failed.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<u64>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(to.poll_write_ready(cx))?;
            match pipe.drain(to) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => return Poll::Ready(Ok(count as u64)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
