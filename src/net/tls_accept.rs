//! The beginning of a client's TLS connection.

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ServerConfig,
    server::{AcceptedAlert, Acceptor, NoServerSessionStorage, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;

use super::{
    Certificates, client_hello::CHALLENGE, tls_certificate::provider, tls_certificates::Challenged,
    tls_refusals::Refusals, tls_stream::TlsStream,
};

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
    /// For streams, whatever is spoken within them: none of the protocols of HTTP is offered, nor insisted on.
    streams: Arc<ServerConfig>,
    /// Where clients are asked for their certificate: by profile, for as long as the profile stays as it is. Each has
    /// ticket keys of its own, so that nobody comes from one into another.
    // Held for one look-up, and while a profile is used for the first time.
    asking: Mutex<HashMap<String, Asking>>,
    /// Those whose certificate was not taken.
    refusals: Refusals,
    /// For an authority that wants to see that a host is ours.
    challenge: Arc<ServerConfig>,
}

/// What checks the certificates of clients, and the configuration that was made with it.
type Asking = (Arc<dyn ClientCertVerifier>, Arc<ServerConfig>);

/// What is spoken through TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Http,
    Stream,
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
    /// The profile of client certificates that its host asks for.
    pub profile: Option<String>,
    /// It showed a certificate of that profile.
    pub verified: bool,
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum NoTls {
    /// The client speaks something else, and has said this so far.
    #[error("the client does not speak TLS")]
    Other(TcpStream, Vec<u8>),
    /// An authority has seen that a host is ours.
    #[error("the client came for the handshake alone")]
    Done,
    /// The handshake failed or the connection did.
    #[error("the TLS handshake failed")]
    Failed(#[source] io::Error),
}

impl TlsServer {
    /// A client has this long for its handshake.
    pub const PATIENCE: Duration = Duration::from_secs(10);

    /// With these certificates.
    pub fn new(certificates: Arc<Certificates>) -> Result<Self, rustls::Error> {
        let config = make(&certificates, &PROTOCOLS, None)?;
        let streams = Arc::new(make(&certificates, &[], None)?);
        let mut challenge = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Challenged(Arc::clone(&certificates))));
        challenge.alpn_protocols = vec![CHALLENGE.to_vec()];
        challenge.session_storage = Arc::new(NoServerSessionStorage {});
        let (config, challenge) = (Arc::new(config), Arc::new(challenge));
        Ok(Self { certificates, config, streams, asking: Mutex::default(), refusals: Refusals::default(), challenge })
    }

    /// The certificates.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    fn asking(&self, name: &str, verifier: &Arc<dyn ClientCertVerifier>) -> Result<Arc<ServerConfig>, NoTls> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, config)) = asking.get(name)
            && Arc::ptr_eq(before, verifier)
        {
            return Ok(Arc::clone(config));
        }
        let config = make(&self.certificates, &PROTOCOLS, Some(Arc::clone(verifier)));
        let config = Arc::new(config.map_err(|error| NoTls::Failed(io::Error::other(error)))?);
        asking.insert(name.to_owned(), (Arc::clone(verifier), Arc::clone(&config)));
        Ok(config)
    }

    /// Does the handshake of a client of HTTP, within a time. It has begun with these bytes.
    pub async fn accept(&self, tcp: TcpStream, begun: Vec<u8>) -> Result<(Box<TlsStream>, Secured), NoTls> {
        self.in_time(tcp, begun, Within::Http).await
    }

    /// The same for a client of anything else. No certificate is asked for.
    pub async fn accept_stream(&self, tcp: TcpStream, begun: Vec<u8>) -> Result<Box<TlsStream>, NoTls> {
        self.in_time(tcp, begun, Within::Stream).await.map(|(stream, _)| stream)
    }

    async fn in_time(
        &self,
        tcp: TcpStream,
        begun: Vec<u8>,
        within: Within,
    ) -> Result<(Box<TlsStream>, Secured), NoTls> {
        match tokio::time::timeout(Self::PATIENCE, self.handshake(tcp, begun, within)).await {
            Ok(result) => result,
            Err(_) => Err(NoTls::Failed(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
        begun: Vec<u8>,
        within: Within,
    ) -> Result<(Box<TlsStream>, Secured), NoTls> {
        let mut acceptor = Acceptor::default();
        let mut buffer = [0; HELLO];
        let mut bytes = begun.as_slice();
        let mut first = true;
        let (accepted, rest) = 'hello: loop {
            if bytes.is_empty() {
                let count = read(&tcp, &mut buffer).await.map_err(NoTls::Failed)?;
                bytes = buffer.get(..count).unwrap_or_default();
            }
            if std::mem::take(&mut first) && bytes.first().is_some_and(|byte| *byte != HANDSHAKE) {
                return Err(NoTls::Other(tcp, bytes.to_vec()));
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
        let server_name: Option<Box<str>> =
            hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase().into());
        let challenged = hello.alpn().is_some_and(|mut names| names.any(|name| name == CHALLENGE));
        let asking = server_name.as_deref().filter(|_| within == Within::Http);
        let profile = asking.and_then(|name| self.certificates.profile_of(name));
        // It may be gone when it is told of.
        let from = profile.as_ref().and_then(|_| tcp.peer_addr().ok());
        let config = match &profile {
            _ if challenged => Arc::clone(&self.challenge),
            Some((name, Some(verifier))) => self.asking(name, verifier)?,
            Some((_, None)) | None if within == Within::Http => Arc::clone(&self.config),
            Some(_) | None => Arc::clone(&self.streams),
        };
        if let Some(name) = server_name.as_deref().filter(|_| !challenged) {
            self.certificates.wait_for(name).await;
        }
        let session = match accepted.into_connection(config) {
            Ok(session) => session,
            Err((error, alert)) => return Err(refused(&tcp, error, alert)),
        };
        let mut stream = Box::new(TlsStream::new(tcp, session));
        // A failure is told by the handshake below, after the other side was told.
        let _ = stream.feed(rest);
        if let Err(error) = poll_fn(|cx| stream.poll_handshake(cx)).await {
            if let (Some(host), Some((profile, _)), Some(refusal)) = (&server_name, &profile, stream.refusal()) {
                self.refusals.tell(from, host, profile, &refusal);
            }
            return Err(NoTls::Failed(error));
        }
        if challenged {
            // The handshake was all that the authority came for.
            stream.say_goodbye();
            return Err(NoTls::Done);
        }
        let certified = server_name.as_deref().is_some_and(|name| self.certificates.certify(name));
        let verified = profile.is_some() && stream.shows_certificate();
        let http2 = stream.protocol() == Some(HTTP2);
        Ok((stream, Secured { server_name, certified, profile: profile.map(|(name, _)| name), verified, http2 }))
    }
}

fn make(
    certificates: &Arc<Certificates>,
    protocols: &[&[u8]],
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::clone(certificates) as _);
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    // The order of suites is ours: a client that prefers a lesser one does not get it.
    config.ignore_client_order = true;
    // Tickets are kept by clients, under keys that change every few hours; nothing is kept here.
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
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
