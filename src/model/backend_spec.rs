//! What a backend is meant to be: which unit of which engine, its idle policy, what it needs.

use std::{collections::BTreeMap, ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{BackendId, IdlePolicy};

/// A backend as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendSpec {
    /// Its name.
    pub id: BackendId,
    /// What the provider needs to know of it.
    pub unit: Unit,
    /// When and how it sleeps.
    pub policy: IdlePolicy,
    /// When it is ready after a start.
    pub ready: Readiness,
    /// The backend's own TCP ports that readiness looks at; the routes' endpoints. Empty: the engine's word suffices.
    pub ports: Vec<u16>,
    /// Backends that must be up before it, in the order written.
    pub depends_on: Vec<Dependency>,
    /// Who made it.
    pub provenance: Provenance,
}

/// Who made a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// Somebody else's container, found by its labels or ports.
    Discovered,
    /// Named in a file.
    Configured,
}

/// What a provider needs to know of a backend, beside the engine's own knowledge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The engine's name of it.
    pub name: String,
    /// The network whose address is dialled; absent: the provider chooses.
    pub network: Option<String>,
    /// The command of a plain process.
    pub command: Option<Command>,
}

/// A plain process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments; at least the program.
    pub argv: Vec<String>,
    /// Variables beside a minimal environment (`PATH`, `HOME`, `LANG`, `TZ`).
    pub env: BTreeMap<String, String>,
    /// The working directory; absent: that of Dormouse.
    pub directory: Option<PathBuf>,
    /// The user to become, by name or number; absent: that of Dormouse.
    pub user: Option<String>,
}

/// When a started backend is ready.
#[derive(Debug, Clone)]
pub enum Readiness {
    /// Its port accepts a connection.
    Tcp,
    /// A GET of this path answers with such a status.
    Http {
        /// The path, with a leading slash.
        path: String,
        /// The statuses that mean ready.
        status: RangeInclusive<u16>,
        /// The Host header; absent: the address.
        host: Option<String>,
    },
    /// The engine's own health check says healthy.
    Engine,
    /// Its log shows this pattern after the start.
    Log(regex::Regex),
    /// This command, run on the node of Dormouse, exits with 0.
    Command(Vec<String>),
    /// This long after the engine's answer.
    Delay(Duration),
}

impl PartialEq for Readiness {
    fn eq(&self, other: &Self) -> bool {
        // A pattern is its text.
        format!("{self:?}") == format!("{other:?}")
    }
}

/// A backend that another needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Which.
    pub on: BackendId,
    /// What it must have reached.
    pub condition: Condition,
}

/// What a dependency must have reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Its start call answered and its own readiness holds.
    Started,
    /// Its engine's health check says healthy, or, where it has none, its own readiness holds.
    Healthy,
    /// It has run to its end with exit code 0, once: it is a job, and not needed while others run.
    Completed,
}
