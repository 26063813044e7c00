//! The relay on real sockets: one worker, one route to a scripted upstream.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use dormouse::{
    control::{LiveRoute, LiveTable},
    model::{Audience, Endpoint, HostPattern, Ignore, Place, RouteMatch, RouteSpec, RouteTarget, Scheme, Upstream},
    proxy::{Limits, ProxySettings, Shared, Workers, run_workers},
};
use tokio_util::sync::CancellationToken;

/// A running proxy with one route.
struct Proxy {
    address: SocketAddr,
    route: Arc<LiveRoute>,
    shutdown: CancellationToken,
    workers: Option<Workers>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(workers) = self.workers.take() {
            workers.join();
        }
    }
}

fn spec(upstream: SocketAddr) -> RouteSpec {
    RouteSpec {
        alias: "app".parse().unwrap(),
        place: Place::Body("test".into()),
        matches: RouteMatch { hosts: vec![HostPattern::Any], ..RouteMatch::default() },
        target: RouteTarget::Address {
            host: upstream.ip().to_string(),
            endpoint: Endpoint { scheme: Scheme::Http, port: upstream.port() },
        },
        upstream: Upstream::default(),
        audience: Audience::Everyone,
        set_request_headers: Vec::new(),
        set_response_headers: Vec::new(),
        waiting: None,
        waiting_page: None,
        title: None,
        ignore: Ignore::default(),
        asleep_response: None,
        health: None,
    }
}

fn proxy_with(spec: RouteSpec, settings: ProxySettings) -> Proxy {
    let route = Arc::new(LiveRoute { spec: spec.clone(), backend: None, counters: Arc::default() });
    let table = LiveTable::build([(spec.matches, Arc::clone(&route))]);
    let shared = Shared::new(Arc::new(ArcSwap::from_pointee(table)), Arc::new(ArcSwap::from_pointee(settings)));
    let shutdown = CancellationToken::new();
    let workers = run_workers(1, &[SocketAddr::from(([127, 0, 0, 1], 0))], &shared, &shutdown).unwrap();
    Proxy { address: workers.addresses()[0], route, shutdown, workers: Some(workers) }
}

fn proxy(upstream: SocketAddr) -> Proxy {
    let settings = ProxySettings { shutdown_timeout: Duration::from_millis(200), ..ProxySettings::default() };
    proxy_with(spec(upstream), settings)
}

/// An upstream that does this with each connection, which it numbers from 0.
fn upstream(script: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let (script, mut stream) = (Arc::clone(&script), stream.unwrap());
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            thread::spawn(move || script(index, &mut stream));
        }
    });
    address
}

/// Reads a head: up to and with the empty line. Empty at the end of input.
fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8(head).unwrap()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
}

fn read_exactly(stream: &mut impl Read, count: usize) -> Vec<u8> {
    let mut body = vec![0; count];
    stream.read_exact(&mut body).unwrap();
    body
}

fn read_chunked(stream: &mut impl Read) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(read_exactly(stream, 1));
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        if size == 0 {
            read_exactly(stream, 2);
            return body;
        }
        body.extend(read_exactly(stream, size));
        assert_eq!(read_exactly(stream, 2), b"\r\n");
    }
}

/// Reads a body as the head frames it.
fn read_body(head: &str, stream: &mut impl Read) -> Vec<u8> {
    match header(head, "content-length") {
        Some(length) => read_exactly(stream, length.parse().unwrap()),
        None if header(head, "transfer-encoding").is_some() => read_chunked(stream),
        None => Vec::new(),
    }
}

/// Answers each request with the head and the body that came.
fn echo(_: usize, stream: &mut TcpStream) {
    loop {
        let head = read_head(stream);
        if head.is_empty() {
            return;
        }
        let mut body = head.clone().into_bytes();
        body.extend(read_body(&head, stream));
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Echo: yes\r\n\r\n", body.len()).unwrap();
        stream.write_all(&body).unwrap();
    }
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends and reads one response: its head and its body.
fn ask(stream: &mut TcpStream, request: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    stream.write_all(request.as_ref()).unwrap();
    let head = read_head(stream);
    let body = read_body(&head, stream);
    (head, body)
}

/// All that comes until the connection ends.
fn read_all(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let clean = stream.read_to_end(&mut all).is_ok();
    (all, clean)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn gets_and_posts_share_one_connection_on_both_sides() {
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let proxy = proxy(upstream(move |index, stream| {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        echo(index, stream);
    }));
    let mut client = connect(&proxy);
    for round in 0..20 {
        let (head, body) = ask(&mut client, format!("GET /a/{round}?q=1 HTTP/1.1\r\nHost: App.Example:80\r\n\r\n"));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("X-Echo: yes\r\n"), "{head}");
        let seen = text(body);
        assert!(seen.starts_with(&format!("GET /a/{round}?q=1 HTTP/1.1\r\nHost: app.example:80\r\n")), "{seen}");
        let (_, body) = ask(&mut client, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert!(text(body).ends_with("\r\n\r\nhello"));
        let chunked =
            "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let (_, body) = ask(&mut client, chunked);
        assert!(text(body).ends_with("\r\n\r\nabcde"));
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(proxy.route.counters.class(2), 60);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let proxy = proxy(upstream(echo));
    let mut client = connect(&proxy);
    let one = |n: usize| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab{n}");
    client.write_all((0..5).map(one).collect::<String>().as_bytes()).unwrap();
    for n in 0..5 {
        let head = read_head(&mut client);
        let body = text(read_body(&head, &mut client));
        assert!(body.starts_with(&format!("POST /{n} ")) && body.ends_with(&format!("ab{n}")), "{body}");
    }
}

#[test]
fn large_bodies_stream_both_ways_at_once() {
    // The upstream sends back each piece as it comes, so neither side could hold the whole.
    let proxy = proxy(upstream(|_, stream| {
        let head = read_head(stream);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", header(&head, "content-length").unwrap())
            .unwrap();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            stream.write_all(&piece[..count]).unwrap();
        }
    }));
    let client = connect(&proxy);
    let body: Vec<u8> = (0..8u32 << 20).map(|n| (n % 251) as u8).collect();
    let (mut writer, sent) = (client.try_clone().unwrap(), body.clone());
    let sender = thread::spawn(move || {
        write!(writer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", sent.len()).unwrap();
        writer.write_all(&sent).unwrap();
    });
    let mut reader = client;
    let head = read_head(&mut reader);
    assert!(read_body(&head, &mut reader) == body, "the body came back changed");
    sender.join().unwrap();
}

#[test]
fn bodies_without_length_are_chunked_for_new_clients_and_closed_for_old_ones() {
    let proxy = proxy(upstream(|index, stream| {
        read_head(stream);
        let framed: &[u8] = if index < 2 {
            b"HTTP/1.1 200 OK\r\n\r\nall of it"
        } else {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9;x\r\nall of it\r\n0\r\nX-Sum: 1\r\n\r\n"
        };
        stream.write_all(framed).unwrap();
    }));
    let mut client = connect(&proxy);
    let (head, body) = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(text(body), "all of it");
    for _ in 0..2 {
        let mut old = connect(&proxy);
        old.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let (all, clean) = read_all(&mut old);
        let all = text(all);
        assert!(clean && all.ends_with("\r\n\r\nall of it"), "{all}");
        assert!(!all.to_ascii_lowercase().contains("chunked"), "{all}");
    }
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let all = text(read_all(&mut client).0);
    assert!(all.ends_with("9\r\nall of it\r\n0\r\nX-Sum: 1\r\n\r\n"), "{all}");
}

#[test]
fn what_was_cut_is_never_shown_as_whole() {
    for (answer, old) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxx", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true),
    ] {
        let proxy = proxy(upstream(move |_, stream| {
            read_head(stream);
            stream.write_all(answer.as_bytes()).unwrap();
        }));
        let mut client = connect(&proxy);
        let version = if old { "1.0" } else { "1.1" };
        write!(client, "GET / HTTP/{version}\r\nHost: a\r\n\r\n").unwrap();
        let (all, clean) = read_all(&mut client);
        let all = text(all);
        let whole = (all.starts_with("HTTP/1.1 200") && all.ends_with("0\r\n\r\n")) || (old && clean);
        assert!(!whole, "{answer:?} became {all:?}, clean end: {clean}");
    }
}

#[test]
fn a_pooled_connection_that_died_is_replaced_unseen() {
    let proxy = proxy(upstream(|_, stream| {
        let head = read_head(stream);
        let body = read_body(&head, stream);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        stream.write_all(&body).unwrap();
        // Closed without a word, though it was to be kept.
        let _ = stream.shutdown(Shutdown::Both);
    }));
    let mut client = connect(&proxy);
    for _ in 0..50 {
        let (head, _) = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
}

#[test]
fn stray_bytes_end_the_use_of_a_connection() {
    let proxy = proxy(upstream(|index, stream| {
        read_head(stream);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", index % 10).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").unwrap();
        let _ = read_head(stream);
    }));
    let mut client = connect(&proxy);
    for index in 0..3 {
        let (_, body) = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(text(body), index.to_string());
    }
}

#[test]
fn an_upstream_that_is_not_there_is_a_502() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = proxy(nobody);
    let mut client = connect(&proxy);
    let (head, body) = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert!(!text(body).contains(&nobody.port().to_string()));
    let (head, _) = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 502 "), "the connection stays: {head}");
}

#[test]
fn doubtful_requests_are_refused_and_the_connection_closed() {
    let proxy = proxy(upstream(|_, _| panic!("no byte may reach the upstream")));
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\0\r\n\r\n",
        "GET /../x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = connect(&proxy);
        client.write_all(request.as_bytes()).unwrap();
        let answer = text(read_all(&mut client).0);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?} became {answer:?}");
    }
}
