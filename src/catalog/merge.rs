//! The merge: the file before labels, older containers before younger ones, and nothing that cannot work.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map};

use super::{
    Catalog, DiscoveredPart, FilePart,
    dependencies::{Backends, closure, cycle, inherit_policies, nearest, sleeps},
    overlay::put_over,
};
use crate::model::{
    Alias, BackendId, BackendSpec, IdlePolicy, PathPattern, Place, Problem, Problems, RouteSpec, RouteTarget, Scheme,
    Severity,
};

impl Catalog {
    /// Merges what the files say with what the containers say.
    pub fn merge(file: FilePart, mut discovered: Vec<DiscoveredPart>) -> Self {
        discovered.sort_by(|a, b| (a.created, &a.container).cmp(&(b.created, &b.container)));
        let mut merge = Merge::default();
        merge.problems.0.extend(file.problems.0);
        merge.containers(&discovered);
        for backend in file.backends {
            merge.file_backend(backend, &file.path, &file.default_idle);
        }
        for route in file.routes {
            merge.route(route);
        }
        for part in discovered {
            merge.problems.0.extend(part.problems.0);
            for route in part.routes {
                merge.route(route);
            }
            if let Some(reason) = part.excluded {
                merge.excluded.push((part.container, reason));
            }
        }
        merge.finish()
    }
}

/// The catalog while it is made.
#[derive(Default)]
struct Merge {
    routes: BTreeMap<Alias, RouteSpec>,
    backends: Backends,
    problems: Problems,
    excluded: Vec<(String, String)>,
    /// Where problems of a backend belong.
    places: BTreeMap<BackendId, Place>,
    /// Backends that stay whether anything leads to them or not.
    named: BTreeSet<BackendId>,
}

impl Merge {
    fn containers(&mut self, discovered: &[DiscoveredPart]) {
        for part in discovered {
            let Some(spec) = &part.backend else { continue };
            let place = Place::Label { container: part.container.clone(), label: Some("depends_on".to_owned()) };
            self.places.insert(spec.id.clone(), place);
            self.backends.insert(spec.id.clone(), spec.clone());
            if part.excluded.is_none() && sleeps(&spec.policy) {
                self.named.insert(spec.id.clone());
            }
        }
    }

    fn file_backend(&mut self, backend: BackendSpec, path: &str, defaults: &IdlePolicy) {
        let id = backend.id.clone();
        self.places.insert(id.clone(), Place::File { path: path.to_owned(), line: None, column: None });
        self.named.insert(id.clone());
        match self.backends.entry(id) {
            btree_map::Entry::Occupied(mut found) => put_over(found.get_mut(), backend, defaults),
            btree_map::Entry::Vacant(entry) => {
                entry.insert(backend);
            }
        }
    }

    /// The first that claims an alias keeps it.
    fn route(&mut self, route: RouteSpec) {
        match self.routes.entry(route.alias.clone()) {
            btree_map::Entry::Vacant(entry) => {
                entry.insert(route);
            }
            btree_map::Entry::Occupied(entry) => {
                let keeper = &entry.get().place;
                let what = format!("alias `{}` is taken by {keeper}", route.alias);
                let hint = match (keeper, &route.place) {
                    (Place::Label { .. }, _) => "the older container keeps it: give this one another alias",
                    (_, Place::Label { .. }) => "routes of the file beat labels: rename or remove one of the two",
                    _ => "rename or remove one of the two",
                };
                self.problems.0.push(Problem::error(route.place, what).with_hint(hint));
            }
        }
    }

    fn finish(mut self) -> Catalog {
        self.keep_what_is_needed();
        let refused = self.refuse_broken_dependencies();
        self.close_routes_to(&refused);
        self.keep_what_is_needed();
        self.warn_of_unknown_backends(&refused);
        self.warn_of_shadowed_routes();
        self.collect_ports();
        inherit_policies(&mut self.backends);
        Catalog { routes: self.routes, backends: self.backends, problems: self.problems, excluded: self.excluded }
    }

    /// Leaves out containers that nobody asked for: no route, no policy, no dependant.
    fn keep_what_is_needed(&mut self) {
        let targets = self.routes.values().filter_map(RouteSpec::backend).cloned();
        let kept = closure(&self.backends, targets.chain(self.named.iter().cloned()));
        self.backends.retain(|id, _| kept.contains(id));
    }

    /// Takes out backends that depend on something unknown, on each other, or on something taken out.
    fn refuse_broken_dependencies(&mut self) -> BTreeSet<BackendId> {
        let mut refused = BTreeSet::new();
        loop {
            let lacking = self.backends.values().find_map(|spec| {
                let lacks = spec.depends_on.iter().find(|dependency| !self.backends.contains_key(&dependency.on))?;
                Some((spec.id.clone(), lacks.on.clone()))
            });
            if let Some((id, on)) = lacking {
                let why = match nearest(&self.backends, &on).filter(|near| **near != id) {
                    _ if refused.contains(&on) => "which is refused itself".to_owned(),
                    Some(near) => format!("which is not known; did you mean `{near}`?"),
                    None => "which is not known".to_owned(),
                };
                self.refuse(&id, Severity::Warning, format!("`{id}` depends on `{on}`, {why}"), &mut refused);
                continue;
            }
            let Some(members) = cycle(&self.backends) else { return refused };
            let names = members.iter().chain(members.first()).map(|id| format!("`{id}`"));
            let way = names.collect::<Vec<_>>().join(" needs ");
            for id in &members {
                self.refuse(id, Severity::Error, format!("dependencies go in a circle: {way}"), &mut refused);
            }
        }
    }

    /// A file that names what does not exist yet is no reason to refuse the file: its engine may be away.
    fn refuse(&mut self, id: &BackendId, in_file: Severity, what: String, refused: &mut BTreeSet<BackendId>) {
        if let Some(place) = self.places.get(id).cloned() {
            let severity = if matches!(place, Place::Label { .. }) { Severity::Error } else { in_file };
            let hint = "correct `depends_on`; until then the backend is left alone and its routes answer 503";
            self.problems.0.push(Problem { severity, place, what, hint: Some(hint.to_owned()) });
        }
        self.backends.remove(id);
        self.named.remove(id);
        refused.insert(id.clone());
    }

    /// The routes stay, so that no other route answers in their place.
    fn close_routes_to(&mut self, refused: &BTreeSet<BackendId>) {
        for route in self.routes.values_mut() {
            if let Some(id) = route.backend().filter(|id| refused.contains(id)).cloned() {
                route.target = RouteTarget::Down { id };
            }
        }
    }

    fn warn_of_unknown_backends(&mut self, refused: &BTreeSet<BackendId>) {
        for route in self.routes.values() {
            if let Some(id) = route.backend().filter(|id| !self.backends.contains_key(id) && !refused.contains(id)) {
                let what = format!("route `{}` leads to `{id}`, which is not there", route.alias);
                let hint = "it answers 503 until such a container exists";
                self.problems.0.push(Problem::warning(route.place.clone(), what).with_hint(hint));
            }
        }
    }

    /// Two routes that match alike: the one whose alias comes first answers.
    fn warn_of_shadowed_routes(&mut self) {
        let mut known: HashMap<_, Vec<&RouteSpec>> = HashMap::new();
        let mut told = BTreeSet::new();
        for route in self.routes.values() {
            let paths: Vec<_> = route.matches.paths.iter().map(path_key).collect();
            let paths = if paths.is_empty() { vec![(false, "")] } else { paths };
            for (host, path) in route.matches.hosts.iter().flat_map(|host| paths.iter().map(move |path| (host, *path)))
            {
                let alike = known.entry((host, path, &route.matches.methods)).or_default();
                let first = alike.iter().find(|known| known.matches.headers == route.matches.headers);
                if let Some(first) = first.filter(|first| first.alias != route.alias)
                    && told.insert((&first.alias, &route.alias))
                {
                    let what = format!("`{host}` is already answered by route `{}` ({})", first.alias, first.place);
                    let hint = format!("route `{}` gets none of these requests", route.alias);
                    self.problems.0.push(Problem::warning(route.place.clone(), what).with_hint(hint));
                }
                alike.push(route);
            }
        }
    }

    /// Readiness looks at every port that a route leads to.
    fn collect_ports(&mut self) {
        for route in self.routes.values() {
            if let RouteTarget::Backend { id, endpoint } = &route.target
                && endpoint.scheme != Scheme::Udp
                && let Some(spec) = self.backends.get_mut(id)
                && !spec.ports.contains(&endpoint.port)
            {
                spec.ports.push(endpoint.port);
                spec.ports.sort_unstable();
            }
        }
    }
}

/// A path as the route table compares it.
fn path_key(path: &PathPattern) -> (bool, &str) {
    match path {
        PathPattern::Prefix(path) => (false, path.trim_end_matches('/')),
        PathPattern::Exact(path) => (true, path),
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
