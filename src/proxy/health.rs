//! Health checks: endpoints are asked now and then whether they answer.
//!
//! Nothing is woken by them, nothing is kept awake, and what sleeps is not asked: a check goes through the same door as
//! a request, quietly, and only when it stands open.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    dialling::{is_awake, is_down},
    http::{Shared, tls_to},
};
use crate::{
    backend::{Backend, Pass},
    control::{Control, Health, HealthState, LiveRoute},
    model::{Cause, Endpoint, HostPattern, RouteTarget, Scheme, format_duration},
    telemetry::{Happening, Journal, chain},
};

/// Who asks.
const AGENT: &str = "Dormouse-Health";

/// Checks the endpoints of all routes that ask for it, until the token ends it.
pub async fn check_health(shared: Arc<Shared>, control: Control, end: CancellationToken) {
    // Told anew whenever any route changes.
    let mut changes = control.stream_routes();
    loop {
        changes.borrow_and_update();
        let mut checks = JoinSet::new();
        for route in checked(&control) {
            checks.spawn(watch(Arc::clone(&shared), control.journal().clone(), route));
        }
        tokio::select! {
            () = end.cancelled() => return,
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// The routes whose endpoints are checked, those of groups among them.
fn checked(control: &Control) -> Vec<Arc<LiveRoute>> {
    let table = control.table().load();
    let members = |route: &Arc<LiveRoute>| match &route.group {
        None => vec![Arc::clone(route)],
        Some(group) => group.members.iter().map(|member| Arc::clone(&member.route)).collect(),
    };
    table.all().flat_map(members).filter(|route| route.health.is_some()).collect()
}

/// Checks one endpoint again and again while it is awake.
async fn watch(shared: Arc<Shared>, journal: Journal, route: Arc<LiveRoute>) {
    let Some(health) = &route.health else { return };
    let backend = route.backend.as_ref();
    loop {
        let Some(pass) = enter(&route) else {
            health.forget();
            match backend {
                Some(backend) => is_awake(backend).await,
                // It has no backend to be awake, and gets none before it is made anew.
                None => return,
            }
            continue;
        };
        let patience = health.check.timeout;
        let outcome = match tokio::time::timeout(patience, ask(&shared, &route, health, pass.as_ref())).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("it did not answer within {}", format_duration(patience))),
        };
        drop(pass);
        // What was let down meanwhile is not ill for that.
        if backend.is_none_or(Backend::is_open) {
            tell(&journal, &route, health, outcome);
        }
        tokio::select! {
            () = tokio::time::sleep(health.check.interval) => {}
            () = is_down(backend) => {}
        }
    }
}

/// Whether it may be asked now, and what keeps it awake meanwhile.
fn enter(route: &LiveRoute) -> Option<Option<Pass>> {
    match (&route.spec.target, &route.backend) {
        (RouteTarget::Address { .. }, _) => Some(None),
        (RouteTarget::Backend { .. }, Some(backend)) => backend.try_enter_quietly().map(Some),
        (RouteTarget::Backend { .. } | RouteTarget::Down { .. } | RouteTarget::Group(_), _) => None,
    }
}

fn tell(journal: &Journal, route: &LiveRoute, health: &Health, outcome: Result<(), String>) {
    let before = health.checked().state;
    let (now, changed) = health.take(outcome);
    if !changed {
        return;
    }
    let happening = match (before, now.state) {
        (_, HealthState::Unhealthy) => Happening::Unhealthy(now.why.unwrap_or_default()),
        (HealthState::Unhealthy, _) => Happening::Healthy,
        // Its first answer is no news.
        (HealthState::Unknown | HealthState::Healthy, _) => return,
    };
    match &route.backend {
        Some(backend) => journal.record(Some(backend.id()), happening, Cause::Dormouse("health check".into())),
        None => {
            let at = route.spec.leads_to();
            let note = format!("`{at}` of route `{}` {happening}", route.spec.alias);
            journal.record(None, Happening::Note(note), Cause::Dormouse("health check".into()));
        }
    }
}

/// Asks once. The error says in words why it is not healthy.
async fn ask(shared: &Shared, route: &LiveRoute, health: &Health, pass: Option<&Pass>) -> Result<(), String> {
    let Some(Endpoint { scheme, port }) = route.spec.endpoint() else { return Err("it leads nowhere".to_owned()) };
    let address = match (&route.spec.target, pass) {
        (_, Some(pass)) => pass.dial(port).map(|(address, _)| address),
        (RouteTarget::Address { host, .. }, None) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let found = tokio::net::lookup_host((host, port)).await;
            found.map_err(|error| format!("`{host}` is not known: {error}"))?.next()
        }
        (RouteTarget::Backend { .. } | RouteTarget::Down { .. } | RouteTarget::Group(_), None) => None,
    };
    let address = address.ok_or_else(|| "it has no address".to_owned())?;
    let head = health.check.use_get;
    let method = if head { "GET" } else { "HEAD" };
    let status = match status(shared, route, health, (scheme, address), method).await? {
        // There are those who know no HEAD.
        Some(501) if !head => self::status(shared, route, health, (scheme, address), "GET").await?,
        status => status,
    };
    match status {
        Some(status) if status >= 500 => Err(format!("it answered {status} to `{method} {}`", health.check.path)),
        Some(_) | None => Ok(()),
    }
}

/// The status of an answer; none of what speaks no HTTP, and took the connection.
async fn status(
    shared: &Shared,
    route: &LiveRoute,
    health: &Health,
    (scheme, address): (Scheme, SocketAddr),
    method: &str,
) -> Result<Option<u16>, String> {
    let tcp = TcpStream::connect(address).await.map_err(|error| format!("it takes no connection: {error}"))?;
    let host = host(route);
    let path = health.check.path.as_str();
    match scheme {
        Scheme::Tcp | Scheme::Udp | Scheme::TcpUdp => Ok(None),
        Scheme::Http => http1(tcp, method, &host, path).await.map(Some),
        Scheme::Https => {
            let tls = tls_to(shared, &route.spec, address, tcp).await.map_err(|error| format!("no TLS: {error}"))?;
            http1(tls, method, &host, path).await.map(Some)
        }
        Scheme::H2c => http2(tcp, method, &host, path).await.map(Some),
    }
}

/// The host that is asked for: one that the route answers to.
fn host(route: &LiveRoute) -> String {
    let exact = route.spec.matches.hosts.iter().find_map(|host| match host {
        HostPattern::Exact(host) => Some(host.to_string()),
        HostPattern::FirstLabel(_) | HostPattern::Wildcard(_) | HostPattern::Any => None,
    });
    exact.unwrap_or_else(|| route.spec.alias.to_string())
}

async fn http1(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    host: &str,
    path: &str,
) -> Result<u16, String> {
    let cut = |error: std::io::Error| format!("the connection failed: {error}");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(cut)?;
    let mut line = Vec::with_capacity(64);
    let mut piece = [0; 64];
    // `HTTP/1.1 200`
    while line.len() < 12 {
        let count = stream.read(&mut piece).await.map_err(cut)?;
        if count == 0 {
            return Err("it ended the connection without an answer".to_owned());
        }
        line.extend_from_slice(piece.get(..count).unwrap_or_default());
    }
    let status = line.get(9..12).filter(|_| line.starts_with(b"HTTP/1."));
    let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.ok_or_else(|| "its answer is not HTTP".to_owned())
}

async fn http2(tcp: TcpStream, method: &str, host: &str, path: &str) -> Result<u16, String> {
    let cut = |error: h2::Error| format!("HTTP/2 failed: {}", chain(&error));
    let (mut requests, connection) = h2::client::handshake(tcp).await.map_err(cut)?;
    let request = http::Request::builder().method(method).uri(format!("http://{host}{path}"));
    let request = request.header("user-agent", AGENT).body(()).map_err(|error| error.to_string())?;
    let asking = async {
        let (response, _) = requests.send_request(request, true).map_err(cut)?;
        Ok(response.await.map_err(cut)?.status().as_u16())
    };
    tokio::select! {
        biased;
        status = asking => status,
        _ = connection => Err("it ended the connection without an answer".to_owned()),
    }
}
