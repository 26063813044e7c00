//! Where the catalog comes from: the file, and what containers say.

use std::path::{Path, PathBuf};

use crate::{
    catalog::{DiscoveredPart, FilePart},
    config::{self, FromContainer, Loaded},
    model::{Container, Problems, Settings},
};

/// The configuration file, or none.
#[derive(Debug, Clone)]
pub struct FileSource {
    path: Option<PathBuf>,
}

impl FileSource {
    /// The file at this path.
    pub fn file(path: PathBuf) -> Self {
        Self { path: Some(path) }
    }

    /// No file: everything is discovered.
    pub fn none() -> Self {
        Self { path: None }
    }

    /// The path.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Reads and checks it, or all problems at once.
    pub fn load(&self) -> Result<Loaded, Problems> {
        match &self.path {
            Some(path) => config::load(path, &environment),
            None => {
                config::check_text("{}", "(no file)", &environment).map(|loaded| Loaded { files: Vec::new(), ..loaded })
            }
        }
    }

    /// Checks a text as if it stood in the file.
    pub fn check(&self, text: &str) -> Result<Loaded, Problems> {
        let name = self.path.as_ref().map_or_else(|| "(text)".to_owned(), |path| path.display().to_string());
        config::check_text(text, &name, &environment)
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The file's part of a catalog.
pub(super) fn file_part(source: &FileSource, loaded: &Loaded) -> FilePart {
    let mut routes = loaded.routes.clone();
    let mut problems = loaded.problems.clone();
    problems.0.extend(config::refuse_own_addresses(&mut routes, &loaded.settings).0);
    FilePart {
        path: source.path().map_or_else(|| "(no file)".to_owned(), |path| path.display().to_string()),
        routes,
        backends: loaded.backends.clone(),
        default_idle: loaded.settings.default_idle.clone(),
        problems,
    }
}

/// What a container says, as the catalog takes it.
pub fn read_container(container: &Container, made: FromContainer) -> DiscoveredPart {
    DiscoveredPart {
        container: format!("{}/{}", container.node, container.name),
        created: made.created,
        backend: made.backend,
        routes: made.routes,
        problems: made.problems,
        excluded: made.excluded,
    }
}

/// What all containers of all nodes say.
pub(super) fn discovered_parts(
    containers: &[&Container],
    settings: &Settings,
    own_networks: &[String],
) -> Vec<DiscoveredPart> {
    let made = containers.iter().map(|container| config::from_container(container, settings, own_networks)).collect();
    let made = config::resolve_dependencies(made);
    containers.iter().zip(made).map(|(container, made)| read_container(container, made)).collect()
}
