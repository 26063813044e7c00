//! A proxy that speaks TLS, and a way to it for clients that do not.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use arc_swap::ArcSwap;
use dormouse::{
    control::{LiveRoute, LiveTable, StickyKey},
    model::Served,
    net::{AnyCertificate, Certificates, TlsServer},
    proxy::{Shared, bind_workers},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::support::*;

/// A proxy with one route to this upstream. Its address is that of the way: whoever connects there speaks to it through
/// TLS, as one that has chosen HTTP/2.
pub(crate) fn proxy_through_tls(upstream: SocketAddr) -> Proxy {
    let route = Arc::new(LiveRoute::new(Arc::new(spec(upstream)), &|_| None, &StickyKey::random, None));
    let table = Arc::new(ArcSwap::from_pointee(LiveTable::build([Arc::clone(&route)])));
    let certificates = Certificates::new(Box::new(|_| Served::ByName), Box::new(|_| None));
    let tls = TlsServer::new(Arc::new(certificates)).unwrap();
    let shared = Shared::with_tls(table, Arc::new(ArcSwap::from_pointee(settings())), Some(Arc::new(tls)));
    let shutdown = CancellationToken::new();
    let bound = bind_workers(1, &[], &[SocketAddr::from(([127, 0, 0, 1], 0))]).unwrap();
    let workers = bound.run(&shared, &shutdown).unwrap();
    let address = way_to(workers.addresses()[0]);
    Proxy::new(address, route, shutdown, workers)
}

/// An address that leads there through TLS.
fn way_to(proxy: SocketAddr) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        // Who shows it is not what these tests are about.
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, connector) = (client.unwrap(), connector.clone());
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    client.set_nonblocking(true).unwrap();
                    let mut client = TcpStream::from_std(client).unwrap();
                    let to = TcpStream::connect(proxy).await.unwrap();
                    let mut to = connector.connect(ServerName::try_from("app.test").unwrap(), to).await.unwrap();
                    assert_eq!(to.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
                    let _ended = tokio::io::copy_bidirectional(&mut client, &mut to).await;
                });
            });
        }
    });
    address
}
