//! Plain processes as an engine: our own children, known again after a crash of Dormouse.
//!
//! What always holds:
//! - A unit is one process group. Its leader must stay in the foreground: when the leader ends, the unit is down and
//!   the rest of its group is killed.
//! - It is known by process number, start time and boot, kept in a [`ProcessBook`], so it is never started twice: a
//!   Dormouse that comes after a crash adopts what still runs.
//! - Its state is read from the kernel when it is asked for, so that a `kill -STOP` by hand is seen too.
//! - An order goes on to its end when its caller stops waiting for it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::{
    future::{BoxFuture, join_all},
    stream::{self, BoxStream, StreamExt},
};
use tokio::time::timeout;

use super::{
    Changed, Hint, Provider, ProviderError, StopOrder,
    deadlines::{self, detached, within},
    hints::Hints,
    process_book::ProcessBook,
    process_log,
    process_surroundings::Surroundings,
    process_unit::ProcessUnit,
};
use crate::model::{Container, ContainerState, NodeName, Running, SleepMethod, StopSignal, Unit};

pub(super) const ENGINE: &str = "process";

/// How often the log of a running unit is looked at while somebody follows it.
const LOG_PAUSE: Duration = Duration::from_millis(20);

/// Runs commands as children. Units are known from the first time they are named.
#[derive(Debug)]
pub struct Process {
    node: NodeName,
    surroundings: Arc<Surroundings>,
    units: Mutex<BTreeMap<String, Arc<ProcessUnit>>>,
}

impl Process {
    /// Adopts what the book knows and still runs. Logs and birth notes live in `directory`, which is created where it
    /// is missing. Needs a runtime around it.
    pub fn open(node: NodeName, directory: PathBuf, book: Arc<dyn ProcessBook>) -> io::Result<Self> {
        let process = Self::waiting(node, directory, book)?;
        process.adopt()?;
        Ok(process)
    }

    /// As [`Self::open`], but nothing is touched before [`Self::adopt`]: another Dormouse still has the processes.
    pub fn waiting(node: NodeName, directory: PathBuf, book: Arc<dyn ProcessBook>) -> io::Result<Self> {
        let surroundings = Arc::new(Surroundings::new(directory, book, Hints::new())?);
        Ok(Self { node, surroundings, units: Mutex::default() })
    }

    /// Takes over what the book knows and still runs. To be called once.
    pub fn adopt(&self) -> io::Result<()> {
        for (name, identity) in self.surroundings.survivors()? {
            let unit = Arc::new(ProcessUnit::new(&name, Arc::clone(&self.surroundings)));
            unit.adopt(identity)?;
            self.units().insert(name, unit);
        }
        Ok(())
    }

    /// Gives all units to another Dormouse, or takes them back: meanwhile they are only looked at, through the book.
    pub fn give_away(&self, given: bool) -> io::Result<()> {
        self.surroundings.given.store(given, Ordering::Release);
        if given {
            return Ok(());
        }
        // Those who have ended meanwhile were not noted.
        let known: Vec<_> = self.units().values().cloned().collect();
        known.iter().for_each(|unit| unit.check());
        let fresh: Vec<_> = self.surroundings.survivors()?;
        for (name, identity) in fresh {
            let unit = Arc::clone(
                self.units()
                    .entry(name)
                    .or_insert_with_key(|name| Arc::new(ProcessUnit::new(name, Arc::clone(&self.surroundings)))),
            );
            if !unit.is(identity) {
                unit.adopt(identity)?;
            }
        }
        Ok(())
    }

    /// Ends all units, each with its group, and waits for it: the signal TERM, this grace time, then KILL.
    pub async fn end_all(&self, grace: Duration) {
        let units: Vec<_> = self.units().values().cloned().collect();
        let order = StopOrder { method: SleepMethod::Stop, signal: None::<StopSignal>, grace };
        let endings = units.iter().map(|unit| timeout(deadlines::stop(grace), unit.let_down(order)));
        for ending in join_all(endings).await {
            if let Ok(Err(error)) = ending {
                tracing::warn!(%error, "a process could not be ended");
            }
        }
    }

    fn units(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<ProcessUnit>>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unit of this name; one that comes with a command is known from now on.
    fn unit(&self, unit: &Unit) -> Option<Arc<ProcessUnit>> {
        let mut units = self.units();
        if let Some(known) = units.get(&unit.name) {
            return Some(Arc::clone(known));
        }
        unit.command.as_ref()?;
        let fresh = Arc::new(ProcessUnit::new(&unit.name, Arc::clone(&self.surroundings)));
        units.insert(unit.name.clone(), Arc::clone(&fresh));
        Some(fresh)
    }

    fn known(&self, unit: &Unit) -> Result<Arc<ProcessUnit>, ProviderError> {
        self.unit(unit).ok_or_else(|| ProviderError::NoSuchUnit { unit: unit.name.clone() })
    }

    fn facts(&self, name: &str, state: ContainerState) -> Container {
        Container { state, ..Container::bare(self.node.clone(), name) }
    }
}

impl Provider for Process {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Container>, ProviderError>> {
        Box::pin(within(ENGINE, deadlines::LOOK, async {
            let units: Vec<_> = self.units().values().cloned().collect();
            let mut found = Vec::with_capacity(units.len());
            for unit in units {
                found.push(self.facts(unit.name(), unit.state().await));
            }
            Ok(found)
        }))
    }

    fn look<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Result<ContainerState, ProviderError>> {
        Box::pin(within(ENGINE, deadlines::LOOK, async {
            if self.surroundings.given.load(Ordering::Acquire) {
                return Ok(self.surroundings.seen_from_afar(&unit.name));
            }
            match self.unit(unit) {
                Some(unit) => Ok(unit.state().await),
                None => Ok(ContainerState::Gone),
            }
        }))
    }

    fn start<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Result<Changed, ProviderError>> {
        Box::pin(async {
            let (known, command) = (self.known(unit)?, unit.command.clone());
            detached(ENGINE, deadlines::START, async move { known.bring_up(command).await }).await
        })
    }

    fn stop<'a>(&'a self, unit: &'a Unit, order: StopOrder) -> BoxFuture<'a, Result<Changed, ProviderError>> {
        Box::pin(async move {
            let known = self.known(unit)?;
            detached(ENGINE, deadlines::stop(order.grace), async move { known.let_down(order).await }).await
        })
    }

    fn events(&self) -> BoxStream<'static, Hint> {
        self.surroundings.hints.listen(Hint::All)
    }

    fn memory<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Option<u64>> {
        Box::pin(async { self.unit(unit)?.memory().await })
    }

    /// On the loopback all units are at one address: what listened before this one was started is another's.
    fn may_own(&self, unit: &Unit, port: u16) -> bool {
        self.unit(unit).is_none_or(|unit| unit.may_own(port))
    }

    fn log_file(&self, unit: &Unit) -> Option<PathBuf> {
        Some(process_log::path(&self.surroundings.directory, &unit.name)).filter(|path| path.exists())
    }

    fn log_lines<'a>(&'a self, unit: &'a Unit) -> BoxStream<'a, String> {
        let Some(unit) = self.unit(unit) else { return stream::empty().boxed() };
        let path = process_log::path(&self.surroundings.directory, unit.name());
        let reader = process_log::Reader::new(path, unit.log_begin());
        stream::unfold(Some((unit, reader)), |following| async {
            let (unit, mut reader) = following?;
            loop {
                let was_up = unit.is_up();
                let lines = reader.more().ok()?;
                if !lines.is_empty() {
                    return Some((stream::iter(lines), Some((unit, reader))));
                }
                if !was_up {
                    let rest = reader.rest();
                    let last = if rest.is_empty() { Vec::new() } else { vec![rest] };
                    return Some((stream::iter(last), None));
                }
                tokio::time::sleep(LOG_PAUSE).await;
            }
        })
        .flatten()
        .boxed()
    }
}

/// How a running process is reached: on loopback, and before anybody says it has started.
pub(super) fn reached() -> Running {
    Running { address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), host_network: true, ..Running::default() }
}
