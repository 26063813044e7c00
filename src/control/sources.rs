//! Where the configuration comes from.

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    config::{self, Loaded},
    model::Problems,
    net::check_certificates,
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
            Self::File(path) => with_certificates(config::load(path, &environment)?),
            Self::None { explicit, https } => {
                let text = if *explicit { "discover: labelled" } else { "{}" };
                let mut loaded = config::check_text(text, &self.name(), &environment)?;
                loaded.settings.listen.https.extend(*https);
                Ok(Loaded { files: Vec::new(), ..loaded })
            }
            Self::Made(loaded) => Ok(Loaded::clone(loaded)),
        }
    }

    /// Checks a text as if it stood in the file.
    pub fn check(&self, text: &str) -> Result<Loaded, Problems> {
        with_certificates(config::check_text(text, &self.name(), &environment)?)
    }
}

/// Reads the certificates too: one that can not be read is an error of the file that names it. What is wrong beside
/// that is told by those who show the certificates.
fn with_certificates(mut loaded: Loaded) -> Result<Loaded, Problems> {
    let found = check_certificates(&loaded.settings.tls);
    if !found.has_errors() {
        return Ok(loaded);
    }
    loaded.problems.0.extend(found.0);
    Err(loaded.problems)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
