//! What is made of a container, and why.

use std::{collections::BTreeMap, sync::Arc};

use super::{FileSource, View, access_outputs};
use crate::{
    catalog::{self, Catalog, FilePart},
    config::{self, Loaded},
    model::{BackendId, BackendSpec, Container, Place, Problem, Problems, RouteSpec, Settings, Severity},
    net::check_certificates,
    telemetry::check_access_outputs,
};

/// What is made of one container.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The container as its engine tells of it.
    pub container: Container,
    /// Its routes.
    pub routes: Vec<Arc<RouteSpec>>,
    /// What it is as a backend.
    pub backend: Option<BackendSpec>,
    /// Why it has no routes.
    pub excluded: Option<String>,
    /// What was chosen, and why.
    pub notes: Vec<String>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl Explained {
    /// Those that somebody means by `node/name`, by a name, or, as orders do, by the alias of a route that leads there.
    pub fn named<'a>(all: &'a [Self], text: &str) -> Vec<&'a Self> {
        let is_named = |one: &&Self| one.container.name == text || one.full_name() == text;
        let has_route = |one: &&Self| one.routes.iter().any(|route| route.alias.as_str() == text);
        let named: Vec<&Self> = all.iter().filter(is_named).collect();
        if named.is_empty() { all.iter().filter(has_route).collect() } else { named }
    }

    /// `node/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.container.node, self.container.name)
    }
}

impl View {
    /// The containers of which no backend is made because their labels are refused, by name, with what is wrong.
    pub fn left_out(&self) -> BTreeMap<&str, Vec<&Problem>> {
        let mut left_out: BTreeMap<&str, Vec<&Problem>> = BTreeMap::new();
        for problem in self.catalog.problems.0.iter().filter(|problem| problem.severity == Severity::Error) {
            let Place::Label { container, .. } = &problem.place else { continue };
            let is_backend = container.parse().is_ok_and(|id: BackendId| self.catalog.backends.contains_key(&id));
            if !is_backend {
                left_out.entry(container).or_default().push(problem);
            }
        }
        left_out
    }

    /// What is made of each listed container and of each process, by name.
    pub fn explain(&self) -> Vec<Explained> {
        let explain = |container: &Container| explain(container, &self.catalog, &self.settings, &self.own_networks);
        let mut all: Vec<Explained> = self.containers.iter().map(explain).collect();
        all.extend(explain_processes(&self.catalog));
        all
    }
}

/// What would be made of these containers by a configuration, without any engine.
pub fn explain_alone(containers: &[Container], source: &FileSource, loaded: &Loaded) -> Vec<Explained> {
    let all: Vec<&Container> = containers.iter().collect();
    let parts = catalog::discover(&all, &loaded.settings, None);
    let catalog = Catalog::merge(FilePart::new(source.name(), loaded), parts);
    let mut all: Vec<Explained> =
        containers.iter().map(|container| explain(container, &catalog, &loaded.settings, &[])).collect();
    all.extend(explain_processes(&catalog));
    all
}

/// Processes are told by files alone. What they do is known only where they run.
fn explain_processes(catalog: &Catalog) -> Vec<Explained> {
    let explain = |spec: &BackendSpec| {
        let command = spec.unit.command.as_ref()?;
        let routes = catalog.routes.values().filter(|route| route.backends().any(|id| *id == spec.id)).cloned();
        Some(Explained {
            container: Container {
                id: spec.unit.name.clone(),
                image: command.argv.join(" "),
                ..Container::bare(spec.id.node().clone(), spec.id.name())
            },
            routes: routes.collect(),
            backend: Some(spec.clone()),
            excluded: None,
            notes: Vec::new(),
            problems: Vec::new(),
        })
    };
    catalog.backends.values().filter_map(explain).collect()
}

/// As [`load_alone`], and looks at the disk whether the access logs can be written.
///
/// # Errors
/// All problems, where there is an error among them.
pub fn check_alone(source: &FileSource) -> Result<Problems, Problems> {
    let (loaded, mut problems) = load_alone(source)?;
    problems.0.extend(check_access_outputs(&access_outputs(&loaded)).0);
    Ok(problems)
}

/// All problems of a configuration by itself; an error in it refuses the whole.
pub fn load_alone(source: &FileSource) -> Result<(Loaded, Problems), Problems> {
    let loaded = source.load()?;
    let mut catalog = Catalog::merge(FilePart::new(source.name(), &loaded), Vec::new());
    catalog.problems.0.extend(check_certificates(&loaded.settings.tls).0);
    let refused = catalog.file_errors().next().is_some();
    if refused { Err(catalog.problems) } else { Ok((loaded, catalog.problems)) }
}

fn explain(container: &Container, catalog: &Catalog, settings: &Settings, own_networks: &[String]) -> Explained {
    let name = format!("{}/{}", container.node, container.name);
    let of_it = |place: &Place| matches!(place, Place::Label { container, .. } if *container == name);
    let id = name.parse().ok();
    let routes = catalog
        .routes
        .values()
        .filter(|route| of_it(&route.place) || route.backends().any(|to| Some(to) == id.as_ref()));
    let routes: Vec<_> = routes.cloned().collect();
    let excluded = catalog.excluded.iter().find(|(excluded, _)| *excluded == name).map(|(_, why)| why.clone());
    Explained {
        backend: id.as_ref().and_then(|id| catalog.backends.get(id)).cloned(),
        // A file may lead to what has no routes of its own.
        excluded: excluded.filter(|_| routes.is_empty()),
        routes,
        notes: config::from_container(container, settings, own_networks).notes,
        problems: catalog.problems.0.iter().filter(|problem| of_it(&problem.place)).cloned().collect(),
        container: container.clone(),
    }
}
