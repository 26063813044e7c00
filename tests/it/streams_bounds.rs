//! Bounds of stream routes: how many wakes a client may cause, and what a flow of UDP keeps while its backend wakes.

use std::{collections::HashMap, fs, net::SocketAddr, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::support::{
    apps::{App, config, free_port},
    dormouse::Dormouse,
    wait::{must, until},
};

/// A number of the metrics; 0 when it is not there.
async fn number(dormouse: &Dormouse, name: &str) -> u64 {
    let text = dormouse.api_text("GET", "/metrics", "").await;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

async fn client(app: &App) -> UdpSocket {
    client_of(app.front()).await
}

async fn client_of(front: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(front).await.unwrap();
    socket
}

async fn echo(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    must("an echo", stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, text);
}

#[tokio::test]
async fn a_client_causes_so_many_wakes_and_no_more() {
    let idle = "idle_timeout: 1h";
    let apps = [("one", "tcp"), ("two", "udp"), ("three", "tcp"), ("four", "udp")];
    let apps = apps.map(|(name, scheme)| App::echoing(name, scheme).idle(idle));
    let [one, two, three, four] = &apps;
    let few = config(&apps.each_ref()).replace("wakes_per_client: 1000000", "wakes_per_client: 2");
    let dormouse = Dormouse::start(&few).await;
    for app in &apps {
        dormouse.serves_at(app.front()).await;
    }
    let mut stream = TcpStream::connect(one.front()).await.unwrap();
    echo(&mut stream, b"a connection").await;
    let (flow, mut room) = (client(two).await, [0; 100]);
    flow.send(b"a datagram").await.unwrap();
    let count = must("an answer", flow.recv(&mut room)).await.unwrap();
    assert_eq!(&room[..count], b"a datagram");
    // Whatever else sleeps stays asleep.
    let mut third = TcpStream::connect(three.front()).await.unwrap();
    let end = must("the end", third.read(&mut room)).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    client(four).await.send(b"a datagram").await.unwrap();
    for name in ["three", "four"] {
        let refused = format!("dormouse_refused_total{{backend=\"jobs/{name}\",reason=\"too_many_wakes\"}}");
        until(&refused, async || number(&dormouse, &refused).await, |count| *count == 1).await;
    }
    assert_eq!([one, two, three, four].map(|app| app.journal().starts()), [1, 1, 0, 0]);
    // What is awake is for everyone.
    echo(&mut TcpStream::connect(one.front()).await.unwrap(), b"another connection").await;
    echo(&mut stream, b"the same").await;
}

#[tokio::test]
async fn what_a_flow_keeps_is_bounded_and_arrives_in_order() {
    // The endpoint is the test itself, with room for all that may come at once.
    let endpoint = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    SockRef::from(&endpoint).set_recv_buffer_size(4 << 20).unwrap();
    let (port, front, folder) = (endpoint.local_addr().unwrap().port(), free_port(), tempfile::tempdir().unwrap());
    let told = folder.path().join("told");
    let quick = App::echoing("quick", "udp").idle("idle_timeout: 1h");
    let config = config(&[&quick]).replace(
        "backends:\n",
        &format!(
            "  late: {{ backend: jobs/late, scheme: udp, port: \"{front}:{port}\" }}\nbackends:\n  \
             jobs/late: {{ command: [sleep, \"1000\"], ready: {{ command: [test, -f, \"{}\"] }}, \
             idle: {{ idle_timeout: 1h, flow_timeout: 1h }} }}\n",
            told.display()
        ),
    );
    let dormouse = Dormouse::start(&config).await;
    let front = SocketAddr::from(([127, 0, 0, 1], front));
    for front in [front, quick.front()] {
        dormouse.serves_at(front).await;
    }
    // What of a route is kept or sent on is counted; what is dropped is not.
    let taken = async || number(&dormouse, "dormouse_bytes_in_total{route=\"late\"}").await;
    let [many, large] = [client_of(front).await, client_of(front).await];
    for number in 0..300 {
        many.send(format!("datagram {number:3}").as_bytes()).await.unwrap();
    }
    // Of those of another client, which come later, four have room by their bytes.
    let mut before = 256 * 12;
    for number in 0..6_u8 {
        large.send(&[number; 60_000]).await.unwrap();
        before += if number < 4 { 60_000 } else { 0 };
        until("it was looked at", taken, |taken| *taken >= before).await;
    }
    large.send(b"small").await.unwrap();
    until("all were looked at", taken, |taken| *taken > before).await;
    assert_eq!(taken().await, before + 5);
    // Others are not held up.
    let (other, mut room) = (client(&quick).await, vec![0; 65_535]);
    other.send(b"hello").await.unwrap();
    assert_eq!(must("an answer", other.recv(&mut room)).await.unwrap(), 5);
    fs::write(told, "").unwrap();
    // Each flow has a socket of its own.
    let mut arrived: HashMap<SocketAddr, Vec<(u8, usize)>> = HashMap::new();
    for _ in 0..256 + 4 + 1 {
        let (count, from) = must("a datagram", endpoint.recv_from(&mut room)).await.unwrap();
        arrived.entry(from).or_default().push((room[count - 1], count));
    }
    let mut flows: Vec<_> = arrived.into_values().collect();
    flows.sort_by_key(Vec::len);
    let last_digits = (0..256).map(|number| (b'0' + u8::try_from(number % 10).unwrap(), 12)).collect::<Vec<_>>();
    assert_eq!(flows, [vec![(0, 60_000), (1, 60_000), (2, 60_000), (3, 60_000), (b'l', 5)], last_digits]);
    // Nothing comes late, and the flow goes on.
    many.send(b"the last").await.unwrap();
    let count = must("a datagram", endpoint.recv(&mut room)).await.unwrap();
    assert_eq!(&room[..count], b"the last");
}

#[tokio::test]
async fn what_all_flows_keep_is_bounded_and_let_go() {
    // It is not ready until it is told to be.
    let app = App::echoing("late", "udp").idle("idle_timeout: 1h, flow_timeout: 1h");
    let told = app.path("told");
    let app = app.backend(&format!(", ready: {{ command: [test, -f, \"{}\"] }}", told.display()));
    let dormouse = Dormouse::start(&config(&[&app])).await;
    dormouse.serves_at(app.front()).await;
    let memory = || {
        let status = fs::read_to_string(format!("/proc/{}/status", dormouse.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let before = memory();
    // 250 clients that would have 58 MiB kept together.
    let (mut clients, datagram) = (Vec::new(), vec![7; 60_000]);
    let most = (32 << 20) / 60_000 * 60_000;
    let taken = async || number(&dormouse, "dormouse_bytes_in_total{route=\"late\"}").await;
    for number in 0..250 {
        let socket = client(&app).await;
        for _ in 0..4 {
            socket.send(&datagram).await.unwrap();
        }
        // Not more than the socket of the port holds.
        let expected = ((number + 1) * 240_000).min(most);
        until("all were looked at", taken, |taken| *taken >= expected).await;
        clients.push(socket);
    }
    // Another one, small enough for what is left, is looked at after all others.
    let small = client(&app).await;
    small.send(b"small").await.unwrap();
    until("the last was looked at", taken, |taken| *taken > most).await;
    assert_eq!(taken().await, most + 5);
    let grown = memory().saturating_sub(before);
    println!("{grown} KiB for {} KiB kept", most >> 10);
    assert!(grown < 48 << 10, "{grown} KiB");
    fs::write(told, "").unwrap();
    // Everybody is served then, those of whom nothing was kept, too. The app may lose some of so much at once.
    for socket in clients.iter().chain([&small]).step_by(50) {
        until("an answer", async || is_answered(socket).await, |answered| *answered).await;
    }
}

async fn is_answered(socket: &UdpSocket) -> bool {
    let mut room = vec![0; 65_535];
    let comes_back = async {
        socket.send(b"word").await.unwrap();
        while socket.recv(&mut room).await.unwrap() != 4 {}
    };
    tokio::time::timeout(Duration::from_millis(500), comes_back).await.is_ok()
}
