//! Routes to an address where Dormouse itself listens: they would go in a circle.

use std::net::SocketAddr;

use crate::model::{EngineAddress, Problem, RouteSpec, RouteTarget, Settings, arrives, literal_address, overlap};

/// Why a route is refused that leads to an address where Dormouse itself listens.
pub(super) fn refusal(route: &RouteSpec, settings: &Settings) -> Option<Problem> {
    let (host, port) = match &route.target {
        RouteTarget::Address { host, endpoint } => (&**host, endpoint.port),
        RouteTarget::Backend { id, endpoint } => {
            let engine = settings.nodes.get(id.node()).map(|node| &node.engine);
            if engine != Some(&EngineAddress::Process) {
                return None;
            }
            ("127.0.0.1", endpoint.port)
        }
        RouteTarget::Down { .. } | RouteTarget::Group(_) => return None,
    };
    let to = literal_address(host, port)?;
    let ours = addresses(route, settings).find(|address| arrives(to, **address))?;
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
        RouteTarget::Down { .. } | RouteTarget::Group(_) => true,
    };
    let listen = takes_tcp.then_some(&settings.listen);
    let whole = listen.into_iter().flat_map(|listen| listen.http.iter().chain(&listen.https).chain(&listen.api));
    route.matches.listen.iter().chain(whole)
}

/// Why a stream route can not listen where it wants to: HTTP or management is served there. The port of HTTPS is shared
/// with those that are told apart by their names.
pub(super) fn taken(route: &RouteSpec, settings: &Settings) -> Option<Problem> {
    let (RouteTarget::Backend { endpoint, .. } | RouteTarget::Address { endpoint, .. }) = &route.target else {
        return None;
    };
    if !endpoint.scheme.has_tcp() {
        return None;
    }
    let listen = &settings.listen;
    let is_named = !route.matches.sni.is_empty();
    let others = || listen.http.iter().chain(&listen.api).map(|ours| (ours, false));
    let ours = || listen.https.iter().map(|ours| (ours, true)).chain(others());
    let taken = |address: &SocketAddr| {
        ours().find(|(ours, https)| overlap(**ours, *address) && !(*https && is_named && *ours == address))
    };
    let (ours, https) = route.matches.listen.iter().find_map(taken)?;
    let what =
        format!("route `{}` listens on port {}, where Dormouse listens already (`{ours}`)", route.alias, ours.port());
    let hint = match (https, is_named) {
        (true, true) => "leave out `bind`: it shares the port with HTTPS then",
        (true, false) => "write another listening port: `listen:target`, or name with `sni` whom it answers to",
        (false, _) => "write another listening port: `listen:target`",
    };
    Some(Problem::error(route.place.clone(), what).with_hint(hint))
}
