//! Docker-compatible engines: Docker Engine 20.10 and newer, and Podman's socket.
//!
//! What always holds, beside the promises of every provider:
//! - Connecting is lazy: an engine that is away when Dormouse starts is asked again later.
//! - What the engine's status codes leave open is decided by looking at the container afterwards.
//! - A paused container is thawed before it is stopped, for a frozen one does not see its signal.
//! - An order goes on to its end when its caller stops waiting for it.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    Changed, Hint, Provider, ProviderError, StopOrder,
    deadlines::{self, detached, within},
    docker_client::{Answer, Client, Version, escape},
    docker_events, docker_logs, docker_memory, docker_namespace,
    docker_place::{BadPlace, Place},
    docker_translate::{self as translate, View},
};
use crate::model::{Container, ContainerState, DockerAddress, Namespace, NodeName, SleepMethod, StopSignal, Unit};

/// Containers inspected at once for a list.
const LOOKS_AT_ONCE: usize = 8;

/// The engine's own idea of a state may lag behind an order that it has just carried out; so long it is asked again.
const LAG: Duration = Duration::from_secs(5);
const LAG_PAUSE: Duration = Duration::from_millis(20);

/// Within this time an engine has noticed that the first process of a container has ended.
const END_TOLD: Duration = Duration::from_millis(300);

/// Since this version (Docker Engine 23) the engine's stop takes a signal.
const STOP_TAKES_SIGNAL: Version = Version(1, 42);

/// A Docker-compatible engine. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Docker {
    node: NodeName,
    client: Arc<Client>,
    /// The container that we ourselves run in.
    own: Option<Arc<str>>,
    own_networks: Arc<Mutex<Option<Vec<String>>>>,
    /// What was paused when it was looked at last, by name: it is thawed by one call.
    paused: Arc<Mutex<HashSet<String>>>,
}

impl Docker {
    /// The engine there. What TLS needs is read; does not connect yet.
    pub fn connect(node: NodeName, at: &DockerAddress) -> Result<Self, BadPlace> {
        Ok(Self::at(node, Place::find(at)?))
    }

    /// As [`Self::connect`]; where it is reached by logins (`ssh://`), one serves many connections. Its socket is in this
    /// directory, which is made where there is need.
    pub fn connect_sharing(node: NodeName, at: &DockerAddress, logins: &Path) -> Result<Self, BadPlace> {
        let mut place = Place::find(at)?;
        place.share_logins_in(logins);
        Ok(Self::at(node, place))
    }

    fn at(node: NodeName, place: Place) -> Self {
        Self {
            node,
            client: Arc::new(Client::new(place)),
            own: None,
            own_networks: Arc::default(),
            paused: Arc::default(),
        }
    }

    /// Whether anybody between us and another machine may read and change what is said.
    pub fn is_insecure(&self) -> bool {
        self.client.is_insecure()
    }

    /// Dormouse itself runs in this container of the same engine, so that a network shared with it is dialled first.
    pub fn living_in(self, container: &str) -> Self {
        Self { own: Some(container.into()), ..self }
    }

    /// Its address.
    pub fn address(&self) -> String {
        self.client.engine()
    }

    async fn post(&self, unit: &str, verb: &str, deadline: Duration) -> Result<Answer, ProviderError> {
        let (name, query) = (escape(unit), verb);
        let answer = self.client.call(Method::POST, &format!("/containers/{name}/{query}"), deadline).await?;
        if answer.status == StatusCode::NOT_FOUND && answer.words().to_ascii_lowercase().contains("no such container") {
            return Err(ProviderError::NoSuchUnit { unit: unit.to_owned() });
        }
        Ok(answer)
    }

    /// The engine's own description; absent: no such container.
    async fn inspect(&self, unit: &str) -> Result<Option<Value>, ProviderError> {
        let path = format!("/containers/{}/json", escape(unit));
        let answer = self.client.call(Method::GET, &path, deadlines::LOOK).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let object = answer.json().filter(Value::is_object);
                object.map(Some).ok_or_else(|| self.client.nonsense("the description of a container is no object"))
            }
            _ => Err(ProviderError::Refused { verb: "inspect", unit: unit.to_owned(), reason: answer.words() }),
        }
    }

    /// Where we look from. Our own networks are asked for once, and again with each list.
    async fn view(&self, again: bool) -> Result<View, ProviderError> {
        let mut own_networks = self.own_networks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(own) = &self.own
            && (again || own_networks.is_none())
        {
            let found = self.inspect(own).await?.map(|object| translate::networks(&object));
            let names: Vec<_> = found.into_iter().flatten().map(|network| network.name).collect();
            own_networks = Some(names.clone());
            *self.own_networks.lock().unwrap_or_else(PoisonError::into_inner) = Some(names);
        }
        let machine = self.client.machine();
        Ok(View { node: self.node.clone(), machine, own_networks: own_networks.unwrap_or_default() })
    }

    /// The description of the container whose network this one shares.
    async fn host(&self, object: &Value) -> Result<Option<Value>, ProviderError> {
        match translate::host_of(object) {
            Some(host) => self.inspect(host).await,
            None => Ok(None),
        }
    }

    async fn state(&self, unit: &Unit) -> Result<ContainerState, ProviderError> {
        let Some(object) = self.inspect(&unit.name).await? else {
            self.remember(unit, &ContainerState::Gone);
            return Ok(ContainerState::Gone);
        };
        let host = self.host(&object).await?;
        let view = self.view(false).await?;
        let mut state = translate::state(&object, &view, unit.network.as_deref(), host.as_ref());
        self.lead_inside(&mut state, &object, host.as_ref(), &view).await?;
        self.remember(unit, &state);
        Ok(state)
    }

    fn remember(&self, unit: &Unit, state: &ContainerState) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(state, ContainerState::Paused(_)) {
            paused.insert(unit.name.clone());
        } else {
            paused.remove(&unit.name);
        }
    }

    /// Whether it was paused; asked for a start, after which nothing is known.
    fn was_paused(&self, unit: &Unit) -> bool {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).remove(&unit.name)
    }

    async fn container(&self, id: &str, view: &View) -> Result<Option<Container>, ProviderError> {
        let Some(object) = self.inspect(id).await? else { return Ok(None) };
        let host = self.host(&object).await?;
        let Some(mut container) = translate::container(&object, view, None, host.as_ref()) else { return Ok(None) };
        self.lead_inside(&mut container.state, &object, host.as_ref(), view).await?;
        Ok(Some(container))
    }

    /// Finds the way to one of this machine that is on no network. Where there is none, the engine may only not have
    /// noticed yet that it has ended: it is asked again for a while.
    async fn lead_inside(
        &self,
        state: &mut ContainerState,
        object: &Value,
        host: Option<&Value>,
        view: &View,
    ) -> Result<(), ProviderError> {
        let (ContainerState::Running(at) | ContainerState::Paused(at)) = state else { return Ok(()) };
        let Some(pid) = translate::isolated(object, host).filter(|_| view.machine.is_loopback()) else { return Ok(()) };
        let id = translate::text(object, "/Id");
        let until = Instant::now() + END_TOLD;
        loop {
            let found = docker_namespace::find(Path::new(docker_namespace::PROCESSES), pid, id);
            if matches!(found, Namespace::Of(_)) || Instant::now() > until {
                at.namespace = Some(found);
                return Ok(());
            }
            sleep(LAG_PAUSE).await;
            let again = self.inspect(id).await?;
            if again.is_none_or(|again| translate::isolated(&again, host) != Some(pid)) {
                *state = ContainerState::Changing;
                return Ok(());
            }
        }
    }

    async fn all(&self) -> Result<Vec<Container>, ProviderError> {
        let answer = self.client.call(Method::GET, "/containers/json?all=1", deadlines::LOOK).await?;
        let listed = answer.json().filter(|_| answer.status.is_success());
        let Some(Value::Array(listed)) = listed else {
            return Err(self.client.nonsense(&format!("the list of containers: {}", answer.words())));
        };
        let view = self.view(true).await?;
        let ids: Vec<_> = listed.iter().map(|entry| translate::text(entry, "/Id").to_owned()).collect();
        let mut looks = stream::iter(ids)
            .map(|id| {
                let view = &view;
                async move { self.container(&id, view).await }
            })
            .buffered(LOOKS_AT_ONCE);
        let mut found = Vec::with_capacity(listed.len());
        while let Some(container) = looks.next().await {
            // One that was removed meanwhile is just not there.
            found.extend(container?);
        }
        Ok(found)
    }

    async fn bring_up(&self, unit: Unit) -> Result<Changed, ProviderError> {
        // What fails here may be neither paused nor there: the way of all others tells.
        if self.was_paused(&unit) && self.post(&unit.name, "unpause", deadlines::FREEZE).await?.status.is_success() {
            return Ok(Changed::Done);
        }
        let answer = self.post(&unit.name, "start", deadlines::START).await?;
        match answer.status {
            StatusCode::NOT_MODIFIED => return Ok(Changed::Already),
            status if status.is_success() => return Ok(Changed::Done),
            _ => {}
        }
        match self.state(&unit).await? {
            ContainerState::Paused(_) => self.thaw(&unit).await,
            ContainerState::Running(_) => Ok(Changed::Already),
            ContainerState::Gone => Err(ProviderError::NoSuchUnit { unit: unit.name }),
            ContainerState::Stopped { .. } | ContainerState::Changing => Err(refused("start", &unit, &answer)),
        }
    }

    async fn thaw(&self, unit: &Unit) -> Result<Changed, ProviderError> {
        let answer = self.post(&unit.name, "unpause", deadlines::FREEZE).await?;
        if answer.status.is_success() {
            return Ok(Changed::Done);
        }
        match self.state(unit).await? {
            ContainerState::Running(_) => Ok(Changed::Already),
            ContainerState::Gone => Err(ProviderError::NoSuchUnit { unit: unit.name.clone() }),
            ContainerState::Paused(_) | ContainerState::Stopped { .. } | ContainerState::Changing => {
                Err(refused("thaw", unit, &answer))
            }
        }
    }

    async fn let_down(&self, unit: Unit, order: StopOrder) -> Result<Changed, ProviderError> {
        let found = self.inspect(&unit.name).await?;
        let object = found.ok_or_else(|| ProviderError::NoSuchUnit { unit: unit.name.clone() })?;
        let view = self.view(false).await?;
        let is_paused = match translate::state(&object, &view, None, None) {
            ContainerState::Stopped { .. } | ContainerState::Gone => return Ok(Changed::Already),
            ContainerState::Paused(_) => true,
            ContainerState::Running(_) | ContainerState::Changing => false,
        };
        match order.method {
            SleepMethod::Pause if is_paused => Ok(Changed::Already),
            SleepMethod::Pause => self.freeze(&unit).await,
            SleepMethod::Kill => self.kill(&unit).await,
            SleepMethod::Stop => {
                if is_paused {
                    self.thaw(&unit).await?;
                }
                match other_signal(&object, order.signal) {
                    Some(signal) if !self.client.speaks(STOP_TAKES_SIGNAL) => {
                        self.signal_and_wait(&unit, &object, signal, order.grace).await?;
                        self.end(&unit, None, Duration::ZERO).await.map(|_| Changed::Done)
                    }
                    signal => self.end(&unit, signal, order.grace).await,
                }
            }
        }
    }

    /// The engine's own stop: its signal, the grace time, then the kill.
    async fn end(&self, unit: &Unit, signal: Option<StopSignal>, grace: Duration) -> Result<Changed, ProviderError> {
        let seconds = grace.as_millis().div_ceil(1000);
        let signal = signal.map(|signal| format!("&signal={}", signal.number())).unwrap_or_default();
        let verb = format!("stop?t={seconds}{signal}");
        let answer = self.post(&unit.name, &verb, deadlines::stop(grace)).await?;
        match answer.status {
            StatusCode::NOT_MODIFIED => Ok(Changed::Already),
            status if status.is_success() => Ok(Changed::Done),
            _ => self.down_all_the_same("stop", unit, &answer).await,
        }
    }

    /// The engine's kill also tells it not to start the container again by its restart policy.
    async fn kill(&self, unit: &Unit) -> Result<Changed, ProviderError> {
        let answer = self.post(&unit.name, "kill?signal=KILL", deadlines::FREEZE).await?;
        if !answer.status.is_success() {
            return self.down_all_the_same("kill", unit, &answer).await;
        }
        self.post(&unit.name, "wait?condition=not-running", deadlines::FREEZE).await?;
        Ok(Changed::Done)
    }

    /// Sends a signal other than the container's own, and waits for the grace time at most. An engine so old that
    /// its stop takes no signal may start a container with a restart policy once more meanwhile; the stop that
    /// follows ends that too.
    async fn signal_and_wait(
        &self,
        unit: &Unit,
        before: &Value,
        signal: StopSignal,
        grace: Duration,
    ) -> Result<(), ProviderError> {
        let verb = format!("kill?signal={}", signal.number());
        let answer = self.post(&unit.name, &verb, deadlines::FREEZE).await?;
        if !answer.status.is_success() {
            return self.down_all_the_same("stop", unit, &answer).await.map(drop);
        }
        let run = |object: &Value| translate::text(object, "/State/StartedAt").to_owned();
        let until = Instant::now() + grace;
        while Instant::now() < until {
            let found = self.inspect(&unit.name).await?;
            // It has ended, also when it runs anew by now. "Paused" may be the engine's memory of before the thaw.
            let same_run = found.is_some_and(|found| {
                matches!(translate::text(&found, "/State/Status"), "running" | "paused") && run(&found) == run(before)
            });
            if !same_run {
                break;
            }
            sleep(LAG_PAUSE).await;
        }
        Ok(())
    }

    /// After an unpause the engine may hold the container for paused for a moment yet, and refuse.
    async fn freeze(&self, unit: &Unit) -> Result<Changed, ProviderError> {
        let until = Instant::now() + LAG;
        loop {
            let answer = self.post(&unit.name, "pause", deadlines::FREEZE).await?;
            if answer.status.is_success() {
                self.paused.lock().unwrap_or_else(PoisonError::into_inner).insert(unit.name.clone());
                return Ok(Changed::Done);
            }
            match self.state(unit).await? {
                ContainerState::Paused(_) | ContainerState::Stopped { .. } => return Ok(Changed::Already),
                ContainerState::Gone => return Err(ProviderError::NoSuchUnit { unit: unit.name.clone() }),
                ContainerState::Running(_) | ContainerState::Changing if Instant::now() > until => {
                    return Err(refused("pause", unit, &answer));
                }
                ContainerState::Running(_) | ContainerState::Changing => sleep(LAG_PAUSE).await,
            }
        }
    }

    /// The engine refused to let it down: was that because it is down?
    async fn down_all_the_same(
        &self,
        verb: &'static str,
        unit: &Unit,
        answer: &Answer,
    ) -> Result<Changed, ProviderError> {
        match self.state(unit).await? {
            ContainerState::Stopped { .. } => Ok(Changed::Already),
            ContainerState::Gone => Err(ProviderError::NoSuchUnit { unit: unit.name.clone() }),
            ContainerState::Running(_) | ContainerState::Paused(_) | ContainerState::Changing => {
                Err(refused(verb, unit, answer))
            }
        }
    }

    async fn log(&self, unit: &Unit) -> Result<BoxStream<'static, String>, ProviderError> {
        let Some(object) = self.inspect(&unit.name).await? else { return Ok(stream::empty().boxed()) };
        let since = translate::log_begin(&object);
        let path = format!(
            "/containers/{}/logs?follow=1&stdout=1&stderr=1&since={}.{:09}",
            escape(&unit.name),
            since / 1_000_000_000,
            since % 1_000_000_000,
        );
        let has_terminal = object.pointer("/Config/Tty").and_then(Value::as_bool).unwrap_or(false);
        let body = self.client.stream(&path, deadlines::LOOK).await?;
        Ok(docker_logs::lines(body, has_terminal).boxed())
    }
}

impl Provider for Docker {
    /// A container has an address of its own, or a port that its engine keeps for it.
    fn may_own(&self, _unit: &Unit, _port: u16) -> bool {
        true
    }

    fn memory<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Option<u64>> {
        Box::pin(docker_memory::used(&self.client, &unit.name))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Container>, ProviderError>> {
        Box::pin(async { within(&self.client.engine(), deadlines::LOOK, self.all()).await })
    }

    fn look<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Result<ContainerState, ProviderError>> {
        Box::pin(async { within(&self.client.engine(), deadlines::LOOK, self.state(unit)).await })
    }

    fn start<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Result<Changed, ProviderError>> {
        let (engine, unit) = (self.clone(), unit.clone());
        Box::pin(async move {
            let name = engine.address();
            detached(&name, deadlines::START, async move { engine.bring_up(unit).await }).await
        })
    }

    fn stop<'a>(&'a self, unit: &'a Unit, order: StopOrder) -> BoxFuture<'a, Result<Changed, ProviderError>> {
        let (engine, unit) = (self.clone(), unit.clone());
        Box::pin(async move {
            let name = engine.address();
            detached(&name, deadlines::stop(order.grace), async move { engine.let_down(unit, order).await }).await
        })
    }

    fn events(&self) -> BoxStream<'static, Hint> {
        docker_events::listen(Arc::clone(&self.client))
    }

    fn log_file(&self, _: &Unit) -> Option<std::path::PathBuf> {
        None
    }

    fn log_lines<'a>(&'a self, unit: &'a Unit) -> BoxStream<'a, String> {
        let open = async move {
            self.log(unit).await.unwrap_or_else(|error| {
                tracing::warn!(unit = unit.name, %error, "the log of a container cannot be followed");
                stream::empty().boxed()
            })
        };
        stream::once(open).flatten().boxed()
    }
}

/// The signal of an order, where it is not the container's own anyway.
fn other_signal(object: &Value, wanted: Option<StopSignal>) -> Option<StopSignal> {
    let own = translate::stop_signal(object).parse::<StopSignal>().ok();
    wanted.filter(|wanted| Some(*wanted) != own)
}

fn refused(verb: &'static str, unit: &Unit, answer: &Answer) -> ProviderError {
    ProviderError::Refused { verb, unit: unit.name.clone(), reason: answer.words() }
}
