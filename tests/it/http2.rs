//! HTTP/2 with a real client, `curl`: in clear by prior knowledge, and through TLS; and behind a header of PROXY.

use std::{fs, io, net::SocketAddr, sync::Arc};

use dormouse::net::{Carries, Ends};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    tls::{Authority, YEAR, client_config, curl},
    wait::must,
};

#[tokio::test]
async fn a_sleeping_service_is_woken_through_http2_in_clear() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let url = |path: &str| format!("http://app.test:{}{path}", dormouse.http.port());
    let ask = async |path: &str, options: &[&str]| {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        curl(&url(path), "app.test", dormouse.http, options).await
    };
    let reply = ask("/echo", &["--http2-prior-knowledge", "--data", "hello"]).await;
    assert!(reply.head.starts_with("HTTP/2 200"), "{reply:?}\n{}", dormouse.log());
    assert!(reply.body.contains("\"length\":5"), "{reply:?}");
    assert_eq!(app.journal().starts(), 1);
    let reply = ask("/download?bytes=3000000", &["--http2-prior-knowledge"]).await;
    assert_eq!((reply.ok, reply.body.len()), (true, 3_000_000), "{}", reply.said);
    // Asked whether HTTP/2 is spoken, as an upgrade of HTTP/1.1: nobody answers that, and the request goes on.
    let reply = ask("/echo", &["--http2"]).await;
    assert!(reply.head.starts_with("HTTP/1.1 200") && !reply.body.contains("h2c"), "{reply:?}");
}

#[tokio::test]
async fn through_tls_http2_is_chosen_where_the_client_speaks_it() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let text = format!("{}tls: {{ certificates: [{}] }}\n", config(&[&app]), authority.entry("app"));
    let dormouse = Dormouse::start_secure(&text).await;
    let https = dormouse.https.expect("it serves HTTPS");
    let body = vec![b'x'; 3 << 20];
    fs::write(authority.path("body"), &body).unwrap();
    let file = format!("@{}", authority.path("body").display());
    let reply = authority.curl("app.test", https, "/echo", &["--data-binary", &file]).await;
    assert!(reply.head.starts_with("HTTP/2 200"), "{reply:?}\n{}", dormouse.log());
    assert!(reply.body.contains("\"length\":3145728"), "{reply:?}");
    let reply = authority.curl("app.test", https, "/echo", &["--http1.1"]).await;
    assert!(reply.head.starts_with("HTTP/1.1 200"), "{reply:?}");
    assert_eq!(app.journal().starts(), 1);
}

/// What the app shows of a request over HTTP/2.
async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<String, h2::Error> {
    let (mut sender, connection) = h2::client::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    let request = http::Request::get("https://app.test/echo").body(()).unwrap();
    let (answer, _) = sender.send_request(request, true)?;
    let mut body = answer.await?.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        text.extend(data?);
    }
    driver.abort();
    Ok(String::from_utf8(text).unwrap())
}

/// A connection on which this was said first.
async fn behind(header: &[u8], to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(header).await.unwrap();
    stream
}

/// The same, and then TLS.
async fn secure_behind(
    header: &[u8],
    to: SocketAddr,
    authority: &Authority,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap()).unwrap();
    let mut config = client_config().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config)).connect("app.test".try_into().unwrap(), behind(header, to).await).await
}

/// The headers of PROXY, of both versions, that tell of this client.
fn headers() -> [Vec<u8>; 2] {
    let ends = Ends { source: "192.0.2.7:4711".parse().unwrap(), destination: "192.0.2.1:443".parse().unwrap() };
    [b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n".to_vec(), ends.header(Carries::Stream)]
}

#[tokio::test]
async fn a_trusted_proxy_tells_who_the_client_of_http2_is() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let text = format!("{}tls: {{ certificates: [{}] }}\n", config(&[&app]), authority.entry("app"));
    let dormouse = Dormouse::start_secure(&format!("proxy_protocol: [127.0.0.1]\nhttps_redirect: false\n{text}")).await;
    let https = dormouse.https.expect("it serves HTTPS");
    for header in headers() {
        let clear = must("an answer", echo(behind(&header, dormouse.http).await)).await.unwrap();
        let secure = secure_behind(&header, https, &authority).await.unwrap();
        let secure = must("an answer", echo(secure)).await.unwrap();
        for seen in [clear, secure] {
            assert!(seen.contains("[\"X-Forwarded-For\",\"192.0.2.7\"]"), "{seen}\n{}", dormouse.log());
            assert!(!seen.contains("127.0.0.1\"]"), "{seen}");
        }
    }
    assert_eq!(app.journal().starts(), 1);
}

#[tokio::test]
async fn nobody_else_tells_who_the_client_of_http2_is() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let text = format!("{}tls: {{ certificates: [{}] }}\n", config(&[&app]), authority.entry("app"));
    let dormouse =
        Dormouse::start_secure(&format!("proxy_protocol: [192.0.2.0/24]\nhttps_redirect: false\n{text}")).await;
    let https = dormouse.https.expect("it serves HTTPS");
    for header in headers() {
        let clear = must("an end", echo(behind(&header, dormouse.http).await)).await;
        assert!(clear.is_err(), "{clear:?}");
        let secure = must("an end", secure_behind(&header, https, &authority)).await;
        assert!(secure.is_err(), "a header of PROXY is no beginning of TLS");
    }
    assert_eq!(app.journal().starts(), 0);
    // Without one it is served, and is who it is.
    let secure = secure_behind(b"", https, &authority).await.unwrap();
    let seen = must("an answer", echo(secure)).await.unwrap();
    assert!(seen.contains("[\"X-Forwarded-For\",\"127.0.0.1\"]"), "{seen}");
}
