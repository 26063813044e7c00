//! Backends, routes and nodes: what exists and what it does.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
};
use jiff::Timestamp;

use super::{Api, Code, Failure, error::suggest, wire};
use crate::{
    backend::{self, StatusState},
    control::{Control, HealthState, LiveRoute, View},
    model::{Alias, BackendId, RouteSpec},
    telemetry,
};

/// All backends.
#[utoipa::path(get, path = "/api/v1/backends", tag = "backends",
    responses((status = 200, body = wire::Backends)))]
pub(super) async fn list(State(api): State<Api>) -> Json<wire::Backends> {
    let view = api.control.view();
    let backends = api.control.backends();
    let ill = ill(&api.control);
    let left_out = view.left_out().into_iter().map(|(id, problems)| wire::LeftOut {
        id: id.to_owned(),
        problems: problems.into_iter().map(wire::Problem::from).collect(),
    });
    Json(wire::Backends {
        backends: backends.iter().map(|backend| tell(backend, &view, &ill)).collect(),
        left_out: left_out.collect(),
    })
}

/// One backend.
#[utoipa::path(get, path = "/api/v1/backends/{node}/{name}", tag = "backends",
    params(("node", description = "the node"), ("name", description = "the engine's own name of it")),
    responses((status = 200, body = wire::Backend), (status = 404, body = wire::ProblemDetails)))]
pub(super) async fn one(
    State(api): State<Api>,
    Path((node, name)): Path<(String, String)>,
) -> Result<Json<wire::Backend>, Failure> {
    Ok(Json(tell_found(&api, &format!("{node}/{name}"))?))
}

/// One backend by its name alone, where it is the only one, or by the alias of a route that leads to it.
#[utoipa::path(get, path = "/api/v1/backends/{name}", tag = "backends",
    params(("name", description = "a backend's name, or the alias of a route that leads to it")),
    responses((status = 200, body = wire::Backend), (status = 404, body = wire::ProblemDetails)))]
pub(super) async fn named(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<wire::Backend>, Failure> {
    Ok(Json(tell_found(&api, &name)?))
}

/// All routes.
#[utoipa::path(get, path = "/api/v1/routes", tag = "routes",
    responses((status = 200, body = wire::Routes)))]
pub(super) async fn routes(State(api): State<Api>) -> Json<wire::Routes> {
    let view = api.control.view();
    let table = api.control.table().load();
    let live: HashMap<&Alias, &LiveRoute> = table.all().map(|route| (&route.spec.alias, &**route)).collect();
    let tell = |spec: &Arc<RouteSpec>| {
        // The two are swapped one after the other: what has just come is not live yet.
        let live = live.get(&spec.alias).copied().filter(|live| live.spec == *spec);
        wire::Route::new(spec, live)
    };
    Json(wire::Routes { routes: view.catalog.routes.values().map(tell).collect() })
}

/// All nodes.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes",
    responses((status = 200, body = wire::Nodes)))]
pub(super) async fn nodes(State(api): State<Api>) -> Json<wire::Nodes> {
    let view = api.control.view();
    let node = |(name, node): (&crate::model::NodeName, &crate::control::NodeView)| wire::Node {
        name: name.to_string(),
        engine: node.engine.clone(),
        up: node.listed && node.away.is_none(),
        away: node.away.as_ref().map(|away| away.why.clone()),
        away_since: node.away.as_ref().map(|away| away.since.to_string()),
        listed: node.listed,
        units: u64::try_from(node.units).unwrap_or(u64::MAX),
    };
    Json(wire::Nodes { nodes: view.nodes.iter().map(node).collect() })
}

/// The backend that is meant, or who it might have been.
pub(super) fn find(control: &Control, text: &str) -> Result<backend::Backend, Failure> {
    if let Some(found) = control.find(text) {
        return Ok(found);
    }
    let ids: Vec<BackendId> = control.backends().iter().map(|backend| backend.id().clone()).collect();
    let same: Vec<String> = ids.iter().filter(|id| id.name() == text).map(|id| format!("`{id}`")).collect();
    if !same.is_empty() {
        let failure = Failure::new(Code::NoSuchBackend, format!("more than one backend is named `{text}`"));
        return Err(failure.with_hint(format!("name one of {}", same.join(", "))));
    }
    let view = control.view();
    if let Some(route) = text.parse().ok().and_then(|alias| view.catalog.routes.get::<Alias>(&alias)) {
        let members: Vec<String> = route.backends().map(|id| format!("`{id}`")).collect();
        if members.len() > 1 {
            let failure = Failure::new(Code::NoSuchBackend, format!("`{text}` leads to more than one backend"));
            return Err(failure.with_hint(format!("name one of {}", members.join(", "))));
        }
    }
    let failure = Failure::new(Code::NoSuchBackend, format!("there is no backend `{text}`"));
    let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
    Err(suggest(failure, text, &names))
}

fn tell_found(api: &Api, text: &str) -> Result<wire::Backend, Failure> {
    let backend = find(&api.control, text)?;
    Ok(tell(&backend, &api.control.view(), &ill(&api.control)))
}

/// What the health checks of each backend have found; of several the worst.
fn ill(control: &Control) -> HashMap<BackendId, HealthState> {
    let mut found = HashMap::new();
    let table = control.table().load();
    for way in table.all().flat_map(|route| route.ways()) {
        let (Some(id), Some(health)) = (way.spec.backend(), &way.health) else { continue };
        let state = health.checked().state;
        let known = found.entry(id.clone()).or_insert(state);
        if state == HealthState::Unhealthy || *known == HealthState::Unknown {
            *known = state;
        }
    }
    found
}

fn tell(backend: &backend::Backend, view: &View, checked: &HashMap<BackendId, HealthState>) -> wire::Backend {
    let status = backend.status().borrow().clone();
    let id = backend.id();
    let asleep_as = match status.state {
        StatusState::Stopped => Some("stopped"),
        StatusState::Paused => Some("paused"),
        StatusState::Unknown
        | StatusState::Waking
        | StatusState::Awake
        | StatusState::Draining
        | StatusState::Stopping
        | StatusState::Failed
        | StatusState::Gone => None,
    };
    let leads_here = view.catalog.routes.values().filter(|route| route.backends().any(|to| to == id));
    let now = Timestamp::now();
    let millis = |share| status.wakes.durations.quantile(share).map(wire::millis);
    wire::Backend {
        id: id.to_string(),
        node: id.node().to_string(),
        name: id.name().to_owned(),
        state: status.state.as_str().to_owned(),
        asleep_as: asleep_as.map(str::to_owned),
        health: checked.get(id).map(|state| state.as_str().to_owned()),
        put_to_sleep: status.put_to_sleep,
        since: status.since.to_string(),
        cause: status.cause.as_ref().map(wire::Cause::from),
        failure: status.failure.as_deref().map(str::to_owned),
        passes: backend.passes(),
        held: u64::try_from(backend.held()).unwrap_or(u64::MAX),
        waits_for: status.waits_for.iter().map(ToString::to_string).collect(),
        sleeps_in_s: backend.sleeps_in().map(wire::seconds),
        pinned_until: status.pinned_until.filter(|until| *until > now).map(|until| until.to_string()),
        last_wake: status
            .wakes
            .last_at
            .map(|at| wire::LastWake { at: at.to_string(), cause: status.wakes.last_cause.clone() }),
        wakes: wire::Wakes {
            count: status.wakes.count,
            failed: status.wakes.failed,
            today: status.wakes.today.on(now.to_zoned(jiff::tz::TimeZone::system()).date()),
        },
        wake_ms: wire::WakeMillis { p50: millis(0.5), p95: millis(0.95) },
        asleep_share: asleep_share(&status, now),
        gives_back_bytes: status.gives_back(),
        routes: leads_here.map(|route| route.alias.to_string()).collect(),
        policy: wire::Policy::from(&*backend.policy()),
    }
}

/// The share of time asleep, the present state included; three digits.
fn asleep_share(status: &backend::Status, now: Timestamp) -> Option<f64> {
    let since = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
    let share = telemetry::asleep_share(asleep(status, now), since(status.wakes.counted_since?))?;
    Some((share * 1000.0).round() / 1000.0)
}

/// All time asleep, the present sleep included.
pub(super) fn asleep(status: &backend::Status, now: Timestamp) -> Duration {
    let present = if status.state.is_asleep() { now.duration_since(status.since) } else { jiff::SignedDuration::ZERO };
    status.wakes.asleep + Duration::try_from(present).unwrap_or_default()
}
