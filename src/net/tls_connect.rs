//! TLS towards upstreams.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    fmt,
    future::poll_fn,
    hash::{Hash, Hasher},
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tokio::{net::TcpStream, sync::OnceCell, time::Instant};

use super::{
    tls_any::AnyCertificate,
    tls_certificate::{chain, private_key, provider},
    tls_files::read,
    tls_stream::TlsStream,
};
use crate::model::UpstreamTls;

/// The names of what is spoken through TLS (RFC 7301).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// An upstream has this long for its handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was made of settings is made anew after so long: files of authorities and keys change.
const KEPT: Duration = Duration::from_secs(600);

/// What can not be used is looked at again after so long: whoever mends it does not wait.
const KEPT_BAD: Duration = Duration::from_secs(2);

/// How upstreams are spoken to, by their settings; for all workers.
#[derive(Debug, Default)]
pub struct TlsClients {
    // Held for one look-up, never while files are read.
    clients: Mutex<HashMap<UpstreamTls, Arc<Client>>>,
}

/// What was made of settings, or is being made by the first who asks for it.
#[derive(Debug)]
struct Client {
    made: OnceCell<Made>,
    since: Instant,
}

type Made = Result<Arc<Configs>, String>;

/// For each offer.
#[derive(Debug)]
struct Configs {
    http1: Arc<ClientConfig>,
    both: Arc<ClientConfig>,
}

/// What may be spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 or HTTP/1.1, as the upstream chooses.
    Both,
}

/// Why there is no TLS connection to an upstream.
#[derive(Debug, thiserror::Error)]
pub enum NoUpstreamTls {
    /// The route's settings can not be used.
    #[error("{0}")]
    Settings(String),
    /// It is not whom we want to speak to, or speaks no TLS that we do.
    #[error("{0}")]
    Refused(rustls::Error),
    /// The connection failed.
    #[error(transparent)]
    Failed(io::Error),
}

impl NoUpstreamTls {
    /// Whether the upstream speaks nothing of what was offered.
    pub fn is_of_protocol(&self) -> bool {
        matches!(self, Self::Refused(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)))
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Refused(rustls::Error::InvalidCertificate(_)) => {
                "set `ssl_trusted_certificate` and `ssl_server_name`, or `no_tls_verify: true`"
            }
            Self::Refused(rustls::Error::InvalidMessage(_)) => "if it speaks plain HTTP, write `scheme: http`",
            Self::Refused(_) | Self::Settings(_) | Self::Failed(_) => "look at the `ssl_*` keys of the route",
        }
    }
}

/// Whose name the certificate must bear, and what sets connections with these settings apart from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsTarget {
    name: ServerName<'static>,
    /// Equal for connections that are alike; never 0.
    pub id: u64,
}

impl TlsTarget {
    /// The upstream of this name, or of this address when it has none, under these settings.
    pub fn new(host: &str, settings: &UpstreamTls) -> Result<Self, NoUpstreamTls> {
        let named = settings.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(named.to_owned())
            .map_err(|_| NoUpstreamTls::Settings(format!("`{named}` is no name that a certificate can bear")))?;
        let mut hasher = DefaultHasher::new();
        (settings, named).hash(&mut hasher);
        Ok(Self { name, id: hasher.finish() | 1 })
    }
}

impl TlsClients {
    /// Does the handshake on a fresh connection; and whether HTTP/2 was chosen.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        target: &TlsTarget,
        settings: &UpstreamTls,
        offer: Offer,
    ) -> Result<(Box<TlsStream>, bool), NoUpstreamTls> {
        let configs = self.config(settings).await.map_err(NoUpstreamTls::Settings)?;
        let config = match offer {
            Offer::Http1 => Arc::clone(&configs.http1),
            Offer::Both => Arc::clone(&configs.both),
        };
        let session = ClientConnection::new(config, target.name.clone()).map_err(NoUpstreamTls::Refused)?;
        let mut stream = Box::new(TlsStream::new(tcp, session));
        let done = tokio::time::timeout(PATIENCE, poll_fn(|cx| stream.poll_handshake(cx))).await;
        match done {
            Ok(Ok(())) => {
                let http2 = stream.protocol() == Some(HTTP2);
                Ok((stream, http2))
            }
            Ok(Err(error)) => Err(match stream.refusal() {
                Some(refusal) => NoUpstreamTls::Refused(refusal),
                None => NoUpstreamTls::Failed(error),
            }),
            Err(_) => Err(NoUpstreamTls::Failed(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn config(&self, settings: &UpstreamTls) -> Made {
        let client = self.client(settings);
        // Read and parsed beside the worker, whose other clients go on; whoever wants the same meanwhile waits for it.
        let making = client.made.get_or_init(|| async {
            let settings = settings.clone();
            let made = tokio::task::spawn_blocking(move || make(&settings).map(Arc::new)).await;
            made.unwrap_or_else(|error| Err(format!("the settings could not be made: {error}")))
        });
        making.await.clone()
    }

    /// What there is for these settings, or is to be made.
    fn client(&self, settings: &UpstreamTls) -> Arc<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(settings).filter(|client| client.is_good()) {
            return Arc::clone(client);
        }
        clients.retain(|_, client| client.is_good());
        let client = Arc::new(Client { made: OnceCell::new(), since: Instant::now() });
        clients.insert(settings.clone(), Arc::clone(&client));
        client
    }
}

impl Client {
    /// Whether it need not be made anew.
    fn is_good(&self) -> bool {
        let kept = match self.made.get() {
            Some(Ok(_)) => KEPT,
            Some(Err(_)) => KEPT_BAD,
            None => return true,
        };
        self.since.elapsed() < kept
    }
}

fn make(settings: &UpstreamTls) -> Result<Configs, String> {
    let provider = provider();
    let versions: &[_] = if settings.only_13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
    let builder = builder.map_err(|error| error.to_string())?.dangerous();
    let verifier: Arc<dyn ServerCertVerifier> = if settings.verify {
        let roots = Arc::new(roots(settings.roots.as_deref())?);
        WebPkiServerVerifier::builder_with_provider(roots, provider).build().map_err(|error| error.to_string())?
    } else {
        Arc::new(AnyCertificate(provider))
    };
    let builder = builder.with_custom_certificate_verifier(verifier);
    let mut config = match &settings.client {
        Some((certificate, key)) => {
            let told = |path: &Path, error: &dyn fmt::Display| format!("`{}` {error}", path.display());
            let chain = chain(&read(certificate)?).map_err(|error| told(certificate, &error))?;
            let key_file = key;
            let key = private_key(&read(key)?).map_err(|error| told(key_file, &error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| told(certificate, &error))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP1.to_vec()];
    config.enable_sni = settings.sends_name;
    let mut both = config.clone();
    both.alpn_protocols.insert(0, HTTP2.to_vec());
    // A session belongs to the protocol that it was made for.
    both.resumption = Resumption::default();
    Ok(Configs { http1: Arc::new(config), both: Arc::new(both) })
}

/// The authorities of a file, or those that this machine trusts.
fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => add_pem(&mut roots, path, &read(path)?)?,
        None => add_system(&mut roots)?,
    }
    Ok(roots)
}

/// Trusts the authorities that a file holds.
pub(super) fn add_pem(roots: &mut RootCertStore, path: &Path, text: &[u8]) -> Result<(), String> {
    let found = chain(text).map_err(|error| format!("`{}` {error}", path.display()))?;
    let (good, _) = roots.add_parsable_certificates(found);
    if good == 0 { Err(format!("`{}` holds no authority", path.display())) } else { Ok(()) }
}

/// Trusts the authorities that this machine trusts.
pub(super) fn add_system(roots: &mut RootCertStore) -> Result<(), String> {
    let (good, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if good == 0 {
        return Err("this machine trusts no authority (Debian package `ca-certificates`)".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::tls_samples::pem, *};

    #[tokio::test(start_paused = true)]
    async fn what_was_made_is_kept_for_minutes_and_what_could_not_be_for_seconds() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let settings = UpstreamTls { roots: Some(file.clone()), ..UpstreamTls::default() };
        let clients = TlsClients::default();
        let told = clients.config(&settings).await.unwrap_err();
        assert!(told.contains("ca.pem"), "{told}");
        fs::write(&file, pem(&["authority.test"]).0).unwrap();
        assert!(clients.config(&settings).await.is_err());
        tokio::time::advance(KEPT_BAD).await;
        // Two who ask at once get the same.
        let (one, two) = tokio::join!(clients.config(&settings), clients.config(&settings));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(Arc::ptr_eq(&one, &two));
        fs::remove_file(&file).unwrap();
        tokio::time::advance(KEPT - Duration::from_secs(1)).await;
        assert!(Arc::ptr_eq(&one, &clients.config(&settings).await.unwrap()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(clients.config(&settings).await.is_err());
    }
}
