//! What a simulated unit does when it is asked to, and what it was asked.

use std::{any::Any, fmt, net::IpAddr, sync::Arc, time::Duration};

use crate::model::{Health, SleepMethod};

/// Something that lives while a simulated unit runs, such as a listening server; dropped when the unit is down.
pub type Inhabitant = Box<dyn Any + Send>;

/// Moves in when a simulated unit has started, at the address it has in this run.
pub type MoveIn = Arc<dyn Fn(IpAddr) -> Inhabitant + Send + Sync>;

/// How a simulated unit behaves. The default is a unit that does at once what it is asked.
#[derive(Clone, Default)]
pub struct Script {
    /// How long a start takes.
    pub start_delay: Duration,
    /// Every start fails, with these words of the engine.
    pub start_fails: Option<String>,
    /// It exits with this code in the moment it has started.
    pub exits_at_once: Option<i64>,
    /// It exits after so long, with this code.
    pub dies_after: Option<(Duration, i64)>,
    /// How long freezing takes.
    pub pause_delay: Duration,
    /// How long thawing takes.
    pub thaw_delay: Duration,
    /// How long it takes to end after the signal; no longer than the grace time, for then it is killed.
    pub stop_delay: Duration,
    /// The engine never answers a stop, and nothing comes of it.
    pub stop_hangs: bool,
    /// The engine never answers a start, though the unit comes up after `start_delay`.
    pub start_hangs: bool,
    /// Each start gives it the next address of 127.0.0.0/8.
    pub address_changes: bool,
    /// What its health check says while it runs.
    pub health: Option<Health>,
    /// What it writes to its log right after its start.
    pub log: Vec<String>,
    /// What lives in it while it runs.
    pub inhabitant: Option<MoveIn>,
}

/// One call that a simulated engine got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `list`.
    List,
    /// `look` at this unit.
    Look(String),
    /// `start` of this unit.
    Start(String),
    /// `stop` of this unit, in this way.
    Stop(String, SleepMethod),
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("start_delay", &self.start_delay)
            .field("start_fails", &self.start_fails)
            .field("exits_at_once", &self.exits_at_once)
            .field("dies_after", &self.dies_after)
            .field("stop_delay", &self.stop_delay)
            .field("inhabited", &self.inhabitant.is_some())
            .finish_non_exhaustive()
    }
}
