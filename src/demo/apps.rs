//! The apps: `slow` listens three seconds after its start, `live` streams, `nap` remembers a number.
//!
//! Each is a process of its own that ends with the one that started it, or, in a container, when it is told to.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::{
        Html, IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use futures_util::{SinkExt, Stream, StreamExt, stream};
use hyper_util::rt::TokioIo;
use jiff::Zoned;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

/// How long `slow` takes before it listens.
const SLOW_START: Duration = Duration::from_secs(3);

/// There is no such app.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no app of the demo: use `slow`, `live` or `nap`")]
pub struct BadApp(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum App {
    Slow,
    Live,
    Nap,
}

impl FromStr for App {
    type Err = BadApp;

    fn from_str(name: &str) -> Result<Self, BadApp> {
        match name {
            "slow" => Ok(Self::Slow),
            "live" => Ok(Self::Live),
            "nap" => Ok(Self::Nap),
            other => Err(BadApp(other.to_owned())),
        }
    }
}

/// Runs an app on this port, of the loopback or, in a container, of every address, until it fails, its parent is gone
/// or it is told to end.
pub async fn run_app(name: &str, port: u16, in_container: bool) -> anyhow::Result<()> {
    let app: App = name.parse()?;
    let parent = nix::unistd::getppid();
    // The first process of a container is spared every signal that it does not ask for.
    let mut told = signal(SignalKind::terminate())?;
    tokio::select! {
        served = serve(app, port, in_container) => Ok(served?),
        () = orphaned(parent) => Ok(()),
        _ = told.recv() => Ok(()),
    }
}

async fn serve(app: App, port: u16, in_container: bool) -> std::io::Result<()> {
    let born = Instant::now();
    if app == App::Slow {
        tokio::time::sleep(SLOW_START).await;
    }
    let address = if in_container { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let listener = TcpListener::bind((address, port)).await?;
    axum::serve(listener, router(app, born)).await
}

/// Ends when another process has become the parent: the demo is over, in whatever way.
async fn orphaned(parent: nix::unistd::Pid) {
    while nix::unistd::getppid() == parent {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn router(app: App, born: Instant) -> Router {
    match app {
        App::Slow => Router::new().route("/", get(move |headers: HeaderMap| async move { slow(&headers, born) })),
        App::Nap => {
            let count = Arc::new(AtomicU64::new(0));
            let view =
                move |headers: HeaderMap| async move { nap(&headers, count.fetch_add(1, Ordering::Relaxed) + 1) };
            Router::new().route("/", get(view))
        }
        App::Live => Router::new()
            .route("/", get(|headers: HeaderMap| async move { live(&headers) }))
            .route("/clock", get(|| async { Sse::new(clock()).keep_alive(KeepAlive::default()) }))
            .route("/echo", get(|request: Request| async move { upgrade(request) })),
    }
}

fn slow(headers: &HeaderMap, born: Instant) -> Response {
    let (pid, up, memory) = (std::process::id(), born.elapsed().as_secs(), memory());
    answer(
        headers,
        "slow",
        &format!("slow: process {pid}, started {up} s ago, {memory}"),
        &format!(
            "<h1>slow</h1><p>This app takes three seconds before it listens. You got its first answer the moment it \
             did, not at the next try of a poller.</p><dl><dt>process</dt><dd>{pid}</dd><dt>started</dt>\
             <dd>{up} s ago</dd><dt>memory</dt><dd>{memory}</dd></dl>"
        ),
    )
}

fn nap(headers: &HeaderMap, count: u64) -> Response {
    let pid = std::process::id();
    answer(
        headers,
        "nap",
        &format!("nap: request {count} of process {pid}"),
        &format!(
            "<h1>nap</h1><p>This number lives in the memory of process {pid} and nowhere else. When nobody looks, the \
             process is frozen rather than stopped, so come back later: it goes on counting.</p>\
             <div class=\"big\">{count}</div>"
        ),
    )
}

fn live(headers: &HeaderMap) -> Response {
    answer(headers, "live", "live: a clock at /clock, an echo at /echo", include_str!("pages/live.html"))
}

/// A page for browsers, a line for everything else.
fn answer(headers: &HeaderMap, title: &str, line: &str, body: &str) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepts.contains("text/html") {
        Html(format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
             <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"icon\" href=\"data:,\">\
             <style>{}</style><main>{body}</main></html>",
            include_str!("pages/style.css")
        ))
        .into_response()
    } else {
        format!("{line}\n").into_response()
    }
}

/// The resident memory of this process.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse::<u64>().ok());
    kib.map_or_else(|| "unknown".to_owned(), |kib| format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024))
}

/// The time of day, now and every second.
fn clock() -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(tokio::time::interval(Duration::from_secs(1)), |mut ticks| async move {
        ticks.tick().await;
        let now = Zoned::now().strftime("%H:%M:%S").to_string();
        Some((Ok(Event::default().data(now)), ticks))
    })
}

/// Answers a WebSocket's handshake and echoes what comes over it.
fn upgrade(mut request: Request) -> Response {
    let wanted =
        request.headers().get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let (true, Some(accept)) = (wanted, key) else {
        return (StatusCode::UPGRADE_REQUIRED, "this is a WebSocket\n").into_response();
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            echo(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await).await;
        }
    });
    let head =
        [(header::UPGRADE, "websocket"), (header::CONNECTION, "Upgrade"), (header::SEC_WEBSOCKET_ACCEPT, &accept)];
    (StatusCode::SWITCHING_PROTOCOLS, head, Body::empty()).into_response()
}

/// Until the other side closes.
async fn echo(mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>) {
    while let Some(Ok(message)) = socket.next().await {
        let is_data = matches!(message, Message::Text(_) | Message::Binary(_));
        if is_data && socket.send(message).await.is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Serves the app on a port of its own.
    async fn start(app: App) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router(app, Instant::now())).await });
        port
    }

    async fn ask(port: u16, path: &str, accept: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn nap_counts_and_slow_tells_of_itself() {
        let nap = start(App::Nap).await;
        assert!(ask(nap, "/", "*/*").await.ends_with(&format!("nap: request 1 of process {}\n", std::process::id())));
        let page = ask(nap, "/", "text/html").await;
        assert!(page.contains("<div class=\"big\">2</div>") && page.contains("text/html"), "{page}");
        let slow = start(App::Slow).await;
        assert!(ask(slow, "/", "*/*").await.contains(" MiB\n"));
    }

    #[tokio::test]
    async fn live_echoes_over_a_websocket_and_sends_the_time() {
        let port = start(App::Live).await;
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut socket, _) =
            tokio_tungstenite::client_async(format!("ws://127.0.0.1:{port}/echo"), stream).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
        socket.close(None).await.unwrap();

        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"GET /clock HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut seen = String::new();
        while seen.matches("data: ").count() < 2 {
            let mut buffer = [0; 1024];
            let length = stream.read(&mut buffer).await.unwrap();
            assert!(length > 0, "the stream ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        assert!(seen.contains("text/event-stream"));
        assert!(ask(port, "/echo", "*/*").await.starts_with("HTTP/1.1 426"));
    }

    #[tokio::test]
    async fn an_unknown_app_is_refused() {
        let refused = run_app("fast", 1, false).await.unwrap_err();
        assert_eq!(refused.to_string(), "`fast` is no app of the demo: use `slow`, `live` or `nap`");
    }
}
