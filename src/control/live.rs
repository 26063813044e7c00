//! The live routes: what a request is led by.

use std::sync::Arc;

use crate::{
    backend::Backend,
    model::{Alias, RouteSpec},
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
    /// What it did. Survives a reload.
    pub counters: Arc<RouteCounters>,
}

/// The live routes, swapped as a whole.
#[derive(Debug)]
pub struct LiveTable {
    /// Those that answer to hosts.
    pub by_host: RouteTable<Arc<LiveRoute>>,
    /// All, sorted.
    by_alias: Box<[Arc<LiveRoute>]>,
}

impl LiveTable {
    /// Of two routes that match alike the one given first answers.
    pub fn build(routes: impl IntoIterator<Item = Arc<LiveRoute>>) -> Self {
        let mut routes: Box<[_]> = routes.into_iter().collect();
        let by_host = RouteTable::build(routes.iter().map(|route| (route.spec.matches.clone(), Arc::clone(route))));
        routes.sort_by(|one, other| one.spec.alias.cmp(&other.spec.alias));
        Self { by_host, by_alias: routes }
    }

    /// All routes, by their aliases.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &Arc<LiveRoute>> {
        self.by_alias.iter()
    }

    /// The route of this alias.
    pub fn find(&self, alias: &Alias) -> Option<&Arc<LiveRoute>> {
        let at = self.by_alias.binary_search_by(|route| route.spec.alias.cmp(alias)).ok()?;
        self.by_alias.get(at)
    }
}
