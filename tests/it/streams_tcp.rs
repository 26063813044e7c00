//! Stream routes of TCP: held while the backend wakes, carried both ways, opened and closed as the routes change.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    apps::{App, config, free_port},
    dormouse::Dormouse,
    streams::{connect, echoed, ends_at_once, talk},
    wait::{must, until},
};

/// Bytes of which no two places look alike, another row for each seed.
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..count.div_ceil(8)).flat_map(|_| next()).take(count).collect()
}

#[tokio::test]
async fn a_thousand_clients_meet_a_sleeping_backend() {
    let app = App::echoing("echo", "tcp").options(&["--delay-listen", "500ms"]).idle("idle_timeout: 1s");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let client = async |seed| {
        let said = bytes(seed, 5000);
        assert_eq!(talk(app.front(), &said).await.unwrap(), echoed(&said), "client {seed}");
    };
    futures_util::future::join_all((0..1000).map(client)).await;
    assert_eq!(app.journal().starts(), 1);
    dormouse.reaches("echo", "asleep").await;
    app.journal().was_never_ended_in_use();
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let app = App::echoing("greeter", "tcp").options(&["--greet", "220 ready"]).idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let mut stream = connect(app.front()).await;
    let mut greeting = [0; 9];
    must("the greeting", stream.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"220 ready");
    let metrics = dormouse.api("GET", "/api/v1/routes").await.to_string();
    assert!(metrics.contains(&app.front().to_string()), "{metrics}");
}

#[tokio::test]
async fn much_passes_whole_in_both_directions() {
    let app = App::echoing("bulk", "tcp").idle("idle_timeout: 1h");
    let _dormouse = Dormouse::start(&config(&[&app])).await;
    let said = bytes(7, 64 << 20);
    let got = talk(app.front(), &said).await.unwrap();
    assert!(got == echoed(&said), "{} bytes came back, other than {} that were said", got.len(), said.len());
}

#[tokio::test]
async fn a_reset_is_passed_on_as_one() {
    let app = App::echoing("echo", "tcp").idle("idle_timeout: 1h");
    let _dormouse = Dormouse::start(&config(&[&app])).await;
    let mut stream = connect(app.front()).await;
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    must("the echo", stream.read_exact(&mut back)).await.unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    until("the app is cut", async || app.journal().times("cut 5").len(), |cut| *cut == 1).await;
}

#[tokio::test]
async fn who_leaves_while_it_wakes_gives_the_place_up() {
    let app = App::echoing("late", "tcp").options(&["--never-listen"]).idle("idle_timeout: 1h, wake_timeout: 40s");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let held = async || dormouse.api("GET", "/api/v1/backends/jobs/late").await["held"].as_u64();
    let stays = connect(app.front()).await;
    let leaves = connect(app.front()).await;
    let mut resets = connect(app.front()).await;
    resets.write_all(b"hello").await.unwrap();
    until("three are held", held, |held| *held == Some(3)).await;
    drop(leaves);
    until("two are held", held, |held| *held == Some(2)).await;
    socket2::SockRef::from(&resets).set_linger(Some(Duration::ZERO)).unwrap();
    drop(resets);
    until("one is held", held, |held| *held == Some(1)).await;
    drop(stays);
    until("none is held", held, |held| *held == Some(0)).await;
}

#[tokio::test]
async fn a_connection_keeps_awake_until_it_is_silent_for_too_long() {
    let app = App::echoing("echo", "tcp").idle("idle_timeout: 1s, stream_idle: 3s");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let mut stream = connect(app.front()).await;
    for _ in 0..5 {
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        must("the echo", stream.read_exact(&mut back)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    assert_eq!(app.journal().ends(), 0);
    // An orderly end.
    assert_eq!(must("the end", stream.read(&mut [0; 9])).await.unwrap(), 0);
    dormouse.reaches("echo", "asleep").await;
    assert_eq!(app.journal().starts(), 1);
}

#[tokio::test]
async fn a_backend_that_fails_to_start_closes_the_connection() {
    let app = App::echoing("broken", "tcp").options(&["--exit-code", "3"]).idle("idle_timeout: 1h");
    let _dormouse = Dormouse::start(&config(&[&app])).await;
    let mut stream = connect(app.front()).await;
    let end = must("the end", stream.read(&mut [0; 9])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test]
async fn ports_come_and_go_with_their_routes_and_leave_others_alone() {
    let [steady, other] = ["steady", "other"].map(|name| App::echoing(name, "tcp").idle("idle_timeout: 1h"));
    let dormouse = Dormouse::start(&config(&[&steady])).await;
    let mut stream = connect(steady.front()).await;
    let mut echoes = async |text: &[u8; 5]| {
        stream.write_all(text).await.unwrap();
        let mut back = [0; 5];
        must("the echo", stream.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, text);
    };
    echoes(b"first").await;
    dormouse.configure(&config(&[&steady, &other]));
    assert_eq!(talk(other.front(), b"hello").await.unwrap(), echoed(b"hello"));
    echoes(b"again").await;

    // The route of the open connection changes; its port does not.
    let changed = steady.clone().idle("idle_timeout: 2h");
    dormouse.configure(&config(&[&changed]));
    let refused = async || TcpStream::connect(other.front()).await.is_err();
    until("a port that was closed", refused, |refused| *refused).await;
    echoes(b"third").await;
    assert_eq!(talk(steady.front(), b"hello").await.unwrap(), echoed(b"hello"));

    // Its port is closed, and it lives on.
    dormouse.configure(&config(&[&other]));
    let refused = async || TcpStream::connect(steady.front()).await.is_err();
    until("a port that was closed", refused, |refused| *refused).await;
    assert_eq!(talk(other.front(), b"hello").await.unwrap(), echoed(b"hello"));
    echoes(b"last!").await;
    assert_eq!(steady.journal().starts(), 1);
}

#[tokio::test]
async fn a_port_in_use_is_told_with_its_place_and_opened_once_it_is_free() {
    let app = App::echoing("echo", "tcp").idle("idle_timeout: 1h");
    let taken = TcpListener::bind(app.front()).await.unwrap();
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let problems = async || dormouse.api("GET", "/api/v1/problems").await["problems"].to_string();
    let wanted = format!("can not listen on `{}` (TCP)", app.front());
    let told = until("the problem", problems, |text| text.contains(&wanted)).await;
    assert!(told.contains("dormouse.yaml") && told.contains("in use"), "{told}");
    drop(taken);
    let answer = async || talk(app.front(), b"hello").await.unwrap_or_default();
    until("an answer", answer, |answer| *answer == echoed(b"hello")).await;
    until("no problem", problems, |text| !text.contains("can not listen")).await;
}

#[tokio::test]
async fn a_route_takes_no_more_connections_than_it_is_bound_to() {
    let app = App::echoing("echo", "tcp").route(", max_conns_per_host: 2").idle("idle_timeout: 1h");
    let _dormouse = Dormouse::start(&config(&[&app])).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(app.front()).await;
        stream.write_all(b"hello").await.unwrap();
        must("the echo", stream.read_exact(&mut [0; 5])).await.unwrap();
        open.push(stream);
    }
    let mut third = connect(app.front()).await;
    let end = must("the end", third.read(&mut [0; 9])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    open.clear();
    let answer = async || talk(app.front(), b"hello").await.unwrap_or_default();
    until("an answer", answer, |answer| *answer == echoed(b"hello")).await;
}

#[tokio::test]
async fn a_route_that_leads_back_to_itself_ends_what_it_takes() {
    let [one, two] = [free_port(), free_port()];
    // A name of this machine as only its resolver knows it; the second route leads there over the first.
    let config = format!(
        "routes:\n  one: {{ scheme: tcp, host: \"127.1\", port: \"{one}:{two}\" }}\n  \
         two: {{ scheme: tcp, host: \"127.1\", port: \"{two}:{one}\" }}\n"
    );
    let dormouse = Dormouse::start(&config).await;
    for port in [one, two] {
        ends_at_once(&dormouse, SocketAddr::from(([127, 0, 0, 1], port))).await;
    }
}

#[tokio::test]
async fn an_address_without_a_backend_is_forwarded_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let front = free_port();
    let config = format!("routes:\n  fixed: {{ scheme: tcp, host: 127.0.0.1, port: \"{front}:{port}\" }}\n");
    let _dormouse = Dormouse::start(&config).await;
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        stream.write_all(&echoed(&text)).await.unwrap();
    };
    let to = SocketAddr::from(([127, 0, 0, 1], front));
    let (got, ()) = must("an answer", async { tokio::join!(talk(to, b"hello"), serve) }).await;
    assert_eq!(got.unwrap(), echoed(b"hello"));
}
