//! Several services under one name: who gets a request, and who gets it when that one fails.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dormouse::model::{BalanceMode, Group, Member, RouteTarget};

use crate::{frames::*, sleeper::until, support::*};

/// One that says who it is, and what it was asked.
fn named(name: &'static str) -> SocketAddr {
    upstream(move |_, stream| answer_as(name, stream))
}

fn answer_as(name: &str, stream: &mut TcpStream) {
    loop {
        let head = read_head(stream);
        if head.is_empty() {
            return;
        }
        let body = read_body(&head, stream);
        if head.contains("\r\nUpgrade: websocket\r\n") {
            write!(
                stream,
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n{name}"
            )
            .unwrap();
            let mut byte = [0];
            while std::io::Read::read(stream, &mut byte).is_ok_and(|count| count > 0) {}
            return;
        }
        let text = format!("{name}\n{head}{}", text(body));
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).unwrap();
    }
}

/// Nobody listens there.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn group(members: &[(SocketAddr, u16)]) -> Group {
    let member = |(at, weight): &(SocketAddr, u16)| Member { weight: *weight, route: Arc::new(spec(*at)) };
    Group {
        mode: BalanceMode::RoundRobin,
        sticky: None,
        wake_more_at: Group::WAKE_MORE_AT,
        members: members.iter().map(member).collect(),
    }
}

fn proxy_to(group: Group) -> Proxy {
    let mut front = spec(nobody());
    front.target = RouteTarget::Group(Arc::new(group));
    proxy_with(front, None, settings())
}

const GET: &str = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";

/// Who answers.
fn who(proxy: &Proxy) -> String {
    let (head, body) = ask(&mut connect(proxy), GET);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    text(body).lines().next().unwrap().to_owned()
}

fn counted(proxy: &Proxy, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(who(proxy)).or_default() += 1;
    }
    counts
}

#[test]
fn each_gets_its_share_and_a_weight_of_0_gets_none() {
    let proxy = proxy_to(group(&[(named("a"), 3), (named("b"), 1), (named("c"), 0)]));
    let counts = counted(&proxy, 40);
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 30), ("b".to_owned(), 10)]);
    assert_eq!(proxy.route.counters.class(2), 40, "all are the group's");
}

#[test]
fn in_every_mode_all_are_answered() {
    for mode in [BalanceMode::LeastConn, BalanceMode::IpHash, BalanceMode::RandomTwo] {
        let proxy = proxy_to(Group { mode, ..group(&[(named("a"), 1), (named("b"), 1)]) });
        let counts = counted(&proxy, 30);
        let expected = if mode == BalanceMode::IpHash { 1 } else { 2 };
        assert_eq!(counts.len(), expected, "{mode}: {counts:?}");
    }
}

#[test]
fn the_least_busy_is_asked_while_another_is_busy() {
    let held = Arc::new(AtomicBool::new(true));
    let hold = Arc::clone(&held);
    let slow = upstream(move |_, stream| {
        read_head(stream);
        while hold.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").unwrap();
    });
    let proxy = proxy_to(Group { mode: BalanceMode::LeastConn, ..group(&[(slow, 1), (named("quick"), 1)]) });
    let mut waiting = connect(&proxy);
    waiting.write_all(GET.as_bytes()).unwrap();
    while proxy.route.group.as_ref().unwrap().members[0].load() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(counted(&proxy, 10).into_iter().collect::<Vec<_>>(), [("quick".to_owned(), 10)]);
    held.store(false, Ordering::SeqCst);
    let head = read_head(&mut waiting);
    assert_eq!(text(read_body(&head, &mut waiting)), "slow");
    drop(waiting);
    // Who has read an answer may be sooner than the count.
    until("nobody is busy", || proxy.route.group.as_ref().unwrap().members.iter().all(|member| member.load() == 0));
}

#[test]
fn a_refused_connection_sends_the_request_with_its_body_to_the_next() {
    let proxy = proxy_to(group(&[(nobody(), 1), (named("b"), 1)]));
    let (head, body) =
        ask(&mut connect(&proxy), "POST /x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello");
    let body = text(body);
    assert!(head.starts_with("HTTP/1.1 200 ") && body.starts_with("b\nPOST /x ") && body.ends_with("hello"), "{body}");
    // It is left out now: nobody meets it.
    assert!(proxy.route.group.as_ref().unwrap().members[0].is_left_out());
    assert_eq!(counted(&proxy, 10).into_iter().collect::<Vec<_>>(), [("b".to_owned(), 10)]);
}

#[test]
fn one_that_is_left_out_is_asked_again_after_a_while_and_comes_back() {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = reserved.local_addr().unwrap();
    drop(reserved);
    let proxy = proxy_to(group(&[(at, 1), (named("b"), 1)]));
    assert_eq!(counted(&proxy, 2).len(), 1);
    let listener = TcpListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer_as("a", &mut stream.unwrap()));
        }
    });
    let late = std::time::Instant::now() + Duration::from_secs(30);
    while who(&proxy) != "a" {
        assert!(std::time::Instant::now() < late, "it is never asked again");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!proxy.route.group.as_ref().unwrap().members[0].is_left_out());
}

#[test]
fn only_what_may_be_repeated_goes_on_from_one_that_ended_the_connection() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let silent = upstream(move |_, stream| {
        let head = read_head(stream);
        read_body(&head, stream);
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let proxy = proxy_to(group(&[(silent, 1), (named("b"), 1)]));
    assert_eq!(who(&proxy), "b");
    assert_eq!(who(&proxy), "b", "its turn was the other's");
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let post = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nok";
        statuses.push(ask(&mut connect(&proxy), post).0.split(' ').nth(1).unwrap().to_owned());
    }
    statuses.sort();
    assert_eq!(statuses, ["200", "502"], "what may have been worked on is not sent twice");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn when_all_refuse_the_client_is_told() {
    let proxy = proxy_to(group(&[(nobody(), 1), (nobody(), 1)]));
    let (head, _) = ask(&mut connect(&proxy), GET);
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    // All are left out, and so all are tried.
    let (head, _) = ask(&mut connect(&proxy), GET);
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
}

/// The cookie that an answer sets, without its attributes.
fn cookie(head: &str) -> Option<&str> {
    header(head, "set-cookie")?.split(';').next()
}

#[test]
fn a_client_stays_with_its_member_and_the_service_does_not_see_why() {
    let group = Group { sticky: Some(Duration::from_secs(90)), ..group(&[(named("a"), 1), (named("b"), 1)]) };
    let proxy = proxy_to(group);
    let (head, body) = ask(&mut connect(&proxy), GET);
    let set = header(&head, "set-cookie").unwrap();
    assert!(set.ends_with("; Path=/; Max-Age=90; HttpOnly; SameSite=Lax"), "{set}");
    assert!(!set.contains("127.0.0.1") && !set.contains("app"), "{set}");
    let (given, first) = (cookie(&head).unwrap().to_owned(), text(body).lines().next().unwrap().to_owned());
    for _ in 0..6 {
        let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\nCookie: x=1; {given};y=2\r\nX-More: z\r\n\r\n");
        let (head, body) = ask(&mut connect(&proxy), request);
        let body = text(body);
        assert_eq!(body.lines().next(), Some(first.as_str()));
        assert!(body.contains("\r\nCookie: x=1; y=2\r\n") && body.contains("X-More: z\r\n"), "{body}");
        assert_eq!(cookie(&head), None, "it has it already");
    }
    // Alone, nothing of the field is left.
    let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\ncookie: {given}\r\n\r\n");
    let (_, body) = ask(&mut connect(&proxy), request);
    assert!(!text(body).to_lowercase().contains("cookie"));
    // Who makes one up is given a right one.
    let name = given.split('=').next().unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\nCookie: {name}=0123\r\n\r\n");
    assert!(cookie(&ask(&mut connect(&proxy), request).0).is_some_and(|cookie| cookie.starts_with(name)));
}

#[test]
fn a_client_whose_member_fails_is_sent_to_another_with_a_new_cookie() {
    let open = Arc::new(AtomicBool::new(true));
    let is_open = Arc::clone(&open);
    let fails = upstream(move |_, stream| {
        if is_open.load(Ordering::SeqCst) {
            read_head(stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na").unwrap();
        }
    });
    let group = Group { sticky: Some(Duration::from_secs(90)), ..group(&[(fails, 1), (named("b"), 1)]) };
    let proxy = proxy_to(group);
    let given = loop {
        let (head, body) = ask(&mut connect(&proxy), GET);
        if text(body) == "a" {
            break cookie(&head).unwrap().to_owned();
        }
    };
    open.store(false, Ordering::SeqCst);
    let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\nCookie: {given}\r\n\r\n");
    let (head, body) = ask(&mut connect(&proxy), &request);
    assert!(text(body).starts_with("b\n"), "{head}");
    let moved = cookie(&head).unwrap();
    assert_ne!(moved, given);
    let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\nCookie: {moved}\r\n\r\n");
    assert_eq!(cookie(&ask(&mut connect(&proxy), request).0), None);
}

#[test]
fn websockets_and_http2_are_balanced_alike() {
    let group = Group { sticky: Some(Duration::from_secs(90)), ..group(&[(named("a"), 1), (named("b"), 1)]) };
    let proxy = proxy_to(group);
    let upgrade = "GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut open = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&proxy);
        stream.write_all(upgrade.as_bytes()).unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 ") && cookie(&head).is_some(), "{head}");
        seen.push(text(read_exactly(&mut stream, 1)));
        open.push(stream);
    }
    seen.sort();
    assert_eq!(seen, ["a", "b"]);
    let members = &proxy.route.group.as_ref().unwrap().members;
    assert_eq!(members.iter().map(|member| member.load()).collect::<Vec<_>>(), [1, 1], "an open tunnel is under way");
    let mut client = H2::connect(&proxy);
    let mut seen: Vec<_> = [1, 3].map(|id| client.get(id, "/").answer().text()[..2].to_owned()).into();
    seen.sort();
    assert_eq!(seen, ["a\n", "b\n"]);
}
