//! The beginning of a client's TLS connection.

use std::{future::poll_fn, io, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    server::{AcceptedAlert, Acceptor, NoServerSessionStorage},
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;

use super::{Certificates, tls_certificate::provider, tls_stream::TlsStream};

/// A client has this long for its handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first byte of a TLS connection: a record of the handshake.
const HANDSHAKE: u8 = 22;

/// What is read at once of a client's first words.
const HELLO: usize = 4096;

/// The protocols that are offered, best first.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];

const HTTP2: &[u8] = b"h2";

/// TLS as servers speak it: one for all workers.
#[derive(Debug)]
pub struct TlsServer {
    certificates: Arc<Certificates>,
    config: Arc<ServerConfig>,
}

/// What is known of a client after its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// The host that it named, in canonical spelling.
    pub server_name: Option<Box<str>>,
    /// It was shown a certificate that is not of our own making.
    pub certified: bool,
    /// It goes on in HTTP/2.
    pub http2: bool,
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum NoTls {
    /// The client speaks something else. What it said was read away.
    #[error("the client does not speak TLS")]
    Other(TcpStream),
    /// The handshake failed or the connection did.
    #[error("the TLS handshake failed")]
    Failed(#[source] io::Error),
}

impl TlsServer {
    /// With these certificates.
    pub fn new(certificates: Arc<Certificates>) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as _);
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        // Tickets are kept by clients, under keys that change every few hours; nothing is kept here.
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { certificates, config: Arc::new(config) })
    }

    /// The certificates.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// Does the handshake, within a time.
    pub async fn accept(&self, tcp: TcpStream) -> Result<(Box<TlsStream>, Secured), NoTls> {
        match tokio::time::timeout(PATIENCE, self.handshake(tcp)).await {
            Ok(result) => result,
            Err(_) => Err(NoTls::Failed(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<(Box<TlsStream>, Secured), NoTls> {
        let mut acceptor = Acceptor::default();
        let mut buffer = [0; HELLO];
        let mut first = true;
        let (accepted, rest) = 'hello: loop {
            let count = read(&tcp, &mut buffer).await.map_err(NoTls::Failed)?;
            let mut bytes = buffer.get(..count).unwrap_or_default();
            if std::mem::take(&mut first) && bytes.first().is_some_and(|byte| *byte != HANDSHAKE) {
                return Err(NoTls::Other(tcp));
            }
            if bytes.is_empty() {
                return Err(NoTls::Failed(io::ErrorKind::UnexpectedEof.into()));
            }
            while !bytes.is_empty() {
                acceptor.read_tls(&mut bytes).map_err(NoTls::Failed)?;
                match acceptor.accept() {
                    Ok(Some(accepted)) => break 'hello (accepted, bytes),
                    Ok(None) => {}
                    Err((error, alert)) => return Err(refused(&tcp, error, alert)),
                }
            }
        };
        let hello = accepted.client_hello();
        let server_name = hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase().into());
        let session = match accepted.into_connection(Arc::clone(&self.config)) {
            Ok(session) => session,
            Err((error, alert)) => return Err(refused(&tcp, error, alert)),
        };
        let mut stream = Box::new(TlsStream::new(tcp, session));
        // A failure is told by the handshake below, after the other side was told.
        let _ = stream.feed(rest);
        poll_fn(|cx| stream.poll_handshake(cx)).await.map_err(NoTls::Failed)?;
        let certified = server_name.as_deref().is_some_and(|name| self.certificates.certify(name));
        let http2 = stream.protocol() == Some(HTTP2);
        Ok((stream, Secured { server_name, certified, http2 }))
    }
}

async fn read(tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        tcp.readable().await?;
        match tcp.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// Tells the client why, as far as that goes without waiting.
fn refused(tcp: &TcpStream, error: rustls::Error, mut alert: AcceptedAlert) -> NoTls {
    let mut out = Vec::new();
    if alert.write_all(&mut out).is_ok() {
        let _ = tcp.try_write(&out);
    }
    NoTls::Failed(io::Error::new(io::ErrorKind::InvalidData, error))
}
