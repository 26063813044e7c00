//! Make it exist.
use std::sync::Arc;

use crate::{backend::Backend, model::RouteSpec, routing::RouteTable, telemetry::RouteCounters};

/// A route that answers.
#[derive(Debug)]
pub struct LiveRoute {
    /// As configured.
    pub spec: RouteSpec,
    /// Its backend, when it leads to one.
    pub backend: Option<Backend>,
    /// What it did.
    pub counters: Arc<RouteCounters>,
}

/// The live routes.
pub type LiveTable = RouteTable<Arc<LiveRoute>>;
