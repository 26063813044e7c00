//! What the driver tells of each change: the journal, the statistics, the published status.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Backend, Refused, Status, StatusState,
    driver::Driver,
    machine::FOREIGN_PAUSE,
    pass::Woke,
    state::{Before, Down, Drain, Failed, Failure, Stage, State, Verdict, Waking},
};
use crate::{
    model::{BackendId, Cause, Condition, Running, SleepMethod, format_duration},
    telemetry::Happening,
};

impl Driver {
    pub(super) fn note_change(&mut self, before: &State) {
        if std::mem::discriminant(before) == std::mem::discriminant(&self.state) {
            return;
        }
        if goes_on(before, &self.state) {
            return;
        }
        let (spent_since, now) = (self.since.1, Instant::now());
        self.since = (Timestamp::now(), now);
        if matches!(before, State::Asleep(_)) {
            self.stats.asleep += now - spent_since;
        }
        self.stats.counted_since.get_or_insert_with(Timestamp::now);
        self.put_to_sleep = match (before, &self.state) {
            (State::Stopping { .. } | State::Waking(Waking { stage: Stage::Gathering, .. }), State::Asleep(_)) => true,
            // As it was when the program ended, unless somebody has been at it.
            (State::Unknown { .. }, State::Asleep(_)) | (_, State::Unknown { .. }) => self.put_to_sleep,
            // A wake that its engine was not there for has changed nothing.
            (State::Asleep(_), State::Waking(_)) => self.put_to_sleep,
            (State::Waking(_), State::Failed(failed)) | (State::Failed(failed), State::Asleep(_)) => {
                self.put_to_sleep && failed.is_by_engine()
            }
            _ => false,
        };
        let cause = self.cause.clone().unwrap_or(Cause::Idle);
        match (before, &self.state) {
            (before, State::Waking(waking)) if waking.foreign => {
                self.thawing = false;
                self.woke = None;
                self.attempts.forget();
                self.cause = Some(match &self.job_of {
                    _ if before.is_open() => Cause::Engine("it runs but did not answer".to_owned()),
                    Some(dependant) => Cause::Dependant(dependant.clone()),
                    None => Cause::Engine("started by another hand".to_owned()),
                });
                self.journal_now(Happening::FoundRunning);
            }
            (before, State::Waking(_)) => {
                self.attempts.forget();
                let cause = self.cause_of_wake(before, cause);
                let thawed = frozen(before);
                self.thawing = thawed.is_some();
                self.frozen_at = thawed.flatten();
                self.stats.last_at = Some(Timestamp::now());
                self.stats.last_cause = Some(cause.to_string());
                self.journal(Happening::Waking, cause);
            }
            (State::Waking(waking), State::Awake(_)) => {
                self.phases.total = waking.since.elapsed();
                if !waking.foreign {
                    self.stats.woke(self.phases.total);
                    self.woke = Some(Woke { took: self.phases.total, at: now.into_std() });
                }
                self.journal(Happening::Woke(self.phases), cause);
            }
            (State::Unknown { .. }, State::Awake(_)) => {
                self.woke = None;
                self.cause = Some(Cause::Engine("found running".to_owned()));
                self.journal_now(Happening::FoundRunning);
            }
            (State::Draining { why: Drain::Idle, .. }, State::Awake(_)) => self.journal_now(Happening::DrainEnded),
            (State::Draining { why: Drain::Ordered { .. }, .. }, State::Awake(_)) => {
                let inside = usize::try_from(self.shared.gate.inside()).unwrap_or(usize::MAX);
                self.journal(Happening::DrainDenied(inside), cause);
            }
            (State::Stopping { .. }, State::Awake(_)) => {
                let why = self.last_error.as_deref().unwrap_or("its engine says that it runs").to_owned();
                self.journal(Happening::SleepFailed(why), cause);
            }
            (_, State::Draining { why, .. }) => {
                if *why == Drain::Idle {
                    self.cause = Some(Cause::Idle);
                }
                self.journal_now(Happening::Draining);
            }
            (_, State::Stopping { .. }) => self.journal_now(Happening::Stopping),
            (State::Stopping { .. }, State::Asleep(down)) => {
                let how = if down.paused.is_some() { "paused" } else { "stopped" };
                self.journal(Happening::Slept { how, took: self.mark.elapsed() }, cause);
            }
            // Called off before anything was started.
            (State::Waking(Waking { stage: Stage::Gathering, since, .. }), State::Asleep(_)) => {
                let how = if self.thawing { "paused" } else { "stopped" };
                self.journal(Happening::Slept { how, took: since.elapsed() }, cause);
            }
            (State::Awake(_) | State::Draining { .. }, State::Asleep(down)) => {
                self.cause = Some(match self.job_of.take() {
                    Some(dependant) => Cause::Engine(format!("it has ended, as a job of `{dependant}`")),
                    None => Cause::Engine(by_another_hand(down)),
                });
                self.journal_now(if down.paused.is_some() { Happening::Paused } else { Happening::Ended(None) });
                self.note_those_inside();
            }
            (State::Waking(_), State::Asleep(down)) if down.respected_until.is_some() => {
                self.cause = Some(Cause::Engine(by_another_hand(down)));
                self.journal_now(Happening::Paused);
            }
            (State::Awake(_) | State::Draining { .. } | State::Unknown { .. }, State::Failed(failed)) => {
                let code = if let Failure::Died(code) = failed.why { code } else { None };
                self.cause = Some(Cause::Engine("it ended".to_owned()));
                self.journal_now(Happening::Ended(code));
            }
            (_, State::Failed(failed)) => {
                self.stats.failed += 1;
                let why = self.reason(failed);
                let retry_after = failed.until.saturating_duration_since(now);
                self.journal(Happening::WakeFailed { why, retry_after }, cause);
            }
            (State::Unknown { .. }, State::Gone) => {}
            (_, State::Gone) => {
                self.cause = Some(Cause::Engine("removed".to_owned()));
                self.journal_now(Happening::Gone);
            }
            // It is there again: what is told of its end is over.
            (State::Gone, _) => self.cause = None,
            (_, State::Unknown { .. } | State::Asleep(_) | State::Awake(_)) => {}
        }
        self.forget_job();
    }

    /// What comes after the job's run is not its dependant's doing.
    pub(super) fn forget_job(&mut self) {
        let is_up = matches!(self.state, State::Waking(_) | State::Awake(_) | State::Draining { .. });
        if !is_up && self.completions.is_empty() {
            self.job_of = None;
        }
    }

    pub(super) fn journal_now(&self, what: Happening) {
        self.journal(what, self.cause.clone().unwrap_or(Cause::Idle));
    }

    pub(super) fn journal(&self, what: Happening, cause: Cause) {
        self.around.journal.record(Some(&self.spec.id), what, cause);
    }

    pub(super) fn publish(&mut self, before: &State) {
        if *before == self.state && self.shared.status.borrow().pinned_until == self.pinned_until {
            return;
        }
        self.version += 1;
        let failed = self.state.failed();
        let status = Status {
            version: self.version,
            state: self.status_state(),
            since: self.since.0,
            since_instant: self.since.1,
            cause: self.cause.clone(),
            failure: failed.map(|failed| self.reason(failed).into()),
            refusal: match self.state.verdict(Instant::now()) {
                Verdict::Refuse(refusal) => Some(Refused::of(&refusal, Instant::now(), false)),
                Verdict::Admit | Verdict::Wait => None,
            },
            retry_at: failed.map(|failed| failed.until),
            tries: failed.map_or(0, |failed| failed.tries),
            waits_for: self.waits_for(),
            put_to_sleep: self.put_to_sleep && !matches!(self.state, State::Waking(_)),
            respected_until: self.respected_until(),
            pinned_until: self.pinned_until,
            wakes: self.stats.clone(),
        };
        self.shared.status.send_replace(Arc::new(status));
    }

    /// Its driver ends by a fault of ours, and nobody gets in any more, whatever was published last.
    pub(super) fn publish_fault(&self) {
        let last = Arc::clone(&self.shared.status.borrow());
        let status = Status {
            version: last.version + 1,
            state: StatusState::Failed,
            since: Timestamp::now(),
            since_instant: Instant::now(),
            failure: Some(
                "a fault in Dormouse ended its driver, see its log; it is not served until a new start".into(),
            ),
            refusal: Some(Refused::Gone),
            waits_for: Vec::new(),
            ..Status::clone(&last)
        };
        self.shared.status.send_replace(Arc::new(status));
    }

    /// Why it failed, and where its own words about that are to be found.
    fn reason(&self, failed: &Failed) -> String {
        format!("{}{}", failed.why, self.words_at(failed).unwrap_or_default())
    }

    /// Where what failed by itself has left its words.
    pub(super) fn words_at(&self, failed: &Failed) -> Option<String> {
        match failed.why {
            Failure::ExitedEarly(_) | Failure::TimedOut(..) | Failure::Died(_) => {
                let file = self.around.provider.log_file(&self.spec.unit)?;
                Some(format!("; its output is in `{}`", file.display()))
            }
            Failure::Start(_) | Failure::Barred(_) | Failure::Dependency(_) | Failure::EngineAway(_) => None,
        }
    }

    /// Whoever comes says what for; those who were inside when it was paused can not.
    fn cause_of_wake(&mut self, before: &State, cause: Cause) -> Cause {
        if !before.is_wanted_from_inside(self.facts()) || !matches!(cause, Cause::Engine(_)) {
            return cause;
        }
        let cause = Cause::Dormouse("those who were inside when it was paused wait for it".into());
        self.cause.insert(cause).clone()
    }

    /// Until when requests wait for what another hand has paused.
    fn respected_until(&self) -> Option<Instant> {
        let State::Asleep(down) = &self.state else { return None };
        down.respected_until.filter(|until| *until > Instant::now())
    }

    /// Says that the first request waits for what another hand has paused, and how long.
    pub(super) fn note_respect(&self) {
        if let (Some(until), [_]) = (self.respected_until(), self.waiters.as_slice()) {
            let millis = until.duration_since(Instant::now()).as_millis();
            let wait = format_duration(Duration::from_secs(u64::try_from(millis.div_ceil(1000)).unwrap_or(0)));
            self.journal_now(Happening::Note(format!(
                "is asked for while it is paused by another hand: {wait} more are waited, then it is thawed"
            )));
        }
    }

    /// Says the same of those who are inside while it is paused.
    fn note_those_inside(&self) {
        let facts = self.facts();
        if self.state.is_wanted_from_inside(facts) {
            self.journal_now(Happening::Note(format!(
                "is paused by another hand with {} inside: {} are waited, then it is thawed",
                facts.inside,
                format_duration(FOREIGN_PAUSE)
            )));
        }
    }

    pub(super) fn waits_for(&self) -> Vec<BackendId> {
        if !matches!(self.state, State::Waking(Waking { stage: Stage::Gathering, .. })) {
            return Vec::new();
        }
        let awaited = |(backend, condition): &&(Backend, Condition)| {
            let is_awake = backend.shared.status.borrow().state == StatusState::Awake;
            // A job is waited for while it runs.
            is_awake == (*condition == Condition::Completed)
        };
        self.dependencies.iter().filter(awaited).map(|(backend, _)| backend.id().clone()).collect()
    }

    pub(super) fn status_state(&self) -> StatusState {
        match &self.state {
            State::Unknown { .. } => StatusState::Unknown,
            State::Asleep(down) if down.paused.is_some() => StatusState::Paused,
            State::Asleep(_) => StatusState::Stopped,
            State::Waking(_) => StatusState::Waking,
            State::Awake(_) => StatusState::Awake,
            State::Draining { .. } => StatusState::Draining,
            State::Stopping { .. } => StatusState::Stopping,
            State::Failed(_) => StatusState::Failed,
            State::Gone => StatusState::Gone,
        }
    }
}

/// Whether it was so before this run of the program, and nothing has happened.
fn goes_on(before: &State, now: &State) -> bool {
    let State::Unknown { before: Some(known), .. } = before else { return false };
    Before::of(now).as_ref() == Some(known)
}

/// What somebody else did, and what becomes of it.
fn by_another_hand(down: &Down) -> String {
    let how = if down.paused.is_some() { "paused" } else { "stopped" };
    let then = match down {
        Down { stays_down: true, .. } => "it stays down until it is ordered up".to_owned(),
        Down { respected_until: Some(_), .. } => {
            format!("requests wait for {}, then they wake it", format_duration(FOREIGN_PAUSE))
        }
        Down { .. } => "the next request wakes it".to_owned(),
    };
    format!("{how} by another hand; {then}")
}

/// Whether what was so is thawed when it wakes, and how it is reached then.
fn frozen(before: &State) -> Option<Option<Arc<Running>>> {
    if let State::Asleep(Down { paused: Some(paused), .. }) = before {
        return Some(paused.at.clone());
    }
    if let State::Stopping { method: SleepMethod::Pause, was, .. } = before {
        return Some(was.as_ref().map(|awake| Arc::clone(&awake.at)));
    }
    None
}
