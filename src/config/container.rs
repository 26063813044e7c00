//! Routes and a backend from what an engine says of one container.

use super::{
    balance,
    finish::{check_profile, check_scheme, condition},
    idle::{self, Author, IdleDraft, Wanted},
    images,
    labels::{self, Labelled},
    own_address,
    ports::{self, Choice},
    route, stream,
    tree::{Fields, Node, nearest},
    values,
};
use crate::model::{
    Alias, Audience, BackendId, BackendSpec, Container, ContainerState, Dependency, Discover, Endpoint, IdlePolicy,
    Place, Problem, Problems, Provenance, Readiness, RouteMatch, RouteSpec, RouteTarget, Settings, Unit,
};

/// What a container means.
#[derive(Debug, Clone)]
pub struct FromContainer {
    /// Its routes; those with a problem are missing.
    pub routes: Vec<RouteSpec>,
    /// Its backend, also where no route leads to it, since others may depend on it.
    pub backend: Option<BackendSpec>,
    /// Why it has no route, when it has none and nothing is wrong with it.
    pub excluded: Option<String>,
    /// What is wrong.
    pub problems: Problems,
    /// The choices made where labels left them open.
    pub notes: Vec<String>,
    /// Whether it carries any label of ours.
    pub labelled: bool,
    /// When it was created, in seconds since the Unix epoch: of two that claim an alias the older keeps it.
    pub created: i64,
    /// Its Compose project and service.
    pub(super) compose: Option<(String, String)>,
    /// Its dependencies as written.
    pub(super) wanted: Vec<Wanted>,
}

impl FromContainer {
    /// The label that names its dependencies, where there is one.
    pub fn depends_on_at(&self) -> Option<&Place> {
        self.wanted.first().map(|wanted| &wanted.place)
    }
}

/// Reads labels, ports and networks of a container. `own_networks` are those that Dormouse's own container is on.
pub fn from_container(container: &Container, settings: &Settings, own_networks: &[String]) -> FromContainer {
    let mut made = FromContainer {
        routes: Vec::new(),
        backend: None,
        excluded: None,
        problems: Problems::default(),
        notes: Vec::new(),
        labelled: false,
        created: container.created,
        compose: container.compose().map(|(project, service)| (project.to_owned(), service.to_owned())),
        wanted: Vec::new(),
    };
    if container.state == ContainerState::Gone {
        made.excluded = Some("it is gone".to_owned());
        return made;
    }
    let id = match BackendId::new(container.node.clone(), &container.name) {
        Ok(id) => id,
        Err(error) => {
            made.excluded = Some(error.to_string());
            return made;
        }
    };
    let labelled = labels::gather(container, &settings.prefixes, &mut made.problems);
    made.labelled = labelled.any;
    Reading { container, settings, own_networks, id, labelled: &labelled, made: &mut made }.read();
    made.problems.tell_once();
    made
}

struct Reading<'a> {
    container: &'a Container,
    settings: &'a Settings,
    own_networks: &'a [String],
    id: BackendId,
    labelled: &'a Labelled,
    made: &'a mut FromContainer,
}

impl Reading<'_> {
    fn read(&mut self) {
        let before = self.made.problems.0.len();
        let mut fields = Fields::open(&self.labelled.container, "label", &mut self.made.problems);
        fields.get("aliases");
        let exclude = fields.get("exclude").cloned();
        let network = fields.get("network").cloned();
        let draft = idle::read(&mut fields, &self.settings.default_idle, Author::Labels, &mut self.made.problems);
        let excluded = self.excluded(exclude.as_ref());
        let network = self.network(network.as_ref());
        for one in &draft.depends_on {
            condition(one, &mut self.made.problems);
        }
        let wanted = self.wanted(draft.depends_on.clone());
        if self.labelled.refused || self.made.problems.has_errors_since(before) {
            self.refuse_all(excluded);
            return;
        }
        let mut backend = self.backend(draft, network);
        backend.depends_on = self.by_name(&wanted);
        self.made.wanted = wanted;
        match excluded {
            Some(reason) => {
                // It is left alone; only those that depend on it wake it and let it sleep.
                backend.policy.dependency_only |= backend.policy.idle_timeout.is_some();
                backend.policy.idle_timeout = None;
                backend.policy.schedule.0.clear();
                self.made.excluded = Some(reason);
            }
            None => self.routes(&mut backend),
        }
        self.made.backend = Some(backend);
    }

    /// A label of the whole container is wrong: nothing of it is served.
    fn refuse_all(&mut self, excluded: Option<String>) {
        self.made.excluded = excluded;
        if !self.made.problems.has_errors() {
            let place = self.place();
            self.made.problems.0.push(Problem::error(place, "its labels can not be understood"));
        }
    }

    fn place(&self) -> Place {
        Place::Label { container: self.id.to_string(), label: None }
    }

    /// Why the container has no routes at all. A doubtful `exclude` excludes.
    fn excluded(&mut self, exclude: Option<&Node>) -> Option<String> {
        if let Some(node) = exclude {
            match node.as_text().and_then(values::parse_bool) {
                Some(true) => return Some("label `exclude`".to_owned()),
                Some(false) => {}
                None => {
                    let problem = node.wrong("is no boolean, so the container is excluded");
                    self.made.problems.0.push(problem.with_hint("write `true` or `false`"));
                    return Some("label `exclude`, which is no boolean".to_owned());
                }
            }
        }
        if self.labelled.any {
            return None;
        }
        if self.settings.discover == Discover::Labelled {
            return Some("it carries no labels".to_owned());
        }
        images::hidden(self.container)
    }

    /// The network whose address is dialled: by label, else one shared with Dormouse, else the first by name.
    fn network(&mut self, label: Option<&Node>) -> Option<String> {
        let mut names: Vec<&str> = self.container.networks.iter().map(|network| network.name.as_str()).collect();
        names.sort_unstable();
        if let Some(node) = label {
            let wanted = values::text(node, &mut self.made.problems)?;
            let in_project = self.container.compose().map(|(project, _)| format!("{project}_{wanted}"));
            let found = names.iter().find(|name| **name == wanted);
            let found = found.or_else(|| names.iter().find(|name| Some(**name) == in_project.as_deref()));
            if let Some(name) = found {
                return Some((*name).to_owned());
            }
            let problem = node.wrong("is no network of the container");
            let hint = match (nearest(wanted, names.iter().copied()), names.is_empty()) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, true) => "it is on no network".to_owned(),
                (None, false) => format!("it is on `{}`", names.join("`, `")),
            };
            self.made.problems.0.push(problem.with_hint(hint));
            return None;
        }
        if matches!(self.container.network_mode.as_str(), "host" | "none") {
            return None;
        }
        let shared = names.iter().find(|name| self.own_networks.iter().any(|own| own == *name));
        let chosen = shared.or(names.first())?;
        if names.len() > 1 {
            let why = if shared.is_some() { "shared with Dormouse" } else { "the first by name" };
            self.made.notes.push(format!("network `{chosen}` of {}: {why}", names.len()));
        }
        Some((*chosen).to_owned())
    }

    /// Dependencies as written; `compose` stands for those that Compose knows.
    fn wanted(&mut self, written: Vec<Wanted>) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for one in written {
            if one.name != "compose" {
                wanted.push(one);
                continue;
            }
            let Some(list) = self.container.labels.get("com.docker.compose.depends_on") else {
                let what = "`compose` names no dependencies: the container has none of Compose";
                self.made.problems.0.push(Problem::warning(one.place.clone(), what));
                continue;
            };
            for item in list.split(',').filter(|item| !item.trim().is_empty()) {
                let mut parts = item.trim().split(':');
                let name = parts.next().unwrap_or_default().to_owned();
                let condition = parts.next().map(str::to_owned);
                wanted.push(Wanted { name, condition, place: one.place.clone() });
            }
        }
        wanted
    }

    /// Dependencies by the names of containers of the same node, before services of Compose are known.
    fn by_name(&mut self, wanted: &[Wanted]) -> Vec<Dependency> {
        let mut found = Vec::new();
        for one in wanted {
            let Some(condition) = condition(one, &mut Problems::default()) else { continue };
            let id = if one.name.contains('/') {
                one.name.parse()
            } else {
                BackendId::new(self.id.node().clone(), &one.name)
            };
            found.extend(id.ok().map(|on| Dependency { on, condition }));
        }
        found
    }

    fn backend(&mut self, draft: IdleDraft, network: Option<String>) -> BackendSpec {
        let ready = draft.ready.unwrap_or(Readiness::Tcp);
        if ready == Readiness::Engine && !self.container.has_health_check {
            let what = "`ready: engine` needs a health check, and the container has none";
            let place = self.place();
            self.made.problems.0.push(Problem::warning(place, what));
        }
        if draft.policy.sleeps() && self.container.restart_policy == "always" {
            let what = "restart policy `always`: the engine starts a sleeper again when its daemon restarts; \
                        `unless-stopped` lets it sleep on";
            self.made.notes.push(what.to_owned());
        }
        BackendSpec {
            id: self.id.clone(),
            unit: Unit { name: self.container.name.clone(), network, command: None },
            policy: draft.policy,
            ready,
            ports: Vec::new(),
            depends_on: Vec::new(),
            provenance: Provenance::Discovered,
        }
    }

    fn routes(&mut self, backend: &mut BackendSpec) {
        let mut reasons = Vec::new();
        for (alias, tree) in &self.labelled.routes {
            let Some(tree) = tree else { continue };
            match self.route(alias, tree, backend) {
                Ok(route) => self.made.routes.push(route),
                Err(Some(reason)) => reasons.push(reason),
                Err(None) => {}
            }
        }
        if let Some(name) = &self.labelled.passed_over {
            let why = format!(
                "no route is named after the container: its labels name others (`aliases` may list `{name}`, too)"
            );
            self.made.notes.push(why);
        }
        if self.made.routes.is_empty() && !self.made.problems.has_errors() {
            let none = || "it has no aliases".to_owned();
            self.made.excluded = Some(reasons.into_iter().next().unwrap_or_else(none));
        }
    }

    /// One route; `Err(Some)` is a reason to have none, `Err(None)` a problem that was told.
    fn route(&mut self, alias: &Alias, tree: &Node, backend: &mut BackendSpec) -> Result<RouteSpec, Option<String>> {
        let mut problems = Problems::default();
        let draft = route::read(tree, Author::Labels, self.settings, &mut problems);
        let mut spread = balance::spread(draft, alias, &self.place(), &mut problems);
        // Labels lead to their own container alone.
        let Some((draft, _)) = spread.pop() else { return Err(None) };
        let choice = ports::choose(self.container, &draft);
        let refused = problems.has_errors();
        let Choice { port, scheme, notes } = match choice {
            Ok(choice) => choice,
            Err(reason) => {
                self.made.problems.0.append(&mut problems.0);
                return Err(if refused { None } else { Some(reason) });
            }
        };
        if scheme.is_stream() && !self.labelled.asks_for_routes {
            self.made.problems.0.append(&mut problems.0);
            return Err(Some(format!("its port {port} speaks `{scheme}`, and no label asks for a route to it")));
        }
        // Where its processes are near it is dialled from inside.
        if self.container.network_mode == "none" && !self.container.is_near && draft.host.is_none() {
            self.made.problems.0.append(&mut problems.0);
            let why = "it is on no network, and its node is another machine: nothing leads to its ports";
            if self.labelled.any {
                let problem = Problem::error(self.place(), format!("route `{alias}`: {why}"));
                self.made.problems.0.push(problem.with_hint("put it on a network, or name a `host`"));
                return Err(None);
            }
            return Err(Some(why.to_owned()));
        }
        let place = self.place();
        check_scheme(scheme, &draft, &place, &mut problems);
        check_profile(&draft, self.settings, &mut problems);
        let matches = stream::matches(balance::public_name(&draft, alias), &draft, scheme, port, self.settings);
        self.own_address(port, &matches, &place, &mut problems);
        ports::warn_of_host_port(self.container, &draft, &mut problems);
        let refused = problems.has_errors();
        self.made.problems.0.append(&mut problems.0);
        if refused {
            return Err(None);
        }
        if scheme.is_stream() && draft.listen_port.is_none() {
            self.made.notes.push(format!("route `{alias}`: listens on port {port}, as its endpoint does"));
        }
        self.made.notes.extend(notes.into_iter().map(|note| format!("route `{alias}`: {note}")));
        let endpoint = Endpoint { scheme, port };
        let target = match &draft.host {
            Some((host, _)) => RouteTarget::Address { host: host.as_str().into(), endpoint },
            None if self.is_down(&backend.policy) => RouteTarget::Down { id: self.id.clone() },
            None => RouteTarget::Backend { id: self.id.clone(), endpoint },
        };
        let ready = draft.ready.clone();
        let leads_to_backend = draft.host.is_none();
        let audience = self.audience();
        let route = RouteSpec { audience, ..draft.into_route(alias.clone(), place, matches, target, None) };
        let of_own = own_address::refusal(&route, self.settings);
        if let Some(problem) = of_own.or_else(|| own_address::taken(&route, self.settings)) {
            self.made.problems.0.push(problem);
            return Err(None);
        }
        if leads_to_backend && scheme.has_tcp() && !backend.ports.contains(&port) {
            backend.ports.push(port);
        }
        if let Some(ready) = ready {
            backend.ready = ready;
        }
        Ok(route)
    }

    fn audience(&self) -> Audience {
        if self.labelled.any || self.settings.discover == Discover::All {
            Audience::Everyone
        } else {
            Audience::PrivateNetworks
        }
    }

    /// A container on the node's own network can not be served on a port where Dormouse listens.
    fn own_address(&self, port: u16, matches: &RouteMatch, place: &Place, problems: &mut Problems) {
        let listen = &self.settings.listen;
        let mut all = listen.http.iter().chain(&listen.https).chain(&listen.api).chain(&matches.listen);
        let ours = all.any(|address| address.port() == port);
        if self.container.network_mode == "host" && ours {
            let what = format!("port {port} on the host network is where Dormouse itself listens");
            problems.0.push(Problem::error(place.clone(), what).with_hint("set another `port`, or exclude it"));
        }
    }

    /// Stopped, and nothing says that a request may wake it.
    fn is_down(&self, policy: &IdlePolicy) -> bool {
        matches!(self.container.state, ContainerState::Stopped { .. }) && !policy.sleeps()
    }
}
