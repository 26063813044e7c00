//! When all places are taken, in clear and with TLS: who comes then is told so in what it speaks.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use dormouse::{
    control::LiveTable,
    model::{CertificateFiles, Place, Served, TlsSettings},
    net::{Certificates, TlsServer},
    proxy::{Limits, ProxySettings, Shared, Workers, bind_workers},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_util::sync::CancellationToken;

/// The beginning of a request: whoever has sent it is not silent, and keeps its place.
const BEGINNING: &[u8] = b"GET / HTTP/1.1\r\n";

/// One worker with one place, on one listener.
fn one_place(tls: Option<TlsServer>, shutdown: &CancellationToken) -> Workers {
    let limits = Limits { connections: 1, header_timeout: Duration::from_secs(600), ..Limits::default() };
    let settings = ProxySettings { limits, shutdown_timeout: Duration::ZERO, ..ProxySettings::default() };
    let at = [SocketAddr::from(([127, 0, 0, 1], 0))];
    let (clear, secure) = if tls.is_none() { (at.as_slice(), [].as_slice()) } else { ([].as_slice(), at.as_slice()) };
    let table = Arc::new(ArcSwap::from_pointee(LiveTable::build([])));
    let shared = Shared::with_tls(table, Arc::new(ArcSwap::from_pointee(settings)), tls.map(Arc::new));
    bind_workers(1, clear, secure).unwrap().run(&shared, shutdown).unwrap()
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[test]
fn in_clear_there_is_an_answer() {
    let shutdown = CancellationToken::new();
    let workers = one_place(None, &shutdown);
    let at = workers.addresses()[0];
    let mut holder = connect(at);
    holder.write_all(BEGINNING).unwrap();
    let mut told = String::new();
    connect(at).read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("Too many connections are open."), "{told}");
    drop(holder);
    shutdown.cancel();
    workers.join();
}

/// Shakes hands with who has this certificate.
fn secured(at: SocketAddr, certificate: &str) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let session = ClientConnection::new(config.into(), "app.test".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(session, connect(at));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

#[test]
fn where_tls_is_spoken_there_is_an_alert() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["app.test".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    fs::write(at("app.pem"), &certificate).unwrap();
    fs::write(at("app.key"), key.serialize_pem()).unwrap();
    let files = CertificateFiles { certificate: at("app.pem"), key: at("app.key"), place: Place::Body("test".into()) };
    let certificates = Certificates::new(Box::new(|_| Served::ByName), Box::new(|_| None));
    certificates.configure(&TlsSettings { certificates: vec![files], ..TlsSettings::default() });

    let shutdown = CancellationToken::new();
    let workers = one_place(Some(TlsServer::new(Arc::new(certificates)).unwrap()), &shutdown);
    let at = workers.addresses()[0];
    let mut holder = secured(at, &certificate).unwrap();
    holder.write_all(BEGINNING).unwrap();
    let error = secured(at, &certificate).unwrap_err();
    let told = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    assert_eq!(told, Some(&Error::AlertReceived(AlertDescription::InternalError)), "{error}");
    drop(holder);
    shutdown.cancel();
    workers.join();
}
