//! Talk to what runs backends.
//!
//! A provider translates between one kind of engine and a few verbs: list, look, start, stop, events, log lines.
//! Nothing above this room asks which kind it is.
//!
//! What always holds:
//! - The engine is asked, never assumed: every answer is looked up when it is asked for.
//! - Events are hints, "look at this one again"; correctness never depends on one arriving.
//! - Every call ends within its own deadline, also when the engine hangs.
//! - Starting what runs and stopping what is stopped is no error but [`Changed::Already`].

mod children;
mod deadlines;
mod docker;
mod docker_client;
mod docker_events;
mod docker_inspect;
mod docker_logs;
mod docker_memory;
mod docker_namespace;
mod docker_own;
mod docker_place;
#[cfg(test)]
mod docker_samples;
mod docker_ssh;
mod docker_tls;
mod docker_translate;
mod docker_workshop;
mod error;
mod hints;
mod process;
mod process_book;
mod process_child;
mod process_group;
mod process_log;
mod process_memory;
mod process_os;
mod process_ports;
mod process_surroundings;
mod process_unit;
mod simulated;
mod simulated_script;
mod simulated_world;

pub use children::{reap_orphans, secret_variable, spawn, spawn_heir, still_secret};
pub use docker::Docker;
pub use docker_inspect::{BadInspect, parse_inspect};
pub use docker_own::own_container;
pub use docker_place::{BadPlace, check_docker};
pub use docker_workshop::Workshop;
pub use error::ProviderError;
pub use process::Process;
pub use process_book::{FileBook, ProcessBook, ProcessRecord};
pub use simulated::Simulated;
pub use simulated_script::{Call, Inhabitant, MoveIn, Script};

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{future::BoxFuture, stream::BoxStream};

use crate::model::{Container, ContainerState, SleepMethod, StopSignal, Unit};

/// Whether an order changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is done now.
    Done,
    /// It was so before.
    Already,
}

/// How to let a unit down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopOrder {
    /// Stop, pause or kill.
    pub method: SleepMethod,
    /// The signal of `Stop`; absent: the engine's own.
    pub signal: Option<StopSignal>,
    /// The grace time of `Stop`.
    pub grace: Duration,
}

/// Something may have changed: look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// At this unit, for this reason (the engine's own word for the event, such as `die` or `start`).
    Unit {
        /// The engine's name of the unit.
        name: String,
        /// The engine's word.
        what: String,
    },
    /// This unit has ended. Told beside the hint for the same event where the engine gives the exit code with it: the
    /// engine itself may take a while yet before it answers questions about a unit that ends.
    Ended {
        /// The engine's name of the unit.
        name: String,
        /// Its exit code.
        exit_code: i64,
    },
    /// At all of them: the stream of events was interrupted, or the engine came back.
    All,
    /// The engine can not be reached, with the reason. Another hint follows when it is back.
    Away(String),
}

/// One kind of engine, at one place.
pub trait Provider: Send + Sync + fmt::Debug {
    /// All units, running or not, with all facts. Fails as a whole.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Container>, ProviderError>>;

    /// What one unit does now. An unknown unit is `Ok(ContainerState::Gone)`.
    fn look<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Result<ContainerState, ProviderError>>;

    /// Brings it up: starts what is stopped, thaws what is paused. Returns when the engine has answered, which says
    /// nothing about readiness.
    fn start<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Result<Changed, ProviderError>>;

    /// Lets it down and returns when it is down. Stopping or killing a paused unit thaws it first, so that its
    /// signal handler runs.
    fn stop<'a>(&'a self, unit: &'a Unit, order: StopOrder) -> BoxFuture<'a, Result<Changed, ProviderError>>;

    /// Hints, for ever: reconnects by itself, with back-off, and says [`Hint::All`] after each (re)connect.
    fn events(&self) -> BoxStream<'static, Hint>;

    /// The memory that it uses now, in bytes; absent where its engine does not tell at once.
    fn memory<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Option<u64>>;

    /// Whether what accepts on this port of a running unit may be the unit itself. `false` only where it is known to be
    /// another's: then a connection proves nothing.
    fn may_own(&self, unit: &Unit, port: u16) -> bool;

    /// The lines of its log since its last start, then each new one; ends with the unit, or when the engine breaks off.
    fn log_lines<'a>(&'a self, unit: &'a Unit) -> BoxStream<'a, String>;

    /// The file of its log, where there is one that only Dormouse knows of.
    fn log_file(&self, unit: &Unit) -> Option<PathBuf>;
}

/// A provider as it is shared.
pub type SharedProvider = Arc<dyn Provider>;
