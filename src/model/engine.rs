//! Engines that we talk to: which, where, and how.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::Place;

/// An engine that we talk to.
#[derive(Debug, Clone, Eq)]
pub struct NodeSpec {
    /// Which engine, and where.
    pub engine: EngineAddress,
    /// Where it was written; absent: nowhere.
    pub place: Option<Place>,
}

impl PartialEq for NodeSpec {
    /// A node stays the same wherever it is written.
    fn eq(&self, other: &Self) -> bool {
        self.engine == other.engine
    }
}

impl From<EngineAddress> for NodeSpec {
    fn from(engine: EngineAddress) -> Self {
        Self { engine, place: None }
    }
}

/// Which engine, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineAddress {
    /// A Docker-compatible engine.
    Docker(DockerAddress),
    /// Our own children.
    Process,
    /// In memory, for tests and the demo.
    Simulated,
}

/// Where a Docker-compatible engine is, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DockerAddress {
    /// `unix:///path`, `tcp://host:port`, `https://host:port` or `ssh://user@host`; absent: `DOCKER_HOST`, else the
    /// Docker socket, else Podman's.
    pub address: Option<String>,
    /// Absent: in clear, except at an `https` address.
    pub tls: Option<EngineTls>,
    /// Another machine may be spoken to in clear.
    pub insecure: bool,
}

impl From<&str> for DockerAddress {
    fn from(address: &str) -> Self {
        Self { address: Some(address.to_owned()), ..Self::default() }
    }
}

/// How an engine is spoken to over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineTls {
    /// The authorities that may vouch for it; absent: those that this machine trusts.
    pub roots: Option<Pem>,
    /// Our own certificate with its chain, and its key.
    pub client: Option<(Pem, Pem)>,
}

impl EngineTls {
    /// The files of a directory as Docker's own client names them.
    pub fn directory(path: &Path) -> Self {
        let file = |name| Pem::File(path.join(name));
        Self { roots: Some(file("ca.pem")), client: Some((file("cert.pem"), file("key.pem"))) }
    }
}

/// Certificates or a key as PEM.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// In this file.
    File(PathBuf),
    /// Itself.
    Text(String),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text(…)"),
        }
    }
}
