//! What goes into the merge, and the catalog that comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    config::Written,
    model::{Alias, BackendId, BackendSpec, NodeName, Place, Problem, Problems, RouteSpec, Severity},
};

/// What should exist.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Catalog {
    /// Every route, by its name.
    pub routes: BTreeMap<Alias, Arc<RouteSpec>>,
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
        let in_file = |place: &Place| matches!(place, Place::File { .. } | Place::Body(_) | Place::Host(_));
        self.problems.0.iter().filter(move |p| p.severity == Severity::Error && in_file(&p.place))
    }
}

/// What the files say; without any error of its own, or it would not be here.
#[derive(Debug, Clone)]
pub struct FilePart {
    /// The main file, where problems belong that have no better place.
    pub path: String,
    /// The routes, in the order of the files.
    pub routes: Vec<Arc<RouteSpec>>,
    /// Backends that are named in a file, whole: for when no container of that name is discovered. Over a discovered
    /// one goes what is written.
    pub backends: Vec<BackendSpec>,
    /// What is written of each backend, and where. Of one without an entry all counts as written.
    pub written: BTreeMap<BackendId, Written>,
    /// Nodes of which only the files tell: a backend there that no file names does not exist.
    pub told_by_files: BTreeSet<NodeName>,
    /// Warnings and hints of the files.
    pub problems: Problems,
}

/// What one discovered container says.
#[derive(Debug, Clone)]
pub struct DiscoveredPart {
    /// The container as `node/name`, for people.
    pub container: String,
    /// Whether it carries labels of ours: of two that claim an alias such a one keeps it.
    pub labelled: bool,
    /// When it was created, in seconds since the Unix epoch: of two alike that claim an alias the older keeps it.
    pub created: i64,
    /// The label that names its dependencies.
    pub depends_on: Option<Place>,
    /// What it is as a backend; also of an excluded one, since others may depend on it.
    pub backend: Option<BackendSpec>,
    /// Its routes.
    pub routes: Vec<RouteSpec>,
    /// What is wrong in its labels.
    pub problems: Problems,
    /// Why it has no routes.
    pub excluded: Option<String>,
}
