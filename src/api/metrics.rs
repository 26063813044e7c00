//! The numbers for whoever collects them.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderName, header},
};
use jiff::Timestamp;

use super::{Api, backends::asleep};
use crate::{
    backend::Backend,
    control::{Control, HealthState, LiveMember, LiveRoute},
    telemetry::{BackendSample, EndpointSample, World},
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
        endpoints: endpoints(&api.control),
        certificates: api
            .control
            .certificates()
            .all()
            .iter()
            .filter_map(|one| Some((one.names.first()?.clone(), one.not_after.as_second())))
            .collect(),
        access_log_dropped: api.access.dropped(),
        connections: api.connections,
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], api.control.journal().metrics().render(&world))
}

/// Endpoints that are checked, and members of groups.
fn endpoints(control: &Control) -> Vec<EndpointSample> {
    let table = control.table().load();
    let sample = |way: &LiveRoute, member: Option<&LiveMember>| {
        let state = way.health.as_ref().map(|health| health.checked().state);
        let healthy = match state {
            Some(HealthState::Healthy) => Some(true),
            Some(HealthState::Unhealthy) => Some(false),
            Some(HealthState::Unknown) | None => None,
        };
        let member = member.map(|member| (member.load(), member.is_left_out()));
        let (route, leads_to) = (way.spec.alias.clone(), way.spec.leads_to());
        (healthy.is_some() || member.is_some()).then_some(EndpointSample { route, leads_to, healthy, member })
    };
    let of_route = |route: &Arc<LiveRoute>| match &route.group {
        None => sample(route, None).into_iter().collect::<Vec<_>>(),
        Some(group) => group.members.iter().filter_map(|member| sample(&member.route, Some(member))).collect(),
    };
    table.all().flat_map(of_route).collect()
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
