//! Routes, nodes and containers as they are told.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire::{Policy, Problem};
use crate::{
    backend::StatusState,
    catalog,
    config::Fate,
    control,
    model::{self, Audience, BackendId, ContainerState, Endpoint, PathPattern, RouteSpec, RouteTarget, WakeOn},
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
    /// Whether TLS ends at Dormouse and what is within goes to the endpoint of a stream route in clear.
    pub tls_termination: bool,
    /// What of a stream wakes its backend: `connect`, or `data` for the client's first bytes; `null`: it is no stream.
    pub wake_on: Option<String>,
    /// How a client must begin to wake it: `tls`, `http`, `postgres`, `minecraft`; empty: as it likes.
    #[serde(rename = "match")]
    pub openings: Vec<String>,
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
    /// The backend's state; `null` without one. Of a group that of its most awake member.
    pub state: Option<String>,
    /// What its health checks have found: `healthy`, `unhealthy` or `unknown`; `null`: it is not checked.
    pub health: Option<String>,
    /// How a member is chosen, when several share the name: `round_robin`, `least_conn`, `ip_hash` or `random_two`.
    pub balance: Option<String>,
    /// Those who share the name; empty: it leads to one place.
    pub members: Vec<Member>,
}

/// One of several that share a route's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// The backend it leads to, as `node/name`; `null`: an address that never sleeps.
    pub backend: Option<String>,
    /// The address it leads to, when it is no backend.
    pub address: Option<String>,
    /// `http`, `https` or `h2c`; `null`: the backend is down and its port not known.
    pub scheme: Option<String>,
    /// The port it leads to.
    pub port: Option<u16>,
    /// Its share; 0: it gets no requests.
    pub weight: u16,
    /// Where it was written.
    pub place: String,
    /// The backend's state; `null` without one.
    pub state: Option<String>,
    /// What its health checks have found: `healthy`, `unhealthy` or `unknown`; `null`: it is not checked.
    pub health: Option<String>,
    /// Requests under way to it.
    pub requests: u32,
    /// It failed, and is left out for a while.
    pub left_out: bool,
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
    /// Since when it does not.
    #[serde(default)]
    pub away_since: Option<String>,
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
    /// It is a process of a file rather than a container.
    pub is_process: bool,
    /// Why it is not up, after a failure.
    pub failure: Option<String>,
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
    /// `add_setting`, `change_setting`, `remove_setting`, `add_backend`, `change_backend`, `remove_backend`, `add_route`,
    /// `change_route` or `remove_route`.
    #[schema(example = "add_route")]
    pub what: String,
    /// The setting's key with those above it (`tls.hsts`), the backend as `node/name`, or the route's alias.
    pub name: String,
    /// In words, with what differs; of settings without their values.
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

impl From<&control::SettingChange> for Change {
    fn from(change: &control::SettingChange) -> Self {
        let what = match change.key.fate {
            Fate::Added => "add_setting",
            Fate::Changed => "change_setting",
            Fate::Removed => "remove_setting",
        };
        Self { what: what.to_owned(), name: change.key.path.clone(), text: change.to_string() }
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
            is_process: explained.backend.as_ref().is_some_and(|backend| backend.unit.command.is_some()),
            failure: None,
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
    /// A route, with what is known of it while it runs.
    pub fn new(spec: &RouteSpec, live: Option<&control::LiveRoute>) -> Self {
        let (address, endpoint) = leads_to(spec);
        let members = spec.group().map_or(&[][..], |group| group.members.as_slice());
        let group = live.and_then(|live| live.group.as_ref());
        let member = |(at, member)| Member::new(member, group.and_then(|group| group.members.get(at)));
        let path = |pattern: &PathPattern| match pattern {
            PathPattern::Prefix(path) => path.clone(),
            PathPattern::Exact(path) => format!("={path}"),
        };
        let audience = match spec.audience {
            Audience::Everyone => "everyone",
            Audience::PrivateNetworks => "private",
        };
        let (wake_on, openings) = match &spec.options.wake_on {
            WakeOn::Connect => ("connect", Vec::new()),
            WakeOn::Data(openings) => ("data", openings.iter().map(|one| one.as_str().to_owned()).collect()),
        };
        Self {
            alias: spec.alias.to_string(),
            hosts: spec.matches.hosts.iter().map(ToString::to_string).collect(),
            paths: spec.matches.paths.iter().map(path).collect(),
            methods: spec.matches.methods.to_vec(),
            headers: spec.matches.headers.iter().map(|header| header.name.clone()).collect(),
            listen: spec.matches.listen.iter().map(ToString::to_string).collect(),
            sni: spec.matches.sni.iter().map(ToString::to_string).collect(),
            tls_termination: spec.options.tls_termination,
            wake_on: (!spec.matches.listen.is_empty()).then(|| wake_on.to_owned()),
            openings,
            backend: spec.backend().map(BackendId::to_string),
            address,
            scheme: endpoint.map(|Endpoint { scheme, .. }| scheme.to_string()),
            port: endpoint.map(|Endpoint { port, .. }| port),
            audience: audience.to_owned(),
            place: spec.place.to_string(),
            state: live.and_then(state),
            health: live.and_then(health),
            balance: spec.group().map(|group| group.mode.to_string()),
            members: members.iter().enumerate().map(member).collect(),
        }
    }
}

impl Member {
    fn new(member: &model::Member, live: Option<&control::LiveMember>) -> Self {
        let spec = &member.route;
        let (address, endpoint) = leads_to(spec);
        Self {
            backend: spec.backend().map(BackendId::to_string),
            address,
            scheme: endpoint.map(|Endpoint { scheme, .. }| scheme.to_string()),
            port: endpoint.map(|Endpoint { port, .. }| port),
            weight: member.weight,
            place: spec.place.to_string(),
            state: live.and_then(|live| state(&live.route)),
            health: live.and_then(|live| health(&live.route)),
            requests: live.map_or(0, control::LiveMember::load),
            left_out: live.is_some_and(control::LiveMember::is_left_out),
        }
    }
}

fn leads_to(spec: &RouteSpec) -> (Option<String>, Option<Endpoint>) {
    match &spec.target {
        RouteTarget::Backend { endpoint, .. } => (None, Some(*endpoint)),
        RouteTarget::Address { host, endpoint } => (Some(host.to_string()), Some(*endpoint)),
        RouteTarget::Down { .. } | RouteTarget::Group(_) => (None, None),
    }
}

/// The state of its backend, or of the most awake of several.
fn state(live: &control::LiveRoute) -> Option<String> {
    let states = live.ways().filter_map(|way| way.backend.as_ref()).map(|backend| backend.status().borrow().state);
    let rank = |state: &StatusState| match state {
        StatusState::Awake => 0,
        StatusState::Waking => 1,
        StatusState::Draining => 2,
        StatusState::Stopping => 3,
        StatusState::Paused | StatusState::Stopped => 4,
        StatusState::Failed | StatusState::Gone | StatusState::Unknown => 5,
    };
    states.min_by_key(rank).map(|state| state.as_str().to_owned())
}

fn health(live: &control::LiveRoute) -> Option<String> {
    live.health.as_ref().map(|health| health.checked().state.as_str().to_owned())
}
