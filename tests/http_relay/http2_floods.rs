//! Clients that would wear out what is behind the proxy: what they begin and take back is bounded, wakes at most once, and
//! others are served meanwhile.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{frames::*, http2_frame_rules::floods, sleeper::*, support::*};

/// No test waits for longer.
const LONG: Duration = Duration::from_secs(120);

/// An app that answers what others ask and leaves the rest waiting. It counts its connections and the requests on them.
#[derive(Debug, Default, Clone)]
struct Counted {
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Counted {
    fn app(&self) -> impl Fn(usize, &mut TcpStream) + Send + Sync + 'static {
        let Self { connections, requests } = self.clone();
        move |_, stream| {
            connections.fetch_add(1, Ordering::SeqCst);
            loop {
                let head = read_head(stream);
                if head.is_empty() {
                    return;
                }
                if head.starts_with("GET /attack ") {
                    requests.fetch_add(1, Ordering::SeqCst);
                    let _ = std::io::Read::read(stream, &mut [0]);
                    return;
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                let _ = std::io::Write::write_all(stream, answer);
            }
        }
    }

    fn begun(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// So many requests may one connection have begun and taken back since then, at most: what it may owe and what time has paid
/// of it (twenty for each, of 4,000 and of 1,000 a second), and those that are worked on at once.
fn most(since: Instant) -> usize {
    200 + 50 * (usize::try_from(since.elapsed().as_secs()).unwrap() + 1) + 128
}

/// Begins requests and takes each back at once, until it is ended for that.
fn take_back(proxy: &Proxy, count: u32) {
    let get = request("GET", "/attack", &[]);
    let pair = |at: u32| {
        [frame(HEADERS, 5, 2 * at + 1, &get), frame(RST_STREAM, 0, 2 * at + 1, &CANCEL.to_be_bytes())].concat()
    };
    let mut client = H2::connect(proxy);
    (0..count).for_each(|at| client.raw(&pair(at)));
    let ending = client.ending();
    // Whoever still writes when the connection is closed may not get to see why.
    assert!(matches!(ending, Outcome::GoAway(ENHANCE_YOUR_CALM) | Outcome::Closed), "{ending:?}");
}

#[test]
fn rapid_resets_begin_little_behind_the_proxy() {
    let counted = Counted::default();
    let proxy = proxy(upstream(counted.app()));
    let since = Instant::now();
    let attackers: Vec<_> = std::thread::scope(|scope| {
        let attackers: Vec<_> = (0..2).map(|_| scope.spawn(|| take_back(&proxy, 20_000))).collect();
        let mut other = H2::connect(&proxy);
        for at in 0..20 {
            assert_eq!(other.get(2 * at + 1, "/").answer().text(), "ok", "request {at} of another");
        }
        attackers.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    assert!(attackers.iter().all(Result::is_ok));
    let (begun, connections, most) = (counted.begun(), counted.connections(), 2 * most(since));
    assert!(begun <= most && connections <= most + 1, "{begun} requests on {connections} connections; {most} at most");
    assert_eq!(H2::connect(&proxy).get(1, "/").answer().text(), "ok");
}

#[test]
fn requests_that_have_begun_are_not_taken_back_without_end() {
    let counted = Counted::default();
    let proxy = proxy(upstream(counted.app()));
    let since = Instant::now();
    let mut client = H2::connect(&proxy);
    let mut reading = client.beside();
    reading.socket.set_read_timeout(Some(LONG)).unwrap();
    let reading = std::thread::spawn(move || reading.ending());
    let get = request("GET", "/attack", &[]);
    // Each has reached the service before it is taken back: the dearest that a client can ask for.
    let mut stream = 1;
    while !reading.is_finished() {
        let wanted = counted.begun() + 1;
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, &get);
        until("the request is there, or the connection has ended", || {
            counted.begun() == wanted || reading.is_finished()
        });
        client.send(RST_STREAM, 0, stream, CANCEL.to_be_bytes());
        stream += 2;
        assert!(counted.begun() <= most(since), "{} requests", counted.begun());
    }
    let ended = reading.join().unwrap();
    assert!(matches!(ended, Outcome::GoAway(ENHANCE_YOUR_CALM) | Outcome::Closed), "{ended:?}");
    assert!(counted.begun() > 20, "only {} requests have begun", counted.begun());
    assert_eq!(H2::connect(&proxy).get(1, "/").answer().text(), "ok");
}

#[test]
fn rapid_resets_wake_a_sleeper_once_at_most() {
    let counted = Counted::default();
    let sleeper = Asleep::default().with(counted.app());
    let since = Instant::now();
    take_back(&sleeper.proxy, 20_000);
    take_back(&sleeper.proxy, 20_000);
    assert_eq!(H2::connect(&sleeper.proxy).get(1, "/").answer().text(), "ok");
    assert_eq!(sleeper.starts(), 1);
    let (begun, most) = (counted.begun(), 2 * most(since));
    assert!(begun <= most, "{begun} requests; {most} at most");
    until("nothing of it is in hand", || sleeper.backend.passes() == 0);
}

#[test]
fn floods_before_a_sleeper_wake_it_once_where_they_ask_for_it_and_else_not() {
    let mut asking = 0;
    for (name, bytes) in floods() {
        let sleeper = Asleep::default().with(echo);
        let mut client = H2::connect(&sleeper.proxy);
        client.raw(&bytes);
        let ending = client.ending();
        assert!(matches!(ending, Outcome::GoAway(ENHANCE_YOUR_CALM) | Outcome::Closed), "{name}: {ending:?}");
        let asks = ["empty data", "resets that we must do", "resets"].contains(&name);
        asking += usize::from(asks);
        assert!(sleeper.starts() <= usize::from(asks), "{name}: {} starts", sleeper.starts());
        assert_eq!(H2::connect(&sleeper.proxy).get(1, "/").answer().status(), 200, "after {name}");
        assert_eq!(sleeper.starts(), 1, "{name}");
    }
    assert_eq!(asking, 3);
}
