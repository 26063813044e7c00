//! The live routes: what a request is led by.

use std::sync::Arc;

use super::{Health, LiveGroup, StickyKey};
use crate::{
    backend::Backend,
    model::{Alias, RouteMatch, RouteSpec, Served},
    routing::RouteTable,
    telemetry::RouteCounters,
};

/// A route that answers.
#[derive(Debug)]
pub struct LiveRoute {
    /// As configured.
    pub spec: Arc<RouteSpec>,
    /// Its backend, when it leads to one.
    pub backend: Option<Backend>,
    /// Its members, when several share its name.
    pub group: Option<Box<LiveGroup>>,
    /// How its endpoint fares, where it is checked.
    pub health: Option<Arc<Health>>,
    /// What it did. Survives a reload.
    pub counters: Arc<RouteCounters>,
}

impl LiveRoute {
    /// A route with the backends of this configuration, and with the key of cookies if it needs one. What is known of it and its members from before lives on.
    pub fn new(
        spec: Arc<RouteSpec>,
        backend: &dyn Fn(&RouteSpec) -> Option<Backend>,
        key: &dyn Fn() -> StickyKey,
        before: Option<&Self>,
    ) -> Self {
        let counters = before.map(|before| Arc::clone(&before.counters)).unwrap_or_default();
        let member = |spec: &Arc<RouteSpec>| {
            let (spec, backend, health) = (Arc::clone(spec), backend(spec), health(spec, before));
            Arc::new(Self { spec, backend, group: None, health, counters: Arc::clone(&counters) })
        };
        let group = spec.group().map(|group| {
            let members = group.members.iter().map(|one| member(&one.route)).collect();
            let before = before.and_then(|before| before.group.as_deref());
            Box::new(LiveGroup::new(&spec.alias, Arc::clone(group), members, key, before))
        });
        Self { backend: backend(&spec), health: health(&spec, before), spec, group, counters }
    }

    /// Each that leads to one place: itself, or its members.
    pub fn ways(&self) -> impl Iterator<Item = &Self> {
        let members = self.group.as_ref().map_or(&[][..], |group| group.members.as_slice());
        let itself = self.group.is_none().then_some(self);
        itself.into_iter().chain(members.iter().map(|member| &*member.route))
    }
}

/// The health of a route's endpoint, as known from before.
fn health(spec: &RouteSpec, before: Option<&LiveRoute>) -> Option<Arc<Health>> {
    let fresh = Health::of(spec)?;
    let mut known = before.into_iter().flat_map(LiveRoute::ways).filter_map(|way| way.health.as_ref());
    Some(known.find(|known| known.is_same(&fresh)).map_or_else(|| Arc::new(fresh), Arc::clone))
}

/// The live routes, swapped as a whole.
#[derive(Debug)]
pub struct LiveTable {
    /// Those that answer to hosts.
    pub by_host: RouteTable<Arc<LiveRoute>>,
    /// Stream routes at which TLS ends, by their names.
    ends_tls: RouteTable<()>,
    /// All, sorted.
    by_alias: Box<[Arc<LiveRoute>]>,
}

impl LiveTable {
    /// Of two routes that match alike the one given first answers.
    pub fn build(routes: impl IntoIterator<Item = Arc<LiveRoute>>) -> Self {
        let mut routes: Box<[_]> = routes.into_iter().collect();
        let by_host = RouteTable::build(routes.iter().map(|route| (route.spec.matches.clone(), Arc::clone(route))));
        let ending = routes
            .iter()
            .filter(|route| route.spec.options.tls_termination)
            .map(|route| (RouteMatch { hosts: route.spec.matches.sni.clone(), ..RouteMatch::default() }, ()));
        let ends_tls = RouteTable::build(ending);
        routes.sort_by(|one, other| one.spec.alias.cmp(&other.spec.alias));
        Self { by_host, ends_tls, by_alias: routes }
    }

    /// All routes, by their aliases.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &Arc<LiveRoute>> {
        self.by_alias.iter()
    }

    /// How a certificate for this host would be used.
    pub fn served(&self, host: &str) -> Served {
        match (self.by_host.served(host), self.ends_tls.served(host)) {
            (Served::ByName, _) | (_, Served::ByName) => Served::ByName,
            (Served::ByPattern, _) | (_, Served::ByPattern) => Served::ByPattern,
            (Served::No, Served::No) => Served::No,
        }
    }

    /// The route of this alias.
    pub fn find(&self, alias: &Alias) -> Option<&Arc<LiveRoute>> {
        let at = self.by_alias.binary_search_by(|route| route.spec.alias.cmp(alias)).ok()?;
        self.by_alias.get(at)
    }
}
