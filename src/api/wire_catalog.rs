//! Routes, nodes and containers as they are told.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire::{Policy, Problem};
use crate::{
    catalog, control,
    model::{Audience, BackendId, ContainerState, Endpoint, PathPattern, RouteSpec, RouteTarget},
};

/// All routes, by alias.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Routes {
    /// The routes.
    pub routes: Vec<Route>,
}

/// A route: what it answers to, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// Its name.
    #[schema(example = "jellyfin")]
    pub alias: String,
    /// The hosts it answers to; `*.` stands for one or more labels, `.*` for any domain.
    pub hosts: Vec<String>,
    /// The paths, each with all below it, or alone when written with `=`; empty: every path.
    pub paths: Vec<String>,
    /// The methods; empty: every method.
    pub methods: Vec<String>,
    /// Names of header fields that must be there.
    pub headers: Vec<String>,
    /// The listening addresses of a stream route; empty: it answers to hosts.
    pub listen: Vec<String>,
    /// The names in the TLS hello by which a stream route shares its port; empty: whatever comes.
    pub sni: Vec<String>,
    /// The backend it leads to, as `node/name`; `null`: an address that never sleeps.
    pub backend: Option<String>,
    /// The address it leads to, when it is no backend.
    pub address: Option<String>,
    /// `http`, `https`, `h2c`, `tcp`, `udp` or `tcp+udp`; `null`: the backend is down and its port not known.
    pub scheme: Option<String>,
    /// The port it leads to.
    pub port: Option<u16>,
    /// `everyone`, or `private` for clients of private networks only.
    pub audience: String,
    /// Where it was written.
    pub place: String,
    /// The backend's state; `null` without one.
    pub state: Option<String>,
}

/// All nodes, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Nodes {
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// A node and its engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The engine in words.
    pub engine: String,
    /// Whether the engine answers.
    pub up: bool,
    /// Why it does not.
    pub away: Option<String>,
    /// Whether it has been listed since the start.
    pub listed: bool,
    /// Units it told of.
    pub units: u64,
}

/// A container without routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Excluded {
    /// `node/name`.
    pub container: String,
    /// Why.
    pub why: String,
}

/// What is made of each container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanations {
    /// The containers.
    pub containers: Vec<Explained>,
}

/// What is made of one container, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explained {
    /// `node/name`.
    pub container: String,
    /// Its image; the command of a process.
    pub image: String,
    /// `running`, `paused`, `stopped`, `changing` or `gone`; of a process the state of its backend.
    pub state: String,
    /// Its routes.
    pub routes: Vec<Route>,
    /// When and how it sleeps; `null`: it is no backend.
    pub policy: Option<Policy>,
    /// What it needs, as `node/name`.
    pub depends_on: Vec<String>,
    /// Why it has no routes.
    pub excluded: Option<String>,
    /// What was chosen, and why.
    pub notes: Vec<String>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// One change to what runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// `add_backend`, `change_backend`, `remove_backend`, `add_route`, `change_route` or `remove_route`.
    #[schema(example = "add_route")]
    pub what: String,
    /// The backend as `node/name`, or the route's alias.
    pub name: String,
    /// In words, with what differs.
    pub text: String,
}

impl From<&catalog::Change> for Change {
    fn from(change: &catalog::Change) -> Self {
        use catalog::Change as From;
        let (what, name) = match change {
            From::AddBackend(spec) => ("add_backend", spec.id.to_string()),
            From::ChangeBackend { new, .. } => ("change_backend", new.id.to_string()),
            From::RemoveBackend(id) => ("remove_backend", id.to_string()),
            From::AddRoute(spec) => ("add_route", spec.alias.to_string()),
            From::ChangeRoute { new, .. } => ("change_route", new.alias.to_string()),
            From::RemoveRoute(alias) => ("remove_route", alias.to_string()),
        };
        Self { what: what.to_owned(), name, text: change.to_string() }
    }
}

impl From<&control::Explained> for Explained {
    fn from(explained: &control::Explained) -> Self {
        let container = &explained.container;
        let state = match &container.state {
            ContainerState::Running(_) => "running",
            ContainerState::Paused(_) => "paused",
            ContainerState::Stopped { .. } => "stopped",
            ContainerState::Changing => "changing",
            ContainerState::Gone => "gone",
        };
        let needs = explained.backend.iter().flat_map(|backend| &backend.depends_on);
        Self {
            container: format!("{}/{}", container.node, container.name),
            image: container.image.clone(),
            state: state.to_owned(),
            routes: explained.routes.iter().map(|route| Route::new(route, None)).collect(),
            policy: explained.backend.as_ref().map(|backend| Policy::from(&backend.policy)),
            depends_on: needs.map(|dependency| dependency.on.to_string()).collect(),
            excluded: explained.excluded.clone(),
            notes: explained.notes.clone(),
            problems: explained.problems.iter().map(Problem::from).collect(),
        }
    }
}

impl Route {
    /// A route, with the state of its backend.
    pub fn new(spec: &RouteSpec, state: Option<&str>) -> Self {
        let (address, endpoint) = match &spec.target {
            RouteTarget::Backend { endpoint, .. } => (None, Some(*endpoint)),
            RouteTarget::Address { host, endpoint } => (Some(host.to_string()), Some(*endpoint)),
            RouteTarget::Down { .. } => (None, None),
        };
        let path = |pattern: &PathPattern| match pattern {
            PathPattern::Prefix(path) => path.clone(),
            PathPattern::Exact(path) => format!("={path}"),
        };
        let audience = match spec.audience {
            Audience::Everyone => "everyone",
            Audience::PrivateNetworks => "private",
        };
        Self {
            alias: spec.alias.to_string(),
            hosts: spec.matches.hosts.iter().map(ToString::to_string).collect(),
            paths: spec.matches.paths.iter().map(path).collect(),
            methods: spec.matches.methods.to_vec(),
            headers: spec.matches.headers.iter().map(|header| header.name.clone()).collect(),
            listen: spec.matches.listen.iter().map(ToString::to_string).collect(),
            sni: spec.matches.sni.iter().map(ToString::to_string).collect(),
            backend: spec.backend().map(BackendId::to_string),
            address,
            scheme: endpoint.map(|Endpoint { scheme, .. }| scheme.to_string()),
            port: endpoint.map(|Endpoint { port, .. }| port),
            audience: audience.to_owned(),
            place: spec.place.to_string(),
            state: state.map(str::to_owned),
        }
    }
}
