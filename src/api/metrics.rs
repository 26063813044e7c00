//! The numbers for whoever collects them.

use axum::{
    extract::State,
    http::{HeaderName, header},
};
use jiff::Timestamp;

use super::{Api, backends::asleep};
use crate::{
    backend::Backend,
    telemetry::{BackendSample, World},
};

/// All numbers, in the text form of OpenMetrics.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "the numbers", content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(api): State<Api>) -> ([(HeaderName, &'static str); 1], String) {
    let now = Timestamp::now();
    let world = World {
        backends: api.control.backends().iter().map(|backend| sample(backend, now)).collect(),
        routes: api
            .control
            .table()
            .load()
            .all()
            .map(|route| (route.spec.alias.clone(), route.counters.clone()))
            .collect(),
        certificates: api
            .control
            .certificates()
            .all()
            .iter()
            .filter_map(|one| Some((one.names.first()?.clone(), one.not_after.as_second())))
            .collect(),
        access_log_dropped: api.access.dropped(),
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], api.control.journal().metrics().render(&world))
}

fn sample(backend: &Backend, now: Timestamp) -> BackendSample {
    let status = backend.status().borrow().clone();
    BackendSample {
        id: backend.id().clone(),
        state: status.state.as_str(),
        passes: backend.passes(),
        held: u64::try_from(backend.held()).unwrap_or(u64::MAX),
        asleep: asleep(&status, now),
        gives_back: status.gives_back().unwrap_or(0),
    }
}
