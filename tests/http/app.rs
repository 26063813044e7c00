//! An app as people write them, on `hyper`: pages, uploads, downloads, an event stream, a WebSocket.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
};

use futures_util::{SinkExt, StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

/// Bytes of the large bodies.
pub(crate) const LARGE: usize = 8 * 1024 * 1024;

type Body = BoxBody<Bytes, Infallible>;
type Events = Arc<Mutex<Option<mpsc::Receiver<String>>>>;

/// The app, for as long as its runtime runs.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    /// What goes into here comes out of `/events`, to the first who asks.
    pub(crate) events: mpsc::Sender<String>,
}

impl App {
    /// Starts it on the current runtime.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the app");
        let address = listener.local_addr().expect("the app's address");
        let (events, stream) = mpsc::channel(1);
        let stream: Events = Arc::new(Mutex::new(Some(stream)));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let stream = Arc::clone(&stream);
                let service = service_fn(move |request| serve(request, Arc::clone(&stream)));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service).with_upgrades());
            }
        });
        Self { address, events }
    }
}

/// The large body: the same bytes each time, none of them alike for long.
pub(crate) fn large() -> Bytes {
    static MADE: OnceLock<Bytes> = OnceLock::new();
    let byte = |at: usize| u8::try_from(at.wrapping_mul(2_654_435_761) >> 13 & 0xff).expect("a byte");
    MADE.get_or_init(|| (0..LARGE).map(byte).collect::<Vec<_>>().into()).clone()
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn serve(request: Request<Incoming>, events: Events) -> Result<Response<Body>, Infallible> {
    let range = request.headers().get(header::RANGE).cloned();
    Ok(match request.uri().path() {
        "/sum" => upload(request).await,
        "/large" => Response::new(full(large())),
        "/large/chunked" => {
            let large = large();
            let pieces: Vec<_> = large.chunks(10_000).map(|piece| large.slice_ref(piece)).collect();
            let frames = stream::iter(pieces).map(|piece| Ok(Frame::data(piece)));
            Response::new(BodyExt::boxed(StreamBody::new(frames)))
        }
        "/events" => {
            let events = events.lock().expect("the events").take().expect("one listener");
            let frames = stream::unfold(events, |mut events| async {
                let event = events.recv().await?;
                Some((Ok(Frame::data(Bytes::from(format!("data: {event}\n\n")))), events))
            });
            let response = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
            response.body(BodyExt::boxed(StreamBody::new(frames))).expect("a response")
        }
        "/socket" => socket(request),
        "/range" if range.is_some() => {
            let response = Response::builder().status(StatusCode::PARTIAL_CONTENT);
            let response = response.header(header::CONTENT_RANGE, "bytes 0-4/10");
            response.body(full(b"01234".to_vec())).expect("a response")
        }
        path => Response::new(full(format!("{} {path}\n", request.method()).into_bytes())),
    })
}

async fn upload(request: Request<Incoming>) -> Response<Body> {
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let body = request.into_body().collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    Response::new(full(
        format!("{} {} {}\n", sum(&body), body.len(), if chunked { "chunked" } else { "length" }).into_bytes(),
    ))
}

/// Sends back whatever comes, until the other side closes.
fn socket(mut request: Request<Incoming>) -> Response<Body> {
    let key = request.headers().get("sec-websocket-key").cloned().expect("a key");
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let socket = TokioIo::new(upgraded.await.expect("the upgrade"));
        let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let response = response.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "websocket");
    let response = response.header("sec-websocket-accept", derive_accept_key(key.as_bytes()));
    response.body(full("")).expect("a response")
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}
