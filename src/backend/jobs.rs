//! What the driver has others do: engine calls, probes, dependencies. Each comes back as an event.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Backend,
    driver::{Done, Driver},
    handle::Pass,
    once, readiness,
    state::{Action, CallFailed, Event, Stage, State, Waking},
};
use crate::{
    model::{BackendId, Cause, Condition, Health, SleepMethod},
    provider::{ProviderError, StopOrder},
    telemetry::{Phases, chain},
};

impl Driver {
    pub(super) fn act(&mut self, action: Action) {
        let (provider, spec) = (Arc::clone(&self.around.provider), Arc::clone(&self.spec));
        match action {
            Action::Gather => {
                self.epoch += 1;
                self.mark = Instant::now();
                self.phases = Phases::default();
                let (epoch, turns, gather) = (self.epoch, Arc::clone(&self.around.turns), self.gather(true));
                self.jobs.spawn(async move {
                    let gathered = async {
                        let passes = gather.await?;
                        let turn = turns.acquire_owned().await.map_err(|_| Arc::from("the program ends"))?;
                        Ok((passes, turn))
                    };
                    (epoch, Done::Gathered(gathered.await))
                });
            }
            Action::Start => {
                self.epoch += 1;
                self.start_told = false;
                self.mark = Instant::now();
                let epoch = self.epoch;
                let unit = Arc::clone(&spec);
                self.jobs.spawn(async move {
                    let result = sound(provider.start(&unit.unit)).await;
                    (epoch, Done::Event(Event::Started(result.map(|_| ()).map_err(|error| call_failed(&error)))))
                });
                if self.port_may_open_early() {
                    self.probe();
                }
            }
            Action::Probe => self.probe(),
            Action::Stop(method) => {
                self.epoch += 1;
                self.mark = Instant::now();
                let epoch = self.epoch;
                let order = StopOrder { method, signal: spec.policy.stop_signal, grace: spec.policy.stop_timeout };
                self.jobs.spawn(async move {
                    // A pause gives nothing back.
                    let memory = match method {
                        SleepMethod::Pause => None,
                        SleepMethod::Stop | SleepMethod::Kill => provider.memory(&spec.unit).await,
                    };
                    let result = sound(provider.stop(&spec.unit, order)).await;
                    let stopped = Event::Stopped(result.map(|_| ()).map_err(|error| call_failed(&error)));
                    (epoch, Done::LetDown(memory, stopped))
                });
            }
            Action::AskBusy => {
                let epoch = self.epoch;
                self.jobs.spawn(async move {
                    let check = spec.policy.busy.as_deref().unwrap_or_default();
                    (epoch, Done::Event(Event::Busy(readiness::is_busy(check).await)))
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

    pub(super) fn probe(&mut self) {
        if let Some(earlier) = self.probe.take() {
            earlier.abort();
        }
        let (epoch, thawed) = (self.epoch, self.thawing);
        let (provider, spec) = (Arc::clone(&self.around.provider), Arc::clone(&self.spec));
        let kick = Arc::clone(&self.kick);
        // Looked at a moment ago, when a dial to it had failed; or frozen, which changes nothing about it.
        let known = self.known.take();
        let early = matches!(self.state, State::Waking(Waking { stage: Stage::Starting(_), .. }));
        self.probe = Some(self.jobs.spawn(async move {
            loop {
                match readiness::until_ready(&*provider, &spec, thawed, known.clone(), &kick).await {
                    readiness::Outcome::Ready(at) => return (epoch, Done::Event(Event::Ready(at))),
                    // The start call has not answered: it is not up yet.
                    readiness::Outcome::Ended(_) if early => tokio::time::sleep(Duration::from_millis(1)).await,
                    readiness::Outcome::Ended(state) => return (epoch, Done::Event(Event::Seen(Ok(state)))),
                }
            }
        }));
    }

    pub(super) fn look(&mut self) {
        if self.looking {
            self.look_again = true;
            return;
        }
        self.looking = true;
        let epoch = self.epoch;
        let (provider, spec) = (Arc::clone(&self.around.provider), Arc::clone(&self.spec));
        self.jobs.spawn(async move {
            let seen = sound(provider.look(&spec.unit)).await;
            (epoch, Done::Event(Event::Seen(seen.map_err(|error| chain(&error).into()))))
        });
    }

    /// A dependant waits for its end: it is run as a job, once, however many wait.
    pub(super) fn complete(&mut self, dependant: BackendId, reply: oneshot::Sender<Result<(), Arc<str>>>) {
        self.completions.push(reply);
        if self.completions.len() > 1 {
            return;
        }
        self.job_of = Some(dependant);
        let (epoch, turns, gather) = (self.epoch, Arc::clone(&self.around.turns), self.gather(true));
        let (provider, spec) = (Arc::clone(&self.around.provider), Arc::clone(&self.spec));
        self.jobs.spawn(async move {
            let run = async {
                let _needed = gather.await?;
                let _turn = turns.acquire_owned().await.map_err(|_| Arc::from("the program ends"))?;
                once::run(&*provider, &spec).await
            };
            (epoch, Done::Completed(run.await))
        });
    }

    /// Enters all dependencies, in parallel, and with `jobs` has those run that are jobs.
    pub(super) fn gather(&self, jobs: bool) -> impl Future<Output = Result<Vec<Pass>, Arc<str>>> + use<> {
        let id = self.spec.id.clone();
        let (ran, others): (Vec<_>, Vec<_>) =
            self.dependencies.clone().into_iter().partition(|(_, condition)| *condition == Condition::Completed);
        let dependant = id.clone();
        let ran = ran.into_iter().filter(move |_| jobs).map(move |(backend, _)| (backend, dependant.clone()));
        let ran = ran.map(|(backend, dependant)| async move {
            backend.completed(dependant).await.map_err(|why| Arc::from(format!("`{}`: {why}", backend.id())))
        });
        let enter = others.into_iter().map(move |(backend, condition)| {
            let cause = Cause::Dependant(id.clone());
            async move {
                let pass = backend.enter(cause, Duration::from_secs(3600)).await;
                let pass = pass.map_err(|refused| Arc::from(format!("`{}`: {refused}", backend.id())))?;
                if condition == Condition::Healthy {
                    until_healthy(&backend).await;
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

/// Waits until the engine calls an awake backend healthy, where the engine checks it at all.
async fn until_healthy(backend: &Backend) {
    loop {
        let health = backend.shared.reach.load().as_ref().and_then(|reach| reach.at.health);
        match health {
            None | Some(Health::Healthy) => return,
            Some(Health::Starting | Health::Unhealthy) => {}
        }
        backend.hint().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A panic in a call to an engine fails that call, and the backend goes on from there.
async fn sound<T>(call: impl Future<Output = Result<T, ProviderError>>) -> Result<T, ProviderError> {
    let ended = AssertUnwindSafe(call).catch_unwind().await;
    ended.unwrap_or_else(|_| {
        let reason = "a fault in Dormouse ended the call, see its log".to_owned();
        Err(ProviderError::Nonsense { engine: "unknown".to_owned(), reason })
    })
}

fn call_failed(error: &ProviderError) -> CallFailed {
    CallFailed { away: error.is_away(), why: chain(error).into() }
}
