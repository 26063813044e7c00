//! Readiness: when a started backend can serve.
//!
//! No fixed sleep is on this path. After the engine's answer its own address is tried again and again with short
//! time-outs: every millisecond in the first ten seconds, then slower. An engine's hint tries at once, and the engine
//! is asked beside the tries, not between them.

use std::{future::pending, io, ops::RangeInclusive, process::Stdio, sync::Arc, time::Duration};

use futures_util::StreamExt;
use regex::Regex;
use socket2::Type;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::attempt::{Attempt, Attempts};
use crate::{
    model::{BackendSpec, ContainerState, Health, Namespace, Readiness, Running, Spot},
    net::{self, NoStatus, Question, ask_http1, ask_http2},
    provider::{self, Provider, ProviderError},
};

/// How a wait for readiness ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is ready, and reached so; the port that proved it, where one did.
    Ready(Arc<Running>, Option<u16>),
    /// It does not run any more.
    Ended(ContainerState),
    /// It runs, and nothing leads to it from here; why, and what to do.
    Barred(Arc<str>),
}

/// One connect may take this long: a lost packet is sent again only after a second, and a new try is cheaper.
const CONNECT: Duration = Duration::from_millis(50);
/// A connection through an engine's forwarder must stay open this long to prove anything.
pub const FORWARDER_PROOF: Duration = Duration::from_millis(20);
/// The engine is asked again so often meanwhile: it may have moved, or ended without a word.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Where the engine's health check decides, it is asked so often, and at each hint.
const HEALTH_AGAIN: Duration = Duration::from_millis(100);
/// An engine that is away or between two states is asked so often, and at each hint.
const AWAY_AGAIN: Duration = Duration::from_millis(50);
/// A log that ended without the pattern is opened again after this.
const LOG_AGAIN: Duration = Duration::from_millis(100);

/// What is known before the first try.
#[derive(Debug, Clone)]
pub(super) struct Before {
    /// It was frozen.
    pub(super) thawed: bool,
    /// How it is reached, until the engine says otherwise: one that is away keeps nobody from a backend that answers.
    pub(super) known: Option<Arc<Running>>,
    /// From then on any of its ports proves it ready: one port that stays closed is no reason to refuse the others.
    pub(super) others_from: Instant,
}

/// Waits until the backend is ready or has ended. The caller sets the deadline by dropping this.
pub(super) async fn until_ready(
    provider: &dyn Provider,
    spec: &BackendSpec,
    before: &Before,
    kick: &Notify,
    attempts: &Attempts,
) -> Outcome {
    let begun = Instant::now();
    let thawed = before.thawed;
    let mut reached = before.known.clone();
    let mut look = provider.look(&spec.unit);
    loop {
        let mut tries = Box::pin(until_answered(provider, spec, reached.clone(), before, (begun, attempts), kick));
        // A try may take long: it goes on beside the looks until it is reached otherwise.
        reached = loop {
            let seen = tokio::select! {
                biased;
                outcome = &mut tries => return outcome,
                seen = &mut look => seen,
            };
            match seen {
                Ok(ContainerState::Running(at)) => {
                    let health = health_decides(spec, &at, thawed);
                    look = Box::pin(look_after(
                        if health { HEALTH_AGAIN } else { LOOK_AGAIN },
                        health,
                        provider,
                        spec,
                        kick,
                    ));
                    if reached.as_deref() != Some(&at) {
                        break Some(Arc::new(at));
                    }
                }
                Ok(ContainerState::Changing) | Err(_) => {
                    look = Box::pin(look_after(AWAY_AGAIN, reached.is_none(), provider, spec, kick));
                }
                Ok(ended @ (ContainerState::Paused(_) | ContainerState::Stopped { .. } | ContainerState::Gone)) => {
                    return Outcome::Ended(ended);
                }
            }
        };
    }
}

/// Asks the engine after a pause, which a hint ends where nothing else waits for hints.
async fn look_after(
    pause: Duration,
    hints: bool,
    provider: &dyn Provider,
    spec: &BackendSpec,
    kick: &Notify,
) -> Result<ContainerState, ProviderError> {
    if hints {
        rest(pause, kick).await;
    } else {
        sleep(pause).await;
    }
    provider.look(&spec.unit).await
}

async fn rest(pause: Duration, kick: &Notify) {
    tokio::select! {
        () = sleep(pause) => {}
        () = kick.notified() => {}
    }
}

/// The pause between two tries, by the time since the engine's answer. A refused connect costs some ten microseconds;
/// requests and commands cost more.
fn pause_after(elapsed: Duration, spec: &BackendSpec) -> Duration {
    let costly = matches!(spec.ready, Readiness::Http { .. } | Readiness::Command(_));
    let millis = match elapsed.as_secs() {
        _ if matches!(spec.ready, Readiness::Log(_)) => return LOG_AGAIN,
        0 => 1,
        1..10 if costly => 3,
        1..10 => 1,
        10..60 => 20,
        _ => 50,
    };
    Duration::from_millis(millis)
}

/// Whether the engine's health check decides, so that there is nothing to try.
fn health_decides(spec: &BackendSpec, running: &Running, thawed: bool) -> bool {
    // Health stays bad after a thaw until its next round: an answer suffices.
    matches!(spec.ready, Readiness::Engine) && !thawed && running.health.is_some()
}

/// Whether its ports are its own, whatever said that it is ready.
fn answers_itself(provider: &dyn Provider, spec: &BackendSpec) -> Result<(), Attempt> {
    let anothers = spec.ports.iter().find(|port| !provider.may_own(&spec.unit, **port));
    anothers.map_or(Ok(()), |port| Err(Attempt::NotItsOwn(*port)))
}

/// What is told of a try that has not ended when its time is over. A connect always ends.
fn beginning(spec: &BackendSpec) -> Option<Attempt> {
    match &spec.ready {
        Readiness::Tcp | Readiness::Engine => None,
        Readiness::Http { .. } => spec.ports.first().map(|port| Attempt::Asked(*port, None)),
        Readiness::Log(_) => Some(Attempt::Log),
        Readiness::Command(_) => Some(Attempt::Command(None)),
        Readiness::Delay(_) => Some(Attempt::Delay),
    }
}

/// Tries until it is ready, or until it is certain that no try will do; for ever, while it is not known how it is reached.
async fn until_answered(
    provider: &dyn Provider,
    spec: &BackendSpec,
    reached: Option<Arc<Running>>,
    before: &Before,
    (begun, attempts): (Instant, &Attempts),
    kick: &Notify,
) -> Outcome {
    let Some(running) = reached else {
        attempts.begun(Attempt::NotTold);
        return pending().await;
    };
    if let Some(why) = barred(spec, &running).await {
        return Outcome::Barred(why);
    }
    if health_decides(spec, &running, before.thawed) {
        match running.health {
            Some(Health::Healthy) => return Outcome::Ready(running, None),
            Some(health) => attempts.failed(Attempt::Health(health)),
            None => {}
        }
        return pending().await;
    }
    loop {
        if let Some(first) = beginning(spec) {
            attempts.begun(first);
        }
        match is_ready(provider, spec, &running, begun).await.and_then(|()| answers_itself(provider, spec)) {
            Ok(()) => return Outcome::Ready(running, spec.ports.first().copied()),
            Err(attempt) => attempts.failed(attempt),
        }
        if Instant::now() >= before.others_from
            && let Some(port) = another(spec, &running).await
        {
            return Outcome::Ready(running, Some(port));
        }
        rest(pause_after(begun.elapsed(), spec), kick).await;
    }
}

/// Why none of its ports can be dialled, whatever it does. One without any is dialled by nobody.
async fn barred(spec: &BackendSpec, running: &Running) -> Option<Arc<str>> {
    match &running.namespace {
        Some(_) if spec.ports.is_empty() => None,
        Some(Namespace::Of(process)) => net::may_enter(*process).await.err().map(Arc::from),
        Some(Namespace::Closed(_)) | None => running.closed().cloned(),
    }
}

/// A port that accepts although the first one does not.
async fn another(spec: &BackendSpec, running: &Running) -> Option<u16> {
    if !matches!(spec.ready, Readiness::Tcp) {
        return None;
    }
    for port in spec.ports.iter().skip(1) {
        if accepts(running, *port).await.is_ok() {
            return Some(*port);
        }
    }
    None
}

/// Whether one that a dial has failed to is ready all the same, by the port that proved it.
pub(super) async fn stands(spec: &BackendSpec, running: &Running, proof: Option<u16>) -> bool {
    match proof {
        Some(port) if matches!(spec.ready, Readiness::Tcp) => accepts(running, port).await.is_ok(),
        Some(_) | None => false,
    }
}

async fn is_ready(
    provider: &dyn Provider,
    spec: &BackendSpec,
    running: &Running,
    begun: Instant,
) -> Result<(), Attempt> {
    match &spec.ready {
        Readiness::Tcp | Readiness::Engine => match spec.ports.first() {
            Some(port) => accepts(running, *port).await,
            None => Ok(()),
        },
        Readiness::Http { path, status, host } => answers(spec, running, path, status, host.as_deref()).await,
        Readiness::Log(pattern) => shows(provider, spec, pattern).await,
        Readiness::Command(argv) => succeeds(argv).await,
        Readiness::Delay(delay) => {
            tokio::time::sleep_until(begun + *delay).await;
            Ok(())
        }
    }
}

async fn accepts(running: &Running, port: u16) -> Result<(), Attempt> {
    let (at, is_its_own) = running.dial(port).ok_or(Attempt::NoWay(port))?;
    let stream = connect(at).await.map_err(|error| Attempt::Connect(port, error.kind()))?;
    if is_its_own || stays_open(stream).await { Ok(()) } else { Err(Attempt::ClosedAtOnce(port)) }
}

/// Connects within [`CONNECT`]. On this machine a closed port says no before the call returns: then nothing is left to
/// wait for, and the runtime never hears of it.
async fn connect(to: Spot) -> io::Result<TcpStream> {
    let (socket, address) = (net::socket_to(to, Type::STREAM).await?, to.address());
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        outcome => outcome?,
    }
    no_error(socket.take_error()?)?;
    let stream = TcpStream::from_std(socket.into())?;
    timeout(CONNECT, stream.writable()).await??;
    no_error(stream.take_error()?)?;
    net::refuse_itself(stream, address)
}

fn no_error(error: Option<io::Error>) -> io::Result<()> {
    error.map_or(Ok(()), Err)
}

async fn stays_open(mut stream: TcpStream) -> bool {
    match timeout(FORWARDER_PROOF, stream.read(&mut [0; 1])).await {
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
) -> Result<(), Attempt> {
    let port = spec.ports.first().copied().ok_or(Attempt::NoPort)?;
    let (at, _) = running.dial(port).ok_or(Attempt::NoWay(port))?;
    let host = host.map_or_else(|| at.address().to_string(), str::to_owned);
    match status_of(|| connect(at), &host, path).await {
        Ok(code) if status.contains(&code) => Ok(()),
        Ok(code) => Err(Attempt::Asked(port, Some(code))),
        Err(why @ io::ErrorKind::ConnectionRefused) => Err(Attempt::Connect(port, why)),
        Err(_) => Err(Attempt::Asked(port, None)),
    }
}

/// The status that a GET answers with in five seconds, in the version of HTTP that is spoken there, or what kept it away.
async fn status_of<C: Future<Output = io::Result<TcpStream>>>(
    connect: impl Fn() -> C,
    host: &str,
    path: &str,
) -> Result<u16, io::ErrorKind> {
    let question = Question { method: "GET", host, path, agent: "dormouse" };
    let ask = async {
        match ask_http1(connect().await?, question).await {
            Err(NoStatus::SpeaksHttp2) => ask_http2(connect().await?, question).await,
            outcome => outcome,
        }
    };
    match timeout(Duration::from_secs(5), ask).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(NoStatus::Cut(error))) => Err(error.kind()),
        Ok(Err(_)) => Err(io::ErrorKind::InvalidData),
        Err(_) => Err(io::ErrorKind::TimedOut),
    }
}

/// Follows the log of this run until the pattern shows, or the log ends.
async fn shows(provider: &dyn Provider, spec: &BackendSpec, pattern: &Regex) -> Result<(), Attempt> {
    let mut lines = provider.log_lines(&spec.unit);
    while let Some(line) = lines.next().await {
        if pattern.is_match(&line) {
            return Ok(());
        }
    }
    Err(Attempt::Log)
}

async fn succeeds(argv: &[String]) -> Result<(), Attempt> {
    match exit_code(argv).await {
        Some(0) => Ok(()),
        code => Err(Attempt::Command(code)),
    }
}

/// How a command ends; absent where it does not in time, or can not be begun.
async fn exit_code(argv: &[String]) -> Option<i32> {
    let (program, arguments) = argv.split_first()?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = provider::spawn(&mut command).ok()?;
    timeout(Duration::from_secs(5), child.wait()).await.ok()?.ok()?.code()
}

/// Asks the busy check of a policy: an address that answers 2xx while busy, or a command that exits with 0 while busy.
pub(super) async fn is_busy(check: &str) -> bool {
    if let Some(rest) = check.strip_prefix("http://") {
        return answers_2xx(rest).await;
    }
    let code = exit_code(&["/bin/sh".to_owned(), "-c".to_owned(), check.to_owned()]).await;
    // What a shell ends with that finds no such command, or may not run it (POSIX, Shell Command Language, 2.8.2).
    if let Some(126 | 127) = code {
        tracing::warn!(
            command = check,
            "the command of `busy` can not be run, so that it keeps nothing awake (hint: run it by hand)"
        );
    }
    code == Some(0)
}

async fn answers_2xx(rest: &str) -> bool {
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    matches!(status_of(|| TcpStream::connect(&address), authority, path).await, Ok(200..300))
}
