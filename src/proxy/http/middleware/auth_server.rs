//! The service that decides who is let in: where it is, and one question to it.
//!
//! A question may be asked again: while nobody takes it, it is, for as long as an answer may take.

use std::{error::Error, io, pin::pin, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{Request, Response, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

use crate::{
    backend::{Backend, Pass},
    control::LiveRoute,
    model::{AuthServer, Endpoint, ForwardAuth, RouteTarget, Scheme, Spot, Upstream},
    net::{NoUpstreamTls, Offer, Stream},
    proxy::dialling::{dial_pause, is_down},
};

use super::{
    super::{answer::Answer, secure, wake},
    asker::Asker,
    chain::Refusal,
};

/// So much of its answer is passed on.
const LONGEST: usize = 64 * 1024;

/// An answer and its body.
pub(super) type Answered = (Response<()>, Bytes);

/// What it is called.
pub(super) fn name(at: &AuthServer) -> String {
    match at {
        AuthServer::Address { host, port } => format!("{}:{port}", bracketed(host)),
        AuthServer::Route(alias) => alias.to_string(),
    }
}

/// As it stands before a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// What is told when it can not be asked.
pub(super) fn away(at: &AuthServer, why: impl std::fmt::Display) -> Refusal {
    tracing::warn!(at = name(at), "`forward_auth` can not be asked: {why}");
    Refusal::new("the one who decides is away", Answer::new(502, "The service that lets in can not be reached."))
}

/// Asks until somebody takes the question, and gives the answer. The wait for a wake is not part of its time.
pub(super) async fn answer(
    asker: &Asker<'_>,
    auth: &ForwardAuth,
    question: &Request<Empty<Bytes>>,
) -> Result<Answered, Refusal> {
    let (mut left, mut tries) = (auth.timeout, 0);
    loop {
        let server = find(asker, auth).await?;
        let since = Instant::now();
        let asked = tokio::time::timeout(left, exchange(asker, &server, question.clone())).await;
        let error = match asked {
            Ok(Ok(answered)) => return Ok(answered),
            Ok(Err(Fault::Untaken(error))) => error,
            Ok(Err(Fault::Other(error))) => return Err(away(&auth.at, error)),
            Err(_) => {
                let answer = Answer::new(504, "The service that lets in did not answer in time.");
                return Err(Refusal::new("the one who decides takes too long", answer));
            }
        };
        tries += 1;
        let pause = dial_pause(tries);
        left = left.saturating_sub(since.elapsed() + pause);
        if left.is_zero() {
            return Err(away(&auth.at, error));
        }
        match server.backend() {
            Some(backend) => backend.suspect(),
            None => asker.client.worker.names.forget(),
        }
        // The pass is given back meanwhile: what has died can be seen as such, and woken.
        drop(server);
        tokio::time::sleep(pause).await;
    }
}

/// Why a question was not answered.
enum Fault {
    /// No connection came about, or it ended before it gave any answer.
    Untaken(io::Error),
    /// What came is no answer, or not all of one.
    Other(io::Error),
}

/// Where it is.
struct Server {
    at: Spot,
    /// The route that leads to it, if it is found by one.
    route: Option<Arc<LiveRoute>>,
    /// TLS is spoken to it.
    secure: bool,
    /// Keeps it awake meanwhile.
    _pass: Option<Pass>,
}

impl Server {
    fn backend(&self) -> Option<&Backend> {
        self.route.as_ref()?.backend.as_ref()
    }

    fn connect_timeout(&self) -> Duration {
        let upstream = self.route.as_ref().map(|route| route.spec.options.upstream.connect_timeout);
        upstream.unwrap_or_else(|| Upstream::default().connect_timeout)
    }
}

/// Finds it, awake.
async fn find(asker: &Asker<'_>, auth: &ForwardAuth) -> Result<Server, Refusal> {
    let (worker, away) = (&asker.client.worker, |why: &str| away(&auth.at, why));
    let resolve =
        async |host: &str, port: u16| worker.names.resolve(host, port).await.map_err(|error| away(&error.to_string()));
    let alias = match &auth.at {
        AuthServer::Address { host, port } => {
            let at = resolve(&bracketed(host), *port).await?;
            return Ok(Server { at: at.into(), route: None, secure: false, _pass: None });
        }
        AuthServer::Route(alias) => alias,
    };
    let Some(route) = worker.shared.table.load().find(alias).cloned() else {
        return Err(away("there is no such route"));
    };
    // Of several one decides.
    let route = route.group.as_ref().and_then(|group| group.any()).unwrap_or(route);
    let (at, endpoint, pass) = match (&route.spec.target, &route.backend) {
        (RouteTarget::Address { host, endpoint }, _) => (resolve(host, endpoint.port).await?.into(), *endpoint, None),
        (RouteTarget::Backend { endpoint, .. }, Some(backend)) => {
            let pass = match backend.try_enter() {
                Some(pass) => pass,
                None => woken(asker, backend).await?,
            };
            let (at, _) = pass.dial(endpoint.port).ok_or_else(|| away("it has no address"))?;
            (at, *endpoint, Some(pass))
        }
        (RouteTarget::Backend { .. } | RouteTarget::Down { .. } | RouteTarget::Group(_), _) => {
            return Err(away("it is down"));
        }
    };
    let secure = speaks_tls(endpoint).ok_or_else(|| away("it does not speak HTTP/1.1"))?;
    Ok(Server { at, route: Some(route), secure, _pass: pass })
}

/// Nothing where HTTP/1.1 is not spoken at all.
fn speaks_tls(endpoint: Endpoint) -> Option<bool> {
    match endpoint.scheme {
        Scheme::Http => Some(false),
        Scheme::Https => Some(true),
        Scheme::H2c | Scheme::Tcp | Scheme::Udp | Scheme::TcpUdp => None,
    }
}

/// Its backend, awake. Who is refused is told what would be told of the wake of any service.
async fn woken(asker: &Asker<'_>, backend: &Backend) -> Result<Pass, Refusal> {
    let shared = &asker.client.worker.shared;
    let held = wake::hold(shared, asker.head, asker.address(), backend, backend.policy().patience()).await;
    held.map_err(|answer| Refusal::new("the one who decides is not woken", answer))
}

/// One request on a connection of its own: nobody else's answer can be taken for it.
async fn exchange(asker: &Asker<'_>, server: &Server, question: Request<Empty<Bytes>>) -> Result<Answered, Fault> {
    let tcp = tokio::select! {
        biased;
        tcp = asker.client.worker.connect(server.at, server.connect_timeout()) => tcp.map_err(Fault::Untaken)?,
        () = is_down(server.backend()) => return Err(Fault::Untaken(io::ErrorKind::HostUnreachable.into())),
    };
    let stream = TokioIo::new(secured(asker, server, tcp).await?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(fault)?;
    let work = async {
        let (parts, body) = sender.send_request(question).await.map_err(fault)?.into_parts();
        let body = match Limited::new(body, LONGEST).collect().await {
            Ok(body) => body.to_bytes(),
            // An answer that is too long is passed on without its body; one that is cut is none.
            Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
            Err(error) => return Err(Fault::Other(io::Error::other(error))),
        };
        Ok((Response::from_parts(parts, ()), body))
    };
    driven(connection, work).await
}

/// Does work on a connection that moves only while it is polled, too.
pub(super) async fn driven<T>(connection: impl Future, work: impl Future<Output = T>) -> T {
    let (mut connection, mut work) = (pin!(connection), pin!(work));
    tokio::select! {
        biased;
        done = &mut work => return done,
        _ = &mut connection => {}
    }
    work.await
}

async fn secured(asker: &Asker<'_>, server: &Server, tcp: TcpStream) -> Result<Stream, Fault> {
    let Some(route) = server.route.as_ref().filter(|_| server.secure) else { return Ok(Stream::Plain(tcp)) };
    let target =
        secure::target(&route.spec, server.at).map_err(|_| Fault::Other(io::Error::other("no name for TLS")))?;
    let clients = &asker.client.worker.shared.tls_clients;
    match clients.connect(tcp, &target, &route.spec.options.upstream.tls, Offer::Http1).await {
        Ok((tls, _)) => Ok(Stream::Tls(tls)),
        // One that is starting may still end connections.
        Err(NoUpstreamTls::Failed(error)) => Err(Fault::Untaken(error)),
        Err(error) => Err(Fault::Other(io::Error::other(error.to_string()))),
    }
}

/// What an error before the head of an answer means.
fn fault(error: hyper::Error) -> Fault {
    let ended = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    let failed = error.source().is_some_and(|source| source.is::<io::Error>());
    if ended || failed { Fault::Untaken(io::Error::other(error)) } else { Fault::Other(io::Error::other(error)) }
}
