//! `forward_auth`: who waits for the one who decides, and what is told when it gives no answer.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, atomic::Ordering, mpsc},
    time::Duration,
};

use dormouse::{
    model::{
        AuthServer, FieldValue, ForwardAuth, HostPattern, IdlePolicy, InFlightLimit, Middleware, Middlewares,
        RouteOptions, RouteSpec,
    },
    provider::Script,
    proxy::ProxySettings,
};

use crate::{sleeper::*, support::*};

const GUARDED: &str = "GET /guarded HTTP/1.1\r\nHost: guarded.test\r\n\r\n";

fn asking(at: AuthServer) -> Middleware {
    Middleware::ForwardAuth(ForwardAuth {
        at,
        path: "/verify".to_owned(),
        headers: Vec::new(),
        timeout: Duration::from_secs(60),
    })
}

fn at(address: SocketAddr) -> AuthServer {
    AuthServer::Address { host: address.ip().to_string(), port: address.port() }
}

/// A route for `guarded.test` to this upstream, with these.
fn guarded(upstream: SocketAddr, steps: Vec<Middleware>) -> RouteSpec {
    let middlewares = Some(Arc::new(Middlewares { steps, ..Middlewares::default() }));
    let options = Arc::new(RouteOptions { middlewares, ..RouteOptions::default() });
    let mut spec = RouteSpec { alias: "guarded".parse().unwrap(), options, ..spec(upstream) };
    spec.matches.hosts = [HostPattern::Exact("guarded.test".into())].into();
    spec
}

/// A backend that sleeps and decides who is let in to another.
fn decider(
    policy: IdlePolicy,
    script: Script,
    settings: ProxySettings,
    app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
) -> Sleeper {
    let route = guarded(upstream(echo), vec![asking(AuthServer::Route("app".parse().unwrap()))]);
    Asleep { routes: vec![route], policy, script, settings, ..Asleep::default() }.with(app)
}

fn reset(client: TcpStream) {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
}

#[test]
fn a_wake_that_is_refused_is_told_as_one_of_the_service() {
    let few = ProxySettings { wakes_per_client: 1, ..settings() };
    let sleeper = decider(policy(), Script { start_fails: Some("no".into()), ..Script::default() }, few, echo);
    for status in ["503", "429"] {
        let (head, _) = sleeper.ask(GUARDED);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(header(&head, "retry-after").is_some(), "{head}");
    }
    let patience = Some(Duration::from_millis(50));
    let slow = Script { start_delay: Duration::from_secs(30), ..Script::default() };
    let sleeper = decider(IdlePolicy { hold_timeout: patience, ..policy() }, slow, settings(), echo);
    let (head, _) = sleeper.ask(GUARDED);
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
}

#[test]
fn a_client_that_leaves_while_the_decider_is_woken_gives_its_place_back() {
    let slow = Script { start_delay: Duration::from_secs(60), ..Script::default() };
    let sleeper = decider(policy(), slow, settings(), echo);
    let mut client = connect(&sleeper.proxy);
    client.write_all(GUARDED.as_bytes()).unwrap();
    until("it is held", || sleeper.backend.held() == 1);
    reset(client);
    until("the place is free", || sleeper.backend.held() == 0);
}

#[test]
fn a_client_that_leaves_while_the_decider_thinks_gives_its_places_back() {
    let (told, asked) = mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let thinks = upstream(move |_, stream| {
        told.lock().unwrap().send(read_head(stream)).unwrap();
        // To the end of the connection, which is nobody's answer.
        read_head(stream);
    });
    let limit = Middleware::InFlightLimit(InFlightLimit { amount: 1, per_client: false });
    let proxy = proxy_with(guarded(upstream(echo), vec![limit, asking(at(thinks))]), None, settings());
    let counters = &proxy.route.counters;
    for left in 1..=2 {
        let mut client = connect(&proxy);
        client.write_all(GUARDED.as_bytes()).unwrap();
        // The second one is asked about, too: the place of the first is free again.
        asked.recv_timeout(Duration::from_secs(20)).unwrap();
        reset(client);
        until("nothing is in flight", || counters.in_flight.load(Ordering::Relaxed) == 0);
        assert_eq!(counters.client_left.load(Ordering::Relaxed), left);
    }
}

#[test]
fn an_answer_that_is_cut_is_none() {
    for (answer, status, seen) in [
        ("HTTP/1.1 401 No\r\nContent-Length: 6\r\n\r\nlog in".to_owned(), "401", "log in"),
        ("HTTP/1.1 401 No\r\nContent-Length: 60\r\n\r\nlog in".to_owned(), "502", "can not be reached"),
        ("HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nlog in\r\n".to_owned(), "502", "can not be"),
        // What is too long is passed on without its body.
        (format!("HTTP/1.1 401 No\r\nContent-Length: 70000\r\n\r\n{}", "x".repeat(70_000)), "401", "not let you in"),
    ] {
        let says = upstream(move |_, stream| {
            read_head(stream);
            let _ = stream.write_all(answer.as_bytes());
        });
        let proxy = proxy_with(guarded(upstream(echo), vec![asking(at(says))]), None, settings());
        let (head, body) = ask(&mut connect(&proxy), GUARDED);
        let body = text(body);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && body.contains(seen), "{head}{body}");
    }
}

#[test]
fn a_decider_that_died_unseen_is_woken_again() {
    let sleeper = decider(policy(), slow_start(), settings(), echo);
    assert!(sleeper.ask(GUARDED).0.starts_with("HTTP/1.1 200 "));
    sleeper.engine.set_losing_events(true);
    sleeper.engine.hand_stop("app", 0);
    assert!(sleeper.ask(GUARDED).0.starts_with("HTTP/1.1 200 "));
    assert_eq!(sleeper.starts(), 2);
}

/// How many connects have failed on this machine. Those of others are among them, which only makes a test shorter.
fn refused_connects() -> u64 {
    let counters = std::fs::read_to_string("/proc/self/net/snmp").unwrap();
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(|line| line.split(' '));
    let (mut names, mut numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.position(|name| name == "AttemptFails").unwrap();
    numbers.nth(at).unwrap().parse().unwrap()
}

#[test]
fn a_decider_that_is_starting_is_asked_until_it_answers() {
    // A forwarder that accepts for it at first.
    let sleeper = decider(policy(), slow_start(), settings(), |index, stream| {
        if index > 1 {
            echo(index, stream);
        }
    });
    let (head, _) = sleeper.ask(GUARDED);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    // An address that nobody listens at yet.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let proxy = proxy_with(guarded(upstream(echo), vec![asking(at(address))]), None, settings());
    let mut client = connect(&proxy);
    client.write_all(GUARDED.as_bytes()).unwrap();
    until("it is in flight", || proxy.route.counters.in_flight.load(Ordering::Relaxed) == 1);
    let before = refused_connects();
    until("its address was tried", || refused_connects() > before);
    socket.listen(8).unwrap();
    let listener = TcpListener::from(socket);
    let (mut stream, _) = listener.accept().unwrap();
    read_head(&mut stream);
    stream.write_all(b"HTTP/1.1 204 Yes\r\n\r\n").unwrap();
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

/// Also under another name a service gets what was decided, and nothing that a client claims.
#[test]
fn a_variable_reads_what_was_decided_and_not_what_a_client_claims() {
    for (said, expected) in [("X-User: mia\r\n", "X-Webauth: mia\r\n"), ("", "X-Webauth: \r\n")] {
        let decides = upstream(move |_, stream| {
            read_head(stream);
            write!(stream, "HTTP/1.1 200 OK\r\n{said}Content-Length: 0\r\n\r\n").unwrap();
        });
        let Middleware::ForwardAuth(auth) = asking(at(decides)) else { unreachable!() };
        let auth = ForwardAuth { headers: vec!["X-User".to_owned()], ..auth };
        let mut route = guarded(upstream(echo), vec![Middleware::ForwardAuth(auth)]);
        let options = Arc::make_mut(&mut route.options);
        options.hide_request_headers = vec!["X-User".to_owned()];
        let all = Arc::make_mut(options.middlewares.as_mut().unwrap());
        all.vary_request_headers = vec![("X-Webauth".to_owned(), FieldValue::read("$header(X-User)").unwrap())];
        let claims = "GET /guarded HTTP/1.1\r\nHost: guarded.test\r\nX-User: admin\r\n\r\n";
        let (head, body) = ask(&mut connect(&proxy_with(route, None, settings())), claims);
        let (body, seen) = (text(body), expected.to_ascii_lowercase());
        assert!(head.starts_with("HTTP/1.1 200 ") && body.to_ascii_lowercase().contains(&seen), "{head}{body}");
        assert!(!body.contains("admin"), "{body}");
    }
}
