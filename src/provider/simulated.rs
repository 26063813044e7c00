//! An engine in memory, for tests, the examples and trying things out.
//!
//! Tests hold a clone of the handle and drive the engine while the provider is in use: they script how units
//! behave, act as another hand, take the engine away, and read which calls it got. It needs no socket and works
//! under a paused clock. An order goes on to its end when the caller stops waiting for it, as with a real engine.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use tokio::time::{sleep, timeout};

use super::{
    Changed, Hint, Provider, ProviderError, StopOrder, deadlines,
    simulated_script::{Call, Script},
    simulated_world::World,
};
use crate::model::{Container, ContainerState, NodeName, SleepMethod, Unit};

const ENGINE: &str = "simulated";

/// A simulated engine. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Simulated {
    node: NodeName,
    world: Arc<World>,
}

impl Simulated {
    /// An engine without units.
    pub fn new(node: NodeName) -> Self {
        Self { node, world: Arc::new(World::new()) }
    }

    /// Adds a unit that is down. One of the same name is replaced, as when it is created anew with a new id.
    pub fn add(&self, name: &str, script: Script) {
        self.world.memory().add(&self.node, name, script);
        self.world.change(name, "create", |_| ());
    }

    /// Changes how a unit behaves from now on.
    pub fn script(&self, name: &str, change: impl FnOnce(&mut Script)) {
        if let Some(unit) = self.world.memory().units.get_mut(name) {
            change(&mut unit.script);
        }
    }

    /// Changes the facts of a unit, such as its labels and ports.
    pub fn facts(&self, name: &str, change: impl FnOnce(&mut Container)) {
        self.world.change(name, "update", |unit| change(&mut unit.facts));
    }

    /// Another hand starts it, at once.
    pub fn hand_start(&self, name: &str) {
        let is_down = self.world.memory().units.get(name).is_some_and(|unit| unit.is_down());
        if is_down {
            self.world.bring_up(name);
        } else {
            self.world.change(name, "unpause", |unit| unit.thaw());
        }
    }

    /// Another hand ends it, or it dies, at once, with this code.
    pub fn hand_stop(&self, name: &str, exit_code: i64) {
        self.world.bring_down(name, Some(exit_code), None);
    }

    /// Another hand freezes it.
    pub fn hand_pause(&self, name: &str) {
        self.world.change(name, "pause", |unit| unit.freeze());
    }

    /// Another hand restarts it.
    pub fn hand_restart(&self, name: &str) {
        self.world.bring_down(name, Some(0), None);
        self.world.bring_up(name);
    }

    /// Another hand sends it a signal that does not end it.
    pub fn hand_signal(&self, name: &str) {
        self.world.change(name, "kill", |_| ());
    }

    /// Another hand removes it.
    pub fn hand_remove(&self, name: &str) {
        self.world.bring_down(name, Some(137), None);
        self.world.change(name, "destroy", |_| ());
        self.world.memory().units.remove(name);
    }

    /// The engine goes away; its units go on as they are.
    pub fn go_away(&self, reason: &str) {
        self.world.set_away(Some(reason.to_owned()));
    }

    /// The engine comes back.
    pub fn come_back(&self) {
        self.world.set_away(None);
    }

    /// From now on (or no longer) the engine answers nothing at all, and every call runs into its deadline.
    pub fn set_hanging(&self, hangs: bool) {
        self.world.memory().hangs = hangs;
    }

    /// From now on (or no longer) events are lost.
    pub fn set_losing_events(&self, loses: bool) {
        self.world.memory().loses_events = loses;
    }

    /// All calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.world.memory().calls.clone()
    }

    /// How often a start of this unit was asked for.
    pub fn start_calls(&self, name: &str) -> usize {
        self.count(|call| matches!(call, Call::Start(unit) if unit == name))
    }

    /// How often a stop of this unit was asked for, in any way.
    pub fn stop_calls(&self, name: &str) -> usize {
        self.count(|call| matches!(call, Call::Stop(unit, _) if unit == name))
    }

    /// How often this unit came up, whoever asked; thawing does not count.
    pub fn runs(&self, name: &str) -> u64 {
        self.world.memory().units.get(name).map_or(0, |unit| unit.runs)
    }

    /// What a unit does now, without a call to the engine.
    pub fn state(&self, name: &str) -> ContainerState {
        self.world.memory().units.get(name).map_or(ContainerState::Gone, |unit| unit.facts.state.clone())
    }

    fn count(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        self.world.memory().calls.iter().filter(|call| wanted(call)).count()
    }

    /// Ends when the unit does not run any more.
    async fn until_down(&self, name: &str) {
        let mut hints = self.world.hints.listen(Hint::All);
        while !matches!(self.state(name), ContainerState::Stopped { .. } | ContainerState::Gone) {
            hints.next().await;
        }
    }

    /// Notes the call; an absent engine fails it, a hanging one never answers.
    async fn answer<T>(
        &self,
        call: Call,
        deadline: Duration,
        work: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        self.world.memory().calls.push(call);
        let answered = async {
            self.present()?;
            let hangs = self.world.memory().hangs;
            if hangs {
                std::future::pending::<()>().await;
            }
            let answer = work.await;
            self.present()?;
            answer
        };
        let late = |_| ProviderError::TimedOut { engine: ENGINE.to_owned(), after: deadline };
        timeout(deadline, answered).await.map_err(late)?
    }

    /// Never comes back where the script says so. Other orders to the unit are carried out meanwhile.
    async fn hang_if(&self, name: &str, hangs: impl Fn(&Script) -> bool) {
        let hangs = self.world.memory().units.get(name).is_some_and(|unit| hangs(&unit.script));
        if hangs {
            std::future::pending::<()>().await;
        }
    }

    fn present(&self) -> Result<(), ProviderError> {
        match &self.world.memory().away {
            Some(reason) => Err(ProviderError::Away { engine: ENGINE.to_owned(), source: reason.clone().into() }),
            None => Ok(()),
        }
    }

    /// Carries the order out after those before it, in a task of its own, so that it ends also when nobody waits.
    async fn in_turn<F>(&self, name: &str, order: F) -> Result<Changed, ProviderError>
    where
        F: Future<Output = Result<Changed, ProviderError>> + Send + 'static,
    {
        let no_such = || ProviderError::NoSuchUnit { unit: name.to_owned() };
        let turn = self.world.memory().units.get(name).map(|unit| Arc::clone(&unit.turn)).ok_or_else(no_such)?;
        let task = tokio::spawn(async move {
            let _turn = turn.lock().await;
            order.await
        });
        task.await.map_err(|error| ProviderError::Nonsense { engine: ENGINE.to_owned(), reason: error.to_string() })?
    }
}

impl Provider for Simulated {
    fn may_own(&self, _unit: &Unit, _port: u16) -> bool {
        true
    }

    /// Whatever runs uses the same.
    fn memory<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Option<u64>> {
        Box::pin(async {
            let runs = matches!(self.look(unit).await, Ok(ContainerState::Running(_) | ContainerState::Paused(_)));
            runs.then_some(64 << 20)
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Container>, ProviderError>> {
        let work = async { Ok(self.world.memory().units.values().map(|unit| unit.facts.clone()).collect()) };
        Box::pin(self.answer(Call::List, deadlines::LOOK, work))
    }

    fn look<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Result<ContainerState, ProviderError>> {
        let work = async { Ok(self.state(&unit.name)) };
        Box::pin(self.answer(Call::Look(unit.name.clone()), deadlines::LOOK, work))
    }

    fn start<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Result<Changed, ProviderError>> {
        let work = async {
            let answer = self.in_turn(&unit.name, start(Arc::clone(&self.world), unit.name.clone())).await;
            self.hang_if(&unit.name, |script| script.start_hangs).await;
            answer
        };
        Box::pin(self.answer(Call::Start(unit.name.clone()), deadlines::START, work))
    }

    fn stop<'a>(&'a self, unit: &'a Unit, order: StopOrder) -> BoxFuture<'a, Result<Changed, ProviderError>> {
        let deadline = match order.method {
            SleepMethod::Stop => deadlines::stop(order.grace),
            SleepMethod::Pause | SleepMethod::Kill => deadlines::FREEZE,
        };
        let work = async move {
            self.hang_if(&unit.name, |script| script.stop_hangs).await;
            self.in_turn(&unit.name, stop(Arc::clone(&self.world), unit.name.clone(), order)).await
        };
        Box::pin(self.answer(Call::Stop(unit.name.clone(), order.method), deadline, work))
    }

    fn events(&self) -> BoxStream<'static, Hint> {
        let memory = self.world.memory();
        let first = memory.away.clone().map_or(Hint::All, Hint::Away);
        self.world.hints.listen(first)
    }

    fn log_file(&self, _: &Unit) -> Option<std::path::PathBuf> {
        None
    }

    fn log_lines<'a>(&'a self, unit: &'a Unit) -> BoxStream<'a, String> {
        let log = self.world.memory().units.get(&unit.name).map(|unit| unit.script.log.clone());
        stream::iter(log.unwrap_or_default())
            .chain(stream::once(self.until_down(&unit.name)).filter_map(|()| async { None }))
            .boxed()
    }
}

async fn start(world: Arc<World>, name: String) -> Result<Changed, ProviderError> {
    let (state, script) = seen(&world, &name)?;
    match state {
        ContainerState::Running(_) => return Ok(Changed::Already),
        ContainerState::Paused(_) => {
            sleep(script.thaw_delay).await;
            world.change(&name, "unpause", |unit| unit.thaw());
            return Ok(Changed::Done);
        }
        ContainerState::Stopped { .. } | ContainerState::Changing | ContainerState::Gone => {}
    }
    sleep(script.start_delay).await;
    if let Some(reason) = script.start_fails {
        world.bring_down(&name, Some(128), Some(reason.clone()));
        return Err(ProviderError::Refused { verb: "start", unit: name, reason });
    }
    world.bring_up(&name);
    Ok(Changed::Done)
}

async fn stop(world: Arc<World>, name: String, order: StopOrder) -> Result<Changed, ProviderError> {
    let (state, script) = seen(&world, &name)?;
    let is_paused = match state {
        ContainerState::Stopped { .. } | ContainerState::Gone => return Ok(Changed::Already),
        ContainerState::Paused(_) => true,
        ContainerState::Running(_) | ContainerState::Changing => false,
    };
    match order.method {
        SleepMethod::Pause if is_paused => return Ok(Changed::Already),
        SleepMethod::Pause => {
            sleep(script.pause_delay).await;
            world.change(&name, "pause", |unit| unit.freeze());
        }
        SleepMethod::Kill => world.bring_down(&name, Some(137), None),
        SleepMethod::Stop => {
            if is_paused {
                sleep(script.thaw_delay).await;
                world.change(&name, "unpause", |unit| unit.thaw());
            }
            end(&world, &name, order.grace).await;
        }
    }
    Ok(Changed::Done)
}

async fn end(world: &World, name: &str, grace: Duration) {
    if let Some((run, (delay, exit_code))) = world.change(name, "kill", |unit| (unit.run(), unit.ending(grace))) {
        sleep(delay).await;
        world.die(name, &run, exit_code);
    }
}

fn seen(world: &World, name: &str) -> Result<(ContainerState, Script), ProviderError> {
    let memory = world.memory();
    let unit = memory.units.get(name).ok_or_else(|| ProviderError::NoSuchUnit { unit: name.to_owned() })?;
    Ok((unit.facts.state.clone(), unit.script.clone()))
}
