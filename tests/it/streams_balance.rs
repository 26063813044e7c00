//! Streams of several members: who is woken, who gets them, and who is left out.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
};

use crate::support::{
    apps::{App, config, free_port},
    dormouse::Dormouse,
    streams::{connect, echoed, hello, talk},
    wait::{must, until},
};

/// A member of the group `db`, which tells its name first.
fn member(name: &str, listen: u16, more: &str) -> App {
    let app = App::echoing(name, "tcp").options(&["--greet", name]).idle("idle_timeout: 1h");
    let mut app = app.route(&format!(", load_balance: {{ link: db{more} }}"));
    app.listen = Some(listen);
    app
}

/// A server that tells its number to each client, and waits for its end. Counts who is there.
async fn numbered(number: u8) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, open) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&open);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let count = Arc::clone(&count);
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let _ = stream.write_all(&[number]).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
                drop(stream);
                count.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    (at, open)
}

/// Dormouse in front of these, on a port for each of these settings.
async fn in_front(scheme: &str, members: &[SocketAddr], settings: &[&str]) -> (Dormouse, Vec<SocketAddr>) {
    let mut text = "routes:\n".to_owned();
    let mut fronts = Vec::new();
    for (index, settings) in settings.iter().enumerate() {
        let port = free_port();
        fronts.push(SocketAddr::from(([127, 0, 0, 1], port)));
        let weights = ["3", "1", "1"];
        let one =
            |(at, weight): (&SocketAddr, &str)| format!("{{ host: 127.0.0.1, port: {}, weight: {weight} }}", at.port());
        let all: Vec<String> = members.iter().zip(weights).map(one).collect();
        text += &format!(
            "  r{index}: {{ scheme: {scheme}, port: \"{port}:1\", endpoints: [{}], load_balance: {{ {settings} }} }}\n",
            all.join(", ")
        );
    }
    (Dormouse::start(&text).await, fronts)
}

/// Connects, and reads the number of the member.
async fn number(at: SocketAddr) -> (u8, TcpStream) {
    let mut stream = connect(at).await;
    let mut room = [0];
    must("a number", stream.read_exact(&mut room)).await.unwrap();
    (room[0], stream)
}

#[tokio::test]
async fn one_of_a_sleeping_group_is_woken_and_another_for_more_connections() {
    let listen = free_port();
    let (a, b) = (member("a", listen, ", wake_more_at: 5"), member("b", listen, ""));
    let dormouse = Dormouse::start(&config(&[&a, &b])).await;
    let asks = (0..20).map(|_| talk(a.front(), b"hello"));
    for got in join_all(asks).await {
        assert!(got.unwrap().ends_with(&echoed(b"hello")));
    }
    let starts = || [a.journal().starts(), b.journal().starts()];
    // All came at once: those beyond the first five were a reason to wake the other.
    let first = starts();
    assert_eq!(first[0], 1, "{first:?}");
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(number(a.front()).await);
    }
    b.has_started(1).await;
    dormouse.reaches("b", "awake").await;
    until("the other has its share", async || number(a.front()).await.0, |who| *who == b'b').await;
    assert_eq!(starts(), [1, 1]);
}

#[tokio::test]
async fn scanners_wake_no_member_and_the_second_is_woken_where_the_first_does_not_start() {
    let listen = free_port();
    let (a, b) = (member("a", listen, ""), member("b", listen, ""));
    let (a, b) = (a.options(&["--exit-code", "3"]), b);
    let guarded = ", wake_on: data, match: tls, sni: [db.test]";
    let (a, b) = (a.route(guarded), b.route(guarded));
    let dormouse = Dormouse::start(&config(&[&a, &b])).await;
    assert_eq!(talk(a.front(), &hello("other.test")).await.unwrap(), [21, 3, 3, 0, 2, 2, 112]);
    assert!(talk(a.front(), b"SSH-2.0-scan\r\n").await.map_or(true, |got| got.is_empty()));
    assert_eq!((a.journal().starts(), b.journal().starts()), (0, 0));
    let text = hello("db.test");
    let expected = [b"b".to_vec(), echoed(&text)].concat();
    for got in join_all((0..10).map(|_| talk(a.front(), &text))).await {
        assert_eq!(got.unwrap(), expected);
    }
    assert_eq!((a.journal().starts(), b.journal().starts()), (1, 1));
    let routes = dormouse.api("GET", "/api/v1/routes").await.to_string();
    assert!(routes.contains("\"alias\":\"db\"") && routes.contains("\"members\""), "{routes}");
}

#[tokio::test]
async fn each_mode_chooses_as_it_says() {
    let (one, open) = numbered(1).await;
    let (two, _) = numbered(2).await;
    let modes = ["mode: round_robin", "mode: ip_hash", "mode: least_conn", "mode: random_two"];
    let (_dormouse, fronts) = in_front("tcp", &[one, two], &modes).await;
    // Three to one.
    let mut got = Vec::new();
    for _ in 0..8 {
        got.push(number(fronts[0]).await.0);
    }
    assert_eq!(got.iter().filter(|who| **who == 1).count(), 6, "{got:?}");
    // A client stays, and not all clients are at one.
    let mut all = Vec::new();
    for client in 1..40u8 {
        let ask = async || {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 1, client], 0))).unwrap();
            let mut stream = socket.connect(fronts[1]).await.unwrap();
            let mut room = [0];
            must("a number", stream.read_exact(&mut room)).await.unwrap();
            room[0]
        };
        let first = ask().await;
        assert_eq!((ask().await, ask().await), (first, first), "client {client}");
        all.push(first);
    }
    assert!(all.contains(&1) && all.contains(&2), "{all:?}");
    // As many as its weight says go to each while all stay.
    until("nobody is left", async || open.load(Ordering::Relaxed), |open| *open == 0).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(number(fronts[2]).await);
    }
    assert_eq!(held.iter().filter(|(who, _)| *who == 1).count(), 6);
    let (who, _held) = number(fronts[3]).await;
    assert!(who == 1 || who == 2);
}

#[tokio::test]
async fn who_refuses_is_left_out_and_nobody_notices() {
    let (one, _) = numbered(1).await;
    // Nobody listens there.
    let dead = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (dormouse, fronts) = in_front("tcp", &[dead, one], &["mode: round_robin"]).await;
    for who in join_all((0..20).map(|_| number(fronts[0]))).await {
        assert_eq!(who.0, 1);
    }
    let told = dormouse.api("GET", "/api/v1/routes").await.to_string();
    assert!(told.contains("\"left_out\":true"), "{told}");
    assert!(dormouse.log().contains("a member of the group is left out for a while"), "{}", dormouse.log());
}

#[tokio::test]
async fn a_flow_of_datagrams_stays_with_its_member() {
    let mut members = Vec::new();
    for number in [1u8, 2] {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        members.push(socket.local_addr().unwrap());
        tokio::spawn(async move {
            let mut room = [0; 100];
            while let Ok((_, from)) = socket.recv_from(&mut room).await {
                let _ = socket.send_to(&[number], from).await;
            }
        });
    }
    let (_dormouse, fronts) = in_front("udp", &members, &["mode: round_robin"]).await;
    let mut all = Vec::new();
    for _ in 0..8 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(fronts[0]).await.unwrap();
        let mut of_client = Vec::new();
        while of_client.len() < 5 {
            let mut room = [0; 9];
            client.send(b"hello").await.unwrap();
            // Nothing is lost on the loopback once the port is open.
            let answer = tokio::time::timeout(std::time::Duration::from_secs(1), client.recv(&mut room)).await;
            if matches!(answer, Ok(Ok(1))) {
                of_client.push(room[0]);
            }
        }
        assert!(of_client.iter().all(|who| *who == of_client[0]), "{of_client:?}");
        all.push(of_client[0]);
    }
    assert!(all.contains(&1) && all.contains(&2), "{all:?}");
}
