//! TLS to an engine: whom we trust, and who we are.
//!
//! Files are read again when they change, at the next connection; while they can not be used, what they gave before is.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::model::{EngineTls, Pem};

/// How one engine is spoken to over TLS.
#[derive(Debug)]
pub(super) struct DockerTls {
    name: ServerName<'static>,
    settings: EngineTls,
    // Held while files are looked at: engines are called rarely.
    made: Mutex<Made>,
}

#[derive(Debug)]
struct Made {
    config: Arc<ClientConfig>,
    /// The files as they were then, or when they were last found to be no good.
    seen: Vec<Option<(SystemTime, u64)>>,
}

/// The settings of Docker's own client: `DOCKER_TLS_VERIFY` and the directory `DOCKER_CERT_PATH`, or `~/.docker`.
pub(super) fn of_environment(variable: &dyn Fn(&'static str) -> Option<String>) -> Option<EngineTls> {
    variable("DOCKER_TLS_VERIFY")?;
    let usual = || Some(Path::new(&variable("HOME")?).join(".docker"));
    let directory = variable("DOCKER_CERT_PATH").map(PathBuf::from).or_else(usual)?;
    Some(EngineTls::directory(&directory))
}

impl DockerTls {
    /// Reads what the settings name. The engine's certificate must be for this host.
    pub(super) fn open(host: &str, settings: EngineTls) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| format!("`{host}` is no name that a certificate can bear"))?;
        // Looked at before they are read: a change in between is seen later.
        let seen = stamps(&settings);
        let made = Mutex::new(Made { config: make(&settings)?, seen });
        Ok(Self { name, settings, made })
    }

    /// Does the handshake.
    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.config());
        connector.connect(self.name.clone(), stream).await.map_err(|error| match refusal(&error) {
            Some(refusal) => io::Error::new(error.kind(), self.told(refusal)),
            None => error,
        })
    }

    fn config(&self) -> Arc<ClientConfig> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.settings);
        if now != made.seen {
            made.seen = now;
            match make(&self.settings) {
                Ok(config) => made.config = config,
                Err(why) => tracing::warn!("what TLS to an engine needs has changed, and can not be used: {why}"),
            }
        }
        Arc::clone(&made.config)
    }

    /// What of the engine we do not take, in words that say what to do.
    fn told(&self, refusal: &rustls::Error) -> String {
        let host = self.name.to_str();
        let rustls::Error::InvalidCertificate(reason) = refusal else { return told_without_certificate(refusal) };
        if matches!(reason, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
            let trusted = match &self.settings.roots {
                Some(Pem::File(path)) => format!("in `{}`", path.display()),
                Some(Pem::Text(_)) => "given as `ca`".to_owned(),
                None => "that this machine trusts (name its own by `tls: {ca: ca.pem}`)".to_owned(),
            };
            return format!("its certificate is not from an authority {trusted}");
        }
        if matches!(reason, CertificateError::NotValidForName) {
            return format!("its certificate is not for `{host}`");
        }
        if let CertificateError::NotValidForNameContext { presented, .. } = reason {
            return if presented.is_empty() {
                format!("its certificate names no host as a subject alternative name: make it anew, for `{host}`")
            } else {
                format!("its certificate is not for `{host}` but for {}", presented.join(", "))
            };
        }
        format!("its certificate is not taken: {reason}")
    }
}

fn told_without_certificate(refusal: &rustls::Error) -> String {
    if let rustls::Error::AlertReceived(alert) = refusal {
        told_of_alert(*alert)
    } else if matches!(refusal, rustls::Error::InvalidMessage(_)) {
        "it does not speak TLS there".to_owned()
    } else {
        refusal.to_string()
    }
}

fn told_of_alert(alert: AlertDescription) -> String {
    format!("it refuses us (TLS alert {alert:?}): it wants a certificate of its authority (`tls`: `cert` and `key`)")
}

/// What the engine does not take of us, which it tells only after the handshake.
pub(super) fn refusal_of_us(error: &(dyn Error + 'static)) -> Option<io::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        let alert = cause.downcast_ref::<io::Error>().and_then(refusal);
        if let Some(rustls::Error::AlertReceived(alert)) = alert {
            return Some(io::Error::new(io::ErrorKind::PermissionDenied, told_of_alert(*alert)));
        }
        next = cause.source();
    }
    None
}

fn refusal(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

fn stamps(settings: &EngineTls) -> Vec<Option<(SystemTime, u64)>> {
    let client = settings.client.iter().flat_map(|(certificate, key)| [certificate, key]);
    let stamp = |path: &Path| {
        let facts = fs::metadata(path).ok()?;
        Some((facts.modified().ok()?, facts.len()))
    };
    let path = |pem: &Pem| match pem {
        Pem::File(path) => stamp(path),
        Pem::Text(_) => None,
    };
    settings.roots.iter().chain(client).map(path).collect()
}

fn make(settings: &EngineTls) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = builder.with_root_certificates(roots(settings.roots.as_ref())?);
    let config = match &settings.client {
        Some((certificate, key)) => {
            let chain = chain("cert", certificate)?;
            let pair = builder.with_client_auth_cert(chain, private_key(key)?);
            pair.map_err(|error| {
                format!("{} and {} are no pair: {error}", named("cert", certificate), named("key", key))
            })?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// The authorities of the setting, or those that this machine trusts.
fn roots(pem: Option<&Pem>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = match pem {
        Some(pem) => chain("ca", pem)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (good, _) = roots.add_parsable_certificates(found);
    match (good, pem) {
        (0, Some(pem)) => Err(format!("{} holds no sound certificate", named("ca", pem))),
        (0, None) => Err("this machine trusts no authority: name the engine's own by `tls: {ca: ca.pem}`".to_owned()),
        _ => Ok(roots),
    }
}

fn chain(key: &str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(key, pem)?).collect();
    let chain = chain.map_err(|error| format!("{} is not PEM: {error}", named(key, pem)))?;
    if chain.is_empty() { Err(format!("{} holds no certificate", named(key, pem))) } else { Ok(chain) }
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, String> {
    // The reader's own words may quote what stands there.
    let key = PrivateKeyDer::from_pem_slice(&read("key", pem)?);
    key.map_err(|_| format!("{} holds no private key that can be read", named("key", pem)))
}

fn read(key: &str, pem: &Pem) -> Result<Vec<u8>, String> {
    match pem {
        Pem::File(path) => {
            let told = |error: io::Error| format!("can not read {}: {error}", named(key, pem));
            // A pipe would be waited for.
            if !fs::metadata(path).map_err(told)?.is_file() {
                return Err(told(io::Error::other("it is no regular file")));
            }
            fs::read(path).map_err(told)
        }
        Pem::Text(text) => Ok(text.clone().into_bytes()),
    }
}

fn named(key: &str, pem: &Pem) -> String {
    match pem {
        Pem::File(path) => format!("`{}`", path.display()),
        Pem::Text(_) => format!("the text of `{key}`"),
    }
}
