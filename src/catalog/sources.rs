//! From what `config` read of files and containers to what the merge takes.

use super::{DiscoveredPart, FilePart};
use crate::{
    config::{self, FromContainer, Loaded},
    model::{Container, EngineAddress, Problem, RouteTarget, Settings},
};

impl FilePart {
    /// The part of a configuration that was read from the file of this name.
    pub fn new(path: impl Into<String>, loaded: &Loaded) -> Self {
        let nodes = loaded.settings.nodes.iter();
        let told_by_files = nodes.filter(|(_, node)| node.engine == EngineAddress::Process);
        Self {
            path: path.into(),
            routes: loaded.routes.clone(),
            backends: loaded.backends.clone(),
            written: loaded.written.clone(),
            told_by_files: told_by_files.map(|(name, _)| name.clone()).collect(),
            problems: loaded.problems.clone(),
        }
    }
}

/// What all containers of all nodes say. `own` is the id of the one that Dormouse itself runs in.
pub fn discover(containers: &[&Container], settings: &Settings, own: Option<&str>) -> Vec<DiscoveredPart> {
    let networks = own_networks(containers.iter().copied(), own);
    let read = |container: &&Container| {
        let made = config::from_container(container, settings, &networks);
        if is_own(container, own) { of_ourselves(made, settings) } else { made }
    };
    let made = config::resolve_dependencies(containers.iter().map(read).collect());
    containers.iter().zip(made).map(|(container, made)| part(container, made)).collect()
}

/// The networks of the container that Dormouse itself runs in.
pub fn own_networks<'a>(containers: impl Iterator<Item = &'a Container>, own: Option<&str>) -> Vec<String> {
    let ours = containers.filter(|container| is_own(container, own));
    ours.flat_map(|container| &container.networks).map(|network| network.name.clone()).collect()
}

fn is_own(container: &Container, own: Option<&str>) -> bool {
    own.is_some_and(|own| !own.is_empty() && container.id.starts_with(own))
}

/// Only labels make routes to Dormouse itself, and nothing lets it sleep: who would wake it?
fn of_ourselves(mut made: FromContainer, settings: &Settings) -> FromContainer {
    if let Some(backend) = &mut made.backend {
        backend.policy.idle_timeout = None;
        backend.policy.dependency_only = false;
        backend.policy.schedule.0.clear();
    }
    if !made.labelled {
        made.routes.clear();
        made.problems.0.clear();
        made.excluded = Some("it is Dormouse itself".to_owned());
        return made;
    }
    let ours = |port: u16| settings.listen.http.iter().any(|address| address.port() == port);
    let (problems, routes) = (&mut made.problems.0, &mut made.routes);
    routes.retain(|route| {
        let RouteTarget::Backend { endpoint, .. } = &route.target else { return true };
        if ours(endpoint.port) {
            let what =
                format!("route `{}` leads to port {}, where Dormouse itself listens", route.alias, endpoint.port);
            problems.push(Problem::error(route.place.clone(), what).with_hint("set another `port`, or exclude it"));
        }
        !ours(endpoint.port)
    });
    made
}

fn part(container: &Container, made: FromContainer) -> DiscoveredPart {
    DiscoveredPart {
        depends_on: made.depends_on_at().cloned(),
        container: format!("{}/{}", container.node, container.name),
        labelled: made.labelled,
        created: made.created,
        backend: made.backend,
        routes: made.routes,
        problems: made.problems,
        excluded: made.excluded,
    }
}
