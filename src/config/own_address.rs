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
    let listen = &settings.listen;
    let ours = listen.http.iter().chain(&listen.api).find(|address| same(host, port, address))?;
    let what = format!("route `{}` leads to `{host}:{port}`, where Dormouse itself listens (`{ours}`)", route.alias);
    Some(Problem::error(route.place.clone(), what).with_hint("name the address of the service itself"))
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
