//! The merge: the file before labels, labelled containers before others, the older before the younger, and nothing
//! that cannot work.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    sync::Arc,
};

use super::{
    Catalog, DiscoveredPart, FilePart,
    claims::Claims,
    dependencies::{Backends, closure, cycle, inherit_policies, nearest},
    groups::Groups,
    overlay::put_over,
};
use crate::{
    config::Written,
    model::{BackendId, BackendSpec, NodeName, Place, Problem, Problems, RouteSpec, RouteTarget, Severity},
};

impl Catalog {
    /// Merges what the files say with what the containers say.
    pub fn merge(file: FilePart, mut discovered: Vec<DiscoveredPart>) -> Self {
        discovered.sort_by(|a, b| (!a.labelled, a.created, &a.container).cmp(&(!b.labelled, b.created, &b.container)));
        let mut merge = Merge { told_by_files: file.told_by_files, ..Merge::default() };
        merge.problems.0.extend(file.problems.0);
        merge.containers(&discovered);
        for backend in file.backends {
            let written = file.written.get(&backend.id);
            merge.file_backend(backend, written, &file.path);
        }
        merge.known = merge.backends.keys().cloned().collect();
        file.routes.iter().for_each(|route| merge.groups.gather(route));
        let routes = |part: &mut DiscoveredPart| std::mem::take(&mut part.routes).into_iter().map(Arc::new).collect();
        let of_parts: Vec<Vec<Arc<RouteSpec>>> = discovered.iter_mut().map(routes).collect();
        of_parts.iter().flatten().for_each(|route| merge.groups.gather(route));
        file.routes.into_iter().for_each(|route| merge.claim(route));
        for (part, routes) in discovered.into_iter().zip(of_parts) {
            merge.problems.0.extend(part.problems.0);
            routes.into_iter().for_each(|route| merge.claim(route));
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
    claims: Claims,
    /// Routes that are to share a name.
    groups: Groups,
    backends: Backends,
    problems: Problems,
    excluded: Vec<(String, String)>,
    told_by_files: BTreeSet<NodeName>,
    /// Every backend that anybody names, for the spelling of others.
    known: BTreeSet<BackendId>,
    /// Where problems of a backend belong.
    places: BTreeMap<BackendId, Place>,
    /// Backends that stay whether anything leads to them or not.
    named: BTreeSet<BackendId>,
}

impl Merge {
    fn containers(&mut self, discovered: &[DiscoveredPart]) {
        for part in discovered {
            let Some(spec) = &part.backend else { continue };
            let unwritten = || Place::Label { container: part.container.clone(), label: Some("depends_on".to_owned()) };
            let place = part.depends_on.clone().unwrap_or_else(unwritten);
            self.places.insert(spec.id.clone(), place);
            self.backends.insert(spec.id.clone(), spec.clone());
            // What no request can wake must not be put to sleep: its routes may just have been refused.
            if !spec.policy.schedule.0.is_empty() {
                self.named.insert(spec.id.clone());
            }
        }
    }

    fn file_backend(&mut self, backend: BackendSpec, written: Option<&Written>, path: &str) {
        let id = backend.id.clone();
        let somewhere = || Place::File { path: path.into(), line: None, column: None };
        let named_at = written.map_or_else(somewhere, |written| written.place.clone());
        let place = written.and_then(|written| written.depends_on.clone()).unwrap_or_else(|| named_at.clone());
        self.named.insert(id.clone());
        match self.backends.entry(id.clone()) {
            btree_map::Entry::Occupied(mut found) => {
                if written.is_none_or(|written| written.has("depends_on")) {
                    self.places.insert(id, place);
                }
                put_over(found.get_mut(), backend, written);
            }
            btree_map::Entry::Vacant(entry) => {
                self.places.insert(id, place);
                entry.insert(backend);
            }
        }
    }

    fn claim(&mut self, route: Arc<RouteSpec>) {
        if let Some(route) = self.groups.whole(route, &mut self.problems) {
            self.claims.claim(route);
        }
    }

    fn finish(mut self) -> Catalog {
        self.problems.0.append(&mut self.claims.problems.0);
        self.keep_what_is_needed();
        let refused = self.refuse_broken_dependencies();
        self.close_routes_to(&refused);
        self.keep_what_is_needed();
        self.warn_of_unknown_backends(&refused);
        self.claims.refuse_circles();
        self.claims.warn_of_shadows();
        self.problems.0.append(&mut self.claims.problems.0);
        self.take_ports_of_routes();
        inherit_policies(&mut self.backends);
        let Self { claims, backends, problems, excluded, .. } = self;
        Catalog { routes: claims.routes, backends, problems, excluded }
    }

    /// Leaves out containers that nobody asked for: no route, no schedule, no dependant.
    fn keep_what_is_needed(&mut self) {
        let targets = self.claims.routes.values().flat_map(|route| route.backends()).cloned();
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
                self.refuse_lacking(&id, &on, &mut refused);
                continue;
            }
            let Some(members) = cycle(&self.backends) else { return refused };
            self.refuse_circle(&members, &mut refused);
        }
    }

    fn refuse_lacking(&mut self, id: &BackendId, on: &BackendId, refused: &mut BTreeSet<BackendId>) {
        if let Some(place) = self.places.get(id).cloned() {
            // A file that names what does not exist yet is no reason to refuse the file: its engine may be away.
            let may_come = !in_labels(&place) && !self.told_by_files.contains(on.node());
            let severity = if may_come { Severity::Warning } else { Severity::Error };
            let (why, hint) = match nearest(&self.known, on, id) {
                _ if refused.contains(on) => ("refused", None),
                Some(near) => ("unknown", Some(format!("did you mean `{}`?", near.name()))),
                None => {
                    ("unknown", Some("until it is there the backend is left alone and its routes answer 503".into()))
                }
            };
            let what = format!("`{id}` depends on `{on}`, which is {why}");
            self.problems.0.push(Problem { severity, place, what, hint });
        }
        self.take_out(id, refused);
    }

    /// Told at each container that is a member, since one asks for problems by container, and once in files.
    fn refuse_circle(&mut self, members: &[BackendId], refused: &mut BTreeSet<BackendId>) {
        let names: Vec<String> = members.iter().chain(members.first()).map(|id| format!("`{id}`")).collect();
        let what = format!("dependencies go in a circle: {}", names.join(" → "));
        let places: Vec<&Place> = members.iter().filter_map(|id| self.places.get(id)).collect();
        let in_files = places.iter().copied().filter(|place| !in_labels(place)).take(1);
        for place in in_files.chain(places.iter().copied().filter(|place| in_labels(place))) {
            let problem = Problem::error(place.clone(), what.clone());
            self.problems.0.push(problem.with_hint("remove one of these dependencies"));
        }
        members.iter().for_each(|id| self.take_out(id, refused));
    }

    fn take_out(&mut self, id: &BackendId, refused: &mut BTreeSet<BackendId>) {
        self.backends.remove(id);
        self.named.remove(id);
        refused.insert(id.clone());
    }

    /// The routes stay, so that no other route answers in their place.
    fn close_routes_to(&mut self, refused: &BTreeSet<BackendId>) {
        for route in self.claims.routes.values_mut() {
            close(route, refused);
        }
    }

    fn warn_of_unknown_backends(&mut self, refused: &BTreeSet<BackendId>) {
        for route in self.claims.routes.values() {
            for id in route.backends().filter(|id| !self.backends.contains_key(id) && !refused.contains(id)) {
                let what = format!("route `{}` leads to `{id}`, which is not there", route.alias);
                let hint = "it answers 503 until such a container exists";
                self.problems.0.push(Problem::warning(route.place.clone(), what).with_hint(hint));
            }
        }
    }

    /// Readiness looks at the ports of the routes that were kept: what a lost route named may never open.
    fn take_ports_of_routes(&mut self) {
        let mut ports: BTreeMap<&BackendId, BTreeSet<u16>> = BTreeMap::new();
        let mut down: BTreeSet<&BackendId> = BTreeSet::new();
        for way in self.claims.routes.values().flat_map(|route| route.ways()) {
            match &way.target {
                RouteTarget::Backend { id, endpoint } if endpoint.scheme.has_tcp() => {
                    ports.entry(id).or_default().insert(endpoint.port);
                }
                RouteTarget::Down { id } => {
                    down.insert(id);
                }
                RouteTarget::Backend { .. } | RouteTarget::Address { .. } | RouteTarget::Group(_) => {}
            }
        }
        for (id, spec) in &mut self.backends {
            let mut kept = ports.remove(id).unwrap_or_default();
            if down.contains(id) {
                kept.extend(spec.ports.iter().copied());
            }
            spec.ports = kept.into_iter().collect();
        }
    }
}

/// Leads nowhere what leads to one of these.
fn close(route: &mut Arc<RouteSpec>, refused: &BTreeSet<BackendId>) {
    if !route.backends().any(|id| refused.contains(id)) {
        return;
    }
    let route = Arc::make_mut(route);
    match &mut route.target {
        RouteTarget::Group(group) => {
            Arc::make_mut(group).members.iter_mut().for_each(|member| close(&mut member.route, refused));
        }
        RouteTarget::Backend { id, .. } => route.target = RouteTarget::Down { id: id.clone() },
        RouteTarget::Down { .. } | RouteTarget::Address { .. } => {}
    }
}

fn in_labels(place: &Place) -> bool {
    matches!(place, Place::Label { .. })
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
