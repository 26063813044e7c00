//! The live routes: what a request is led by.

use std::sync::Arc;

use crate::{backend::Backend, model::RouteSpec, routing::RouteTable, telemetry::RouteCounters};

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
pub type LiveTable = RouteTable<Arc<LiveRoute>>;
