//! Health checks: endpoints are asked now and then whether they answer.
//!
//! Nothing is woken by them, nothing is kept awake, and what sleeps is not asked: a check goes through the same door as
//! a request, quietly, and only when it stands open.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    dialling::{is_awake, is_down},
    http::tls_to,
    worker::Shared,
};
use crate::{
    backend::{Backend, Pass},
    control::{Control, Health, HealthState, LiveRoute},
    model::{Cause, Endpoint, HostPattern, RouteTarget, Scheme, Spot, format_duration},
    net::{Question, ask_http1, ask_http2, connect_tcp},
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
    let at = match (&route.spec.target, pass) {
        (_, Some(pass)) => pass.dial(port).map(|(at, _)| at),
        (RouteTarget::Address { host, .. }, None) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let found = tokio::net::lookup_host((host, port)).await;
            found.map_err(|error| format!("`{host}` is not known: {error}"))?.next().map(Spot::Network)
        }
        (RouteTarget::Backend { .. } | RouteTarget::Down { .. } | RouteTarget::Group(_), None) => None,
    };
    let at = at.ok_or_else(|| "it has no address".to_owned())?;
    let mut method = if health.check.use_get { "GET" } else { "HEAD" };
    let mut answered = status(shared, route, health, (scheme, at), method).await?;
    // There are those who know no HEAD.
    if answered == Some(501) && method == "HEAD" {
        method = "GET";
        answered = status(shared, route, health, (scheme, at), method).await?;
    }
    match answered {
        Some(status) if status >= 500 => Err(format!("it answered {status} to `{method} {}`", health.check.path)),
        Some(_) | None => Ok(()),
    }
}

/// The status of an answer; none of what speaks no HTTP, and took the connection.
async fn status(
    shared: &Shared,
    route: &LiveRoute,
    health: &Health,
    (scheme, at): (Scheme, Spot),
    method: &str,
) -> Result<Option<u16>, String> {
    let tcp = connect_tcp(at).await.map_err(|error| format!("it takes no connection: {error}"))?;
    let host = host(route);
    let question = Question { method, host: &host, path: &health.check.path, agent: AGENT };
    let status = match scheme {
        Scheme::Tcp | Scheme::Udp | Scheme::TcpUdp => return Ok(None),
        Scheme::Http => ask_http1(tcp, question).await,
        Scheme::Https => {
            let tls = tls_to(shared, &route.spec, at, tcp).await.map_err(|error| format!("no TLS: {error}"))?;
            ask_http1(tls, question).await
        }
        Scheme::H2c => ask_http2(tcp, question).await,
    };
    status.map(Some).map_err(|why| chain(&why))
}

/// The host that is asked for: one that the route answers to.
fn host(route: &LiveRoute) -> String {
    let exact = route.spec.matches.hosts.iter().find_map(|host| match host {
        HostPattern::Exact(host) => Some(host.to_string()),
        HostPattern::FirstLabel(_) | HostPattern::Wildcard(_) | HostPattern::Any => None,
    });
    exact.unwrap_or_else(|| route.spec.alias.to_string())
}
