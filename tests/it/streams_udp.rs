//! Stream routes of UDP: datagrams are kept while the backend wakes and sent in order.

use std::{collections::BTreeSet, time::Duration};

use tokio::{net::UdpSocket, task::JoinSet};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
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
    let words = format!("{}", app.front());
    let log = async || dormouse.log().lines().any(|line| line.contains("serving UDP") && line.contains(&words));
    until("an open port", log, |open| *open).await;
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
    let slow = App::echoing("slow", "udp").options(&["--delay-listen", "1h"]).idle("idle_timeout: 1h");
    let quick = App::echoing("quick", "udp").idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&slow, &quick])).await;
    is_open(&dormouse, &slow).await;
    is_open(&dormouse, &quick).await;
    let waits = client(&slow).await;
    waits.send(b"hello").await.unwrap();
    slow.has_started(1).await;
    let socket = client(&quick).await;
    socket.send(b"hello").await.unwrap();
    assert_eq!(answer(&socket).await, "hello");
}

#[tokio::test]
async fn tcp_and_udp_share_a_port_and_a_wake() {
    let app = App::echoing("both", "tcp+udp").options(&["--delay-listen", "300ms"]).idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    is_open(&dormouse, &app).await;
    let socket = client(&app).await;
    socket.send(b"hello").await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(app.front()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello").await.unwrap();
    let mut back = [0; 5];
    must("the echo", tokio::io::AsyncReadExt::read_exact(&mut stream, &mut back)).await.unwrap();
    assert_eq!(answer(&socket).await, "hello");
    assert_eq!(app.journal().starts(), 1);
}

#[tokio::test]
async fn datagrams_go_out_behind_a_proxy_header() {
    let app = App::echoing("told", "udp").route(", relay_proxy_protocol_header: true").idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    is_open(&dormouse, &app).await;
    let socket = client(&app).await;
    let mut seen = BTreeSet::new();
    for text in ["one", "two"] {
        socket.send(text.as_bytes()).await.unwrap();
        let back = answer(&socket).await;
        let own = socket.local_addr().unwrap().port().to_be_bytes();
        let (header, rest) = back.split_at(back.len() - text.len());
        assert_eq!(rest, text);
        assert!(header.len() > 20 && app.journal().times("datagram with a header").len() > seen.len(), "{own:?}");
        seen.insert(text);
    }
}
