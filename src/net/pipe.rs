//! Pipes through which the kernel moves bytes from one socket to another without showing them to us.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::OwnedFd,
};

use nix::{
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::pipe2,
};
use tokio::{io::Interest, net::TcpStream};

use super::both_ways::has_unread;

/// How much a pipe is asked to hold. The kernel may grant less.
const ROOM: i32 = 256 * 1024;

/// Pipes of one thread at once: each takes two descriptors, and whoever gets none copies by buffers.
const MOST: usize = 64;

/// Unused pipes that a thread keeps.
const KEPT: usize = 8;

thread_local! {
    static FREE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
    static LENT: Cell<usize> = const { Cell::new(0) };
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe and how much is in it. Goes back to its thread when it is dropped empty.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    filled: usize,
}

impl Pipe {
    /// Lends a pipe; none when there are too many, or the system gives none.
    pub fn lend() -> Option<Self> {
        if LENT.get() >= MOST {
            return None;
        }
        let ends = FREE.with_borrow_mut(Vec::pop).or_else(Ends::new)?;
        LENT.set(LENT.get() + 1);
        Some(Self { ends: Some(ends), filled: 0 })
    }

    #[cfg(test)]
    pub(super) fn lent() -> usize {
        LENT.get()
    }

    /// Everything that was moved in was moved out.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Moves what a socket has into the pipe, `most` bytes of it at most. The pipe must be empty: only then does
    /// `WouldBlock` tell of the socket.
    ///
    /// # Errors
    ///
    /// The socket's, `WouldBlock` among them, and [a refusal](Self::is_refusal).
    pub fn fill(&mut self, from: &TcpStream, most: usize) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Err(refusal()) };
        let room = usize::try_from(ROOM).unwrap_or_default().min(most);
        let fill = || splice(from, None, &ends.write, None, room, flags()).map_err(io::Error::from);
        let moved = from.try_io(Interest::READABLE, || match fill() {
            // Before urgent data the kernel splices nothing, for ever, where a read goes on behind it.
            Err(error) if would_block(&error) && has_unread(from) => {
                fill().map_err(|error| if would_block(&error) { refusal() } else { error })
            }
            other => other,
        })?;
        self.filled += moved;
        Ok(moved)
    }

    /// Moves what is in the pipe into a socket.
    ///
    /// # Errors
    ///
    /// The socket's, `WouldBlock` among them.
    pub fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Err(refusal()) };
        let filled = self.filled;
        let moved = to.try_io(Interest::WRITABLE, || {
            splice(&ends.read, None, to, None, filled, flags()).map_err(io::Error::from)
        })?;
        self.filled -= moved;
        Ok(moved)
    }

    /// Whether an error says that this socket's bytes can only be read.
    pub fn is_refusal(error: &io::Error) -> bool {
        error.raw_os_error() == Some(libc::EINVAL)
    }
}

/// What the kernel says of sockets that can not be spliced.
fn refusal() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Ends {
    fn new() -> Option<Self> {
        let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
        // Where it is not granted, the usual 64 KiB do.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(ROOM));
        Some(Self { read, write })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        LENT.set(LENT.get() - 1);
        // What is still in it belongs to a connection that was cut.
        if self.filled == 0 {
            FREE.with_borrow_mut(|free| {
                if free.len() < KEPT {
                    free.push(ends);
                }
            });
        }
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE
}
