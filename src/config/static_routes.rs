//! Routes and backends that files name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use super::{
    balance,
    expand::Sources,
    finish::{check_profile, check_scheme, scheme},
    idle::Author,
    middleware_bodies,
    route::{self, RouteDraft},
    static_backends::Gathered,
    stream,
    tree::{Entry, Fields, Node, Value},
    values,
    written::Written,
};
use crate::model::{
    Alias, BackendId, BackendSpec, Endpoint, NodeName, Place, Problem, Problems, RouteSpec, RouteTarget, Scheme,
    Settings, UpstreamTls,
};

/// All routes and backends of all files, in the order written.
#[derive(Debug, Default)]
pub(super) struct Draft<'a> {
    routes: Vec<&'a Entry>,
    backends: Vec<&'a Entry>,
}

impl<'a> Draft<'a> {
    pub(super) fn add_routes(&mut self, node: &'a Node, problems: &mut Problems) {
        add(&mut self.routes, node, "routes", problems);
    }

    pub(super) fn add_backends(&mut self, node: &'a Node, problems: &mut Problems) {
        add(&mut self.backends, node, "backends", problems);
    }
}

fn add<'a>(all: &mut Vec<&'a Entry>, node: &'a Node, what: &str, problems: &mut Problems) {
    match &node.value {
        Value::Null => {}
        Value::Map(entries) => {
            all.extend(entries.iter().filter(|entry| !entry.key.starts_with("x-")));
        }
        Value::Text(_) | Value::List(_) => problems.0.push(node.wrong(format!("is no mapping of {what}"))),
    }
}

/// What runs on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runs {
    /// What an engine has.
    Units,
    /// Plain processes.
    Processes,
    /// That can not be understood, which has been told.
    Unclear,
}

/// What the files say.
pub(super) struct Read {
    pub(super) routes: Vec<Arc<RouteSpec>>,
    pub(super) backends: Vec<BackendSpec>,
    pub(super) written: BTreeMap<BackendId, Written>,
}

/// Checks everything; what is returned is complete only when no error was found.
pub(super) fn check(
    draft: &Draft<'_>,
    settings: &Settings,
    nodes: &BTreeMap<NodeName, Runs>,
    sources: &mut Sources<'_>,
    problems: &mut Problems,
) -> Read {
    let mut checker = Checker {
        settings,
        nodes,
        sources,
        problems,
        backends: BTreeMap::new(),
        aliases: BTreeMap::new(),
        hosts: BTreeSet::new(),
    };
    draft.backends.iter().for_each(|entry| checker.backend(entry));
    let mut routes = Vec::with_capacity(draft.routes.len());
    draft.routes.iter().for_each(|entry| checker.route(entry, &mut routes));
    checker.commands();
    checker.ports(&routes);
    let (mut backends, mut written) = (Vec::new(), BTreeMap::new());
    for (id, gathered) in checker.backends {
        backends.push(gathered.spec);
        written.insert(id, gathered.written);
    }
    Read { routes, backends, written }
}

/// What is checked so far.
pub(super) struct Checker<'a, 's, 'e> {
    pub(super) settings: &'a Settings,
    pub(super) nodes: &'a BTreeMap<NodeName, Runs>,
    pub(super) sources: &'s mut Sources<'e>,
    pub(super) problems: &'s mut Problems,
    pub(super) backends: BTreeMap<BackendId, Gathered>,
    aliases: BTreeMap<Alias, Place>,
    /// Every host that a route leads to: many lead to the same.
    hosts: BTreeSet<Arc<str>>,
}

impl Checker<'_, '_, '_> {
    /// A route; with several endpoints one for each. Each is put where it stays: a list of their own in between is made
    /// in the place of the drafts, and of many routes such places would be left, too small for anything else.
    fn route(&mut self, entry: &Entry, routes: &mut Vec<Arc<RouteSpec>>) {
        let alias = match entry.key.parse::<Alias>() {
            Ok(alias) => alias,
            Err(error) => {
                self.problems.0.push(Problem::error(entry.place.clone(), error.to_string()));
                return;
            }
        };
        if let Some(first) = self.aliases.insert(alias.clone(), entry.place.clone()) {
            let what = format!("route `{alias}` is also at {first}");
            self.problems.0.push(Problem::error(entry.place.clone(), what));
        }
        let draft = route::read(&entry.node, Author::File, self.settings, self.problems);
        let drafts = balance::spread(draft, &alias, &entry.place, self.problems);
        for (draft, place) in drafts {
            routes.extend(self.way(&alias, draft, place, entry).map(Arc::new));
        }
    }

    fn way(&mut self, alias: &Alias, draft: RouteDraft, place: Place, entry: &Entry) -> Option<RouteSpec> {
        let backend = self.backend_of(&draft);
        let scheme = scheme(&draft, draft.port.as_ref().map(|(port, _)| *port));
        check_scheme(scheme, &draft, &place, self.problems);
        check_profile(&draft, self.settings, self.problems);
        let target = match &backend {
            Some(id) => self.backend_target(id, &draft, scheme, entry)?,
            None => self.address_target(&draft, scheme, entry)?,
        };
        let port = match &target {
            RouteTarget::Backend { endpoint, .. } | RouteTarget::Address { endpoint, .. } => endpoint.port,
            RouteTarget::Down { .. } | RouteTarget::Group(_) => 0,
        };
        let waiting_page = draft.waiting_page.as_ref().and_then(|(path, place)| self.page(path, place));
        let matches = stream::matches(balance::public_name(&draft, alias), &draft, scheme, port, self.settings);
        let mut draft = draft;
        middleware_bodies::read_pages(&mut draft.middlewares, self.sources, self.problems);
        // Relative to the file that names them.
        let UpstreamTls { roots, client, .. } = &mut draft.upstream.tls;
        for path in roots.iter_mut().chain(client.iter_mut().flat_map(|(certificate, key)| [certificate, key])) {
            *path = self.sources.resolve(path);
        }
        Some(draft.into_route(alias.clone(), place, matches, target, waiting_page))
    }

    /// The backend that a route names, or that GoDoxy's `idlewatcher` names.
    fn backend_of(&mut self, draft: &RouteDraft) -> Option<BackendId> {
        if let Some((id, _)) = &draft.backend {
            return Some(id.clone());
        }
        let idle = draft.idle.as_ref()?;
        let Value::Map(entries) = &idle.value else { return None };
        let docker = entries.iter().find(|entry| entry.key.eq_ignore_ascii_case("docker"))?;
        let mut fields = Fields::open(&docker.node, "`docker`", self.problems);
        fields.get("container_id");
        let name = fields.get("container_name").and_then(|node| values::text(node, self.problems));
        fields.finish(&["container_id", "container_name"], self.problems);
        let Some(name) = name else {
            let what = "`docker` names no container: write `container_name: …`";
            self.problems.0.push(Problem::error(docker.place.clone(), what));
            return None;
        };
        let mut engines = self.nodes.iter().filter(|(_, runs)| **runs != Runs::Processes).map(|(name, _)| name);
        match (engines.next(), engines.next()) {
            (Some(node), None) => match BackendId::new(node.clone(), name) {
                Ok(id) => Some(id),
                Err(error) => {
                    self.problems.0.push(Problem::error(docker.place.clone(), error.to_string()));
                    None
                }
            },
            _ => {
                let what = "which node runs this container is not clear: write `backend: node/name`";
                self.problems.0.push(Problem::error(docker.place.clone(), what));
                None
            }
        }
    }

    fn backend_target(
        &mut self,
        id: &BackendId,
        draft: &RouteDraft,
        scheme: Scheme,
        entry: &Entry,
    ) -> Option<RouteTarget> {
        let place = draft.backend.as_ref().map_or(&entry.place, |(_, place)| place);
        if !self.knows_node(id, place) {
            return None;
        }
        if let Some((_, place)) = draft.host.as_ref().filter(|_| draft.backend.is_some()) {
            let what = "`host` and `backend` exclude each other: the address of a backend is looked up";
            self.problems.0.push(Problem::error(place.clone(), what));
        }
        let mut gathered = match self.backends.remove(id) {
            Some(gathered) => gathered,
            None => self.gather(id.clone(), place),
        };
        let extra = draft.backend.is_none().then_some("docker");
        self.idle(&mut gathered, draft.idle.as_ref(), extra, place);
        if let Some(ready) = &draft.ready {
            gathered.ready(ready.clone());
        }
        if let Some(node) = &draft.depends_on {
            self.dependencies(&mut gathered, node, place);
        }
        let port = draft.port.as_ref().map(|(port, _)| *port);
        if let Some(port) = port.filter(|port| scheme.has_tcp() && !gathered.spec.ports.contains(port)) {
            gathered.spec.ports.push(port);
        }
        self.backends.insert(id.clone(), gathered);
        let Some(port) = port else {
            if !draft.names_port {
                let what = format!("route `{}` lacks the `port` of its backend", entry.key);
                self.problems.0.push(Problem::error(entry.place.clone(), what));
            }
            return None;
        };
        Some(RouteTarget::Backend { id: id.clone(), endpoint: Endpoint { scheme, port } })
    }

    fn address_target(&mut self, draft: &RouteDraft, scheme: Scheme, entry: &Entry) -> Option<RouteTarget> {
        if draft.host.is_none() && draft.names_target {
            return None;
        }
        if draft.host.is_none() && !draft.names_port {
            let problem = Problem::error(entry.place.clone(), format!("route `{}` leads nowhere", entry.key));
            self.problems.0.push(problem.with_hint("name a `backend: node/name` with a `port`, or a `host`"));
            return None;
        }
        for (key, node) in [("idle", &draft.idle), ("depends_on", &draft.depends_on)] {
            if let Some(node) = node {
                let what = format!("`{key}` needs a `backend`: an address without one is never slept");
                self.problems.0.push(Problem::error(node.place.clone(), what));
            }
        }
        let host = match &draft.host {
            Some((host, _)) => host.as_str(),
            None => {
                let what = format!("route `{}` names no `host`: `localhost` is meant", entry.key);
                self.problems.0.push(Problem::note(entry.place.clone(), what));
                "localhost"
            }
        };
        let port = draft.port.as_ref().map(|(port, _)| *port);
        if port.is_none() && draft.names_port {
            return None;
        }
        if scheme.is_stream() && port.is_none() {
            let what = format!("route `{}` lacks the `port` of its endpoint", entry.key);
            self.problems.0.push(Problem::error(entry.place.clone(), what));
            return None;
        }
        let port = port.unwrap_or(if scheme == Scheme::Https { 443 } else { 80 });
        let host = self.shared(host);
        Some(RouteTarget::Address { host, endpoint: Endpoint { scheme, port } })
    }

    fn shared(&mut self, host: &str) -> Arc<str> {
        let known = self.hosts.get(host).cloned();
        known.unwrap_or_else(|| {
            let host: Arc<str> = host.into();
            self.hosts.insert(Arc::clone(&host));
            host
        })
    }

    fn page(&mut self, path: &str, place: &Place) -> Option<String> {
        let path = self.sources.resolve(&PathBuf::from(path));
        match self.sources.read(&path) {
            Ok(text) => Some(text),
            Err(what) => {
                self.problems.0.push(Problem::error(place.clone(), what));
                None
            }
        }
    }

    /// All processes live on one machine: while one of two with the same port sleeps, the other would answer for it.
    fn ports(&mut self, routes: &[Arc<RouteSpec>]) {
        let mut taken: BTreeMap<(bool, u16), (&BackendId, &RouteSpec)> = BTreeMap::new();
        for route in routes {
            let RouteTarget::Backend { id, endpoint } = &route.target else { continue };
            if self.nodes.get(id.node()) != Some(&Runs::Processes) {
                continue;
            }
            let port = endpoint.port;
            let transports = [(false, endpoint.scheme.has_tcp()), (true, endpoint.scheme.has_udp())];
            let mut claims = transports.into_iter().filter(|(_, has)| *has).map(|(udp, _)| (udp, port));
            let other = claims.find_map(|claim| {
                let (first, by) = *taken.entry(claim).or_insert((id, route));
                (first != id).then_some((first, &by.place))
            });
            if let Some((first, at)) = other {
                let what = format!("process `{id}` names port {port}, which is that of process `{first}` ({at})");
                let hint = "give each process a port of its own: the wrong one might answer";
                self.problems.0.push(Problem::error(route.place.clone(), what).with_hint(hint));
            }
        }
    }
}
