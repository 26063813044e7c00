//! Backends that files name, and what routes say of theirs.

use std::collections::BTreeSet;

use super::{
    command::command,
    finish::condition,
    idle::{self, Author, IdleDraft, Wanted},
    ready,
    static_routes::{Checker, Runs},
    tree::{Entry, Fields, Node, unknown},
    values,
    written::Written,
};
use crate::model::{BackendId, BackendSpec, Dependency, NodeName, Place, Problem, Provenance, Readiness, Unit};

/// A backend while its routes are gathered.
pub(super) struct Gathered {
    pub(super) spec: BackendSpec,
    /// Where its idle settings were written.
    idle_at: Option<Place>,
    pub(super) written: Written,
}

impl Gathered {
    pub(super) fn ready(&mut self, ready: Readiness) {
        self.spec.ready = ready;
        self.written.keys.insert("ready");
    }
}

/// Every key of a backend.
pub(super) const BACKEND_KEYS: &[&str] =
    &["command", "env", "directory", "user", "network", "idle", "ready", "depends_on"];

impl Checker<'_, '_, '_> {
    pub(super) fn backend(&mut self, entry: &Entry) {
        let id = match entry.key.parse::<BackendId>() {
            Ok(id) => id,
            Err(error) => {
                self.problems.0.push(Problem::error(entry.place.clone(), error.to_string()));
                return;
            }
        };
        if !self.knows_node(&id, &entry.place) {
            return;
        }
        if self.backends.contains_key(&id) {
            let what = format!("backend `{id}` is set twice");
            self.problems.0.push(Problem::error(entry.place.clone(), what));
            return;
        }
        let mut fields = Fields::open(&entry.node, "backend", self.problems);
        let mut gathered = self.gather(id.clone(), &entry.place);
        gathered.spec.unit.command = command(&mut fields, self.sources.env, self.problems);
        gathered.spec.unit.network =
            fields.get("network").and_then(|node| values::text(node, self.problems)).map(str::to_owned);
        let idle = fields.get("idle");
        let (ready, depends_on) = (fields.get("ready"), fields.get("depends_on"));
        self.idle(&mut gathered, idle, None, &entry.place);
        if let Some(ready) = ready.and_then(|node| ready::read(node, Author::File, self.problems)) {
            gathered.ready(ready);
        }
        if let Some(node) = depends_on {
            self.dependencies(&mut gathered, node, &entry.place);
        }
        fields.below("idle", idle::IDLE_KEYS.iter().copied(), self.problems);
        fields.finish(BACKEND_KEYS, self.problems);
        self.backends.insert(id, gathered);
    }

    /// One of which nothing is written yet.
    pub(super) fn gather(&self, id: BackendId, place: &Place) -> Gathered {
        let unit = Unit { name: id.name().to_owned(), network: None, command: None };
        let spec = BackendSpec {
            id,
            unit,
            policy: self.settings.default_idle.clone(),
            ready: Readiness::Tcp,
            ports: Vec::new(),
            depends_on: Vec::new(),
            provenance: Provenance::Configured,
        };
        let written = Written { place: place.clone(), depends_on: None, keys: BTreeSet::new() };
        Gathered { spec, idle_at: None, written }
    }

    /// Idle settings of a backend, which may stand in one place only.
    pub(super) fn idle(&mut self, gathered: &mut Gathered, node: Option<&Node>, extra: Option<&str>, at: &Place) {
        let Some(node) = node else { return };
        if let Some(first) = &gathered.idle_at {
            let what = format!("idle settings of `{}` are also at {first}", gathered.spec.id);
            let problem = Problem::error(node.place.clone(), what);
            self.problems.0.push(problem.with_hint("set them once, below `backends`"));
            return;
        }
        gathered.idle_at = Some(node.place.clone());
        let mut fields = Fields::open(node, "idle", self.problems);
        if let Some(extra) = extra {
            fields.entry(extra);
        }
        let draft = idle::read(&mut fields, &gathered.spec.policy, Author::File, self.problems);
        fields.finish(idle::IDLE_KEYS, self.problems);
        let IdleDraft { policy, ready, depends_on, keys } = draft;
        gathered.spec.policy = policy;
        gathered.written.keys.extend(keys);
        if let Some(ready) = ready {
            gathered.ready(ready);
        }
        self.add_dependencies(gathered, depends_on, at);
    }

    /// What a backend needs.
    pub(super) fn dependencies(&mut self, gathered: &mut Gathered, node: &Node, at: &Place) {
        let mut fields_node = Node::empty_map(node.place.clone());
        if let Err(problem) = fields_node.put(&["depends_on"], node.clone()) {
            self.problems.0.push(problem);
        }
        let mut fields = Fields::open(&fields_node, "depends_on", self.problems);
        let draft = idle::read(&mut fields, &gathered.spec.policy, Author::File, self.problems);
        gathered.written.keys.extend(draft.keys);
        self.add_dependencies(gathered, draft.depends_on, at);
    }

    fn add_dependencies(&mut self, gathered: &mut Gathered, wanted: Vec<Wanted>, at: &Place) {
        if !wanted.is_empty() {
            gathered.written.depends_on.get_or_insert_with(|| at.clone());
        }
        for wanted in wanted {
            let on = if wanted.name.contains('/') {
                wanted.name.parse()
            } else {
                BackendId::new(gathered.spec.id.node().clone(), &wanted.name)
            };
            let condition = condition(&wanted, self.problems);
            match (on, condition) {
                (Ok(on), Some(condition)) => gathered.spec.depends_on.push(Dependency { on, condition }),
                (Err(error), _) => self.problems.0.push(Problem::error(wanted.place, error.to_string())),
                (Ok(_), None) => {}
            }
        }
    }

    pub(super) fn knows_node(&mut self, id: &BackendId, place: &Place) -> bool {
        let known = self.nodes.contains_key(id.node());
        if !known {
            let names: Vec<&str> = self.nodes.keys().map(NodeName::as_str).collect();
            self.problems.0.push(unknown(place, "node", id.node().as_str(), &names));
        }
        known
    }

    /// A backend of a process node needs a command; one of an engine can not have one.
    pub(super) fn commands(&mut self) {
        for gathered in self.backends.values() {
            let runs = self.nodes.get(gathered.spec.id.node()).copied().unwrap_or(Runs::Unclear);
            let what = match (runs, &gathered.spec.unit.command) {
                (Runs::Processes, None) => format!("backend `{}` has no `command`", gathered.spec.id),
                (Runs::Units, Some(_)) => {
                    format!("backend `{}` has a `command`, which only processes have", gathered.spec.id)
                }
                _ => continue,
            };
            self.problems.0.push(
                Problem::error(gathered.written.place.clone(), what)
                    .with_hint("a backend on a node with `process` is started by its `command`, below `backends`"),
            );
        }
    }
}
