//! Which ports the routes want. Pure.

use std::{collections::BTreeMap, sync::Arc};

use super::port::{PortKey, PortRoutes};
use crate::{
    control::LiveRoute,
    model::{RouteTarget, Scheme, Transport},
};

/// Each wanted port with its routes. A route that leads nowhere has none: nothing listens there.
pub(super) fn wanted(routes: &[Arc<LiveRoute>]) -> BTreeMap<PortKey, PortRoutes> {
    let mut ports: BTreeMap<PortKey, PortRoutes> = BTreeMap::new();
    for route in routes {
        let Some(scheme) = scheme(route) else { continue };
        for address in &route.spec.matches.listen {
            let both = [(Transport::Tcp, scheme.has_tcp()), (Transport::Udp, scheme.has_udp())];
            for (transport, _) in both.into_iter().filter(|(_, has)| *has) {
                ports.entry(PortKey { transport, address: *address }).or_default().add(route);
            }
        }
    }
    ports.into_iter().map(|(key, routes)| (key, routes.finished())).collect()
}

fn scheme(route: &LiveRoute) -> Option<Scheme> {
    match &route.spec.target {
        RouteTarget::Backend { endpoint, .. } | RouteTarget::Address { endpoint, .. } => Some(endpoint.scheme),
        RouteTarget::Down { .. } | RouteTarget::Group(_) => None,
    }
}
