//! Clients that ask for as long as their shift lasts, and are neither refused nor cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use super::{
    dormouse::{field, get},
    wait::must,
};

/// What clients share: whether they end, and how often they were answered.
#[derive(Clone, Default)]
pub(crate) struct Shift {
    pub(crate) over: Arc<AtomicBool>,
    pub(crate) answers: Arc<AtomicUsize>,
}

impl Shift {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    async fn answered(&self) {
        self.answers.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One request after the other on a connection, for as long as it is kept.
pub(crate) async fn keeps_alive(at: SocketAddr, shift: Shift) {
    while shift.goes_on() {
        let mut stream = TcpStream::connect(at).await.expect("nobody is refused");
        let mut kept = true;
        while kept && shift.goes_on() {
            stream.write_all(b"GET /echo HTTP/1.1\r\nHost: steady.test\r\n\r\n").await.expect("a request is taken");
            let mut got = Vec::new();
            let head = loop {
                let count = must("an answer", stream.read_buf(&mut got)).await.expect("an answer");
                assert_ne!(count, 0, "no answer, but {:?}", String::from_utf8_lossy(&got));
                let text = String::from_utf8_lossy(&got).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length: usize = field(head, "content-length").expect("a length").parse().unwrap();
                if body.len() >= length {
                    break head.to_owned();
                }
            };
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            kept = field(&head, "connection") != Some("close");
            shift.answered().await;
        }
    }
}

/// One request after the other through HTTP/2. What the connection takes no more, it is not asked.
pub(crate) async fn speaks_http2(at: SocketAddr, shift: Shift) {
    while shift.goes_on() {
        let stream = TcpStream::connect(at).await.expect("nobody is refused");
        let (client, connection) = h2::client::handshake(stream).await.expect("a handshake");
        let driving = tokio::spawn(connection);
        while shift.goes_on() {
            let Ok(mut ready) = client.clone().ready().await else { break };
            let request = http::Request::get("http://steady.test/echo").body(()).unwrap();
            let Ok((response, _)) = ready.send_request(request, true) else { break };
            let response = match must("an answer", response).await {
                Ok(response) => response,
                // It was not worked on (RFC 9113, 6.8), and is asked again.
                Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => break,
                Err(error) => panic!("a request failed: {error}"),
            };
            assert_eq!(response.status(), 200);
            let mut body = response.into_body();
            while let Some(piece) = must("a body", body.data()).await {
                let piece = piece.expect("a whole body");
                body.flow_control().release_capacity(piece.len()).unwrap();
            }
            shift.answered().await;
        }
        drop(client);
        let _ = driving.await;
    }
}

/// A connection for each request.
pub(crate) async fn comes_anew(at: SocketAddr, name: &'static str, pause: Duration, shift: Shift) {
    while shift.goes_on() {
        let reply = get(at, name, "/", "").await.expect("an answer");
        assert_eq!(reply.status, 200, "{reply:?}");
        shift.answered().await;
        tokio::time::sleep(pause).await;
    }
}

/// One WebSocket for the whole time.
pub(crate) async fn talks(at: SocketAddr, shift: Shift) {
    let stream = TcpStream::connect(at).await.expect("nobody is refused");
    let (mut socket, _) = must("a WebSocket", client_async("ws://steady.test/ws", stream)).await.unwrap();
    while shift.goes_on() {
        let text = Message::text(shift.answers.load(Ordering::SeqCst).to_string());
        socket.send(text.clone()).await.expect("it is not cut");
        assert_eq!(must("an echo", socket.next()).await.expect("it is not cut").expect("an echo"), text);
        shift.answered().await;
    }
}

/// One stream of TCP for the whole time.
pub(crate) async fn streams(mut stream: TcpStream, shift: Shift) {
    while shift.goes_on() {
        let text = format!("{:08}", shift.answers.load(Ordering::SeqCst));
        stream.write_all(text.as_bytes()).await.expect("it is not cut");
        let mut back = [0; 8];
        must("an echo", stream.read_exact(&mut back)).await.expect("it is not cut");
        assert_eq!(back, text.as_bytes());
        shift.answered().await;
    }
}
