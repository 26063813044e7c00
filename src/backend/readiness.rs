//! Readiness: when a started backend can serve.
//!
//! No fixed sleep is on this path. After the engine's answer its own address is tried again and again with short
//! time-outs: every millisecond in the first second, then slower. An engine's hint tries at once.

use std::{io, net::SocketAddr, ops::RangeInclusive, process::Stdio, sync::Arc, time::Duration};

use futures_util::StreamExt;
use regex::Regex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, ToSocketAddrs},
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    model::{BackendSpec, ContainerState, Health, Readiness, Running},
    provider::Provider,
};

/// How a wait for readiness ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is ready, and reached so.
    Ready(Arc<Running>),
    /// It does not run any more.
    Ended(ContainerState),
}

/// One connect may take this long: a lost packet is sent again only after a second, and a new try is cheaper.
const CONNECT: Duration = Duration::from_millis(50);
/// A connection through an engine's forwarder must stay open this long to prove anything.
const FORWARDED: Duration = Duration::from_millis(20);
/// The engine is asked again so often meanwhile: it may have moved, or ended without a word.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Waits until the backend is ready or has ended. The caller sets the deadline by dropping this.
pub(super) async fn until_ready(provider: &dyn Provider, spec: &BackendSpec, thawed: bool, kick: &Notify) -> Outcome {
    let begun = Instant::now();
    loop {
        match provider.look(&spec.unit).await {
            Ok(ContainerState::Running(running)) => {
                let again = Instant::now() + LOOK_AGAIN;
                if probe_until(provider, spec, &running, thawed, begun, again, kick).await {
                    return Outcome::Ready(Arc::new(running));
                }
            }
            Ok(ContainerState::Changing) | Err(_) => rest(Duration::from_millis(50), kick).await,
            Ok(ended @ (ContainerState::Paused(_) | ContainerState::Stopped { .. } | ContainerState::Gone)) => {
                return Outcome::Ended(ended);
            }
        }
    }
}

async fn rest(pause: Duration, kick: &Notify) {
    tokio::select! {
        () = sleep(pause) => {}
        () = kick.notified() => {}
    }
}

/// The pause between two tries, by the time since the engine's answer.
fn pause_after(elapsed: Duration) -> Duration {
    let millis = match elapsed.as_secs() {
        0 => 1,
        1..10 => 2,
        10..60 => 20,
        _ => 50,
    };
    Duration::from_millis(millis)
}

async fn probe_until(
    provider: &dyn Provider,
    spec: &BackendSpec,
    running: &Running,
    thawed: bool,
    begun: Instant,
    again: Instant,
    kick: &Notify,
) -> bool {
    loop {
        if is_ready(provider, spec, running, thawed, begun, again).await && answers_itself(provider, spec) {
            return true;
        }
        // Health is the engine's to tell: every try needs a new look.
        let ask_engine = matches!(spec.ready, Readiness::Engine);
        if ask_engine {
            rest(Duration::from_millis(100), kick).await;
        } else {
            rest(pause_after(begun.elapsed()), kick).await;
        }
        if ask_engine || Instant::now() >= again {
            return false;
        }
    }
}

/// Whether its ports are its own, whatever said that it is ready.
fn answers_itself(provider: &dyn Provider, spec: &BackendSpec) -> bool {
    spec.ports.iter().all(|port| provider.may_own(&spec.unit, *port))
}

async fn is_ready(
    provider: &dyn Provider,
    spec: &BackendSpec,
    running: &Running,
    thawed: bool,
    begun: Instant,
    again: Instant,
) -> bool {
    match &spec.ready {
        Readiness::Tcp => accepts(spec, running).await,
        Readiness::Http { path, status, host } => answers(spec, running, path, status, host.as_deref()).await,
        // Health stays bad after a thaw until its next round: an answer suffices.
        Readiness::Engine if thawed => accepts(spec, running).await,
        Readiness::Engine => match running.health {
            Some(health) => health == Health::Healthy,
            None => accepts(spec, running).await,
        },
        Readiness::Log(pattern) => shows(provider, spec, pattern, again).await,
        Readiness::Command(argv) => succeeds(argv).await,
        Readiness::Delay(delay) => begun.elapsed() >= *delay,
    }
}

async fn accepts(spec: &BackendSpec, running: &Running) -> bool {
    let Some(port) = spec.ports.first() else { return true };
    match running.dial(*port) {
        Some((address, true)) => connect(address).await.is_ok(),
        Some((address, false)) => stays_open(address).await,
        None => false,
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    timeout(CONNECT, TcpStream::connect(address)).await?
}

async fn stays_open(address: SocketAddr) -> bool {
    let Ok(mut stream) = connect(address).await else { return false };
    match timeout(FORWARDED, stream.read(&mut [0; 1])).await {
        Err(_) => true,
        Ok(Ok(count)) => count > 0,
        Ok(Err(_)) => false,
    }
}

async fn answers(
    spec: &BackendSpec,
    running: &Running,
    path: &str,
    status: &RangeInclusive<u16>,
    host: Option<&str>,
) -> bool {
    let Some((address, _)) = spec.ports.first().and_then(|port| running.dial(*port)) else { return false };
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    status_of(address, &host, path).await.is_some_and(|code| status.contains(&code))
}

/// The status that a GET answers with; absent: no answer in five seconds.
async fn status_of(address: impl ToSocketAddrs, host: &str, path: &str) -> Option<u16> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: dormouse\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut line = [0; 12];
        stream.read_exact(&mut line).await?;
        io::Result::Ok(line)
    };
    let line = timeout(Duration::from_secs(5), ask).await.ok()?.ok()?;
    // `HTTP/1.1 200`: RFC 9112 section 4.
    std::str::from_utf8(&line).ok()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

/// Follows the log of this run until the pattern shows, or until it is time to look again.
async fn shows(provider: &dyn Provider, spec: &BackendSpec, pattern: &Regex, again: Instant) -> bool {
    let mut lines = provider.log_lines(&spec.unit);
    let found = async {
        while let Some(line) = lines.next().await {
            if pattern.is_match(&line) {
                return true;
            }
        }
        false
    };
    tokio::time::timeout_at(again, found).await.unwrap_or(false)
}

async fn succeeds(argv: &[String]) -> bool {
    let Some((program, arguments)) = argv.split_first() else { return false };
    let run = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    matches!(timeout(Duration::from_secs(5), run).await, Ok(Ok(status)) if status.success())
}

/// Asks the busy check of a policy: an address that answers 2xx while busy, or a command that exits with 0 while busy.
pub(super) async fn is_busy(check: &str) -> bool {
    if let Some(rest) = check.strip_prefix("http://") {
        return answers_2xx(rest).await;
    }
    succeeds(&["/bin/sh".to_owned(), "-c".to_owned(), check.to_owned()]).await
}

async fn answers_2xx(rest: &str) -> bool {
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    matches!(status_of(address, authority, path).await, Some(200..300))
}
