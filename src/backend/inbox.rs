//! What reaches the driver: letters from handles, jobs that come back, and what the engine said.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Refused,
    driver::{Done, Driver},
    letter::Letter,
    pass::Pass,
    state::{CallFailed, Event, Stage, State, Waking},
};
use crate::model::{Cause, ContainerState};

impl Driver {
    pub(super) fn letter(&mut self, letter: Letter) {
        match letter {
            Letter::Knock(cause, reply) => self.knocked(cause, reply),
            Letter::Order(order, person, reply) => self.ordered(order, person, reply),
            Letter::Pin(until, person, reply) => self.pin(until, person, reply),
            Letter::Start(reply) => {
                self.starts.push(reply);
                self.advance(Event::Tick);
            }
            Letter::Hint => self.hinted(),
            Letter::Complete(dependant, reply) => self.complete(dependant, reply),
            Letter::Settle(told) => {
                self.settling.push(told);
                self.tell_if_settled();
            }
            Letter::Started => {
                self.start_told |=
                    matches!(self.state, State::Waking(Waking { stage: Stage::Starting(_) | Stage::Probing(_), .. }));
                self.hinted();
            }
            Letter::Ended(exit_code) => self.ended(exit_code),
            Letter::Seen(state) => self.listed(&state),
            Letter::Suspect => {
                if self.state.is_open() {
                    self.suspected = true;
                    self.look();
                }
            }
            Letter::Configure(spec, dependencies) => {
                self.shared.policy.store(Arc::new(spec.policy.clone()));
                let is_other = spec.unit.name != self.spec.unit.name || spec.unit.command != self.spec.unit.command;
                let reached_otherwise = spec.unit != self.spec.unit || spec.ports != self.spec.ports;
                let proves_otherwise = spec.ready != self.spec.ready && self.probe.is_some();
                self.spec = Arc::from(spec);
                self.dependencies = dependencies;
                if is_other {
                    self.renew();
                }
                self.advance(Event::Tick);
                if reached_otherwise || proves_otherwise {
                    self.reach_anew();
                }
            }
            // Taken by the loop.
            Letter::Lend(..) => {}
        }
    }

    fn renew(&mut self) {
        if matches!(self.state, State::Waking(_)) {
            self.cause = Some(Cause::Dormouse("it is started otherwise by its new configuration".into()));
        }
        self.advance(Event::Renewed);
    }

    fn hinted(&mut self) {
        self.kick.notify_one();
        self.look();
    }

    /// Events come in order, though late: an end after the start of this wake is the end of what it started. One
    /// before may be that of an earlier life.
    fn ended(&mut self, exit_code: i64) {
        let probing = matches!(self.state, State::Waking(Waking { stage: Stage::Probing(_), .. }));
        if std::mem::take(&mut self.start_told) && probing {
            let exit_code = Some(exit_code);
            self.advance(Event::Seen(Ok(ContainerState::Stopped { exit_code, error: None })));
        }
    }

    /// It is reached by another network or port from now on: what was begun with the old ones would never end.
    fn reach_anew(&mut self) {
        if self.probe.is_some() {
            self.probe(None);
        } else {
            self.look();
        }
    }

    fn knocked(&mut self, cause: Cause, reply: Option<oneshot::Sender<Result<Pass, Refused>>>) {
        if matches!(self.state, State::Unknown { .. } | State::Asleep(_) | State::Failed(_) | State::Stopping { .. }) {
            self.cause = Some(cause);
        }
        if let Some(reply) = reply {
            self.waiters.push(reply);
        }
        self.advance(Event::Wanted);
        self.note_respect();
    }

    /// A list was taken before it reached us: only a look of our own decides where it differs.
    fn listed(&mut self, seen: &ContainerState) {
        let agrees = match (&self.state, seen) {
            (State::Awake(awake), ContainerState::Running(at)) => *awake.at == *at,
            (State::Asleep(down), ContainerState::Paused(at)) => {
                down.paused.as_ref().is_some_and(|paused| paused.at.as_deref() == Some(at))
            }
            (State::Asleep(down), ContainerState::Stopped { .. }) => down.paused.is_none(),
            (State::Failed(failed), ContainerState::Stopped { .. }) => !failed.is_by_engine(),
            (State::Gone, ContainerState::Gone) => true,
            (State::Waking(_) | State::Stopping { .. }, _) => true,
            _ => false,
        };
        if !agrees {
            self.look();
        }
    }

    pub(super) fn job_done(&mut self, done: Result<(u64, Done), tokio::task::JoinError>) {
        // A probe that is not needed any more was ended.
        let Ok((epoch, done)) = done else { return };
        match done {
            Done::Adopted(passes) => {
                self.adopting = false;
                if matches!(self.state, State::Awake(_) | State::Draining { .. }) {
                    self.held = passes;
                }
                self.tell_if_settled();
            }
            Done::Completed(result) => {
                for reply in self.completions.drain(..) {
                    let _ = reply.send(result.clone());
                }
                self.forget_job();
                self.hinted();
            }
            Done::Gathered(result) if epoch == self.epoch => {
                let result = result.map(|(passes, turn)| {
                    self.held = passes;
                    self.turn = Some(turn);
                    self.phases.dependencies = self.mark.elapsed();
                });
                self.advance(Event::Gathered(result));
            }
            Done::LetDown(memory, event) if epoch == self.epoch => {
                self.stats.memory = memory.or(self.stats.memory);
                self.last_error = if let Event::Stopped(Err(failed)) = &event { Some(words(failed)) } else { None };
                self.advance(event);
            }
            Done::Event(event @ (Event::Seen(_) | Event::Unreachable(_))) => {
                self.looking = false;
                let again = std::mem::take(&mut self.look_again) || epoch != self.epoch;
                if epoch == self.epoch {
                    self.engine_said(event);
                }
                if again {
                    self.look();
                }
            }
            Done::Event(event) if epoch == self.epoch => {
                if matches!(event, Event::Started(_)) {
                    self.phases.engine = self.mark.elapsed();
                    self.mark = Instant::now();
                }
                self.advance(event);
            }
            Done::Ready(at, by) if epoch == self.epoch => {
                self.phases.ready = self.mark.elapsed();
                self.proved_by(by);
                self.advance(Event::Ready(at));
            }
            Done::Gathered(_) | Done::Event(_) | Done::Ready(..) | Done::LetDown(..) => {}
        }
    }

    fn proved_by(&mut self, port: Option<u16>) {
        let first = self.spec.ports.first().copied();
        if let (Some(open), Some(closed)) = (port, first)
            && open != closed
            && self.proven != port
        {
            tracing::warn!(
                backend = %self.spec.id,
                "nothing listens on port {closed}, while port {open} answers: requests for {closed} are refused \
                 (hint: is the `port` of its route right?)"
            );
        }
        self.proven = port;
    }

    fn engine_said(&mut self, event: Event) {
        if let Event::Seen(Ok(ContainerState::Changing)) = event {
            // Between two states: asked again soon.
            let (shared, pause) = (Arc::clone(&self.shared), Duration::from_millis(100));
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                let _ = shared.letters.send(Letter::Hint).await;
            });
            return;
        }
        self.advance(event);
    }
}

/// What is told of a sleep that came to nothing.
fn words(failed: &CallFailed) -> Arc<str> {
    match failed {
        CallFailed { away: true, why } => format!("its engine is away: {why}").into(),
        CallFailed { away: false, why } => Arc::clone(why),
    }
}
