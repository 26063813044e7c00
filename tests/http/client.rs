//! A client that sends exactly the bytes it is given.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use dormouse::net::AnyCertificate;
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use crate::wire::{self, Message};

/// How long anything may take. It decides nothing but when a hung test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection with what was read ahead.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    /// Through which bytes go, if not in clear.
    tls: Option<Box<ClientConnection>>,
    buffer: Vec<u8>,
    ended: bool,
    /// It ended by a reset, which is no orderly end.
    reset: bool,
}

/// What came for one request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A whole response, with the status of each interim one before it.
    Whole(Message, Vec<u16>),
    /// A response that ended before its time.
    Cut(Message),
    /// The connection ended without any.
    Closed,
    /// Something a strict reader does not take.
    Wrong(String),
}

impl Client {
    /// Connects.
    pub(crate) fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("the relay listens");
        stream.set_nodelay(true).expect("a plain socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a plain socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a plain socket");
        Self { stream, tls: None, buffer: Vec::new(), ended: false, reset: false }
    }

    /// Connects, and speaks through TLS. Whoever answers is believed.
    pub(crate) fn connect_secure(to: SocketAddr) -> Self {
        let mut client = Self::connect(to);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .dangerous()
            // Who shows it is not what these tests are about.
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        let name = ServerName::try_from("app.test").expect("a name");
        let mut tls = ClientConnection::new(Arc::new(config), name).expect("a session");
        while tls.is_handshaking() {
            tls.complete_io(&mut client.stream).expect("a handshake");
        }
        client.tls = Some(Box::new(tls));
        client
    }

    /// Sends; a relay that has closed already is no fault of the client's.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _closed = match &mut self.tls {
            None => self.stream.write_all(bytes),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.stream).write_all(bytes),
        };
    }

    /// Says that nothing more will be sent.
    pub(crate) fn end(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _closed = tls.write_tls(&mut self.stream);
        }
        let _closed = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads the answer to one request of `method`.
    pub(crate) fn reply(&mut self, method: &str) -> Reply {
        let mut interim = Vec::new();
        loop {
            match wire::response(&self.buffer, method, self.ended && !self.reset) {
                Err(why) => return Reply::Wrong(format!("{why} in: {}", crate::case::escape(&self.buffer))),
                Ok(Some(message)) if message.whole => {
                    self.buffer.drain(..message.taken);
                    let status = message.head.status();
                    if (100..200).contains(&status) && status != 101 {
                        interim.push(status);
                        continue;
                    }
                    return Reply::Whole(message, interim);
                }
                Ok(Some(message)) if self.ended => return Reply::Cut(message),
                Ok(None) if self.ended && self.buffer.is_empty() => return Reply::Closed,
                Ok(None) if self.ended => {
                    return Reply::Wrong(format!("half a head: {}", crate::case::escape(&self.buffer)));
                }
                Ok(_) => self.read(),
            }
        }
    }

    /// Whether the connection ends with no further byte; the bytes otherwise.
    pub(crate) fn closes(&mut self) -> Result<(), String> {
        while !self.ended && self.buffer.is_empty() {
            self.read();
        }
        if self.buffer.is_empty() { Ok(()) } else { Err(crate::case::escape(&self.buffer)) }
    }

    /// Reads to the end and forgets what it was.
    pub(crate) fn drain(&mut self) {
        while !self.ended {
            self.buffer.clear();
            self.read();
        }
    }

    /// Reads exactly this many bytes, fewer when the connection ends.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        while !self.ended && self.buffer.len() < count {
            self.read();
        }
        let count = count.min(self.buffer.len());
        self.buffer.drain(..count).collect()
    }

    fn read(&mut self) {
        let mut block = vec![0; 65_536];
        let read = match &mut self.tls {
            None => self.stream.read(&mut block),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.stream).read(&mut block),
        };
        match read {
            Ok(0) => self.ended = true,
            Ok(count) => self.buffer.extend_from_slice(&block[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came for {PATIENCE:?} after: {}", crate::case::escape(&self.buffer));
            }
            Err(_) => (self.ended, self.reset) = (true, true),
        }
    }
}
