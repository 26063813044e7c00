//! TLS over one connection, for one task: both sides share the session without a lock.
//!
//! What was written counts as written only once its last encrypted byte is with the kernel, so nothing needs a flush,
//! and a connection that waits holds no bytes. Encrypted bytes are read through one buffer of the thread.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::Connection;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, tcp},
};

use super::tls_session::{State, Trying};

/// TLS over one connection.
#[derive(Debug)]
pub struct TlsStream {
    tcp: TcpStream,
    state: RefCell<State>,
}

/// The session and its connection, for who watches what becomes of them and wants no data.
#[derive(Debug, Clone, Copy)]
pub struct TlsBeneath<'a> {
    tcp: &'a TcpStream,
    state: &'a RefCell<State>,
}

/// What came of the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// Data that nobody has read. What follows is not looked at.
    Data,
    /// It sends no more: a message of the session said so, or the connection did.
    End,
}

/// The reading side.
#[derive(Debug)]
pub struct TlsReadHalf<'a> {
    tcp: tcp::ReadHalf<'a>,
    state: &'a RefCell<State>,
}

/// The writing side.
#[derive(Debug)]
pub struct TlsWriteHalf<'a> {
    tcp: tcp::WriteHalf<'a>,
    state: &'a RefCell<State>,
}

impl TlsStream {
    pub(super) fn new(tcp: TcpStream, session: impl Into<Connection>) -> Self {
        let state = State::new(session.into());
        Self { tcp, state: RefCell::new(state) }
    }

    /// The connection beneath.
    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    pub(super) fn beneath(&self) -> TlsBeneath<'_> {
        TlsBeneath { tcp: &self.tcp, state: &self.state }
    }

    /// The protocol that both sides agreed on.
    pub(super) fn protocol(&mut self) -> Option<&[u8]> {
        self.state.get_mut().session.alpn_protocol()
    }

    pub(super) fn split(&mut self) -> (TlsReadHalf<'_>, TlsWriteHalf<'_>) {
        let (read, write) = self.tcp.split();
        (TlsReadHalf { tcp: read, state: &self.state }, TlsWriteHalf { tcp: write, state: &self.state })
    }

    /// What of the other side could not be taken, when that is why it failed.
    pub(super) fn refusal(&mut self) -> Option<rustls::Error> {
        self.state.get_mut().refusal.take()
    }

    /// Whether the other side showed a certificate, which then was one that could be taken.
    pub(super) fn shows_certificate(&mut self) -> bool {
        self.state.get_mut().session.peer_certificates().is_some_and(|chain| !chain.is_empty())
    }

    /// Takes encrypted bytes that were read already.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.state.get_mut().feed(bytes)
    }

    /// Ready when the handshake is done and what it had to send is sent.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, state } = self;
        let (mut read, mut write) = tcp.split();
        let state = state.get_mut();
        loop {
            if state.failed.is_some() {
                // The reason goes to the other side, if it still listens.
                let _ = state.poll_send(cx, &mut write);
                return Poll::Ready(Err(state.failure()));
            }
            ready!(state.poll_send(cx, &mut write))?;
            if !state.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if state.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(state.poll_receive(cx, &mut read));
        }
    }

    /// Whether nothing came: neither data nor an end. Other messages of the session are taken.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.state.get_mut().is_quiet(&self.tcp)
    }

    /// Says that no more will be written, if that can be said without waiting.
    pub(super) fn say_goodbye(&mut self) {
        let Self { tcp, state } = self;
        let state = state.get_mut();
        if state.owed == 0 && state.failed.is_none() {
            state.session.send_close_notify();
            let _ = state.session.write_tls(&mut Trying(tcp));
        }
    }
}

impl<'a> TlsBeneath<'a> {
    /// The connection beneath.
    pub fn socket(self) -> &'a TcpStream {
        self.tcp
    }

    /// Ready when data came, or an end, or a failure. Other messages of the session are taken.
    pub fn poll_come(self, cx: &mut Context<'_>) -> Poll<io::Result<Came>> {
        loop {
            let mut state = self.state.borrow_mut();
            if state.failed.is_some() {
                return Poll::Ready(Err(state.failure()));
            }
            if state.waiting > 0 {
                return Poll::Ready(Ok(Came::Data));
            }
            if state.ended {
                return Poll::Ready(Ok(Came::End));
            }
            if state.behind.is_empty() {
                ready!(self.tcp.poll_read_ready(cx))?;
            }
            state.receive(self.tcp);
        }
    }
}

impl TlsReadHalf<'_> {
    pub(super) fn beneath(&self) -> TlsBeneath<'_> {
        TlsBeneath { tcp: self.tcp.as_ref(), state: self.state }
    }

    /// Ready when there is data, an end, or a failure.
    pub(super) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        while state.waiting == 0 && !state.ended && state.failed.is_none() {
            ready!(state.poll_receive(cx, &mut self.tcp));
            if state.session.wants_write() {
                // An answer to a message of the session, such as a change of keys; what does not go now goes with
                // the next data.
                let _ = state.session.write_tls(&mut Trying(self.tcp.as_ref()));
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_read_ready(cx))?;
        let mut state = self.state.borrow_mut();
        if state.waiting == 0 && state.failed.is_some() {
            return Poll::Ready(Err(state.failure()));
        }
        // At the end the session tells whether it was one in order.
        let count = state.session.reader().read(out.initialize_unfilled())?;
        out.advance(count);
        state.waiting = state.waiting.saturating_sub(count);
        Poll::Ready(Ok(()))
    }
}

impl TlsWriteHalf<'_> {
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        if state.owed == 0 {
            state.owed = state.session.writer().write_vectored(pieces)?;
        }
        ready!(state.poll_send(cx, &mut self.tcp))?;
        let offered = pieces.iter().map(|piece| piece.len()).sum();
        Poll::Ready(Ok(std::mem::take(&mut state.owed).min(offered)))
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        state.session.send_close_notify();
        ready!(state.poll_send(cx, &mut self.tcp))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// By one owner, who needs no two sides.
impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().split().0.poll_read(cx, out)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().split().1.poll_write(cx, bytes)
    }

    /// Nothing is ever kept back.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().split().1.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Write, net::TcpListener, sync::Arc};

    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, pki_types::pem::PemObject,
    };
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::net::{Stream, tls_certificate::provider, tls_samples, tls_session::WAITING};

    /// Shakes hands, then sends all of this in one piece of the wire.
    fn server(
        bytes: Vec<u8>,
    ) -> (std::net::SocketAddr, ClientConnection, std::thread::JoinHandle<std::net::TcpStream>) {
        let (certificate, key) = tls_samples::pem(&["app.test"]);
        let certificate = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let client = ClientConnection::new(Arc::new(client), "app.test".try_into().unwrap()).unwrap();
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sending = std::thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            let mut session = ServerConnection::new(Arc::new(config)).unwrap();
            session.set_buffer_limit(None);
            while session.is_handshaking() {
                session.complete_io(&mut tcp).unwrap();
            }
            session.writer().write_all(&bytes).unwrap();
            let mut wire = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut wire).unwrap();
            }
            tcp.write_all(&wire).unwrap();
            tcp
        });
        (address, client, sending)
    }

    async fn after_reading(length: usize, sent: usize) -> bool {
        let (address, client, sending) = server(vec![7; sent]);
        let mut tls = TlsStream::new(TcpStream::connect(address).await.unwrap(), client);
        poll_fn(|cx| tls.poll_handshake(cx)).await.unwrap();
        let tcp = tokio::task::spawn_blocking(|| sending.join().unwrap()).await.unwrap();
        let mut stream = Stream::Tls(Box::new(tls));
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        let quiet = stream.is_quiet();
        drop(tcp);
        quiet
    }

    #[tokio::test]
    async fn what_came_behind_the_bytes_that_were_read_is_not_quiet() {
        for length in [1, 1000, WAITING - 1, WAITING, WAITING + 1, 2 * WAITING] {
            assert!(after_reading(length, length).await, "{length} bytes, and nothing behind them");
            assert!(!after_reading(length, length + 5).await, "{length} bytes, and five behind them");
        }
    }
}
