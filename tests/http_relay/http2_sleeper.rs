//! What HTTP/2 carries beside plain requests, before a backend that sleeps: WebSockets (RFC 8441) and gRPC-web wake it and are
//! held as requests of HTTP/1.1 are.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use bytes::Bytes;
use dormouse::{
    backend::StatusState,
    model::{IdlePolicy, Scheme},
    provider::Script,
};
use http::{HeaderMap, Request};

use crate::{
    frames::*,
    h2_service::{Raw, whole},
    sleeper::*,
    support::*,
};

/// It sleeps soon after the last one has gone.
fn short() -> IdlePolicy {
    IdlePolicy { idle_timeout: Some(Duration::from_millis(300)), min_uptime: Duration::ZERO, ..policy() }
}

/// A WebSocket of HTTP/1.1 that sends back what comes.
fn socket(_: usize, stream: &mut TcpStream) {
    let head = read_head(stream);
    assert!(head.starts_with("GET /socket HTTP/1.1\r\n") && head.contains("\r\nUpgrade: websocket\r\n"), "{head}");
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nopen";
    stream.write_all(switch.as_bytes()).unwrap();
    let mut bytes = [0; 64];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        stream.write_all(&bytes[..count]).unwrap();
    }
}

/// A WebSocket of HTTP/2 that sends back what comes.
fn socket_of_http_2(_: usize, stream: &mut TcpStream) {
    // It takes them: SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441, 3).
    let Some(mut raw) = Raw::begin(stream, &[(8, 1)]) else { return };
    while let Some(frame) = raw.read() {
        match frame.kind {
            HEADERS => {
                raw.send(HEADERS, END_HEADERS, frame.stream, block(&[(":status", "200")]));
                raw.send(DATA, 0, frame.stream, "open");
            }
            DATA => raw.send(DATA, frame.flags & END_STREAM, frame.stream, frame.payload),
            _ => {}
        }
    }
}

/// Reads data of this stream up to so many bytes.
fn data(client: &mut H2, stream: u32, count: usize) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let frame = client.read().expect("the stream goes on");
        match frame.kind {
            DATA if frame.stream == stream => bytes.extend(frame.payload),
            SETTINGS if frame.flags & ACK == 0 => client.send(SETTINGS, ACK, 0, []),
            RST_STREAM | GOAWAY => panic!("{frame:?}"),
            _ => {}
        }
    }
    text(bytes)
}

/// It is in use by one, though nothing is said for longer than it would be kept awake for nobody.
fn is_held(sleeper: &Sleeper) {
    thread::sleep(Duration::from_millis(900));
    assert_eq!((sleeper.backend.passes(), sleeper.backend.status().borrow().state), (1, StatusState::Awake));
}

fn sleeps_again(sleeper: &Sleeper) {
    until("it sleeps again", || sleeper.backend.status().borrow().state == StatusState::Stopped);
}

#[test]
fn a_websocket_over_http_2_wakes_and_keeps_the_backend_awake() {
    for (scheme, app) in [(Scheme::Http, socket as fn(usize, &mut TcpStream)), (Scheme::H2c, socket_of_http_2)] {
        let sleeper = Asleep { scheme, policy: short(), ..Asleep::default() }.with(app);
        let mut client = H2::connect(&sleeper.proxy);
        for (wakes, stream) in [(1, 1), (2, 3)] {
            let asking = request("CONNECT", "/socket", &[(":protocol", "websocket"), ("sec-websocket-version", "13")]);
            client.send(HEADERS, END_HEADERS, stream, asking);
            // Said while it sleeps.
            client.send(DATA, 0, stream, "early");
            assert_eq!(data(&mut client, stream, 9), "openearly", "{scheme:?}");
            is_held(&sleeper);
            client.send(DATA, END_STREAM, stream, "late");
            assert_eq!(data(&mut client, stream, 4), "late", "{scheme:?}");
            sleeps_again(&sleeper);
            assert_eq!(sleeper.starts(), wakes, "{scheme:?}");
        }
    }
}

#[test]
fn a_websocket_of_http_1_wakes_a_backend_that_takes_it_over_http_2() {
    let sleeper = Asleep { scheme: Scheme::H2c, policy: short(), ..Asleep::default() }.with(socket_of_http_2);
    let mut client = connect(&sleeper.proxy);
    let asking = "GET /socket HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.write_all(asking.as_bytes()).unwrap();
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(read_exactly(&mut client, 4), b"open");
    is_held(&sleeper);
    client.write_all(b"late").unwrap();
    assert_eq!(read_exactly(&mut client, 4), b"late");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    sleeps_again(&sleeper);
    assert_eq!(sleeper.starts(), 1);
}

/// A message of gRPC-web; the last one, of trailers, has its highest bit set.
fn message(flags: u8, content: &str) -> Vec<u8> {
    [&[flags][..], &u32::try_from(content.len()).unwrap().to_be_bytes(), content.as_bytes()].concat()
}

fn answered() -> Vec<u8> {
    [message(0, "an answer"), message(0x80, "grpc-status: 0\r\ngrpc-message: \r\n")].concat()
}

/// Answers a call of gRPC-web, its trailers in the body.
fn calls(_: usize, stream: &mut TcpStream) {
    loop {
        let head = read_head(stream);
        if head.is_empty() {
            return;
        }
        let body = read_body(&head, stream);
        assert_eq!(body, message(0, "a question"), "{head}");
        assert_eq!(header(&head, "content-type"), Some("application/grpc-web+proto"));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web+proto\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        // Cut where no message ends.
        for part in answered().chunks(7) {
            write!(stream, "{:x}\r\n", part.len()).unwrap();
            stream.write_all(&[part, b"\r\n"].concat()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    }
}

/// What a client of HTTP/2 is answered: the status, the fields and the body.
fn call(proxy: &Proxy) -> (u16, HeaderMap, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request =
            Request::post("http://app.test/echo.Echo/Say").header("content-type", "application/grpc-web+proto");
        let request = request.header("x-grpc-web", "1").body(()).unwrap();
        let (answer, mut body) = sender.ready().await.unwrap().send_request(request, false).unwrap();
        body.send_data(Bytes::from(message(0, "a question")), true).unwrap();
        let (head, mut body) = answer.await.unwrap().into_parts();
        let (body, trailers) = whole(&mut body).await.unwrap();
        assert!(trailers.is_none(), "a browser does not see them");
        (head.status.as_u16(), head.headers, body)
    })
}

const CALL: &str = "POST /echo.Echo/Say HTTP/1.1\r\nHost: app.test\r\nContent-Type: application/grpc-web+proto\r\n\
    X-Grpc-Web: 1\r\nContent-Length: 15\r\n\r\n\0\0\0\0\na question";

#[test]
fn a_call_of_grpc_web_wakes_and_has_its_trailers_in_the_body() {
    let sleeper = Asleep { policy: short(), ..Asleep::default() }.with(calls);
    let (status, fields, body) = call(&sleeper.proxy);
    assert_eq!((status, body), (200, answered()));
    assert_eq!(fields["content-type"], "application/grpc-web+proto");
    assert!(!fields.contains_key("grpc-status"), "{fields:?}");
    sleeps_again(&sleeper);
    let (head, body) = sleeper.ask(CALL);
    assert!(head.starts_with("HTTP/1.1 200 ") && body == answered(), "{head}");
    assert_eq!(sleeper.starts(), 2);
}

#[test]
fn a_call_of_grpc_web_to_a_backend_that_does_not_wake_is_told_so_in_its_own_words() {
    let script = Script { start_fails: Some("no such image".to_owned()), ..Script::default() };
    let sleeper = Asleep { script, ..Asleep::default() }.with(calls);
    // A status of gRPC in the head is what its clients read where there is no message.
    let (status, fields, body) = call(&sleeper.proxy);
    assert_eq!((status, body.len()), (200, 0), "{fields:?}");
    assert_eq!(
        (&fields["content-type"], &fields["grpc-status"]),
        (&"application/grpc-web+proto".parse().unwrap(), &"14".parse().unwrap())
    );
    assert!(!fields["grpc-message"].is_empty(), "{fields:?}");
    // Over HTTP/1.1 they read the status of HTTP: 503 is unavailable, too.
    let (head, _) = sleeper.ask(CALL);
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
}
