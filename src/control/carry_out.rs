//! How the keeper makes what should exist: backends born and retired, dependencies connected, the route table swapped.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use super::{
    LiveRoute, LiveTable,
    keeper::{Keeper, Kept},
    memory,
};
use crate::{
    backend::{Backend, Surroundings},
    catalog::{Change, diff},
    model::{Alias, BackendSpec, Condition, Problem, RouteSpec, Severity},
};

impl Keeper {
    /// Merges anew and carries out the difference.
    pub(super) async fn rebuild(&mut self) -> Vec<Change> {
        let catalog = Arc::new(self.merge(&self.loaded));
        let changes = diff(&self.catalog, &catalog);
        let told: HashSet<&Problem> = self.catalog.problems.0.iter().collect();
        for problem in catalog.problems.0.iter().filter(|problem| !told.contains(problem)) {
            match problem.severity {
                Severity::Error => tracing::error!("{problem:#}"),
                Severity::Warning => tracing::warn!("{problem:#}"),
                Severity::Hint => tracing::info!("{problem:#}"),
            }
        }
        self.catalog = catalog;
        for change in &changes {
            self.carry_out(change);
        }
        if !changes.is_empty() {
            self.connect_dependencies(&changes).await;
            self.swap_table();
        }
        self.publish();
        changes
    }

    fn carry_out(&mut self, change: &Change) {
        match change {
            Change::AddBackend(spec) => self.add_backend(spec),
            Change::RemoveBackend(id) => {
                self.control.backends.remove(id);
                if let Some(kept) = self.kept.remove(id) {
                    kept.end.cancel();
                }
            }
            // Given to the backend together with its dependencies; routes are swapped as a whole.
            Change::ChangeBackend { .. }
            | Change::AddRoute(_)
            | Change::ChangeRoute { .. }
            | Change::RemoveRoute(_) => {}
        }
    }

    fn add_backend(&mut self, spec: &BackendSpec) {
        // Both have an entry for each node.
        let (Some(node), Some(turns)) = (self.nodes.get(spec.id.node()), self.turns.get(spec.id.node())) else {
            tracing::warn!(backend = %spec.id, "no such node");
            return;
        };
        let around = Surroundings {
            provider: Arc::clone(&node.provider),
            turns: Arc::clone(turns),
            journal: self.control.journal.clone(),
        };
        let (remembered, known) = (self.remembered.remove(&spec.id), self.known.remove(&spec.id));
        let restored = known.or_else(|| remembered.map(|memory| memory::restored(&memory, &spec.policy)));
        let end = CancellationToken::new();
        let (restored, waiters) = (restored.unwrap_or_default(), self.awaited.remove(&spec.id).into_iter().collect());
        let (backend, task) = Backend::spawn_awaited(spec.clone(), Vec::new(), around, restored, waiters, end.clone());
        self.control.backends.insert(spec.id.clone(), backend);
        self.kept.insert(spec.id.clone(), Kept { end, task });
    }

    /// Gives each new or changed backend its specification and handles of what it needs.
    async fn connect_dependencies(&self, changes: &[Change]) {
        for change in changes {
            let spec = match change {
                Change::AddBackend(spec) if spec.depends_on.is_empty() => continue,
                Change::AddBackend(spec) | Change::ChangeBackend { new: spec, .. } => spec,
                Change::AddRoute(_)
                | Change::ChangeRoute { .. }
                | Change::RemoveRoute(_)
                | Change::RemoveBackend(_) => continue,
            };
            let Some(backend) = self.control.backend(&spec.id) else { continue };
            let on: Vec<(Backend, Condition)> = spec
                .depends_on
                .iter()
                .filter_map(|dependency| Some((self.control.backend(&dependency.on)?, dependency.condition)))
                .collect();
            backend.configure((**spec).clone(), on).await;
        }
    }

    fn swap_table(&self) {
        let catalog = Arc::clone(&self.catalog);
        let before = self.control.table.load();
        let known: HashMap<&Alias, &LiveRoute> = before.all().map(|route| (&route.spec.alias, &**route)).collect();
        let key = || self.control.sticky.key();
        let backend = |spec: &RouteSpec| spec.backend().and_then(|id| self.control.backend(id));
        let live = catalog.routes.values().cloned().map(|spec| {
            let before = known.get(&spec.alias).copied();
            Arc::new(LiveRoute::new(spec, &backend, &key, before))
        });
        let table = LiveTable::build(live);
        let streams = table.all().filter(|route| !route.spec.matches.listen.is_empty()).cloned().collect();
        self.control.table.store(Arc::new(table));
        self.control.streams.send_replace(streams);
    }
}
