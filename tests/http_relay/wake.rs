//! Backends that sleep, on the simulated engine, with apps that listen on real sockets.

use std::{
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dormouse::{
    backend::{Backend, Restored, StatusState, Surroundings},
    model::{
        AsleepResponse, BackendId, BackendSpec, Endpoint, IdlePolicy, Ignore, Middlewares, Provenance, Readiness,
        RouteOptions, RouteSpec, RouteTarget, Scheme, Unit, Waiting,
    },
    provider::{Script, Simulated},
    proxy::ProxySettings,
    telemetry::Journal,
};
use tokio_util::sync::CancellationToken;

use crate::{frames::*, support::*};

/// What an app does with a connection; the number counts connections over all runs.
type App = Arc<dyn Fn(usize, &mut TcpStream) + Send + Sync>;

/// A sleeping backend behind a proxy.
pub(crate) struct Sleeper {
    pub(crate) engine: Simulated,
    pub(crate) backend: Backend,
    pub(crate) proxy: Proxy,
    _runtime: tokio::runtime::Runtime,
}

/// An app that listens while this lives.
struct Listening {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the accept, so that the port is free.
        let _ = TcpStream::connect(self.address);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn move_in(address: SocketAddr, app: App, count: Arc<AtomicUsize>) -> Listening {
    let listener = TcpListener::bind(address).unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let (end, open) = (Arc::clone(&ended), Arc::<Mutex<Vec<TcpStream>>>::default());
    let keep = Arc::clone(&open);
    thread::spawn(move || {
        for stream in listener.incoming() {
            if end.load(Ordering::SeqCst) {
                return;
            }
            let (app, mut stream) = (Arc::clone(&app), stream.unwrap());
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            keep.lock().unwrap().push(stream.try_clone().unwrap());
            let index = count.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                app(index, &mut stream);
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    });
    Listening { address, ended, open }
}

fn sleeper_with(
    policy: IdlePolicy,
    script: Script,
    settings: ProxySettings,
    app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
) -> Sleeper {
    sleeper_of(Scheme::Http, policy, script, settings, app)
}

/// A sleeping backend that speaks this.
pub(crate) fn sleeper_of(
    scheme: Scheme,
    policy: IdlePolicy,
    script: Script,
    settings: ProxySettings,
    app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
) -> Sleeper {
    sleeper_beside(Vec::new(), scheme, policy, script, settings, app)
}

/// A sleeping backend behind these middlewares.
pub(crate) fn sleeper_behind(
    middlewares: Middlewares,
    app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
) -> Sleeper {
    let options = RouteOptions { middlewares: Some(Arc::new(middlewares)), ..RouteOptions::default() };
    sleeper_whose(options, Vec::new(), (Scheme::Http, policy()), slow_start(), settings(), app)
}

/// The same, beside these routes.
pub(crate) fn sleeper_beside(
    routes: Vec<RouteSpec>,
    scheme: Scheme,
    policy: IdlePolicy,
    script: Script,
    settings: ProxySettings,
    app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
) -> Sleeper {
    sleeper_whose(RouteOptions::default(), routes, (scheme, policy), script, settings, app)
}

/// The same, with these options of its route.
pub(crate) fn sleeper_whose(
    options: RouteOptions,
    routes: Vec<RouteSpec>,
    (scheme, policy): (Scheme, IdlePolicy),
    script: Script,
    settings: ProxySettings,
    app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
) -> Sleeper {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let engine = Simulated::new("sim".parse().unwrap());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (app, count): (App, _) = (Arc::new(app), Arc::new(AtomicUsize::new(0)));
    let inhabitant = move |ip: IpAddr| -> Box<dyn std::any::Any + Send> {
        Box::new(move_in(SocketAddr::new(ip, port), Arc::clone(&app), Arc::clone(&count)))
    };
    engine.add("app", Script { inhabitant: Some(Arc::new(inhabitant)), ..script });
    let id = BackendId::new("sim".parse().unwrap(), "app").unwrap();
    let spec = BackendSpec {
        id: id.clone(),
        unit: Unit { name: "app".into(), network: None, command: None },
        policy,
        // The engine's word: a probe would be one more connection for the scripts to count.
        ready: Readiness::Tcp,
        ports: Vec::new(),
        depends_on: Vec::new(),
        provenance: Provenance::Discovered,
    };
    let around = Surroundings {
        provider: Arc::new(engine.clone()),
        turns: Arc::new(tokio::sync::Semaphore::new(8)),
        journal: Journal::default(),
    };
    let guard = runtime.enter();
    let backend = Backend::spawn(spec, Vec::new(), around, Restored::default(), CancellationToken::new()).0;
    drop(guard);
    let mut route = spec_of(id, scheme, port);
    route.options = Arc::new(RouteOptions { title: Some("My App".into()), ..options });
    let mut all = vec![(route, Some(backend.clone()))];
    all.extend(routes.into_iter().map(|route| (route, None)));
    let proxy = proxy_of(all, settings);
    Sleeper { engine, backend, proxy, _runtime: runtime }
}

fn spec_of(id: BackendId, scheme: Scheme, port: u16) -> RouteSpec {
    let mut route = spec(SocketAddr::from(([127, 0, 0, 1], port)));
    route.target = RouteTarget::Backend { id, endpoint: Endpoint { scheme, port } };
    route
}

pub(crate) fn policy() -> IdlePolicy {
    IdlePolicy { idle_timeout: Some(Duration::from_secs(3600)), ..IdlePolicy::default() }
}

pub(crate) fn slow_start() -> Script {
    Script { start_delay: Duration::from_millis(150), ..Script::default() }
}

fn sleeper(app: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> Sleeper {
    sleeper_with(policy(), slow_start(), settings(), app)
}

impl Sleeper {
    pub(crate) fn starts(&self) -> usize {
        self.engine.start_calls("app")
    }

    pub(crate) fn ask(&self, request: &str) -> (String, Vec<u8>) {
        ask(&mut connect(&self.proxy), request)
    }
}

/// Waits for a condition, for a long time.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never came: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

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
    let sleeper = sleeper_with(policy(), script, settings(), echo);
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
    let sleeper = sleeper_with(
        IdlePolicy { ignore, asleep_response, start_endpoint: only, ..policy() },
        slow_start(),
        settings(),
        echo,
    );
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
    let sleeper = sleeper_with(policy(), script, few, echo);
    let statuses: Vec<String> = (0..4).map(|_| sleeper.ask(GET).0[9..12].to_owned()).collect();
    assert_eq!(statuses, ["503", "503", "429", "429"]);
}

#[test]
fn a_route_may_reject_page_loads_while_it_wakes() {
    let sleeper = sleeper_with(IdlePolicy { waiting: Waiting::Reject, ..policy() }, slow_start(), settings(), echo);
    let (head, _) = sleeper.ask(PAGE_LOAD);
    assert!(head.starts_with("HTTP/1.1 503 ") && header(&head, "retry-after").is_some(), "{head}");
    until("awake", || sleeper.backend.status().borrow().state == StatusState::Awake);
    assert!(sleeper.ask(PAGE_LOAD).0.starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_route_that_rejects_page_loads_holds_all_else() {
    let sleeper = sleeper_with(IdlePolicy { waiting: Waiting::Reject, ..policy() }, slow_start(), settings(), echo);
    assert!(sleeper.ask(GET).0.starts_with("HTTP/1.1 200 "));
    assert_eq!(sleeper.starts(), 1);
}

#[test]
fn patience_ends_with_a_504() {
    let patience = Some(Duration::from_millis(50));
    let script = Script { start_delay: Duration::from_secs(5), ..Script::default() };
    let sleeper = sleeper_with(IdlePolicy { hold_timeout: patience, ..policy() }, script, settings(), echo);
    let (head, _) = sleeper.ask(GET);
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
}

#[test]
fn a_held_client_that_leaves_frees_its_place() {
    let script = Script { start_delay: Duration::from_secs(30), ..Script::default() };
    let sleeper = sleeper_with(policy(), script, settings(), echo);
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
    let sleeper = sleeper_with(policy(), script, settings(), echo);
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
    let sleeper = sleeper_with(
        policy(),
        Script { start_delay: Duration::from_millis(400), ..Script::default() },
        settings(),
        |_, stream| {
            let head = read_head(stream);
            let body = read_body(&head, stream);
            let sum = body.iter().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
            let text = format!("{} {sum}", body.len());
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).unwrap();
        },
    );
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
    let sleeper = sleeper_with(patient, slow_start(), settings(), half_started);
    let (head, _) = sleeper.ask(GET);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let (head, _) = sleeper.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 "), "what may not be repeated gets the app's own word: {head}");
}

#[test]
fn the_apps_own_503_passes_when_settling_is_over() {
    let hurried = IdlePolicy { settle: Duration::from_millis(1), ..policy() };
    let sleeper = sleeper_with(hurried, slow_start(), settings(), |_, stream| {
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
    let sleeper = sleeper_with(short, slow_start(), settings(), |_, stream| {
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
    let sleeper = sleeper_with(policy(), script, settings(), move |_, stream| {
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
