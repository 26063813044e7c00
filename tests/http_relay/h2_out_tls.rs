//! Services that choose HTTP/2 through TLS, and WebSockets towards services of HTTP/2.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use dormouse::model::{Endpoint, RouteTarget, Scheme, UpstreamTls};
use h2::server::Builder;
use http::Response;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::{frames::*, h2_service::*, support::*};

/// A service behind TLS that offers these, and counts its connections of HTTP/2 and of HTTP/1.1.
fn tls_service(offers: &[&str]) -> (SocketAddr, Arc<[AtomicUsize; 2]>) {
    let key = rcgen::generate_simple_self_signed(vec!["app.test".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into()))
        .unwrap();
    config.alpn_protocols = offers.iter().map(|offer| offer.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let counted = Arc::clone(&counts);
    let address = upstream(move |_, stream| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = stream.try_clone().unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let Ok(mut tls) = acceptor.accept(stream).await else { return };
            let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            counted[usize::from(!http2)].fetch_add(1, Ordering::SeqCst);
            if http2 {
                let mut connection = Builder::new().handshake::<_, Bytes>(tls).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(tell(request, respond));
                }
                return;
            }
            let mut head = Vec::new();
            while let Ok(byte) = tls.read_u8().await {
                head.push(byte);
                if !head.ends_with(b"\r\n\r\n") {
                    continue;
                }
                let answer = if head.windows(8).any(|part| part.eq_ignore_ascii_case(b"upgrade:")) {
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nopen"
                        .to_owned()
                } else {
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", head.len(), text(head.clone()))
                };
                tls.write_all(answer.as_bytes()).await.unwrap();
                head.clear();
            }
        });
    });
    (address, counts)
}

fn https_proxy(upstream: SocketAddr) -> Proxy {
    let mut spec = spec(upstream);
    let endpoint = Endpoint { scheme: Scheme::Https, port: upstream.port() };
    spec.target = RouteTarget::Address { host: upstream.ip().to_string().into(), endpoint };
    let tls = UpstreamTls { verify: false, ..UpstreamTls::default() };
    Arc::make_mut(&mut spec.options).upstream.tls = tls;
    proxy_with(spec, None, settings())
}

const GET: &str = "GET /page HTTP/1.1\r\nHost: app.test\r\n\r\n";
const SOCKET: &str = "GET /socket HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn http_2_is_spoken_where_the_service_chooses_it() {
    for (offers, line, counts) in [
        (&["h2", "http/1.1"][..], "GET https://app.test/page HTTP/2.0\n", [1, 0]),
        (&["h2"], "GET https://app.test/page HTTP/2.0\n", [1, 0]),
        (&["http/1.1"], "GET /page HTTP/1.1\r\n", [0, 1]),
        (&[], "GET /page HTTP/1.1\r\n", [0, 1]),
    ] {
        let (address, counted) = tls_service(offers);
        let proxy = https_proxy(address);
        for _ in 0..3 {
            let (head, body) = ask(&mut connect(&proxy), GET);
            let seen = text(body);
            assert!(head.starts_with("HTTP/1.1 200 ") && seen.starts_with(line), "{offers:?}: {head}{seen}");
        }
        assert_eq!([0, 1].map(|at| counted[at].load(Ordering::SeqCst)), counts, "{offers:?}");
    }
}

#[test]
fn a_websocket_takes_a_connection_of_http_1_where_the_service_has_one() {
    let (address, counted) = tls_service(&["h2", "http/1.1"]);
    let proxy = https_proxy(address);
    assert!(ask(&mut connect(&proxy), GET).0.starts_with("HTTP/1.1 200 "));
    let mut client = connect(&proxy);
    client.write_all(SOCKET.as_bytes()).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
    assert_eq!(read_exactly(&mut client, 4), b"open");
    assert_eq!([0, 1].map(|at| counted[at].load(Ordering::SeqCst)), [1, 1]);
    // Where there is none, that is said.
    let (address, _) = tls_service(&["h2"]);
    let proxy = https_proxy(address);
    let (head, body) = ask(&mut connect(&proxy), SOCKET);
    assert!(head.starts_with("HTTP/1.1 502 ") && text(body).contains("no such upgrade"), "{head}");
}

#[test]
fn a_websocket_passes_over_http_2_where_the_service_has_rfc_8441() {
    let mut builder = Builder::new();
    builder.enable_connect_protocol();
    let service = service(&builder, |request, mut respond| async move {
        assert_eq!((request.method().as_str(), request.uri().path()), ("CONNECT", "/socket"));
        let protocol = request.extensions().get::<h2::ext::Protocol>().map(|protocol| protocol.as_str().to_owned());
        assert_eq!(protocol.as_deref(), Some("websocket"));
        assert!(!request.headers().contains_key("sec-websocket-key"));
        let mut body = request.into_body();
        let mut answer = respond.send_response(Response::new(()), false).unwrap();
        answer.send_data("first".into(), false).unwrap();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            answer.send_data(data, false).unwrap();
        }
        answer.send_data(Bytes::new(), true).unwrap();
    });
    let proxy = h2c_proxy(service.address);
    let mut client = connect(&proxy);
    client.write_all(SOCKET.as_bytes()).unwrap();
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(header(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(read_exactly(&mut client, 5), b"first");
    client.write_all(b"ping").unwrap();
    assert_eq!(read_exactly(&mut client, 4), b"ping");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    // HTTP/2 on both sides.
    let mut client = H2::connect(&proxy);
    let asking = request("CONNECT", "/socket", &[(":protocol", "websocket")]);
    client.send(HEADERS, END_HEADERS, 1, asking);
    client.send(DATA, END_STREAM, 1, "pong");
    let answer = client.outcome(1).answer();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "firstpong"));
    assert_eq!(service.connections(), 1);
}

#[test]
fn an_upgrade_that_a_service_in_clear_does_not_take_is_tried_with_http_1() {
    // It speaks both on its port, and knows no WebSockets over HTTP/2.
    let both = upstream(|_, stream| {
        let mut first = [0; 3];
        if stream.peek(&mut first).is_ok() && &first == b"PRI" {
            let mut raw = Raw::begin(stream, &[]).unwrap();
            while let Some(stream) = raw.whole_request() {
                raw.answer(stream, "two");
            }
            return;
        }
        read_head(stream);
        let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nopen";
        stream.write_all(switch.as_bytes()).unwrap();
        let _ = stream.read(&mut [0]);
    });
    let proxy = h2c_proxy(both);
    let mut client = connect(&proxy);
    client.write_all(SOCKET.as_bytes()).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
    assert_eq!(read_exactly(&mut client, 4), b"open");
    assert_eq!(text(ask(&mut connect(&proxy), GET).1), "two");
    // HTTP/2 alone.
    let service = service(&Builder::new(), tell);
    let proxy = h2c_proxy(service.address);
    let (head, body) = ask(&mut connect(&proxy), SOCKET);
    assert!(head.starts_with("HTTP/1.1 502 ") && text(body).contains("no such upgrade"), "{head}");
}
