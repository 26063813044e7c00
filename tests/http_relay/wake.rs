//! Requests that meet a backend which sleeps.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::{frames::*, sleeper::*, support::*};
use dormouse::{
    backend::StatusState,
    model::{AsleepResponse, IdlePolicy, Ignore, Waiting},
    provider::Script,
    proxy::ProxySettings,
};

const GET: &str = "GET /path HTTP/1.1\r\nHost: a\r\n\r\n";
const PAGE_LOAD: &str = "GET /path?q=1 HTTP/1.1\r\nHost: a\r\nSec-Fetch-Mode: navigate\r\nAccept: text/html\r\n\r\n";

#[test]
fn a_held_request_is_forwarded_as_it_came_and_told_of_the_wake_once() {
    let sleeper = sleeper(echo);
    let mut client = connect(&sleeper.proxy);
    let (head, body) = ask(&mut client, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(text(body).ends_with("\r\n\r\nhello"));
    let timing = header(&head, "server-timing").expect("the first answer tells of the wake");
    let took: u64 = timing.strip_prefix("wake;dur=").unwrap().parse().unwrap();
    assert!((150..20_000).contains(&took), "{timing}");
    let (head, _) = ask(&mut client, GET);
    assert_eq!(header(&head, "server-timing"), None);
    assert_eq!(sleeper.starts(), 1);
}

#[test]
fn many_that_come_at_once_share_one_start() {
    let sleeper = sleeper(echo);
    let clients: Vec<_> = (0..40).map(|_| connect(&sleeper.proxy)).collect();
    let asking: Vec<_> = clients.into_iter().map(|mut client| thread::spawn(move || ask(&mut client, GET).0)).collect();
    for asked in asking {
        assert!(asked.join().unwrap().starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(sleeper.starts(), 1);
}

#[test]
fn a_page_load_gets_the_page_at_once_and_its_end_when_the_app_is_awake() {
    let sleeper = sleeper(echo);
    let mut client = connect(&sleeper.proxy);
    client.write_all(PAGE_LOAD.as_bytes()).unwrap();
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(header(&head, "cache-control"), Some("no-store"));
    assert!(header(&head, "retry-after").is_some() && header(&head, "set-cookie").is_none(), "{head}");
    assert_ne!(sleeper.backend.status().borrow().state, StatusState::Awake, "the page came before the app");
    let page = text(read_chunked(&mut client));
    assert!(page.contains("My App") && page.contains("id=\"ready\""), "{page}");
    let (head, body) = ask(&mut client, PAGE_LOAD);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(text(body).starts_with("GET /path?q=1 "));
}

#[test]
fn the_page_of_a_wake_that_fails_says_so() {
    let script = Script { start_fails: Some("secret words of the engine".into()), ..slow_start() };
    let sleeper = Asleep { script, ..Asleep::default() }.with(echo);
    let (head, body) = sleeper.ask(PAGE_LOAD);
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let page = text(body);
    assert!(page.contains("id=\"failed\"") && !page.contains("secret"), "{page}");
    let (head, body) = sleeper.ask(GET);
    assert!(head.starts_with("HTTP/1.1 503 ") && header(&head, "retry-after").is_some(), "{head}");
    assert!(!text(body).contains("secret"));
    assert_eq!(sleeper.starts(), 1, "it cools down");
}

#[test]
fn the_resources_of_the_page_wake_nothing_and_shadow_nothing() {
    let sleeper = sleeper(echo);
    let (head, _) = sleeper.ask("GET /.dormouse/other HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let (head, body) = sleeper.ask("GET /.dormouse/page?path=/path HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 ") && text(body).contains("My App"), "{head}");
    let mut events = connect(&sleeper.proxy);
    events.write_all(b"GET /.dormouse/progress?path=/path HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(header(&read_head(&mut events), "content-type"), Some("text/event-stream"));
    assert_eq!(sleeper.starts(), 0);
    sleeper.ask(GET);
    let seen = text(read_chunked(&mut events));
    assert!(seen.starts_with("retry: ") && seen.contains("event: progress\n"), "{seen}");
    assert!(seen.ends_with("event: ready\ndata: {}\n\n"), "{seen}");
    let (_, body) = sleeper.ask("GET /.dormouse/other HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text(body).starts_with("GET /.dormouse/other "));
}

#[test]
fn what_must_not_wake_does_not() {
    let ignore = Ignore { paths: vec!["/health".into()], ..Ignore::default() };
    let asleep_response = AsleepResponse { status: 200, body: Some("asleep".into()) };
    let only = Some("/start".to_owned());
    let sleeper = Asleep {
        policy: IdlePolicy { ignore, asleep_response, start_endpoint: only, ..policy() },
        ..Asleep::default()
    }
    .with(echo);
    let (head, body) = sleeper.ask("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(text(body), "asleep");
    let (_, body) = sleeper.ask("GET /start HTTP/1.1\r\nHost: a\r\nSec-Purpose: prefetch\r\n\r\n");
    assert_eq!(text(body), "asleep");
    let (head, _) = sleeper.ask(GET);
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        // Bodies of which enough is there.
        "POST /start HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /start HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc",
    ] {
        assert!(sleeper.ask(bad).0.starts_with("HTTP/1.1 40"), "{bad}");
    }
    assert_eq!(sleeper.starts(), 0);
    let (head, _) = sleeper.ask("GET /start HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let (_, body) = sleeper.ask("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text(body).starts_with("GET /health "), "an ignored request reaches an app that is awake");
    assert_eq!(sleeper.starts(), 1);
}

#[test]
fn a_client_may_wake_so_often_and_no_more() {
    let few = ProxySettings { wakes_per_client: 2, ..settings() };
    let script = Script { start_fails: Some("no".into()), ..Script::default() };
    let sleeper = Asleep { script, settings: few, ..Asleep::default() }.with(echo);
    let statuses: Vec<String> = (0..4).map(|_| sleeper.ask(GET).0[9..12].to_owned()).collect();
    assert_eq!(statuses, ["503", "503", "429", "429"]);
}

#[test]
fn a_route_may_reject_page_loads_while_it_wakes() {
    let sleeper =
        Asleep { policy: IdlePolicy { waiting: Waiting::Reject, ..policy() }, ..Asleep::default() }.with(echo);
    let (head, _) = sleeper.ask(PAGE_LOAD);
    assert!(head.starts_with("HTTP/1.1 503 ") && header(&head, "retry-after").is_some(), "{head}");
    // Its status says awake a moment before it lets anybody in.
    until("open", || sleeper.backend.is_open());
    assert!(sleeper.ask(PAGE_LOAD).0.starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_route_that_rejects_page_loads_holds_all_else() {
    let sleeper =
        Asleep { policy: IdlePolicy { waiting: Waiting::Reject, ..policy() }, ..Asleep::default() }.with(echo);
    assert!(sleeper.ask(GET).0.starts_with("HTTP/1.1 200 "));
    assert_eq!(sleeper.starts(), 1);
}

#[test]
fn patience_ends_with_a_504() {
    let patience = Some(Duration::from_millis(50));
    let script = Script { start_delay: Duration::from_secs(5), ..Script::default() };
    let sleeper =
        Asleep { policy: IdlePolicy { hold_timeout: patience, ..policy() }, script, ..Asleep::default() }.with(echo);
    let (head, _) = sleeper.ask(GET);
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
}

#[test]
fn a_held_client_that_leaves_frees_its_place() {
    let script = Script { start_delay: Duration::from_secs(30), ..Script::default() };
    let sleeper = Asleep { script, ..Asleep::default() }.with(echo);
    let reset = connect(&sleeper.proxy);
    let mut cut = connect(&sleeper.proxy);
    (&reset).write_all(GET.as_bytes()).unwrap();
    cut.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").unwrap();
    until("both are held", || sleeper.backend.held() == 2);
    socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
    drop((reset, cut));
    until("both places are free", || sleeper.backend.held() == 0);
}

#[test]
fn a_held_client_that_closes_one_way_stays_until_it_is_reset() {
    let script = Script { start_delay: Duration::from_secs(30), ..Script::default() };
    let sleeper = Asleep { script, ..Asleep::default() }.with(echo);
    let (half, mut other) = (connect(&sleeper.proxy), connect(&sleeper.proxy));
    (&half).write_all(GET.as_bytes()).unwrap();
    until("it is held", || sleeper.backend.held() == 1);
    half.shutdown(Shutdown::Write).unwrap();
    // One that comes later is held, too: by then the end of the first was seen.
    other.write_all(GET.as_bytes()).unwrap();
    until("both are held", || sleeper.backend.held() == 2);
    socket2::SockRef::from(&half).set_linger(Some(Duration::ZERO)).unwrap();
    drop(half);
    until("one place is free", || sleeper.backend.held() == 1);
}

#[test]
fn a_large_body_waits_outside_and_arrives_once_and_whole() {
    let sleeper =
        Asleep { script: Script { start_delay: Duration::from_millis(400), ..Script::default() }, ..Asleep::default() }
            .with(|_, stream| {
                let head = read_head(stream);
                let body = read_body(&head, stream);
                let sum = body.iter().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
                let text = format!("{} {sum}", body.len());
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).unwrap();
            });
    let body: Vec<u8> = (0..8u32 << 20).map(|n| (n % 253) as u8).collect();
    let sum = body.iter().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
    let mut client = connect(&sleeper.proxy);
    write!(client, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    client.write_all(&body).unwrap();
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(text(read_body(&head, &mut client)), format!("{} {sum}", body.len()));
    assert_eq!(sleeper.starts(), 1);
}

#[test]
fn an_app_that_settles_is_asked_again_where_that_is_safe() {
    let half_started = |index: usize, stream: &mut TcpStream| {
        let head = read_head(stream);
        match index {
            _ if head.starts_with("POST") => {
                stream.write_all(b"HTTP/1.1 503 Not Yet\r\nContent-Length: 0\r\n\r\n").unwrap()
            }
            0 => stream.write_all(b"HTTP/1.1 502 Not Yet\r\nContent-Length: 0\r\n\r\n").unwrap(),
            1 => {}
            2 => stream.write_all(b"HTTP/1.1 503 Not Yet\r\nContent-Length: 0\r\n\r\n").unwrap(),
            _ => stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap(),
        }
    };
    // As long as the test may take, lest the time decides.
    let patient = IdlePolicy { settle: Duration::from_secs(60), ..policy() };
    let sleeper = Asleep { policy: patient, ..Asleep::default() }.with(half_started);
    let (head, _) = sleeper.ask(GET);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let (head, _) = sleeper.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 "), "what may not be repeated gets the app's own word: {head}");
}

#[test]
fn the_apps_own_503_passes_when_settling_is_over() {
    let hurried = IdlePolicy { settle: Duration::from_millis(1), ..policy() };
    let sleeper = Asleep { policy: hurried, ..Asleep::default() }.with(|_, stream| {
        loop {
            if read_head(stream).is_empty() {
                return;
            }
            stream.write_all(b"HTTP/1.1 503 Mine\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    assert!(sleeper.ask(GET).0.starts_with("HTTP/1.1 503 Mine"));
}

#[test]
fn a_backend_that_died_unseen_is_woken_again() {
    let sleeper = sleeper(echo);
    let mut client = connect(&sleeper.proxy);
    assert!(ask(&mut client, GET).0.starts_with("HTTP/1.1 200 "));
    // Its end is not told by an event: the dial that fails is the first sign.
    sleeper.engine.set_losing_events(true);
    sleeper.engine.hand_stop("app", 0);
    assert!(ask(&mut client, GET).0.starts_with("HTTP/1.1 200 "));
    assert_eq!(sleeper.starts(), 2);
}

#[test]
fn a_silent_websocket_is_closed_with_1001_after_stream_idle() {
    let short = IdlePolicy { stream_idle: Some(Duration::from_millis(200)), ..policy() };
    let sleeper = Asleep { policy: short, ..Asleep::default() }.with(|_, stream| {
        read_head(stream);
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(switch).unwrap();
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            stream.write_all(&byte).unwrap();
        }
    });
    let mut client = connect(&sleeper.proxy);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
    client.write_all(b"x").unwrap();
    assert_eq!(read_exactly(&mut client, 1), b"x");
    assert_eq!(sleeper.backend.passes(), 1, "an open stream is in use");
    assert_eq!(read_exactly(&mut client, 4), [0x88, 2, 3, 0xE9]);
    drop(client);
    until("the pass is given back", || sleeper.backend.passes() == 0);
}

#[test]
fn http2_wakes_and_is_held_and_what_is_refused_does_not_wake() {
    let sleeper = sleeper(echo);
    let mut client = H2::connect(&sleeper.proxy);
    for (stream, block) in [
        (1, request("GET", "/a/../b", &[])),
        (3, request("GET", "/", &[("connection", "close")])),
        (5, request("POST", "/", &[("content-length", "1"), ("content-length", "2")])),
    ] {
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, block);
        let outcome = client.outcome(stream);
        assert!(!matches!(&outcome, Outcome::Answer(answer) if answer.status() != 400), "{outcome:?}");
    }
    assert_eq!(sleeper.starts(), 0);
    // Many at once, with and without bodies, on one connection.
    for at in 0..20 {
        client.send(HEADERS, END_HEADERS, 2 * at + 7, request("POST", &format!("/{at}"), &[]));
        client.send(DATA, END_STREAM, 2 * at + 7, format!("body of {at}"));
    }
    let mut ended = 0;
    let mut bodies = String::new();
    while ended < 20 {
        let frame = client.read().expect("answers to all");
        ended += usize::from(frame.kind == DATA && frame.flags & END_STREAM != 0);
        if frame.kind == DATA {
            bodies.push_str(&text(frame.payload));
        }
    }
    for at in 0..20 {
        assert!(bodies.contains(&format!("\r\n\r\nbody of {at}")), "{at} is missing in {bodies}");
    }
    assert_eq!(sleeper.starts(), 1);
}

#[test]
fn a_held_request_of_http2_that_is_taken_back_is_not_forwarded() {
    let script = Script { start_delay: Duration::from_millis(400), ..Script::default() };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&seen);
    let sleeper = Asleep { script, ..Asleep::default() }.with(move |_, stream| {
        let head = read_head(stream);
        heads.lock().unwrap().push(head.clone());
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let mut client = H2::connect(&sleeper.proxy);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, request("GET", "/taken-back", &[]));
    until("a wake", || sleeper.backend.status().borrow().state == StatusState::Waking);
    client.send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
    assert_eq!(client.get(3, "/wanted").answer().text(), "ok");
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 1 && seen[0].starts_with("GET /wanted "), "{seen:?}");
}
