//! Told to end, it lets everybody finish, and cuts at the deadline who has not.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    shift::Shift,
    wait::{must, until},
};

/// How long those who are served may take to end.
const DEADLINE: Duration = Duration::from_secs(4);

/// One request after the other on a connection that is kept. One is half sent when the end is told, and goes on once
/// that is known: between two requests the connection might be closed before the next is seen.
async fn keeps_alive(at: SocketAddr, shift: Shift, ending: oneshot::Receiver<()>) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /slow?ms=100 HTTP/1.1\r\nHost: steady.test\r\n\r\n").await.unwrap();
        let head = answer(&mut stream).await;
        assert!(!is_last(&head), "nobody was told to end yet: {head}");
        shift.answers.fetch_add(1, Ordering::SeqCst);
    }
    let half = b"POST /echo HTTP/1.1\r\nHost: steady.test\r\nContent-Length: 9\r\n\r\nhalf";
    stream.write_all(half).await.unwrap();
    ending.await.unwrap();
    stream.write_all(b" more").await.expect("it is taken");
    let head = answer(&mut stream).await;
    assert!(is_last(&head), "it is told that this was the last: {head}");
    assert_eq!(must("the end", stream.read(&mut [0])).await.expect("no reset"), 0);
}

fn is_last(head: &str) -> bool {
    head.to_ascii_lowercase().contains("connection: close")
}

/// A whole answer, which is a good one; its head is returned.
async fn answer(stream: &mut TcpStream) -> String {
    let is_whole = |got: &[u8]| {
        let text = String::from_utf8_lossy(got);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = crate::support::dormouse::field(head, "content-length")?.parse::<usize>().ok()?;
        (body.len() >= length).then(|| head.to_owned())
    };
    let mut got = Vec::new();
    loop {
        let count = must("an answer", stream.read_buf(&mut got)).await.expect("an answer");
        assert_ne!(count, 0, "no answer, but {:?}", String::from_utf8_lossy(&got));
        if let Some(head) = is_whole(&got) {
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            return head;
        }
    }
}

/// Some requests at once through HTTP/2, again and again, until the connection takes no more.
async fn speaks_http2(at: SocketAddr, shift: Shift) {
    let stream = TcpStream::connect(at).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    loop {
        let mut asked = Vec::new();
        for _ in 0..3 {
            let Ok(mut ready) = client.clone().ready().await else { break };
            let request = http::Request::get("http://steady.test/slow?ms=300").body(()).unwrap();
            let Ok((response, _)) = ready.send_request(request, true) else { break };
            asked.push(response);
        }
        if asked.is_empty() {
            break;
        }
        for response in asked {
            match must("an answer", response).await {
                Ok(response) => {
                    assert_eq!(response.status(), 200);
                    let mut body = response.into_body();
                    while let Some(piece) = must("a body", body.data()).await {
                        let piece = piece.expect("a whole body");
                        body.flow_control().release_capacity(piece.len()).unwrap();
                    }
                    shift.answers.fetch_add(1, Ordering::SeqCst);
                }
                // It was not worked on (RFC 9113, 6.8).
                Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => {}
                Err(error) => panic!("a request failed: {error}"),
            }
        }
    }
    drop(client);
    let _ = driving.await;
}

/// One WebSocket, until it is cut; when that was.
async fn talks(at: SocketAddr, shift: Shift) -> Instant {
    let stream = TcpStream::connect(at).await.unwrap();
    let (mut socket, _) = must("a WebSocket", client_async("ws://steady.test/ws", stream)).await.unwrap();
    loop {
        let text = Message::text(shift.answers.fetch_add(1, Ordering::SeqCst).to_string());
        if socket.send(text.clone()).await.is_err() {
            return Instant::now();
        }
        match must("an echo", socket.next()).await {
            Some(Ok(echo)) if echo == text => tokio::time::sleep(Duration::from_millis(5)).await,
            Some(Ok(other)) => assert!(other.is_close(), "{other:?}"),
            None | Some(Err(_)) => return Instant::now(),
        }
    }
}

/// One stream of TCP, until it is cut; when that was.
async fn streams(mut stream: TcpStream, shift: Shift) -> Instant {
    loop {
        let text = format!("{:08}", shift.answers.fetch_add(1, Ordering::SeqCst));
        let mut back = [0; 8];
        let talk = async {
            stream.write_all(text.as_bytes()).await?;
            stream.read_exact(&mut back).await
        };
        if must("an echo", talk).await.is_err() {
            return Instant::now();
        }
        assert_eq!(back, text.as_bytes());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A download that takes longer than anybody waits; when it was cut.
async fn downloads(at: SocketAddr) -> Instant {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = b"GET /download?bytes=100000000&rate=20000 HTTP/1.1\r\nHost: steady.test\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut room = vec![0; 64 << 10];
    while must("more", stream.read(&mut room)).await.is_ok_and(|count| count > 0) {}
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_until_the_deadline_and_then_all_is_cut() {
    let idle = "idle_timeout: 1h";
    let (steady, echo) = (App::new("steady").idle(idle), App::echoing("echo", "tcp").idle(idle));
    let seconds = DEADLINE.as_secs();
    let mut dormouse = Dormouse::start(&format!("shutdown_timeout: {seconds}s\n{}", config(&[&steady, &echo]))).await;
    dormouse.serves_at(echo.front()).await;
    let at = dormouse.http;
    let shifts: [Shift; 4] = std::array::from_fn(|_| Shift::default());
    let [kept, http2, socket, stream] = shifts.clone();
    let tcp = TcpStream::connect(echo.front()).await.unwrap();
    let (end, ending) = oneshot::channel();
    let finish = [tokio::spawn(keeps_alive(at, kept, ending)), tokio::spawn(speaks_http2(at, http2))];
    let cut = [tokio::spawn(talks(at, socket)), tokio::spawn(streams(tcp, stream)), tokio::spawn(downloads(at))];
    let answers = async || shifts.each_ref().map(|shift| shift.answers.load(Ordering::SeqCst));
    until("load of every kind", answers, |answers| answers.iter().all(|count| *count > 2)).await;
    until("a request under way", async || steady.journal().arrivals("/echo"), |count| *count == 1).await;
    let before = answers().await;
    let told = Instant::now();
    dormouse.signal(libc::SIGTERM);
    until("no new connections", async || TcpStream::connect(at).await.is_err(), |refused| *refused).await;
    end.send(()).unwrap();
    // Each request that was taken has its answer, and then the client is told.
    for client in finish {
        must("the last answer", client).await.unwrap();
    }
    // What has no end of its own goes on meanwhile, and is cut at the deadline and not before.
    for client in cut {
        let cut = must("the deadline", client).await.unwrap();
        let lasted = cut - told;
        assert!(lasted >= DEADLINE, "cut after {lasted:?}:\n{}", dormouse.log());
    }
    let after = answers().await;
    assert!(before.iter().zip(&after).skip(2).all(|(before, after)| after > before), "{before:?} {after:?}");
    assert!(dormouse.end().await.success());
    assert!(dormouse.log().contains("still in use at the end of the shutdown time"), "{}", dormouse.log());
}
