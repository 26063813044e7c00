//! A proxy on real sockets, scripted upstreams, and clients that write and read bytes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use dormouse::{
    backend::Backend,
    control::{LiveRoute, LiveTable, StickyKey},
    model::{Endpoint, HostPattern, Place, RouteMatch, RouteSpec, RouteTarget, Scheme},
    proxy::{ProxySettings, Shared, Workers, run_workers},
};
use tokio_util::sync::CancellationToken;

/// A running proxy with one route.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) route: Arc<LiveRoute>,
    shutdown: CancellationToken,
    workers: Option<Workers>,
}

impl Proxy {
    pub(crate) fn new(
        address: SocketAddr,
        route: Arc<LiveRoute>,
        shutdown: CancellationToken,
        workers: Workers,
    ) -> Self {
        Self { address, route, shutdown, workers: Some(workers) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(workers) = self.workers.take() {
            workers.join();
        }
    }
}

/// A route for every host to a fixed address.
pub(crate) fn spec(upstream: SocketAddr) -> RouteSpec {
    let matches = RouteMatch { hosts: [HostPattern::Any].into(), ..RouteMatch::default() };
    let endpoint = Endpoint { scheme: Scheme::Http, port: upstream.port() };
    let target = RouteTarget::Address { host: upstream.ip().to_string().into(), endpoint };
    RouteSpec::new("app".parse().unwrap(), Place::Body("test".into()), matches, target)
}

/// A proxy with this one route.
pub(crate) fn proxy_with(spec: RouteSpec, backend: Option<Backend>, settings: ProxySettings) -> Proxy {
    proxy_of(vec![(spec, backend)], settings)
}

/// A proxy with these routes; the first of them is what it is known by.
pub(crate) fn proxy_of(specs: Vec<(RouteSpec, Option<Backend>)>, settings: ProxySettings) -> Proxy {
    let live = |(spec, backend): (RouteSpec, Option<Backend>)| {
        Arc::new(LiveRoute::new(Arc::new(spec), &|_| backend.clone(), &StickyKey::random, None))
    };
    let routes: Vec<Arc<LiveRoute>> = specs.into_iter().map(live).collect();
    let table = LiveTable::build(routes.iter().cloned());
    let route = Arc::clone(&routes[0]);
    let shared = Shared::new(Arc::new(ArcSwap::from_pointee(table)), Arc::new(ArcSwap::from_pointee(settings)));
    let shutdown = CancellationToken::new();
    let workers = run_workers(1, &[SocketAddr::from(([127, 0, 0, 1], 0))], &shared, &shutdown).unwrap();
    Proxy::new(workers.addresses()[0], route, shutdown, workers)
}

/// Settings with which a test ends soon.
pub(crate) fn settings() -> ProxySettings {
    ProxySettings { shutdown_timeout: Duration::from_millis(200), ..ProxySettings::default() }
}

/// A proxy with one route to this upstream.
pub(crate) fn proxy(upstream: SocketAddr) -> Proxy {
    proxy_with(spec(upstream), None, settings())
}

/// An upstream that does this with each connection, which it numbers from 0.
pub(crate) fn upstream(script: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
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
pub(crate) fn read_head(stream: &mut impl Read) -> String {
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

/// The first value of a field.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
}

/// So many bytes.
pub(crate) fn read_exactly(stream: &mut impl Read, count: usize) -> Vec<u8> {
    let mut body = vec![0; count];
    stream.read_exact(&mut body).unwrap();
    body
}

/// A chunked body without its framing.
pub(crate) fn read_chunked(stream: &mut impl Read) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(read_exactly(stream, 1));
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        if size == 0 {
            // The end, perhaps with trailers.
            let mut line = Vec::new();
            while line != b"\r\n" {
                line.clear();
                while !line.ends_with(b"\r\n") {
                    line.extend(read_exactly(stream, 1));
                }
            }
            return body;
        }
        body.extend(read_exactly(stream, size));
        assert_eq!(read_exactly(stream, 2), b"\r\n");
    }
}

/// Reads a body as the head frames it.
pub(crate) fn read_body(head: &str, stream: &mut impl Read) -> Vec<u8> {
    match header(head, "content-length") {
        Some(length) => read_exactly(stream, length.parse().unwrap()),
        None if header(head, "transfer-encoding").is_some() => read_chunked(stream),
        None => Vec::new(),
    }
}

/// Answers each request with the head and the body that came.
pub(crate) fn echo(_: usize, stream: &mut TcpStream) {
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

/// A client's connection.
pub(crate) fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends and reads one response: its head and its body.
pub(crate) fn ask(stream: &mut TcpStream, request: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    stream.write_all(request.as_ref()).unwrap();
    let head = read_head(stream);
    let body = read_body(&head, stream);
    (head, body)
}

/// All that comes until the connection ends.
pub(crate) fn read_all(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let clean = stream.read_to_end(&mut all).is_ok();
    (all, clean)
}

/// Bytes that are text.
pub(crate) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
