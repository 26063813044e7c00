//! Routes to an address where Dormouse itself listens: they would go in a circle.

use std::net::{IpAddr, SocketAddr};

use crate::model::{EngineAddress, Problem, RouteSpec, RouteTarget, Settings};

/// Why a route is refused that leads to an address where Dormouse itself listens.
pub(super) fn refusal(route: &RouteSpec, settings: &Settings) -> Option<Problem> {
    let (host, port) = match &route.target {
        RouteTarget::Address { host, endpoint } => (host.as_str(), endpoint.port),
        RouteTarget::Backend { id, endpoint } => {
            let engine = settings.nodes.get(id.node()).map(|node| &node.engine);
            if engine != Some(&EngineAddress::Process) {
                return None;
            }
            ("127.0.0.1", endpoint.port)
        }
        RouteTarget::Down { .. } => return None,
    };
    let ours = addresses(route, settings).find(|address| same(host, port, address))?;
    let what = format!("route `{}` leads to `{host}:{port}`, where Dormouse itself listens (`{ours}`)", route.alias);
    let hint = if route.matches.listen.contains(ours) {
        "write another listening port: `listen:target`"
    } else {
        "name the address of the service itself"
    };
    Some(Problem::error(route.place.clone(), what).with_hint(hint))
}

/// Where Dormouse listens for the sake of this route, or for HTTP and management.
fn addresses<'a>(route: &'a RouteSpec, settings: &'a Settings) -> impl Iterator<Item = &'a SocketAddr> {
    let takes_tcp = match &route.target {
        RouteTarget::Backend { endpoint, .. } | RouteTarget::Address { endpoint, .. } => endpoint.scheme.has_tcp(),
        RouteTarget::Down { .. } => true,
    };
    let listen = takes_tcp.then_some(&settings.listen);
    let whole = listen.into_iter().flat_map(|listen| listen.http.iter().chain(&listen.https).chain(&listen.api));
    route.matches.listen.iter().chain(whole)
}

/// The listening address of a stream route that is taken by HTTP or management.
pub(super) fn taken(route: &RouteSpec, settings: &Settings) -> Option<Problem> {
    let (RouteTarget::Backend { endpoint, .. } | RouteTarget::Address { endpoint, .. }) = &route.target else {
        return None;
    };
    if !endpoint.scheme.has_tcp() {
        return None;
    }
    let listen = &settings.listen;
    let ours = || listen.http.iter().chain(&listen.https).chain(&listen.api);
    let taken = |address: &SocketAddr| ours().find(|ours| overlap(ours, address));
    let ours = route.matches.listen.iter().find_map(taken)?;
    let what =
        format!("route `{}` listens on port {}, where Dormouse listens already (`{ours}`)", route.alias, ours.port());
    Some(Problem::error(route.place.clone(), what).with_hint("write another listening port: `listen:target`"))
}

/// Whether a connection to one address could be one to the other.
fn overlap(a: &SocketAddr, b: &SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn same(host: &str, port: u16, ours: &SocketAddr) -> bool {
    if port != ours.port() {
        return false;
    }
    let dialled = match host {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        host => host.parse::<IpAddr>().ok(),
    };
    dialled.is_some_and(|ip| {
        let here = ip.is_loopback() || ip.is_unspecified();
        ip == ours.ip() || (here && (ours.ip().is_unspecified() || ours.ip().is_loopback()))
    })
}
