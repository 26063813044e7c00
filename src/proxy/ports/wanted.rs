//! Which ports the routes want. Pure.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    control::LiveRoute,
    model::{Scheme, Transport},
    proxy::listening::{PortKey, PortRoutes},
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

/// That of the endpoint; members of a group have the same.
fn scheme(route: &LiveRoute) -> Option<Scheme> {
    route.spec.ways().find_map(|way| way.endpoint()).map(|endpoint| endpoint.scheme)
}
