//! The memory of the simulated engine: units and their states, changed in one step each.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    Hint,
    hints::Hints,
    simulated_script::{Call, Inhabitant, Script},
};
use crate::model::{Container, ContainerState, NodeName, Running};

/// All that a simulated engine knows; the lock is held for single steps only, never across an await.
#[derive(Debug)]
pub(super) struct World {
    memory: Mutex<Memory>,
    pub(super) hints: Hints,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) units: BTreeMap<String, SimulatedUnit>,
    pub(super) calls: Vec<Call>,
    pub(super) away: Option<String>,
    pub(super) hangs: bool,
    pub(super) loses_events: bool,
    ids: u64,
}

/// One run of one unit: the engine's id, and which run it is. A late death of an old run ends no other.
pub(super) type Run = (String, u64);

pub(super) struct SimulatedUnit {
    pub(super) facts: Container,
    pub(super) script: Script,
    /// Orders to one unit are carried out one after the other, as engines do.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Runs so far.
    pub(super) runs: u64,
    inhabitant: Option<Inhabitant>,
}

impl std::fmt::Debug for SimulatedUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedUnit")
            .field("state", &self.facts.state)
            .field("runs", &self.runs)
            .finish_non_exhaustive()
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self { memory: Mutex::default(), hints: Hints::new() }
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes one unit and tells the listeners with the engine's word, unless events are being lost.
    pub(super) fn change<T>(&self, name: &str, what: &str, act: impl FnOnce(&mut SimulatedUnit) -> T) -> Option<T> {
        let mut memory = self.memory();
        let done = act(memory.units.get_mut(name)?);
        if !memory.loses_events && memory.away.is_none() {
            self.hints.unit(name, what);
        }
        Some(done)
    }

    /// The unit comes up: a new run, with its inhabitant, and its death foreseen.
    pub(super) fn bring_up(self: &Arc<Self>, name: &str) {
        let fate = self.change(name, "start", |unit| {
            unit.come_up();
            (unit.run(), unit.script.exits_at_once, unit.script.dies_after)
        });
        let Some((run, at_once, later)) = fate else { return };
        if let Some(code) = at_once {
            self.die(name, &run, code);
        } else if let Some((after, code)) = later {
            let (world, name) = (Arc::clone(self), name.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                world.die(&name, &run, code);
            });
        }
    }

    /// Ends this run, unless it has ended before.
    pub(super) fn die(&self, name: &str, run: &Run, exit_code: i64) {
        let same_run = self.memory().units.get(name).is_some_and(|unit| unit.run() == *run && !unit.is_down());
        if same_run {
            self.bring_down(name, Some(exit_code), None);
        }
    }

    pub(super) fn bring_down(&self, name: &str, exit_code: Option<i64>, error: Option<String>) {
        self.change(name, "die", |unit| {
            unit.inhabitant = None;
            unit.leave_network();
            unit.facts.state = ContainerState::Stopped { exit_code, error };
        });
    }

    /// The engine goes away for this reason, or comes back.
    pub(super) fn set_away(&self, reason: Option<String>) {
        let mut memory = self.memory();
        self.hints.tell(match &reason {
            Some(reason) => Hint::Away(reason.clone()),
            None => Hint::All,
        });
        memory.away = reason;
    }
}

impl Memory {
    /// A new unit, down, that replaces one of the same name.
    pub(super) fn add(&mut self, node: &NodeName, name: &str, script: Script) {
        self.ids += 1;
        let facts = Container {
            id: format!("{:064x}", self.ids),
            image: "simulated".to_owned(),
            has_health_check: script.health.is_some(),
            ..Container::bare(node.clone(), name)
        };
        let unit = SimulatedUnit { facts, script, turn: Arc::default(), runs: 0, inhabitant: None };
        self.units.insert(name.to_owned(), unit);
    }
}

impl SimulatedUnit {
    pub(super) fn run(&self) -> Run {
        (self.facts.id.clone(), self.runs)
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.facts.state, ContainerState::Stopped { .. })
    }

    fn address(&self) -> IpAddr {
        let last = if self.script.address_changes { u8::try_from(self.runs % 250).unwrap_or(0) + 1 } else { 1 };
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
    }

    fn come_up(&mut self) {
        self.runs += 1;
        let address = self.address();
        self.facts.state = ContainerState::Running(Running {
            address: Some(address),
            health: self.script.health,
            ..Running::default()
        });
        for network in &mut self.facts.networks {
            network.address = Some(address);
        }
        self.inhabitant = self.script.inhabitant.as_ref().map(|move_in| move_in(address));
    }

    fn leave_network(&mut self) {
        for network in &mut self.facts.networks {
            network.address = None;
        }
    }

    pub(super) fn freeze(&mut self) {
        if let ContainerState::Running(how) = &self.facts.state {
            self.facts.state = ContainerState::Paused(how.clone());
        }
    }

    pub(super) fn thaw(&mut self) {
        if let ContainerState::Paused(how) = &self.facts.state {
            self.facts.state = ContainerState::Running(how.clone());
        }
    }

    /// How long it takes to end after its signal, and with which code: 137 when the grace time runs out.
    pub(super) fn ending(&self, grace: Duration) -> (Duration, i64) {
        if self.script.stop_delay > grace { (grace, 137) } else { (self.script.stop_delay, 0) }
    }
}
