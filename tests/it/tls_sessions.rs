//! Sessions of TLS: taken up again with a ticket, across a reload and not beyond the process; and clients that begin
//! none.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream as AsyncStream,
};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    tls::{Authority, YEAR},
    wait::{LONG, must},
};

/// A client that keeps the tickets that it gets.
fn client(authority: &Authority, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap()).unwrap();
    let provider = rustls::crypto::ring::default_provider().into();
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Asks on a connection of its own; how its handshake went.
async fn ask(client: &Arc<ClientConfig>, at: SocketAddr) -> HandshakeKind {
    let session = ClientConnection::new(Arc::clone(client), "app.test".try_into().unwrap()).unwrap();
    let talk = move || {
        let tcp = TcpStream::connect(at).unwrap();
        tcp.set_read_timeout(Some(LONG)).unwrap();
        let mut stream = StreamOwned::new(session, tcp);
        stream.write_all(b"GET /echo HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        stream.conn.handshake_kind().unwrap()
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

#[tokio::test]
async fn a_ticket_is_good_across_a_reload_and_of_no_use_to_the_next_process() {
    let (app, other) = (App::new("app").idle("idle_timeout: 1h"), App::new("other"));
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let text = |apps: &[&App]| format!("{}tls: {{ certificates: [{}] }}\n", config(apps), authority.entry("app"));
    let mut dormouse = Dormouse::start_secure(&text(&[&app])).await;
    let at = dormouse.https.expect("it serves HTTPS");
    let clients = [&TLS13, &TLS12].map(|version| client(&authority, version));
    for client in &clients {
        assert_eq!(ask(client, at).await, HandshakeKind::Full);
        assert_eq!(ask(client, at).await, HandshakeKind::Resumed);
    }
    // Its certificate is another one from now on, too.
    authority.issue("app", &["app.test"], YEAR);
    dormouse.configure(&text(&[&app, &other]));
    dormouse.knows("other").await;
    for client in &clients {
        assert_eq!(ask(client, at).await, HandshakeKind::Resumed);
    }
    assert!(dormouse.end().await.success());
    dormouse.start_again().await;
    let at = dormouse.https.expect("it serves HTTPS");
    for client in &clients {
        assert_eq!(ask(client, at).await, HandshakeKind::Full, "the keys of tickets are nowhere on the disk");
        assert_eq!(ask(client, at).await, HandshakeKind::Resumed);
    }
}

/// Ten seconds are what a handshake has.
#[tokio::test]
async fn who_opens_the_port_of_tls_and_says_nothing_or_half_of_it_is_ended() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let text = format!("{}tls: {{ certificates: [{}] }}\n", config(&[&app]), authority.entry("app"));
    let dormouse = Dormouse::start_secure(&text).await;
    let at = dormouse.https.expect("it serves HTTPS");
    // The beginning of a record of 512 bytes.
    let ends = [&b""[..], &[22, 3, 1, 2, 0, 1]].map(|begun| async move {
        let mut stream = AsyncStream::connect(at).await.unwrap();
        stream.write_all(begun).await.unwrap();
        let mut came = Vec::new();
        let _ = must("the end", stream.read_to_end(&mut came)).await;
        came
    });
    for came in futures_util::future::join_all(ends).await {
        assert!(came.is_empty() || came[0] == 21, "nothing or an alert, not {came:?}");
    }
    assert_eq!(app.journal().starts(), 0);
    assert_eq!(ask(&client(&authority, &TLS13), at).await, HandshakeKind::Full, "others are served");
}
