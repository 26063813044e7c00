//! The session of TLS that both sides of a connection share, and the wire beneath it: what was encrypted goes out, what
//! came is decrypted as far as there is room for it.

use std::{
    cell::RefCell,
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::Connection;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, tcp},
};

/// Encrypted bytes that are read at once.
const READ: usize = 32 * 1024;

/// Decrypted bytes beyond which nothing more is decrypted until they were read: what the session itself bounds.
pub(super) const WAITING: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// What both sides share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) session: Connection,
    /// Decrypted bytes that wait to be read.
    pub(super) waiting: usize,
    /// Encrypted bytes that came while too much waited already.
    pub(super) behind: Vec<u8>,
    /// Bytes that were encrypted, but not reported as written.
    pub(super) owed: usize,
    /// The other side ended its connection, in order or not.
    pub(super) ended: bool,
    pub(super) failed: Option<io::ErrorKind>,
    /// What of the other side can not be taken.
    pub(super) refusal: Option<rustls::Error>,
}

impl State {
    pub(super) fn new(session: Connection) -> Self {
        Self { session, waiting: 0, behind: Vec::new(), owed: 0, ended: false, failed: None, refusal: None }
    }

    /// Decrypts what came, as far as there is room for it.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.waiting >= WAITING {
                self.behind.extend_from_slice(bytes);
                return Ok(());
            }
            let taken = self.session.read_tls(&mut bytes);
            let processed = taken.and_then(|count| {
                let processed = self.session.process_new_packets();
                processed.map(|state| (count, state)).map_err(|error| {
                    self.refusal.get_or_insert(error);
                    io::ErrorKind::InvalidData.into()
                })
            });
            match processed {
                Ok((count, state)) => {
                    self.waiting = state.plaintext_bytes_to_read();
                    if count == 0 || state.peer_has_closed() {
                        self.ended = true;
                        return Ok(());
                    }
                }
                Err(error) => {
                    self.failed = Some(error.kind());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    pub(super) fn failure(&self) -> io::Error {
        self.failed.unwrap_or(io::ErrorKind::InvalidData).into()
    }

    /// Ready when something more was received: data, another message, an end or a failure, which the state then tells.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>, tcp: &mut tcp::ReadHalf<'_>) -> Poll<()> {
        if !self.behind.is_empty() {
            let behind = std::mem::take(&mut self.behind);
            let _ = self.feed(&behind);
            return Poll::Ready(());
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut room = ReadBuf::new(scratch);
            let read = ready!(Pin::new(&mut *tcp).poll_read(cx, &mut room));
            match read {
                Ok(()) if room.filled().is_empty() => {
                    // Told to the session too: it knows whether that was the end of the data.
                    let _ = self.session.read_tls(&mut io::empty());
                    self.ended = true;
                }
                Ok(()) => {
                    let _ = self.feed(room.filled());
                }
                Err(error) => self.failed = Some(error.kind()),
            }
            Poll::Ready(())
        })
    }

    /// Takes what is there already, if anything is.
    pub(super) fn receive(&mut self, tcp: &TcpStream) {
        let behind = std::mem::take(&mut self.behind);
        if behind.is_empty() {
            SCRATCH.with_borrow_mut(|scratch| match tcp.try_read(scratch) {
                Ok(0) => {
                    let _ = self.session.read_tls(&mut io::empty());
                    self.ended = true;
                }
                Ok(count) => {
                    let _ = self.feed(scratch.get(..count).unwrap_or_default());
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => self.failed = Some(error.kind()),
            });
        } else {
            let _ = self.feed(&behind);
        }
        if self.session.wants_write() {
            let _ = self.session.write_tls(&mut Trying(tcp));
        }
    }

    /// Ready when all that was encrypted is with the kernel.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, tcp: &mut tcp::WriteHalf<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Polling { cx, tcp }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether nothing came: neither data nor an end. Other messages of the session are taken.
    pub(super) fn is_quiet(&mut self, tcp: &TcpStream) -> bool {
        loop {
            if self.waiting > 0 || self.ended || self.failed.is_some() {
                return false;
            }
            if !self.behind.is_empty() {
                // It came with what was read last, and is looked at before anything new.
                let behind = std::mem::take(&mut self.behind);
                let _ = self.feed(&behind);
                continue;
            }
            let read = SCRATCH.with_borrow_mut(|scratch| match tcp.try_read(scratch) {
                Ok(0) => Ok(0),
                Ok(count) => self.feed(scratch.get(..count).unwrap_or_default()).map(|()| count),
                Err(error) => Err(error),
            });
            match read {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}

/// The wire for the session: what must wait for it registers the task.
struct Polling<'a, 'b, 'c> {
    cx: &'a mut Context<'b>,
    tcp: &'a mut tcp::WriteHalf<'c>,
}

impl Write for Polling<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        would_block(Pin::new(&mut *self.tcp).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        would_block(Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The wire for what is only tried.
pub(super) struct Trying<'a>(pub(super) &'a TcpStream);

impl Write for Trying<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn would_block<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
