//! What a request is sent through: a port of the contender, in clear or in TLS.

use std::{
    io::{self, Read, Write},
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::ServerName,
};

use crate::contender::host;

/// The kind of port that a scenario asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    Plain,
    Tls,
    /// TLS, and in it HTTP/2.
    Http2,
    /// Bytes to and fro: what is sent there is HTTP, of which the contender knows nothing.
    Tcp,
}

/// The ports of one contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) http: u16,
    pub(crate) https: u16,
    pub(crate) tcp: u16,
}

impl Ports {
    pub(crate) fn of(self, front: Front) -> u16 {
        match front {
            Front::Plain => self.http,
            Front::Tls | Front::Http2 => self.https,
            Front::Tcp => self.tcp,
        }
    }
}

/// The certificate of all contenders, of the kind that authorities give out today, made anew for each run.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
    client: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

static IDENTITY: LazyLock<Result<Identity, String>> = LazyLock::new(|| Identity::make().map_err(|e| e.to_string()));

impl Identity {
    pub(crate) fn get() -> io::Result<&'static Self> {
        IDENTITY.as_ref().map_err(|error| io::Error::other(error.clone()))
    }

    fn make() -> Result<Self, Box<dyn std::error::Error>> {
        let made = rcgen::generate_simple_self_signed((0..10).map(host).collect::<Vec<_>>())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        // One suite and one group, so that all contenders do the same work, and no resumption, so that they do all of it.
        let provider = CryptoProvider {
            cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![ring::kx_group::X25519],
            ..ring::default_provider()
        };
        let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        let mut http2 = client.clone();
        http2.alpn_protocols = vec![b"h2".to_vec()];
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Ok(Self { certificate, key, client: Arc::new(client), http2: Arc::new(http2) })
    }
}

/// A connection to a contender, over any kind of socket.
pub(crate) enum Wire<S: Read + Write> {
    Clear(S),
    Tls(Box<StreamOwned<ClientConnection, S>>),
}

impl<S: Read + Write> Wire<S> {
    /// Over a connected socket; the handshake comes with the first bytes.
    pub(crate) fn new(front: Front, socket: S) -> io::Result<Self> {
        match front {
            Front::Plain | Front::Tcp => Ok(Self::Clear(socket)),
            Front::Tls | Front::Http2 => {
                let (name, identity) = (ServerName::try_from(host(0)).map_err(io::Error::other)?, Identity::get()?);
                let config = if front == Front::Http2 { &identity.http2 } else { &identity.client };
                let client = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                Ok(Self::Tls(Box::new(StreamOwned::new(client, socket))))
            }
        }
    }

    /// What is beneath.
    pub(crate) fn socket(&self) -> &S {
        match self {
            Self::Clear(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl<S: Read + Write> Read for Wire<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.read(buffer),
            // An end without the note that says so is an end for this load: bodies say their length.
            Self::Tls(stream) => match stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                other => other,
            },
        }
    }
}

impl<S: Read + Write> Write for Wire<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
