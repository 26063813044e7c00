//! Checks that need all routes and backends together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{
    container::{FromContainer, sleeps},
    static_routes::condition,
    tree::nearest,
};
use crate::model::{
    Alias, BackendId, BackendSpec, Dependency, EngineAddress, Place, Problem, Problems, Provenance, Readiness,
    RouteSpec, RouteTarget, Settings,
};

/// Replaces the dependencies that containers name by Compose services with the containers behind them.
pub fn resolve_dependencies(mut containers: Vec<FromContainer>) -> Vec<FromContainer> {
    let mut services: BTreeMap<(String, String, String), Vec<BackendId>> = BTreeMap::new();
    for made in &containers {
        if let (Some((project, service)), Some(backend)) = (&made.compose, &made.backend) {
            let node = backend.id.node().to_string();
            services.entry((node, project.clone(), service.clone())).or_default().push(backend.id.clone());
        }
    }
    for made in &mut containers {
        if let (Some((project, _)), Some(backend)) = (made.compose.clone(), &made.backend) {
            let depends_on = with_services(backend, &project, made, &services);
            if let Some(backend) = &mut made.backend {
                backend.depends_on = depends_on;
            }
        }
    }
    containers
}

/// Takes out the routes that lead to an address where Dormouse itself listens: they would go in a circle.
pub fn refuse_own_addresses(routes: &mut Vec<RouteSpec>, settings: &Settings) -> Problems {
    let mut problems = Problems::default();
    routes.retain(|route| !leads_to_us(route, settings, &mut problems));
    problems
}

/// Joins what containers mean, the oldest first: services of Compose become the containers behind them.
pub fn resolve(mut containers: Vec<FromContainer>) -> (Vec<RouteSpec>, Vec<BackendSpec>, Problems) {
    let key = |made: &FromContainer| (made.created, made.backend.as_ref().map(|backend| backend.id.clone()));
    containers.sort_by_key(key);
    let (mut routes, mut backends, mut problems) = (Vec::new(), Vec::new(), Problems::default());
    for mut made in resolve_dependencies(containers) {
        backends.extend(made.backend.take());
        routes.append(&mut made.routes);
        problems.0.append(&mut made.problems.0);
    }
    (routes, backends, problems)
}

fn with_services(
    backend: &BackendSpec,
    project: &str,
    made: &FromContainer,
    services: &BTreeMap<(String, String, String), Vec<BackendId>>,
) -> Vec<Dependency> {
    let mut found: Vec<Dependency> = Vec::new();
    for one in &made.wanted {
        let Some(condition) = condition(one, &mut Problems::default()) else { continue };
        let key = (backend.id.node().to_string(), project.to_owned(), one.name.clone());
        let on: Vec<BackendId> = match services.get(&key) {
            Some(ids) => ids.clone(),
            None if one.name.contains('/') => one.name.parse().into_iter().collect(),
            None => BackendId::new(backend.id.node().clone(), &one.name).into_iter().collect(),
        };
        found.extend(on.into_iter().map(|on| Dependency { on, condition }));
    }
    found
}

/// Checks all routes and backends against each other. Routes come in the order in which they claim their aliases: those
/// of files first, then those of containers, the oldest first. What is returned fits together; backends that no route,
/// no policy and no other backend wants are left out.
pub fn cross_check(
    routes: Vec<RouteSpec>,
    backends: Vec<BackendSpec>,
    settings: &Settings,
) -> (Vec<RouteSpec>, Vec<BackendSpec>, Problems) {
    let mut problems = Problems::default();
    let routes = claim(routes, &mut problems);
    let routes: Vec<RouteSpec> =
        routes.into_iter().filter(|route| !leads_to_us(route, settings, &mut problems)).collect();
    let mut backends = merge(backends, settings);
    let broken = broken(&backends, &|backend| place_of(backend, &routes), &mut problems);
    backends.retain(|id, _| !broken.contains(id));
    let routes: Vec<RouteSpec> =
        routes.into_iter().filter(|route| route.backend().is_none_or(|id| backends.contains_key(id))).collect();
    let backends = wanted(backends, &routes);
    (routes, backends, problems)
}

/// What can be told of a file before any engine was asked: circles, our own addresses, and unknown dependencies on nodes
/// that run processes, all of which are in the file.
pub(super) fn check_file(
    routes: &[RouteSpec],
    backends: &[BackendSpec],
    settings: &Settings,
    places: &BTreeMap<BackendId, Place>,
) -> Problems {
    let mut problems = Problems::default();
    for route in routes {
        leads_to_us(route, settings, &mut problems);
    }
    let mut known: BTreeMap<BackendId, BackendSpec> = merge(backends.to_vec(), settings);
    let names: BTreeSet<BackendId> = known.keys().cloned().collect();
    for backend in known.values_mut() {
        let is_process =
            |id: &BackendId| settings.nodes.get(id.node()).is_some_and(|node| node.engine == EngineAddress::Process);
        backend.depends_on.retain(|dependency| names.contains(&dependency.on) || is_process(&dependency.on));
    }
    let place_of =
        |backend: &BackendSpec| places.get(&backend.id).cloned().unwrap_or_else(|| place_of(backend, routes));
    broken(&known, &place_of, &mut problems);
    problems
}

/// The first to claim an alias keeps it.
fn claim(routes: Vec<RouteSpec>, problems: &mut Problems) -> Vec<RouteSpec> {
    let mut owners: BTreeMap<Alias, Place> = BTreeMap::new();
    let mut kept = Vec::new();
    for route in routes {
        match owners.get(&route.alias) {
            Some(owner) => {
                let what = format!("alias `{}` is already claimed by {owner}", route.alias);
                let problem = Problem::error(route.place.clone(), what);
                problems.0.push(problem.with_hint("give one of them another name with the label `aliases`"));
            }
            None => {
                owners.insert(route.alias.clone(), route.place.clone());
                kept.push(route);
            }
        }
    }
    kept
}

/// Whether a route leads to one of our own listening addresses, which is told.
fn leads_to_us(route: &RouteSpec, settings: &Settings, problems: &mut Problems) -> bool {
    let (host, port) = match &route.target {
        RouteTarget::Address { host, endpoint } => (host.as_str(), endpoint.port),
        RouteTarget::Backend { id, endpoint } => {
            let engine = settings.nodes.get(id.node()).map(|node| &node.engine);
            if engine != Some(&EngineAddress::Process) {
                return false;
            }
            ("127.0.0.1", endpoint.port)
        }
        RouteTarget::Down { .. } => return false,
    };
    let listen = &settings.listen;
    let Some(ours) = listen.http.iter().chain(&listen.api).find(|address| same(host, port, address)) else {
        return false;
    };
    let what = format!("route `{}` leads to `{host}:{port}`, where Dormouse itself listens (`{ours}`)", route.alias);
    problems.0.push(Problem::error(route.place.clone(), what).with_hint("name the address of the service itself"));
    true
}

fn same(host: &str, port: u16, ours: &SocketAddr) -> bool {
    if port != ours.port() {
        return false;
    }
    let dialled = match host {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        host => host.parse::<IpAddr>().ok(),
    };
    dialled.is_some_and(|ip| {
        let here = ip.is_loopback() || ip.is_unspecified();
        ip == ours.ip() || (here && (ours.ip().is_unspecified() || ours.ip().is_loopback()))
    })
}

/// One backend for each name: what a file says beats what labels say, and ports add up.
fn merge(backends: Vec<BackendSpec>, settings: &Settings) -> BTreeMap<BackendId, BackendSpec> {
    let mut merged: BTreeMap<BackendId, BackendSpec> = BTreeMap::new();
    for backend in backends {
        let Some(old) = merged.remove(&backend.id) else {
            merged.insert(backend.id.clone(), backend);
            continue;
        };
        let (mut best, other) =
            if backend.provenance == Provenance::Configured { (backend, old) } else { (old, backend) };
        if best.policy == settings.default_idle {
            best.policy = other.policy;
        }
        if best.ready == Readiness::Tcp {
            best.ready = other.ready;
        }
        if best.depends_on.is_empty() {
            best.depends_on = other.depends_on;
        }
        best.unit.network = best.unit.network.or(other.unit.network);
        for port in other.ports {
            if !best.ports.contains(&port) {
                best.ports.push(port);
            }
        }
        merged.insert(best.id.clone(), best);
    }
    merged
}

/// Backends with a dependency that is unknown, refused or themselves.
fn broken(
    backends: &BTreeMap<BackendId, BackendSpec>,
    place_of: &dyn Fn(&BackendSpec) -> Place,
    problems: &mut Problems,
) -> BTreeSet<BackendId> {
    let mut broken = BTreeSet::new();
    for backend in backends.values() {
        for dependency in backend.depends_on.iter().filter(|d| !backends.contains_key(&d.on)) {
            let what = format!("`{}` depends on `{}`, which is unknown", backend.id, dependency.on);
            let problem = Problem::error(place_of(backend), what);
            let near =
                nearest(dependency.on.name(), backends.keys().filter(|id| **id != backend.id).map(BackendId::name));
            problems.0.push(match near {
                Some(near) => problem.with_hint(format!("did you mean `{near}`?")),
                None => problem,
            });
            broken.insert(backend.id.clone());
        }
    }
    for cycle in cycles(backends) {
        let names: Vec<String> = cycle.iter().chain(cycle.first()).map(|id| format!("`{id}`")).collect();
        let place = cycle.first().and_then(|id| backends.get(id)).map(place_of);
        let what = format!("dependencies go in a circle: {}", names.join(" → "));
        let place = place.unwrap_or(Place::Body("depends_on".to_owned()));
        problems.0.push(Problem::error(place, what).with_hint("remove one of these dependencies"));
        broken.extend(cycle);
    }
    loop {
        let next = backends.values().filter(|backend| !broken.contains(&backend.id)).find_map(|backend| {
            let dependency = backend.depends_on.iter().find(|d| broken.contains(&d.on))?;
            Some((backend, dependency.on.clone()))
        });
        let Some((backend, on)) = next else { return broken };
        let what = format!("`{}` depends on `{on}`, which is refused", backend.id);
        problems.0.push(Problem::error(place_of(backend), what));
        broken.insert(backend.id.clone());
    }
}

/// Where to tell of a backend: at its label, or at a route that leads to it.
fn place_of(backend: &BackendSpec, routes: &[RouteSpec]) -> Place {
    if backend.provenance == Provenance::Discovered {
        return Place::Label { container: backend.id.to_string(), label: Some("depends_on".to_owned()) };
    }
    let route = routes.iter().find(|route| route.backend() == Some(&backend.id));
    route.map_or_else(|| Place::Body(format!("backends.{}", backend.id)), |route| route.place.clone())
}

/// Every circle of dependencies once, beginning at its first name.
fn cycles(backends: &BTreeMap<BackendId, BackendSpec>) -> Vec<Vec<BackendId>> {
    let mut found = Vec::new();
    let mut done: BTreeSet<&BackendId> = BTreeSet::new();
    for start in backends.keys() {
        // A path of names, each with the dependencies that are still to be followed.
        let mut path: Vec<(&BackendId, Vec<&BackendId>)> = Vec::new();
        let below = |id: &BackendId| {
            let spec = backends.get(id);
            spec.into_iter().flat_map(|spec| spec.depends_on.iter().rev().map(|d| &d.on)).collect::<Vec<_>>()
        };
        if !done.contains(start) {
            path.push((start, below(start)));
        }
        while let Some((id, rest)) = path.last_mut() {
            let Some(next) = rest.pop() else {
                done.insert(*id);
                path.pop();
                continue;
            };
            if let Some(at) = path.iter().position(|(id, _)| *id == next) {
                let mut cycle: Vec<BackendId> = path[at..].iter().map(|(id, _)| (*id).clone()).collect();
                let first = cycle.iter().enumerate().min_by_key(|(_, id)| *id).map_or(0, |(index, _)| index);
                cycle.rotate_left(first);
                if !found.contains(&cycle) {
                    found.push(cycle);
                }
            } else if !done.contains(next) {
                path.push((next, below(next)));
            }
        }
    }
    found
}

/// Keeps what somebody wants. One that only dependants want sleeps with the last of them.
fn wanted(backends: BTreeMap<BackendId, BackendSpec>, routes: &[RouteSpec]) -> Vec<BackendSpec> {
    let routed: BTreeSet<&BackendId> = routes.iter().filter_map(RouteSpec::backend).collect();
    let by_itself = |spec: &BackendSpec| {
        routed.contains(&spec.id) || sleeps(&spec.policy) || spec.provenance == Provenance::Configured
    };
    let mut needed: BTreeSet<BackendId> = backends.values().filter(|s| by_itself(s)).map(|s| s.id.clone()).collect();
    let mut queue: Vec<BackendId> = needed.iter().cloned().collect();
    let mut dependencies: BTreeSet<BackendId> = BTreeSet::new();
    while let Some(id) = queue.pop() {
        for dependency in backends.get(&id).into_iter().flat_map(|spec| &spec.depends_on) {
            dependencies.insert(dependency.on.clone());
            if needed.insert(dependency.on.clone()) {
                queue.push(dependency.on.clone());
            }
        }
    }
    let mut kept: Vec<BackendSpec> = backends.into_values().filter(|spec| needed.contains(&spec.id)).collect();
    for spec in kept.iter_mut().filter(|spec| dependencies.contains(&spec.id) && !sleeps(&spec.policy)) {
        spec.policy.dependency_only = true;
    }
    kept
}
