//! A connection's bytes, in clear, through TLS, or inside another connection.
//!
//! An enum rather than a type parameter: which of them it is costs one foreseeable branch, and everything above is
//! compiled once.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, tcp},
};

use super::tls_stream::{TlsBeneath, TlsReadHalf, TlsStream, TlsWriteHalf};

/// A connection's bytes.
#[derive(Debug)]
pub enum Stream {
    /// As they are on the wire.
    Plain(TcpStream),
    /// Through TLS.
    Tls(Box<TlsStream>),
    /// Inside another connection.
    Within(Box<dyn Within>),
}

/// A connection inside another one, such as a stream of HTTP/2: read and written as if it had a socket of its own. Both
/// sides belong to one task, which is why a shared reference is enough.
pub trait Within: fmt::Debug {
    /// Ready when there is something to read, or an end or a failure to be told of.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Reads; nothing read is the end.
    fn poll_read(&self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;
    /// Writes; says how much was taken.
    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// No more will be written.
    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ready when the other side has given up.
    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// What a [`Stream`] rests on: for what happens to it, never for its bytes.
#[derive(Debug, Clone, Copy)]
pub enum Beneath<'a> {
    /// A socket.
    Socket(&'a TcpStream),
    /// A socket with TLS on it.
    Tls(TlsBeneath<'a>),
    /// Another connection.
    Within(&'a dyn Within),
}

impl<'a> Beneath<'a> {
    /// The socket, where there is one of its own.
    pub fn socket(self) -> Option<&'a TcpStream> {
        match self {
            Self::Socket(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.socket()),
            Self::Within(_) => None,
        }
    }
}

/// The reading side of a [`Stream`].
#[derive(Debug)]
pub enum ReadHalf<'a> {
    /// As they are on the wire.
    Plain(tcp::ReadHalf<'a>),
    /// Through TLS.
    Tls(TlsReadHalf<'a>),
    /// Inside another connection.
    Within(&'a dyn Within),
}

/// The writing side of a [`Stream`].
#[derive(Debug)]
pub enum WriteHalf<'a> {
    /// As they are on the wire.
    Plain(tcp::WriteHalf<'a>),
    /// Through TLS.
    Tls(TlsWriteHalf<'a>),
    /// Inside another connection.
    Within(&'a dyn Within),
}

impl Stream {
    /// What it rests on.
    #[inline]
    pub fn beneath(&self) -> Beneath<'_> {
        match self {
            Self::Plain(tcp) => Beneath::Socket(tcp),
            Self::Tls(tls) => Beneath::Tls(tls.beneath()),
            Self::Within(within) => Beneath::Within(within.as_ref()),
        }
    }

    /// Both sides, to be used by one task.
    #[inline]
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Self::Plain(tcp) => {
                let (read, write) = tcp.split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Self::Tls(tls) => {
                let (read, write) = tls.split();
                (ReadHalf::Tls(read), WriteHalf::Tls(write))
            }
            Self::Within(within) => {
                let within: &dyn Within = &**within;
                (ReadHalf::Within(within), WriteHalf::Within(within))
            }
        }
    }

    /// Ready when there is something to read, or an end or a failure to be told of. May be ready for nothing.
    #[inline]
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => tcp.poll_read_ready(cx),
            Self::Tls(tls) => tls.split().0.poll_read_ready(cx),
            Self::Within(within) => within.poll_read_ready(cx),
        }
    }

    /// Whether nothing came that nobody asked for: neither bytes nor the connection's end.
    pub fn is_quiet(&mut self) -> bool {
        match self {
            // No system call unless it is ready, and then it may be left over from a read that filled its buffer: look.
            Self::Plain(tcp) => {
                matches!(tcp.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(tls) => tls.is_quiet(),
            Self::Within(within) => within.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending(),
        }
    }

    /// Tells the other side that no more will be written, as far as that is possible without waiting.
    #[inline]
    pub fn say_goodbye(&mut self) {
        match self {
            Self::Plain(_) | Self::Within(_) => {}
            Self::Tls(tls) => tls.say_goodbye(),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl ReadHalf<'_> {
    /// What it rests on.
    #[inline]
    pub fn beneath(&self) -> Beneath<'_> {
        match self {
            Self::Plain(tcp) => Beneath::Socket(tcp.as_ref()),
            Self::Tls(tls) => Beneath::Tls(tls.beneath()),
            Self::Within(within) => Beneath::Within(*within),
        }
    }

    /// The socket whose bytes are read as they are.
    #[inline]
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp.as_ref()),
            Self::Tls(_) | Self::Within(_) => None,
        }
    }

    /// Ready when there is something to read, or an end or a failure to be told of. May be ready for nothing.
    #[inline]
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => tcp.as_ref().poll_read_ready(cx),
            Self::Tls(tls) => tls.poll_read_ready(cx),
            Self::Within(within) => within.poll_read_ready(cx),
        }
    }
}

impl WriteHalf<'_> {
    /// The socket whose bytes are written as they are.
    #[inline]
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp.as_ref()),
            Self::Tls(_) | Self::Within(_) => None,
        }
    }
}

impl AsyncRead for ReadHalf<'_> {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, out),
            Self::Tls(tls) => tls.poll_read(cx, out),
            Self::Within(within) => within.poll_read(cx, out),
        }
    }
}

impl AsyncWrite for WriteHalf<'_> {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => tls.poll_write(cx, bytes),
            Self::Within(within) => within.poll_write(cx, bytes),
        }
    }

    /// The first of the pieces that is not empty, at least.
    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, pieces),
            Self::Tls(tls) => tls.poll_write_vectored(cx, pieces),
            Self::Within(within) => {
                within.poll_write(cx, pieces.iter().find(|piece| !piece.is_empty()).map_or(&[], |piece| piece))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is ever kept back.
    #[inline]
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx),
            Self::Within(within) => within.poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().split().0).poll_read(cx, out)
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().split().1).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().split().1).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().split().1).poll_shutdown(cx)
    }
}
