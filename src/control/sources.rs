//! Where the catalog comes from: the file, and what containers say.

use std::path::PathBuf;

use crate::{
    catalog::{DiscoveredPart, FilePart},
    config::{self, FromContainer, Loaded},
    model::{Container, Problems, Settings},
};

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum FileSource {
    /// The file at this path.
    File(PathBuf),
    /// No file: everything is discovered.
    None,
    /// One that is made, not read; it never changes.
    Made(Box<Loaded>),
}

impl FileSource {
    /// Its name for people.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::None => "(no file)".to_owned(),
            Self::Made(_) => "(made)".to_owned(),
        }
    }

    /// Reads and checks it, or all problems at once.
    pub fn load(&self) -> Result<Loaded, Problems> {
        match self {
            Self::File(path) => config::load(path, &environment),
            Self::None => {
                let loaded = config::check_text("{}", &self.name(), &environment)?;
                Ok(Loaded { files: Vec::new(), ..loaded })
            }
            Self::Made(loaded) => Ok(Loaded::clone(loaded)),
        }
    }

    /// Checks a text as if it stood in the file.
    pub fn check(&self, text: &str) -> Result<Loaded, Problems> {
        config::check_text(text, &self.name(), &environment)
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
        path: source.name(),
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
