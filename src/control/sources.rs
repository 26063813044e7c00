//! Where the configuration comes from.

use std::{net::SocketAddr, path::PathBuf};

use super::access_outputs;
use crate::{
    acme::check_dns,
    config::{self, Loaded},
    model::{EngineAddress, NodeSpec, Problem, Problems},
    net::check_certificates,
    provider::check_docker,
    telemetry::check_access_outputs,
};

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum FileSource {
    /// The file at this path.
    File(PathBuf),
    /// No file: everything is discovered.
    None {
        /// Labelled containers only.
        explicit: bool,
        /// Where HTTPS is served.
        https: Option<SocketAddr>,
    },
    /// One that is made, not read; it never changes.
    Made(Box<Loaded>),
}

impl FileSource {
    /// Its name for people.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::None { .. } => "(no file)".to_owned(),
            Self::Made(_) => "(made)".to_owned(),
        }
    }

    /// Reads and checks it, or all problems at once.
    pub fn load(&self) -> Result<Loaded, Problems> {
        match self {
            Self::File(path) => with_what_it_names(config::load(path, &environment)?),
            Self::None { explicit, https } => {
                let text = if *explicit { "discover: labelled" } else { "{}" };
                let mut loaded = config::check_text(text, &self.name(), &environment)?;
                loaded.settings.listen.https.extend(*https);
                Ok(Loaded { files: Vec::new(), ..loaded })
            }
            Self::Made(loaded) => Ok(Loaded::clone(loaded)),
        }
    }

    /// Checks a text as if it stood in the file. For a stranger's no file is read and no variable looked at: what they
    /// hold would be told by the answer.
    pub fn check(&self, text: &str, strangers: bool) -> Result<Loaded, Problems> {
        if strangers {
            return config::check_sent(text, &self.name());
        }
        let mut loaded = with_what_it_names(config::check_text(text, &self.name(), &environment)?)?;
        // Of what runs these are told as they are now, and not as they were when it was read.
        loaded.problems.0.extend(check_access_outputs(&access_outputs(&loaded)).0);
        Ok(loaded)
    }
}

/// Reads the certificates too: one that can not be read is an error of the file that names it. What is wrong beside
/// that is told by those who show the certificates. So are the addresses of engines, what TLS to them needs, and what a
/// provider of DNS does.
fn with_what_it_names(mut loaded: Loaded) -> Result<Loaded, Problems> {
    let mut found = check_certificates(&loaded.settings.tls);
    found.0.extend(loaded.settings.nodes.values().filter_map(bad_node));
    let of_dns = loaded.settings.tls.acme.as_ref().map(check_dns).unwrap_or_default();
    if !found.has_errors() && !of_dns.has_errors() {
        loaded.problems.0.extend(of_dns.0);
        return Ok(loaded);
    }
    loaded.problems.0.extend(found.0.into_iter().chain(of_dns.0));
    Err(loaded.problems)
}

/// Why a node can not be used, whether its engine is there or not.
fn bad_node(node: &NodeSpec) -> Option<Problem> {
    let (EngineAddress::Docker(address), Some(place)) = (&node.engine, &node.place) else { return None };
    let error = check_docker(address).err()?;
    Some(Problem::error(place.clone(), error.to_string()))
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
