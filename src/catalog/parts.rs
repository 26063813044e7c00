//! What goes into the merge, and the catalog that comes out.

use std::collections::BTreeMap;

use crate::model::{Alias, BackendId, BackendSpec, IdlePolicy, Place, Problem, Problems, RouteSpec, Severity};

/// What should exist.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Catalog {
    /// Every route, by its name.
    pub routes: BTreeMap<Alias, RouteSpec>,
    /// Every backend that a route, a policy or another backend needs.
    pub backends: BTreeMap<BackendId, BackendSpec>,
    /// What is wrong, the file's own problems first.
    pub problems: Problems,
    /// Containers without routes, as `node/name`, and the reason.
    pub excluded: Vec<(String, String)>,
}

impl Catalog {
    /// The errors that refuse a reload as a whole: those of files. Errors in labels refuse only their routes.
    pub fn file_errors(&self) -> impl Iterator<Item = &Problem> {
        let in_file = |place: &Place| matches!(place, Place::File { .. } | Place::Body(_));
        self.problems.0.iter().filter(move |p| p.severity == Severity::Error && in_file(&p.place))
    }
}

/// What the files say; without any error of its own, or it would not be here.
#[derive(Debug, Clone)]
pub struct FilePart {
    /// The main file, where problems belong that have no better place.
    pub path: String,
    /// The routes, in the order of the files.
    pub routes: Vec<RouteSpec>,
    /// Backends that are named in a file, whole: for when no container of that name is discovered. Over a discovered
    /// one goes what differs from the defaults.
    pub backends: Vec<BackendSpec>,
    /// The policy that all settings start from.
    pub default_idle: IdlePolicy,
    /// Warnings and hints of the files.
    pub problems: Problems,
}

/// What one discovered container says.
#[derive(Debug, Clone)]
pub struct DiscoveredPart {
    /// The container as `node/name`, for people.
    pub container: String,
    /// When it was created, in seconds since the Unix epoch: of two that claim an alias the older keeps it.
    pub created: i64,
    /// What it is as a backend; also of an excluded one, since others may depend on it.
    pub backend: Option<BackendSpec>,
    /// Its routes.
    pub routes: Vec<RouteSpec>,
    /// What is wrong in its labels.
    pub problems: Problems,
    /// Why it has no routes.
    pub excluded: Option<String>,
}
