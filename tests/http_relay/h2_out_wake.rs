//! Backends that speak HTTP/2 and sleep.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use dormouse::{
    backend::StatusState,
    model::{IdlePolicy, Scheme},
    provider::Script,
};

use crate::{frames::*, h2_service::*, sleeper::*, support::*};

fn sleeper(policy: IdlePolicy, app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> Sleeper {
    Asleep { scheme: Scheme::H2c, policy, ..Asleep::default() }.with(app)
}

/// Answers each request with the body that came with it, as it comes.
fn echo_bodies(_: usize, stream: &mut TcpStream) {
    let Some(mut raw) = Raw::begin(stream, &[]) else { return };
    while let Some(frame) = raw.read() {
        let ended = frame.flags & END_STREAM;
        match frame.kind {
            HEADERS => {
                raw.send(HEADERS, END_HEADERS, frame.stream, block(&[(":status", "200")]));
                if ended != 0 {
                    raw.send(DATA, END_STREAM, frame.stream, "");
                }
            }
            DATA if ended != 0 => {
                raw.send(DATA, 0, frame.stream, frame.payload);
                raw.send(HEADERS, END_HEADERS | END_STREAM, frame.stream, block(&[("grpc-status", "0")]));
            }
            DATA => raw.send(DATA, 0, frame.stream, frame.payload),
            _ => {}
        }
    }
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];

#[test]
fn a_stream_wakes_is_held_and_keeps_the_backend_awake() {
    let short = IdlePolicy { idle_timeout: Some(Duration::from_millis(300)), min_uptime: Duration::ZERO, ..policy() };
    let sleeper = sleeper(short, echo_bodies);
    let mut client = H2::connect(&sleeper.proxy);
    client.send(HEADERS, END_HEADERS, 1, request("POST", "/", GRPC));
    client.send(DATA, 0, 1, "first");
    let next = |client: &mut H2| loop {
        let frame = client.read().expect("the stream goes on");
        match frame.kind {
            DATA => return text(frame.payload),
            SETTINGS if frame.flags & ACK == 0 => client.send(SETTINGS, ACK, 0, []),
            _ => {}
        }
    };
    assert_eq!(next(&mut client), "first");
    // Longer than it would be kept awake for nothing.
    thread::sleep(Duration::from_millis(900));
    assert_eq!((sleeper.backend.passes(), sleeper.backend.status().borrow().state), (1, StatusState::Awake));
    client.send(DATA, 0, 1, "second");
    assert_eq!(next(&mut client), "second");
    client.send(DATA, END_STREAM, 1, "third");
    assert_eq!(next(&mut client), "third");
    until("asleep, though the connection of the pool was open", || {
        sleeper.backend.status().borrow().state == StatusState::Stopped
    });
    // And it wakes again, on a connection of its new life.
    client.send(HEADERS, END_HEADERS, 3, request("POST", "/", GRPC));
    client.send(DATA, END_STREAM, 3, "again");
    let answer = client.outcome(3).answer();
    assert_eq!((answer.text().as_str(), answer.trailers), ("again", true));
    assert_eq!(sleeper.starts(), 2);
}

#[test]
fn many_that_come_at_once_share_one_start_and_one_connection() {
    let count = Arc::new(AtomicUsize::new(0));
    let connections = Arc::clone(&count);
    let sleeper = sleeper(policy(), move |index, stream| {
        connections.fetch_add(1, Ordering::SeqCst);
        echo_bodies(index, stream);
    });
    let clients: Vec<_> = (0..40).map(|_| connect(&sleeper.proxy)).collect();
    let asking: Vec<_> = clients.into_iter().map(|mut client| thread::spawn(move || ask(&mut client, POST))).collect();
    for asked in asking {
        let (head, body) = asked.join().unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && text(body) == "hello", "{head}");
    }
    assert_eq!((sleeper.starts(), count.load(Ordering::SeqCst)), (1, 1));
}

#[test]
fn a_forwarder_whose_app_does_not_listen_yet_is_waited_out_whatever_is_asked() {
    let sleeper = sleeper(policy(), |index, stream| match index {
        // Accepts and closes, at once or after a while.
        0 => {}
        1 => thread::sleep(Duration::from_millis(50)),
        _ => echo_bodies(index, stream),
    });
    let (head, body) = sleeper.ask(POST);
    assert!(head.starts_with("HTTP/1.1 200 ") && text(body) == "hello", "{head}");
    assert_eq!(sleeper.starts(), 1);
}

#[test]
fn a_backend_that_died_unseen_is_woken_again() {
    let connections = Arc::<Mutex<Vec<TcpStream>>>::default();
    let open = Arc::clone(&connections);
    let sleeper = sleeper(policy(), move |index, stream| {
        open.lock().unwrap().push(stream.try_clone().unwrap());
        echo_bodies(index, stream);
    });
    assert!(sleeper.ask(POST).0.starts_with("HTTP/1.1 200 "));
    sleeper.engine.set_losing_events(true);
    sleeper.engine.hand_stop("app", 0);
    // A connection that both ends have closed has no peer. Nothing was sent on it, then, and nothing is sent twice.
    until("the proxy has closed its end", || connections.lock().unwrap().iter().all(|open| open.peer_addr().is_err()));
    assert!(sleeper.ask(POST).0.starts_with("HTTP/1.1 200 "));
    assert_eq!(sleeper.starts(), 2);
}

#[test]
fn a_503_of_an_app_that_settles_is_asked_again_where_that_is_safe() {
    let patient = IdlePolicy { settle: Duration::from_secs(60), ..policy() };
    let asleep = Asleep { scheme: Scheme::H2c, policy: patient, script: Script::default(), ..Asleep::default() };
    let sleeper = asleep.with(|_, stream| {
        let Some(mut raw) = Raw::begin(stream, &[]) else { return };
        let mut count = 0;
        while let Some(stream) = raw.whole_request() {
            count += 1;
            if count < 3 {
                raw.send(HEADERS, END_HEADERS | END_STREAM, stream, block(&[(":status", "503")]));
            } else {
                raw.answer(stream, "ok");
            }
        }
    });
    let (head, body) = sleeper.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && text(body) == "ok", "{head}");
}

#[test]
fn an_app_that_says_goodbye_with_its_settings_is_waited_out() {
    let sleeper = sleeper(policy(), |index, stream| {
        if index > 1 {
            return echo_bodies(index, stream);
        }
        // In one piece, so that both are seen at once; it stays open as one that drains does.
        let goodbye = [frame(SETTINGS, 0, 0, &[]), frame(GOAWAY, 0, 0, &[0; 8])].concat();
        stream.write_all(&goodbye).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let clients: Vec<_> = (0..4).map(|_| connect(&sleeper.proxy)).collect();
    let asking: Vec<_> = clients.into_iter().map(|mut client| thread::spawn(move || ask(&mut client, POST))).collect();
    for asked in asking {
        let (head, body) = asked.join().unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && text(body) == "hello", "{head}");
    }
}
