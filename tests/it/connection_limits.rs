//! Limits on connections, in all and of each client: who is over them is turned away, and wakes nobody.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    own_network::{alone_with, connect_from, try_connect_from},
    wait::{must, until},
};

/// Clients that nobody knows.
const STRANGERS: &[&str] = &["198.51.100.1/32", "198.51.100.2/32", "203.0.113.9/32"];

/// Longer than anybody who is quiet is spared when places run out.
const QUIET: Duration = Duration::from_millis(1200);

/// Asks on a connection that is kept, and returns the answer; empty when the connection was ended.
async fn ask(stream: &mut TcpStream, name: &str) -> String {
    let text = format!("GET /status/200 HTTP/1.1\r\nHost: {name}.test\r\n\r\n");
    // One that is turned away may be so before it has asked.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut got = Vec::new();
    while !got.ends_with(b"as you wish\n") {
        match must("an answer", stream.read_buf(&mut got)).await {
            Ok(count) if count > 0 => {}
            Ok(_) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&got).into_owned()
}

/// What one is told who says nothing.
async fn told(mut stream: TcpStream) -> String {
    let mut got = Vec::new();
    let _ = must("the end", stream.read_to_end(&mut got)).await;
    String::from_utf8_lossy(&got).into_owned()
}

/// A number of the metrics.
async fn number(dormouse: &Dormouse, name: &str) -> u64 {
    let text = dormouse.api_text("GET", "/metrics", "").await;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

const REFUSED: &str = r#"dormouse_connections_refused_total{reason="client"}"#;
const FULL: &str = r#"dormouse_connections_refused_total{reason="full"}"#;
const FLOWS: &str = r#"dormouse_connections_refused_total{reason="client_flows"}"#;

/// Connections from there, each of which has had an answer and is kept.
async fn kept(dormouse: &Dormouse, source: &str, count: usize) -> Vec<TcpStream> {
    let mut kept = Vec::new();
    for _ in 0..count {
        let mut stream = connect_from(source, dormouse.http).await;
        let head = ask(&mut stream, "app").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{source}: {head:?}\n{}", dormouse.log());
        kept.push(stream);
    }
    kept
}

#[test]
fn one_client_has_no_more_than_it_may_and_others_are_served() {
    alone_with(STRANGERS, || async {
        let idle = "idle_timeout: 1h";
        let (app, sleeper) = (App::new("app").idle(idle), App::new("sleeper").idle(idle));
        let stream = App::echoing("stream", "tcp").idle(idle);
        let limits = "max_connections_per_client: 3\ntrusted_proxies: [203.0.113.0/24]\n";
        let routes = config(&[&app, &sleeper, &stream]);
        let dormouse = Dormouse::start(&format!("{limits}{routes}")).await;
        dormouse.serves_at(stream.front()).await;
        until("nobody is there", async || number(&dormouse, "dormouse_connections").await, |open| *open == 0).await;
        let (one, other) = ("198.51.100.1", "198.51.100.2");
        let mut first = kept(&dormouse, one, 3).await;
        assert_eq!(number(&dormouse, "dormouse_connections").await, 3);
        // More of it are told so, at each door, and wake nobody.
        for _ in 0..5 {
            let told = told(connect_from(one, dormouse.http).await).await;
            assert!(told.starts_with("HTTP/1.1 429 ") && told.contains("\r\nRetry-After: "), "{told:?}");
        }
        let head = ask(&mut connect_from(one, dormouse.http).await, "sleeper").await;
        assert!(!head.starts_with("HTTP/1.1 2"), "{head}");
        match try_connect_from(one, stream.front()).await {
            Ok(stream) => assert_eq!(told(stream).await, ""),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        assert_eq!((sleeper.journal().starts(), stream.journal().starts()), (0, 0));
        assert_eq!(number(&dormouse, REFUSED).await, 7);
        assert_eq!(number(&dormouse, FULL).await, 0);
        // Those that it has go on, others have their own, and a proxy in front and this machine have any number.
        assert!(ask(&mut first[0], "app").await.starts_with("HTTP/1.1 200"));
        let held = [kept(&dormouse, other, 3).await, kept(&dormouse, "203.0.113.9", 5).await];
        let own = kept(&dormouse, "127.0.0.1", 5).await;
        assert!(told(connect_from(other, dormouse.http).await).await.starts_with("HTTP/1.1 429 "));
        // The operator is told once of each.
        let log = dormouse.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("a client has 3 connections")).collect();
        assert!(lines.len() == 2 && lines[0].contains(one) && lines[1].contains(other), "{lines:?}");
        // Who ends one has room for another.
        drop(first.pop());
        let again = async || ask(&mut connect_from(one, dormouse.http).await, "app").await;
        until("an answer", again, |head| head.starts_with("HTTP/1.1 200")).await;
        // A reload is heeded by whoever comes next, and cuts nobody.
        dormouse.configure(&format!("max_connections_per_client: 2\n{routes}"));
        let mut more = Vec::new();
        let comes = async || {
            let mut stream = connect_from("203.0.113.9", dormouse.http).await;
            let head = ask(&mut stream, "app").await;
            more.push(stream);
            head
        };
        until("the new bound", comes, |head| head.starts_with("HTTP/1.1 429 ")).await;
        for mut stream in held.into_iter().flatten().chain(own) {
            assert!(ask(&mut stream, "app").await.starts_with("HTTP/1.1 200"));
        }
    });
}

#[test]
fn flows_of_one_client_have_a_bound_of_their_own_and_leave_its_connections_alone() {
    alone_with(STRANGERS, || async {
        let udp = App::echoing("udp", "tcp+udp").idle("idle_timeout: 1h");
        let config = format!("max_connections_per_client: 2\n{}", config(&[&udp]));
        // So few descriptors that the bound of flows, which goes by them, is met soon.
        let dormouse = Dormouse::start_bounded(&config, 200).await;
        dormouse.serves_at(udp.front()).await;
        let flow = async |source: &str| {
            let socket = UdpSocket::bind((source, 0)).await.unwrap();
            socket.connect(udp.front()).await.unwrap();
            socket.send(b"hello").await.unwrap();
            socket
        };
        let answered = async |socket: &UdpSocket| {
            let mut room = [0; 9];
            let count = must("an answer", socket.recv(&mut room)).await.unwrap();
            assert_eq!(&room[..count], b"hello");
        };
        let mut flows = Vec::new();
        loop {
            let socket = flow("198.51.100.1").await;
            let fate = async || (socket.try_recv(&mut [0; 9]).is_ok(), number(&dormouse, FLOWS).await);
            let (_, dropped) = until("an answer, or none", fate, |(answered, dropped)| *answered || *dropped > 0).await;
            if dropped > 0 {
                break;
            }
            flows.push(socket);
        }
        let count = flows.len();
        assert!(count > 2, "{count} flows, as the file says of connections");
        let line = format!("a client has {count} flows of UDP");
        until("a line of the log", async || dormouse.log(), |log| log.contains(&line)).await;
        answered(&flow("198.51.100.2").await).await;
        // What pretends to be a client in datagrams takes none of its connections.
        for _ in 0..2 {
            let mut stream = connect_from("198.51.100.1", udp.front()).await;
            stream.write_all(b"word").await.unwrap();
            let mut back = [0; 4];
            must("an echo", stream.read_exact(&mut back)).await.unwrap();
            assert_eq!(&back, b"word");
            flows[0].send(b"hello").await.unwrap();
            answered(&flows[0]).await;
        }
    });
}

/// Begins a request that takes as long as the client likes, and waits until it is under way.
async fn busy(app: &App, to: SocketAddr) -> TcpStream {
    let before = app.journal().arrivals("/echo");
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: app.test\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap();
    until("a request under way", async || app.journal().arrivals("/echo"), |now| *now > before).await;
    stream
}

#[tokio::test]
async fn no_more_are_open_than_the_file_says() {
    let idle = "idle_timeout: 1h";
    let (app, stream) = (App::new("app").idle(idle), App::echoing("stream", "tcp").idle(idle));
    let routes = config(&[&app, &stream]);
    let dormouse = Dormouse::start(&format!("max_connections: 4\n{routes}")).await;
    assert_eq!(dormouse.get("app", "/").await.status, 200);
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(busy(&app, dormouse.http).await);
    }
    let told_full = told(TcpStream::connect(dormouse.http).await.unwrap()).await;
    assert!(told_full.starts_with("HTTP/1.1 503 ") && told_full.contains("Too many connections are open."));
    dormouse.serves_at(stream.front()).await;
    assert_eq!(told(TcpStream::connect(stream.front()).await.unwrap()).await, "");
    assert!(number(&dormouse, FULL).await >= 2);
    let lines = async || dormouse.log().matches("4 connections are open, as many as may be").count();
    until("a line of the log", lines, |count| *count > 0).await;
    assert_eq!(lines().await, 1, "one for all: {}", dormouse.log());
    assert_eq!(number(&dormouse, "dormouse_connections").await, 4);
    assert_eq!(stream.journal().starts(), 0);
    // One that ends makes room, and those that are open go on.
    drop(all.pop());
    let again = async || dormouse.try_get("app", "/").await.map_or(0, |reply| reply.status);
    until("an answer", again, |status| *status == 200).await;
    let mut last = all.pop().unwrap();
    last.write_all(b" more").await.unwrap();
    let mut got = Vec::new();
    must("an answer", last.read_buf(&mut got)).await.unwrap();
    assert!(got.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&got));
    // Those that are quiet give their places up.
    drop((last, all));
    let mut quiet = Vec::new();
    let mut comes = async || {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        let is_answered = ask(&mut stream, "app").await.starts_with("HTTP/1.1 200");
        quiet.push(stream);
        (is_answered, number(&dormouse, "dormouse_connections").await)
    };
    for _ in 0..8 {
        let (_, open) = until("an answer", &mut comes, |(is_answered, _)| *is_answered).await;
        assert!(open <= 4, "{open} are open");
    }
    // More are let in by a reload.
    dormouse.configure(&format!("max_connections: 8\n{routes}"));
    until("more than there were", &mut comes, |(_, open)| *open > 4).await;
    // The operator is told of a bound that can not be reached.
    let unheard = "`max_connections` is more than there are places for";
    assert!(!dormouse.log().contains(unheard));
    dormouse.configure(&format!("max_connections: 10000000\n{routes}"));
    until("a line of the log", async || dormouse.log(), |log| log.contains(unheard)).await;
}

#[tokio::test]
async fn who_comes_gets_the_places_of_those_who_are_quiet_whoever_serves_them() {
    const MANY: usize = 24;
    let app = App::new("app").idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&format!("max_connections: {MANY}\n{}", config(&[&app]))).await;
    assert_eq!(dormouse.get("app", "/").await.status, 200);
    let comes = async || {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        let head = ask(&mut stream, "app").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head:?}\n{}", dormouse.log());
        stream
    };
    let mut quiet = join_all((0..MANY).map(|_| comes())).await;
    // Which worker has how many is another chance each time.
    for _ in 0..4 {
        tokio::time::sleep(QUIET).await;
        quiet.extend(join_all((0..MANY / 2).map(|_| comes())).await);
    }
    assert_eq!(number(&dormouse, FULL).await, 0);
}

#[tokio::test]
async fn who_waits_for_a_place_does_not_give_up_its_own_for_itself() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let limits = "max_connections: 1\nmax_connections_per_client: 9\nproxy_protocol: [127.0.0.0/8]\n";
    let dormouse = Dormouse::start(&format!("{limits}{}", config(&[&app]))).await;
    let header = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n";
    let mut holds = TcpStream::connect(dormouse.http).await.unwrap();
    let half = format!("{header}POST /echo HTTP/1.1\r\nHost: app.test\r\nContent-Length: 9\r\n\r\nhalf");
    holds.write_all(half.as_bytes()).await.unwrap();
    until("a request under way", async || app.journal().arrivals("/echo"), |now| *now > 0).await;
    // The proxy in front takes its time to tell of its client, who has been silent for as long then.
    let mut waits = TcpStream::connect(dormouse.http).await.unwrap();
    tokio::time::sleep(QUIET).await;
    waits.write_all(format!("{header}GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").as_bytes()).await.unwrap();
    let told = told(waits).await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told:?}");
}
