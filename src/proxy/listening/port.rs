//! A listening port and the routes behind it.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::{
    control::LiveRoute,
    model::{RouteMatch, Transport},
    routing::{Query, RouteTable},
};

/// Where a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::proxy) struct PortKey {
    pub(in crate::proxy) transport: Transport,
    pub(in crate::proxy) address: SocketAddr,
}

/// An open port.
#[derive(Debug)]
pub(in crate::proxy) struct Port {
    pub(in crate::proxy) key: PortKey,
    pub(in crate::proxy) routes: ArcSwap<PortRoutes>,
    /// Cancelled when no route wants it any more.
    pub(in crate::proxy) closed: CancellationToken,
}

/// The routes behind a port.
#[derive(Debug, Default)]
pub(in crate::proxy) struct PortRoutes {
    /// Takes whatever the names do not.
    any: Option<Arc<LiveRoute>>,
    by_name: Vec<Arc<LiveRoute>>,
    names: Option<RouteTable<Arc<LiveRoute>>>,
}

impl Port {
    pub(in crate::proxy) fn new(key: PortKey, routes: PortRoutes) -> Arc<Self> {
        Arc::new(Self { key, routes: ArcSwap::from_pointee(routes), closed: CancellationToken::new() })
    }

    /// Whether its routes are told apart by the name in the TLS hello.
    pub(in crate::proxy) fn needs_hello(&self) -> bool {
        self.routes.load().names.is_some()
    }

    /// The route of whoever asks for this name, or for none.
    pub(in crate::proxy) fn route(&self, name: Option<&str>) -> Option<Arc<LiveRoute>> {
        self.routes.load().find(name).cloned()
    }
}

impl PortRoutes {
    pub(in crate::proxy) fn add(&mut self, route: &Arc<LiveRoute>) {
        if route.spec.matches.sni.is_empty() {
            self.any.get_or_insert_with(|| Arc::clone(route));
        } else {
            self.by_name.push(Arc::clone(route));
        }
    }

    /// To be called once all were added.
    pub(in crate::proxy) fn finished(mut self) -> Self {
        let named = self.by_name.iter().map(|route| {
            let matches = RouteMatch { hosts: route.spec.matches.sni.clone(), ..RouteMatch::default() };
            (matches, Arc::clone(route))
        });
        self.names = (!self.by_name.is_empty()).then(|| RouteTable::build(named));
        self
    }

    /// The routes, for messages.
    pub(in crate::proxy) fn all(&self) -> impl Iterator<Item = &Arc<LiveRoute>> {
        self.any.iter().chain(&self.by_name)
    }

    /// Takes out the one that has no names.
    pub(in crate::proxy) fn take_nameless(&mut self) -> Option<Arc<LiveRoute>> {
        self.any.take()
    }

    /// The route that has this name.
    pub(in crate::proxy) fn named(&self, host: &str) -> Option<&Arc<LiveRoute>> {
        self.names.as_ref()?.find(&Query { host, path: "", method: "", headers: &|_| None })
    }

    fn find(&self, name: Option<&str>) -> Option<&Arc<LiveRoute>> {
        name.and_then(|name| self.named(name)).or(self.any.as_ref())
    }
}
