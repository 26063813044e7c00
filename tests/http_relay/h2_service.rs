//! Services of HTTP/2 behind the proxy: one of the `h2` crate that plays by the rules, and one that writes frames.

use std::{
    future::Future,
    io::{Read, Write},
    net::{SocketAddr, TcpListener as StdListener, TcpStream},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use dormouse::model::{Endpoint, RouteSpec, RouteTarget, Scheme};
use h2::{
    RecvStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, Request, Response};

use crate::{frames::*, support::*};

pub(crate) type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;
type Script = Arc<dyn Fn(Request<RecvStream>, SendResponse<Bytes>) -> Answering + Send + Sync>;

/// A service that plays by the rules.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    /// Connections that were accepted.
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Service {
    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A route to an address where HTTP/2 is spoken in clear.
pub(crate) fn h2c_spec(upstream: SocketAddr) -> RouteSpec {
    let mut spec = spec(upstream);
    let endpoint = Endpoint { scheme: Scheme::H2c, port: upstream.port() };
    spec.target = RouteTarget::Address { host: upstream.ip().to_string().into(), endpoint };
    spec
}

/// A proxy with one route to this service.
pub(crate) fn h2c_proxy(upstream: SocketAddr) -> Proxy {
    proxy_with(h2c_spec(upstream), None, settings())
}

/// A service that does this with each request.
pub(crate) fn service<F>(
    builder: &Builder,
    script: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
) -> Service
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let (count, builder) = (Arc::clone(&connections), builder.clone());
    let script: Script = Arc::new(move |request, respond| Box::pin(script(request, respond)));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let (builder, script) = (builder.clone(), Arc::clone(&script));
            // A thread for each connection: what one does never holds up another.
            thread::spawn(move || serve(stream, &builder, &script));
        }
    });
    Service { address, connections }
}

/// Serves one connection to its end.
pub(crate) fn serve(stream: TcpStream, builder: &Builder, script: &Script) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(script(request, respond));
        }
    });
}

/// The whole of a body, and its trailers.
pub(crate) async fn whole(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        all.extend(data);
    }
    Ok((all, body.trailers().await?))
}

/// What came, told as a text: the head as HTTP/1.1 would write it, the body, and the trailers.
pub(crate) async fn told(request: Request<RecvStream>) -> String {
    let (parts, mut body) = request.into_parts();
    let mut text = format!("{} {} {:?}\n", parts.method, parts.uri, parts.version);
    for (name, value) in &parts.headers {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let (body, trailers) = whole(&mut body).await.unwrap();
    text += &format!("\n{}", String::from_utf8_lossy(&body));
    for (name, value) in &trailers.unwrap_or_default() {
        text += &format!("\n{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

/// Answers with what came.
pub(crate) async fn tell(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let text = told(request).await;
    let response = Response::builder().header("x-echo", "yes").body(()).unwrap();
    respond.send_response(response, false).unwrap().send_data(text.into(), true).unwrap();
}

/// A connection of a service that writes frames.
pub(crate) struct Raw<'a>(pub(crate) &'a mut TcpStream);

impl Raw<'_> {
    /// Takes the preface, and sends settings.
    pub(crate) fn begin<'a>(stream: &'a mut TcpStream, settings: &[(u16, u32)]) -> Option<Raw<'a>> {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).ok()?;
        assert_eq!(preface, PREFACE);
        let mut raw = Raw(stream);
        let own: Vec<u8> = settings.iter().flat_map(|(id, value)| setting(*id, *value)).collect();
        raw.send(SETTINGS, 0, 0, own);
        Some(raw)
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) {
        let _ = self.0.write_all(&frame(kind, flags, stream, payload.as_ref()));
    }

    /// The next frame; those that are about the connection are answered on the way.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).ok()?;
            let stream = u32::from_be_bytes([head[5] & 127, head[6], head[7], head[8]]);
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, []),
                SETTINGS | WINDOW_UPDATE if frame.stream == 0 => {}
                _ => return Some(frame),
            }
        }
    }

    /// The number of the next request, once its head came.
    pub(crate) fn request(&mut self) -> Option<u32> {
        loop {
            let frame = self.read()?;
            if frame.kind == HEADERS {
                return Some(frame.stream);
            }
        }
    }

    /// The number of the next request, once it came to its end.
    pub(crate) fn whole_request(&mut self) -> Option<u32> {
        loop {
            let frame = self.read()?;
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return Some(frame.stream);
            }
        }
    }

    /// An answer with this text.
    pub(crate) fn answer(&mut self, stream: u32, text: &str) {
        self.send(HEADERS, END_HEADERS, stream, block(&[(":status", "200")]));
        self.send(DATA, END_STREAM, stream, text);
    }
}

/// A service that does this with each connection of HTTP/2.
pub(crate) fn raw_service(script: impl Fn(usize, &mut Raw<'_>) + Send + Sync + 'static) -> SocketAddr {
    raw_service_with(&[], script)
}

/// The same, with these settings.
pub(crate) fn raw_service_with(
    settings: &'static [(u16, u32)],
    script: impl Fn(usize, &mut Raw<'_>) + Send + Sync + 'static,
) -> SocketAddr {
    upstream(move |index, stream| {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        if let Some(mut raw) = Raw::begin(stream, settings) {
            script(index, &mut raw);
        }
    })
}
