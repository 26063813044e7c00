//! Stream routes of UDP: datagrams are kept while the backend wakes and sent in order.

use std::{net::SocketAddr, time::Duration};

use dormouse::net::{Carries, Ends};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
    task::JoinSet,
};

use crate::support::{
    apps::{App, config, free_port},
    dormouse::Dormouse,
    streams::connect,
    wait::{must, until},
};

async fn client(app: &App) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(app.front()).await.unwrap();
    socket
}

/// What comes back next.
async fn answer(socket: &UdpSocket) -> String {
    let mut room = [0; 2000];
    loop {
        match must("an answer", socket.recv(&mut room)).await {
            Ok(count) => return String::from_utf8_lossy(&room[..count]).into_owned(),
            // The port was not open yet when something was sent.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused),
        }
    }
}

/// Waits until the port is open, which nothing answers for.
async fn is_open(dormouse: &Dormouse, app: &App) {
    ports_are_open(dormouse, &[app.front()]).await;
}

async fn ports_are_open(dormouse: &Dormouse, fronts: &[SocketAddr]) {
    for front in fronts {
        let words = front.to_string();
        let log = async || dormouse.log().lines().any(|line| line.contains("serving UDP") && line.contains(&words));
        until("an open port", log, |open| *open).await;
    }
}

#[tokio::test]
async fn a_thousand_flows_meet_a_sleeping_backend() {
    let app =
        App::echoing("echo", "udp").options(&["--delay-listen", "500ms"]).idle("idle_timeout: 1s, flow_timeout: 2s");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    is_open(&dormouse, &app).await;
    let mut clients = JoinSet::new();
    for number in 0..1000 {
        let socket = client(&app).await;
        for part in 0..3 {
            socket.send(format!("{number} {part}").as_bytes()).await.unwrap();
        }
        clients.spawn(async move {
            for part in 0..3 {
                assert_eq!(answer(&socket).await, format!("{number} {part}"));
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    assert_eq!(app.journal().starts(), 1);
    dormouse.reaches("echo", "asleep").await;
}

#[tokio::test]
async fn both_directions_keep_a_flow_alive_and_silence_ends_it() {
    let app = App::echoing("echo", "udp").idle("idle_timeout: 1s, flow_timeout: 3s");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    is_open(&dormouse, &app).await;
    let socket = client(&app).await;
    for _ in 0..4 {
        socket.send(b"hello").await.unwrap();
        assert_eq!(answer(&socket).await, "hello");
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    assert_eq!((app.journal().starts(), app.journal().ends()), (1, 0));
    dormouse.reaches("echo", "asleep").await;
    // The same client again: another flow, another wake.
    socket.send(b"again").await.unwrap();
    assert_eq!(answer(&socket).await, "again");
    assert_eq!(app.journal().starts(), 2);
}

#[tokio::test]
async fn a_wake_that_takes_long_holds_up_no_other_flow() {
    // Ports go to the workers in turn: each worker has one of either kind.
    let workers = std::thread::available_parallelism().unwrap().get();
    let apps: Vec<_> = (0..2 * workers)
        .map(|number| {
            let delay = if number < workers { "1h" } else { "0ms" };
            App::echoing(&format!("app{number:03}"), "udp").options(&["--delay-listen", delay]).idle("idle_timeout: 1h")
        })
        .collect();
    let dormouse = Dormouse::start(&config(&apps.iter().collect::<Vec<_>>())).await;
    for app in &apps {
        is_open(&dormouse, app).await;
    }
    let (slow, quick) = apps.split_at(workers);
    let mut waiting = Vec::new();
    for app in slow {
        let socket = client(app).await;
        socket.send(b"hello").await.unwrap();
        app.has_started(1).await;
        waiting.push(socket);
    }
    for app in quick {
        let socket = client(app).await;
        socket.send(b"hello").await.unwrap();
        assert_eq!(answer(&socket).await, "hello");
    }
}

/// A route to an address that never sleeps, where datagrams are taken and not answered.
async fn silent(routes: usize) -> (UdpSocket, Vec<SocketAddr>, String) {
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = sink.local_addr().unwrap().port();
    let fronts: Vec<_> = (0..routes).map(|_| SocketAddr::from(([127, 0, 0, 1], free_port()))).collect();
    let mut text = "routes:\n".to_owned();
    for front in &fronts {
        let front = front.port();
        text += &format!("  sink{front}: {{ scheme: udp, host: 127.0.0.1, port: \"{front}:{port}\" }}\n");
    }
    (sink, fronts, text)
}

/// What arrives next.
async fn arrives(sink: &UdpSocket) -> String {
    let mut room = [0; 100];
    let count = must("a datagram", sink.recv(&mut room)).await.unwrap();
    String::from_utf8_lossy(&room[..count]).into_owned()
}

#[tokio::test]
async fn a_flow_without_answers_is_as_quick_as_its_client() {
    let (sink, fronts, config) = silent(1).await;
    let dormouse = Dormouse::start(&config).await;
    ports_are_open(&dormouse, &fronts).await;
    let mut others = Vec::new();
    for number in 0..200 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let text = format!("other {number}");
        socket.send_to(text.as_bytes(), fronts[0]).await.unwrap();
        assert_eq!(arrives(&sink).await, text);
        others.push(socket);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // So many are under way at once that it always has something to send, and no socket overflows.
    let (all, window) = (100_000_usize, 64);
    let whole = async {
        for number in 0..all + window {
            if number < all {
                socket.send_to(number.to_string().as_bytes(), fronts[0]).await.unwrap();
            }
            if let Some(due) = number.checked_sub(window) {
                assert_eq!(arrives(&sink).await, due.to_string());
            }
        }
    };
    must("all of a quick flow", whole).await;
}

#[tokio::test]
async fn flows_of_several_ports_leave_places_for_connections() {
    let app = App::echoing("echo", "tcp").idle("idle_timeout: 1h");
    // Each worker has several ports.
    let workers = std::thread::available_parallelism().unwrap().get();
    let (_sink, fronts, routes) = silent(3 * workers).await;
    let config = config(&[&app]).replace("routes:\n", &routes);
    let dormouse = Dormouse::start_bounded(&config, 1024).await;
    ports_are_open(&dormouse, &fronts).await;
    let mut clients = Vec::new();
    for _ in 0..400 / workers {
        clients.push(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    }
    for front in &fronts {
        for socket in &clients {
            socket.send_to(b"hello", front).await.unwrap();
        }
    }
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(app.front()).await;
        stream.write_all(b"hello").await.unwrap();
        must("the echo", stream.read_exact(&mut [0; 5])).await.unwrap();
        open.push(stream);
    }
}

#[tokio::test]
async fn tcp_and_udp_share_a_port_and_a_wake() {
    let app = App::echoing("both", "tcp+udp").options(&["--delay-listen", "300ms"]).idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    is_open(&dormouse, &app).await;
    let socket = client(&app).await;
    socket.send(b"hello").await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(app.front()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    must("the echo", stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(answer(&socket).await, "hello");
    assert_eq!(app.journal().starts(), 1);
}

#[tokio::test]
async fn datagrams_go_out_behind_a_proxy_header() {
    let app = App::echoing("told", "udp").route(", relay_proxy_protocol_header: true").idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    is_open(&dormouse, &app).await;
    let socket = client(&app).await;
    let ends = Ends { source: socket.local_addr().unwrap(), destination: app.front() };
    for text in ["one", "two"] {
        socket.send(text.as_bytes()).await.unwrap();
        let mut room = [0; 100];
        let count = must("an answer", socket.recv(&mut room)).await.unwrap();
        assert_eq!(room[..count], [&ends.header(Carries::Datagrams)[..], text.as_bytes()].concat());
    }
    assert_eq!(app.journal().times("datagram with a header").len(), 2);
}
