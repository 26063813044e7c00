//! Bytes one way between two connections.
//!
//! What waits holds nothing; what has read holds one buffer, and reads no more before that is written: back-pressure.
//! Bulk goes through a pipe instead, without being shown to us (`splice`).

use std::{
    cell::RefCell,
    future::Future,
    io, mem,
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::{both_ways::Ended, pipe::Pipe};

/// The size of a buffer.
pub(super) const SIZE: usize = 64 * 1024;

/// Unused buffers that a thread keeps.
const KEPT: usize = 32;

/// So many reads in a row that fill the buffer are bulk.
const BULK: u8 = 2;

/// A read through the pipe that brings less is no bulk any more.
const LITTLE: usize = 16 * 1024;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Which side of a direction was cut.
pub(super) enum Side {
    Source,
    Sink,
}

impl Side {
    pub(super) fn of(&self, source: Ended, sink: Ended) -> Ended {
        match self {
            Self::Source => source,
            Self::Sink => sink,
        }
    }
}

/// What was read and is not yet written.
enum Held {
    Nothing,
    Bytes { bytes: Vec<u8>, start: usize, end: usize },
    Piped(Pipe),
}

type Reset<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// One direction.
pub(super) struct Direction<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    held: Held,
    /// Reads in a row that filled the buffer.
    full: u8,
    /// The kernel can splice these sockets, as far as is known.
    splices: bool,
    /// Bytes that were read, until somebody takes that number away.
    pub(super) received: u64,
    /// The sender has ended.
    ended: bool,
    /// That was passed on; what is left to see is that it was cut after all.
    reset: Option<Reset<'a>>,
}

impl<'a> Direction<'a> {
    /// `begun` is written first.
    pub(super) fn new(from: &'a TcpStream, to: &'a TcpStream, begun: Vec<u8>) -> Self {
        let end = begun.len();
        let held = if end == 0 { Held::Nothing } else { Held::Bytes { bytes: begun, start: 0, end } };
        Self { from, to, held, full: 0, splices: true, received: 0, ended: false, reset: None }
    }

    /// Ready when the end was passed on, or one side was cut.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Side>> {
        if let Some(reset) = &mut self.reset {
            return Poll::Ready(if reset.as_mut().poll(cx).is_ready() { Err(Side::Source) } else { Ok(()) });
        }
        loop {
            ready!(self.poll_drain(cx)).map_err(|_| Side::Sink)?;
            if self.ended {
                SockRef::from(self.to).shutdown(Shutdown::Write).map_err(|_| Side::Sink)?;
                let from = self.from;
                self.reset = Some(Box::pin(async move {
                    let _ = from.ready(Interest::ERROR).await;
                }));
                return self.poll(cx);
            }
            ready!(self.poll_fill(cx)).map_err(|_| Side::Source)?;
        }
    }

    /// Writes what is held.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let written = match &mut self.held {
                Held::Nothing => return Poll::Ready(Ok(())),
                Held::Piped(pipe) if pipe.is_empty() => {
                    if self.full < BULK {
                        self.held = Held::Nothing;
                    }
                    return Poll::Ready(Ok(()));
                }
                Held::Bytes { bytes, start, end } if start == end => {
                    give_back(mem::take(bytes));
                    self.held = Held::Nothing;
                    return Poll::Ready(Ok(()));
                }
                Held::Bytes { bytes, start, end } => {
                    ready!(self.to.poll_write_ready(cx))?;
                    let waiting = bytes.get(*start..*end).unwrap_or_default();
                    self.to.try_write(waiting).inspect(|count| *start += count)
                }
                Held::Piped(pipe) => {
                    ready!(self.to.poll_write_ready(cx))?;
                    pipe.drain(self.to)
                }
            };
            match written {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if again(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads once; nothing is held before.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Poll::Ready(readable) = self.from.poll_read_ready(cx) else {
                // A pipe is two descriptors: who waits holds none.
                self.held = Held::Nothing;
                return Poll::Pending;
            };
            readable?;
            if self.full >= BULK
                && self.splices
                && matches!(self.held, Held::Nothing)
                && let Some(pipe) = Pipe::lend()
            {
                self.held = Held::Piped(pipe);
            }
            let read = match &mut self.held {
                Held::Piped(pipe) => pipe.fill(self.from, usize::MAX),
                Held::Nothing | Held::Bytes { .. } => self.read(),
            };
            match read {
                Ok(0) => (self.ended, self.held) = (true, Held::Nothing),
                Ok(count) => {
                    self.received += count as u64;
                    if self.is_piped() && count < LITTLE {
                        self.full = 0;
                    }
                }
                Err(error) if again(&error) => continue,
                // By buffers, for good.
                Err(error) if self.is_piped() && Pipe::is_refusal(&error) => {
                    (self.splices, self.held) = (false, Held::Nothing);
                    continue;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            return Poll::Ready(Ok(()));
        }
    }

    /// All that was read was written.
    pub(super) fn holds_nothing(&self) -> bool {
        match &self.held {
            Held::Nothing => true,
            Held::Bytes { start, end, .. } => start == end,
            Held::Piped(pipe) => pipe.is_empty(),
        }
    }

    fn is_piped(&self) -> bool {
        matches!(self.held, Held::Piped(_))
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut bytes = lend();
        // Until the kernel says that there is no more: a read ends before urgent data, and what lies behind it is no new
        // event.
        match self.from.try_read(&mut bytes) {
            Ok(0) => {
                give_back(bytes);
                Ok(0)
            }
            Ok(count) => {
                self.full = if count == bytes.len() { self.full.saturating_add(1) } else { 0 };
                self.held = Held::Bytes { bytes, start: 0, end: count };
                Ok(count)
            }
            Err(error) => {
                give_back(bytes);
                Err(error)
            }
        }
    }
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn lend() -> Vec<u8> {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SIZE])
}

fn give_back(bytes: Vec<u8>) {
    if bytes.len() == SIZE {
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT {
                free.push(bytes);
            }
        });
    }
}
