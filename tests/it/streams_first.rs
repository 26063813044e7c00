//! What the first bytes of a connection decide: who it comes from, where it goes, whether it wakes.

use std::net::SocketAddr;

use dormouse::net::{Carries, Ends};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    apps::{App, config},
    dormouse::{Dormouse, request},
    streams::{connect, echoed, hello, talk},
    wait::must,
};

/// The start of a session of PostgreSQL.
fn session() -> Vec<u8> {
    let pairs = b"user\0me\0database\0d\0\0";
    let length = u32::try_from(8 + pairs.len()).unwrap();
    [&length.to_be_bytes()[..], &[0, 3, 0, 0], pairs].concat()
}

/// A handshake of Minecraft: 1 asks how the server is, 2 joins.
fn handshake(next: u8) -> Vec<u8> {
    let content = [&[0, 47, 9][..], b"mc.mytest", &[0x63, 0xDD, next]].concat();
    [&[u8::try_from(content.len()).unwrap()][..], &content].concat()
}

async fn is_closed(to: SocketAddr, text: &[u8]) {
    let got = talk(to, text).await;
    assert!(!matches!(&got, Ok(bytes) if !bytes.is_empty()), "{text:?} was answered with {got:?}");
}

#[tokio::test]
async fn only_clients_that_begin_as_is_meant_wake() {
    let idle = "idle_timeout: 1h";
    let db = App::echoing("db", "tcp").route(", wake_on: data, match: [postgres, tls]").idle(idle);
    let any = App::echoing("any", "tcp").route(", wake_on: data").idle(idle);
    let dormouse = Dormouse::start(&config(&[&db, &any])).await;
    for scan in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"SSH-2.0-scan\r\n", b"\0\0\0\x10\x04\xd2\x16\x2e12345678", b""]
    {
        is_closed(db.front(), scan).await;
    }
    is_closed(any.front(), b"").await;
    assert_eq!((db.journal().starts(), any.journal().starts()), (0, 0));
    assert_eq!(dormouse.state("db").await, "asleep");
    assert_eq!(talk(db.front(), &session()).await.unwrap(), echoed(&session()));
    assert_eq!(talk(any.front(), b"x").await.unwrap(), echoed(b"x"));
    // What is awake is for everyone.
    assert_eq!(talk(db.front(), b"SSH-2.0-scan\r\n").await.unwrap(), echoed(b"SSH-2.0-scan\r\n"));
    assert_eq!((db.journal().starts(), any.journal().starts()), (1, 1));
}

#[tokio::test]
async fn who_says_nothing_is_served_once_another_has_woken_it() {
    let app = App::echoing("greeter", "tcp").options(&["--greet", "220 ready"]).route(", wake_on: data");
    let app = app.idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let mut silent = connect(app.front()).await;
    // Accepted after it, and closed at once: the silent one was met before.
    is_closed(app.front(), b"").await;
    assert_eq!(dormouse.state("greeter").await, "asleep");
    let woken = [b"220 ready".to_vec(), echoed(b"hello")].concat();
    assert_eq!(talk(app.front(), b"hello").await.unwrap(), woken);
    let mut greeting = [0; 9];
    must("the greeting", silent.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"220 ready");
}

#[tokio::test]
async fn pings_of_a_server_list_are_answered_while_it_sleeps_and_a_player_wakes_it() {
    let app = App::echoing("mc", "tcp").route(", match: minecraft, title: The World").idle("idle_timeout: 1h");
    let _dormouse = Dormouse::start(&config(&[&app])).await;
    let mut stream = connect(app.front()).await;
    stream.write_all(&[&handshake(1)[..], &[1, 0]].concat()).await.unwrap();
    let ping = [9, 1, 1, 2, 3, 4, 5, 6, 7, 8];
    stream.write_all(&ping).await.unwrap();
    let mut got = Vec::new();
    must("an answer", stream.read_to_end(&mut got)).await.unwrap();
    let (status, pong) = got.split_at(got.len() - ping.len());
    assert_eq!(pong, ping);
    let text = String::from_utf8_lossy(status).into_owned();
    assert!(text.contains("The World is asleep: join to wake it") && text.contains("\"protocol\":47"), "{text}");
    assert_eq!(app.journal().starts(), 0);
    let login = [&handshake(2)[..], b"name"].concat();
    assert_eq!(talk(app.front(), &login).await.unwrap(), echoed(&login));
    assert_eq!(app.journal().starts(), 1);
}

#[tokio::test]
async fn routes_share_a_port_by_the_names_of_tls() {
    let idle = "idle_timeout: 1h";
    let one = App::echoing("one", "tcp").route(", sni: [one.mytest, \"*.one.mytest\"]").idle(idle);
    let mut two = App::echoing("two", "tcp").route(", sni: true").idle(idle);
    let mut rest = App::echoing("rest", "tcp").idle(idle);
    (two.listen, rest.listen) = (one.listen, one.listen);
    let dormouse = Dormouse::start(&config(&[&one, &two])).await;
    let starts = || [&one, &two, &rest].map(|app| app.journal().starts());
    let says = async |name: &str| {
        let text = [&hello(name)[..], b"and more"].concat();
        assert_eq!(talk(one.front(), &text).await.unwrap(), echoed(&text), "{name}");
    };
    // Told so by an alert: unrecognized_name.
    assert_eq!(talk(one.front(), &hello("three.mytest")).await.unwrap(), [21, 3, 3, 0, 2, 2, 112]);
    is_closed(one.front(), b"no hello at all").await;
    assert_eq!(starts(), [0, 0, 0]);
    says("One.mytest").await;
    assert_eq!(starts(), [1, 0, 0]);
    says("two.anything").await;
    assert_eq!(starts(), [1, 1, 0]);
    says("deep.one.mytest").await;
    // One without names takes what the others do not.
    dormouse.configure(&config(&[&one, &two, &rest]));
    let told = async || talk(one.front(), &hello("three.mytest")).await.unwrap_or_default();
    crate::support::wait::until("the rest", told, |got| *got == echoed(&hello("three.mytest"))).await;
    assert_eq!(talk(one.front(), b"no hello at all").await.unwrap(), echoed(b"no hello at all"));
    assert_eq!(starts(), [1, 1, 1]);
}

fn ends() -> Ends {
    Ends { source: "192.0.2.7:4711".parse().unwrap(), destination: "192.0.2.1:443".parse().unwrap() }
}

#[tokio::test]
async fn a_trusted_proxy_tells_who_the_client_is() {
    let stream = App::echoing("stream", "tcp").route(", relay_proxy_protocol_header: true").idle("idle_timeout: 1h");
    let web = App::new("web").idle("idle_timeout: 1h");
    let config = format!("proxy_protocol: [127.0.0.1]\n{}", config(&[&stream, &web]));
    let dormouse = Dormouse::start(&config).await;
    let (text, bytes) = ("PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n", ends().header(Carries::Stream));
    for header in [text.as_bytes(), &bytes] {
        // The app gets a header of ours that tells the same, and then what the client said.
        let expected = [&bytes[..], b"hello"].concat();
        let got = talk(stream.front(), &[header, b"hello"].concat()).await.unwrap();
        assert_eq!(got, echoed(&expected));
    }
    let fields = "GET /echo HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n";
    let reply = request(dormouse.http, &format!("{text}{fields}")).await.unwrap();
    assert_eq!(reply.status, 200);
    assert!(reply.body.contains("[\"X-Forwarded-For\",\"192.0.2.7\"]"), "{}", reply.body);
    // Without a header nobody is served.
    is_closed(stream.front(), b"hello, and more than a header has").await;
    assert!(request(dormouse.http, fields).await.is_err());
}

#[tokio::test]
async fn nobody_else_tells_who_the_client_is() {
    let stream = App::echoing("stream", "tcp").idle("idle_timeout: 1h");
    let web = App::new("web").idle("idle_timeout: 1h");
    let config = format!("proxy_protocol: [192.0.2.0/24]\n{}", config(&[&stream, &web]));
    let dormouse = Dormouse::start(&config).await;
    let text = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n";
    assert_eq!(talk(stream.front(), text.as_bytes()).await.unwrap(), echoed(text.as_bytes()));
    let fields = format!("{text}GET /echo HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n");
    assert_eq!(request(dormouse.http, &fields).await.unwrap().status, 400);
    assert_eq!(web.journal().starts(), 0);
}
