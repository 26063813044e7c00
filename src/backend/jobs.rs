//! What the driver has others do: engine calls, probes, dependencies. Each comes back as an event.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::{
    Backend,
    driver::{Done, Driver},
    once,
    pass::Pass,
    readiness::{self, Before},
    state::{Action, CallFailed, Event, Stage, State, Waking},
};
use crate::{
    model::{BackendId, Cause, Condition, ContainerState, Health, Running, SleepMethod, Unit, format_duration},
    provider::{Provider, ProviderError, StopOrder},
    telemetry::{Phases, chain},
};

/// What a backend used before its sleep is worth no longer wait: somebody may want it meanwhile.
const MEMORY: Duration = Duration::from_millis(500);

/// Before the time for a wake ends by this, any open port is taken for ready.
const LAST_CALL: Duration = Duration::from_secs(1);

/// So long a first port may stay closed on its own, where there is reason to doubt it.
const CLOSED_FOR: Duration = Duration::from_secs(10);

/// What those are told who wait for a job that a panic has ended.
const FAULT: &str = "a fault in Dormouse ended it, see its log";

impl Driver {
    /// Has this done beside the driver. Whatever becomes of it, something comes back: where a panic ends it, `fault`.
    pub(super) fn job(&mut self, fault: Done, work: impl Future<Output = Done> + Send + 'static) -> AbortHandle {
        let epoch = self.epoch;
        self.jobs.spawn(async move { (epoch, AssertUnwindSafe(work).catch_unwind().await.unwrap_or(fault)) })
    }

    /// `known` is how it is reached by the engine's word of this very moment.
    pub(super) fn act(&mut self, action: Action, known: Option<Arc<Running>>) {
        let (provider, spec) = (Arc::clone(&self.around.provider), Arc::clone(&self.spec));
        match action {
            Action::Gather => {
                self.epoch += 1;
                self.mark = Instant::now();
                self.phases = Phases::default();
                let (turns, gather) = (Arc::clone(&self.around.turns), self.gather(true));
                self.gathering = Some(self.job(Done::Gathered(Err(FAULT.into())), async move {
                    let gathered = async {
                        let passes = gather.await?;
                        let turn = turns.acquire_owned().await.map_err(|_| Arc::from("the program ends"))?;
                        Ok((passes, turn))
                    };
                    Done::Gathered(gathered.await)
                }));
            }
            Action::Start => {
                self.epoch += 1;
                self.start_told = false;
                self.mark = Instant::now();
                self.job(Done::Event(Event::Started(Err(faulty_call()))), async move {
                    let result = provider.start(&spec.unit).await;
                    Done::Event(Event::Started(result.map_err(|error| call_failed(&error))))
                });
                if self.port_may_open_early() {
                    self.probe(None);
                }
            }
            Action::Probe => {
                let known = known.or_else(|| self.frozen_at.take());
                self.probe(known);
            }
            Action::Stop(method) => {
                self.epoch += 1;
                self.mark = Instant::now();
                let order = StopOrder { method, signal: spec.policy.stop_signal, grace: spec.policy.stop_timeout };
                self.job(Done::LetDown(None, Event::Stopped(Err(faulty_call()))), async move {
                    // A pause gives nothing back.
                    let memory = match method {
                        SleepMethod::Pause => None,
                        SleepMethod::Stop | SleepMethod::Kill => memory(&*provider, &spec.unit).await,
                    };
                    let result = provider.stop(&spec.unit, order).await;
                    let stopped = Event::Stopped(result.map(|_| ()).map_err(|error| call_failed(&error)));
                    Done::LetDown(memory, stopped)
                });
            }
            Action::AskBusy => {
                // As any check that does not say that it is busy.
                self.job(Done::Event(Event::Busy(false)), async move {
                    let check = spec.policy.busy.as_deref().unwrap_or_default();
                    Done::Event(Event::Busy(readiness::is_busy(check).await))
                });
            }
            Action::Look => self.look(),
        }
    }

    /// Whether its port may open before the engine's start call answers, so that it is worth trying meanwhile. Not
    /// for what sits behind a bridge: a try before its network is up delays the first byte by a second.
    pub(super) fn port_may_open_early(&self) -> bool {
        self.spec.unit.command.is_some() && !self.thawing
    }

    pub(super) fn probe(&mut self, known: Option<Arc<Running>>) {
        if let Some(earlier) = self.probe.take() {
            earlier.abort();
        }
        let before = Before { thawed: self.thawing, known, others_from: self.others_from() };
        let (provider, spec) = (Arc::clone(&self.around.provider), Arc::clone(&self.spec));
        let (kick, attempts) = (Arc::clone(&self.kick), Arc::clone(&self.attempts));
        let early = matches!(self.state, State::Waking(Waking { stage: Stage::Starting(_), .. }));
        // The deadline of the wake holds all the same.
        self.probe = Some(self.job(Done::Event(Event::Seen(Err(FAULT.into()))), async move {
            loop {
                match readiness::until_ready(&*provider, &spec, &before, &kick, &attempts).await {
                    readiness::Outcome::Ready(at, by) => return Done::Ready(at, by),
                    // The start call has not answered: it is not up yet.
                    readiness::Outcome::Ended(_) if early => tokio::time::sleep(Duration::from_millis(1)).await,
                    readiness::Outcome::Ended(state) => return Done::Event(Event::Seen(Ok(state))),
                    readiness::Outcome::Barred(why) => return Done::Event(Event::Barred(why)),
                }
            }
        }));
    }

    /// The port that proves it ready, as far as is known.
    fn proof(&self) -> Option<u16> {
        let proven = self.proven.filter(|port| self.spec.ports.contains(port));
        proven.or(self.spec.ports.first().copied())
    }

    /// Its first port is waited for as long as a wake may take. What was found running, or has shown before that its
    /// first port stays closed, need not be waited for so long.
    fn others_from(&self) -> Instant {
        let now = Instant::now();
        let State::Waking(waking) = &self.state else { return now };
        let (Stage::Starting(end) | Stage::Probing(end)) = waking.stage else { return now };
        let last = end.checked_sub(LAST_CALL).unwrap_or(end);
        if waking.foreign || self.proof() != self.spec.ports.first().copied() {
            last.min(now + CLOSED_FOR)
        } else {
            last
        }
    }

    pub(super) fn look(&mut self) {
        if self.looking {
            self.look_again = true;
            return;
        }
        self.looking = true;
        let doubted = std::mem::take(&mut self.suspected);
        let proof = self.proof();
        let (provider, spec) = (Arc::clone(&self.around.provider), Arc::clone(&self.spec));
        self.job(Done::Event(Event::Seen(Err(FAULT.into()))), async move {
            let seen = provider.look(&spec.unit).await;
            if let (true, Ok(ContainerState::Running(at))) = (doubted, &seen)
                && !readiness::stands(&spec, at, proof).await
            {
                return Done::Event(Event::Unreachable(Arc::new(at.clone())));
            }
            Done::Event(Event::Seen(seen.map_err(|error| chain(&error).into())))
        });
    }

    /// A dependant waits for its end: it is run as a job, once, however many wait.
    pub(super) fn complete(&mut self, dependant: BackendId, reply: oneshot::Sender<Result<(), Arc<str>>>) {
        self.completions.push(reply);
        if self.completions.len() > 1 {
            return;
        }
        self.job_of = Some(dependant);
        let (turns, gather) = (Arc::clone(&self.around.turns), self.gather(true));
        let (provider, spec) = (Arc::clone(&self.around.provider), Arc::clone(&self.spec));
        self.job(Done::Completed(Err(FAULT.into())), async move {
            let run = async {
                let _needed = gather.await?;
                let _turn = turns.acquire_owned().await.map_err(|_| Arc::from("the program ends"))?;
                once::run(&*provider, &spec).await
            };
            Done::Completed(run.await)
        });
    }

    /// Enters all dependencies, in parallel. Before a start those that are jobs are run, and those that are to be healthy
    /// waited for.
    pub(super) fn gather(&self, starts: bool) -> impl Future<Output = Result<Vec<Pass>, Arc<str>>> + use<> {
        let id = self.spec.id.clone();
        let (ran, others): (Vec<_>, Vec<_>) =
            self.dependencies.clone().into_iter().partition(|(_, condition)| *condition == Condition::Completed);
        let dependant = id.clone();
        let ran = ran.into_iter().filter(move |_| starts).map(move |(backend, _)| (backend, dependant.clone()));
        let ran = ran.map(|(backend, dependant)| async move {
            backend.completed(dependant).await.map_err(|why| Arc::from(format!("`{}`: {why}", backend.id())))
        });
        let enter = others.into_iter().map(move |(backend, condition)| {
            let cause = Cause::Dependant(id.clone());
            async move {
                let pass = backend.enter(cause, Duration::from_secs(3600)).await;
                let pass = pass.map_err(|refused| Arc::from(format!("`{}`: {refused}", backend.id())))?;
                if starts && condition == Condition::Healthy {
                    until_healthy(&backend).await.map_err(|why| Arc::from(format!("`{}`: {why}", backend.id())))?;
                }
                Ok(pass)
            }
        });
        let (ran, entered) = (futures_util::future::try_join_all(ran), futures_util::future::try_join_all(enter));
        async move {
            let (entered, _) = futures_util::future::try_join(entered, ran).await?;
            Ok(entered)
        }
    }
}

/// Waits until the engine calls an awake backend healthy, where the engine checks it at all: at most as long as its own
/// wake may take.
async fn until_healthy(backend: &Backend) -> Result<(), String> {
    let patience = backend.policy().wake_timeout;
    let healthy = async {
        loop {
            let reach = backend.shared.reach.load_full().ok_or("it ended before it was healthy")?;
            match reach.at.health {
                None | Some(Health::Healthy) => return Ok(()),
                Some(Health::Starting | Health::Unhealthy) => {}
            }
            backend.hint().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let late = |_| format!("it was not healthy within {}", format_duration(patience));
    timeout(patience, healthy).await.map_err(late)?
}

/// The memory that it uses, if its engine tells soon. A fault in finding out costs no more than the answer.
async fn memory(provider: &dyn Provider, unit: &Unit) -> Option<u64> {
    let ask = async { provider.memory(unit).await };
    timeout(MEMORY, AssertUnwindSafe(ask).catch_unwind()).await.ok()?.ok()?
}

fn faulty_call() -> CallFailed {
    CallFailed { away: false, why: FAULT.into() }
}

fn call_failed(error: &ProviderError) -> CallFailed {
    CallFailed { away: error.is_away(), why: chain(error).into() }
}
