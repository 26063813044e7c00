//! The part of the [`machine`](super::machine) for what its engine tells: what others did to a backend is found here.

// A state that an event does not concern stays as it is: that arm is the rule here, not an oversight.
#![allow(clippy::wildcard_enum_match_arm)]

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    machine::{AWAY_AGAIN, FOREIGN_PAUSE, LONGEST_COOL_DOWN, awake, cool_down, probe_foreign, stopped},
    state::{Action, Awake, Before, Down, Facts, Failed, Failure, Paused, Rules, Stage, State, Waking},
};
use crate::model::{ContainerState, Running, SleepMethod};

/// A backend that ran this long and then died is started again without a cool-down.
const STEADY: Duration = Duration::from_secs(10);
/// The first pause after a failed sleep; it doubles up to five minutes.
const SLEEP_AGAIN: Duration = Duration::from_secs(5);

pub(super) fn seen(state: State, seen: ContainerState, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    match seen {
        ContainerState::Running(at) => seen_running(state, Arc::new(at), facts, rules),
        ContainerState::Paused(at) => seen_paused(state, Arc::new(at), facts, rules),
        ContainerState::Stopped { exit_code, error } => seen_stopped(state, exit_code, error, facts, rules),
        ContainerState::Gone => seen_gone(state),
        ContainerState::Changing => (state, None),
    }
}

pub(super) fn not_seen(state: State, why: Arc<str>, facts: Facts) -> (State, Option<Action>) {
    match state {
        State::Unknown { before, .. } => (unknown(why, before, facts), None),
        // The sleep failed and the engine does not even tell: it is taken for up, and sleep is tried later.
        State::Stopping { was: Some(awake), .. } => (State::Awake(sleep_failed(awake, facts)), None),
        State::Stopping { failed, was: None, .. } => match failed {
            Some(failed) => (State::Failed(failed), None),
            None => (unknown(why, None, facts), None),
        },
        state => (state, None),
    }
}

fn unknown(why: Arc<str>, before: Option<Before>, facts: Facts) -> State {
    State::Unknown { away: Some(why), again: Some(facts.now + AWAY_AGAIN), wanted: false, before }
}

fn sleep_failed(awake: Awake, facts: Facts) -> Awake {
    let times = awake.sleep_again.map_or(0, |(times, _)| times);
    let pause = SLEEP_AGAIN.saturating_mul(1 << times.min(6)).min(LONGEST_COOL_DOWN);
    Awake { sleep_again: Some((times + 1, facts.now + pause)), ..awake }
}

fn seen_running(state: State, at: Arc<Running>, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    match state {
        State::Unknown { before: Some(Before::Awake { since, ours, busy_at, sleep_again, tries }), .. } => {
            (State::Awake(Awake { at, since, ours, busy_at, asking: false, sleep_again, tries }), None)
        }
        // It runs, and did not get ready in time.
        State::Unknown { before: Some(Before::Failed(failed)), .. } if failed.why.is_of_running() => {
            (State::Failed(failed), None)
        }
        // Found running: awake at once, whoever started it.
        State::Unknown { .. } => (State::Awake(awake(at, facts.now, false, 0)), None),
        State::Awake(awake) => (State::Awake(Awake { at, ..awake }), None),
        State::Draining { awake, why, wanted } => (State::Draining { awake: Awake { at, ..awake }, why, wanted }, None),
        State::Stopping { was: Some(awake), .. } => (State::Awake(sleep_failed(Awake { at, ..awake }, facts)), None),
        State::Asleep(_) | State::Gone | State::Stopping { was: None, failed: None, .. } => {
            probe_foreign(facts, rules, 0)
        }
        State::Stopping { failed: Some(failed), .. } => (State::Failed(failed), None),
        State::Failed(failed) if !failed.why.is_of_running() => probe_foreign(facts, rules, failed.tries),
        same @ (State::Failed(_) | State::Waking(_)) => (same, None),
    }
}

fn seen_paused(state: State, at: Arc<Running>, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    let paused = Some(Paused { since: facts.now, at: Some(Arc::clone(&at)) });
    let down = |respected_until: Option<Instant>| {
        let stays_down = respected_until.is_some() && !rules.policy.wake_after_manual_stop;
        State::Asleep(Down { paused, respected_until, stays_down })
    };
    match state {
        State::Awake(_) | State::Draining { .. } => (down(Some(facts.now + FOREIGN_PAUSE)), None),
        State::Waking(Waking { stage: Stage::Probing(_), .. }) => (down(Some(facts.now + FOREIGN_PAUSE)), None),
        State::Asleep(mut asleep)
        | State::Unknown { before: Some(Before::Asleep(mut asleep @ Down { paused: Some(_), .. })), .. } => {
            asleep.paused.get_or_insert(Paused { since: facts.now, at: None }).at = Some(at);
            (State::Asleep(asleep), None)
        }
        State::Unknown { .. } | State::Gone | State::Failed(_) => (down(None), None),
        State::Stopping { method: SleepMethod::Pause, .. } => stopped(state, Ok(()), facts, rules),
        State::Stopping { .. } => (down(None), None),
        same @ State::Waking(_) => (same, None),
    }
}

fn seen_stopped(
    state: State,
    exit_code: Option<i64>,
    error: Option<String>,
    facts: Facts,
    rules: Rules<'_>,
) -> (State, Option<Action>) {
    let by_hand = Down { paused: None, respected_until: None, stays_down: !rules.policy.wake_after_manual_stop };
    match state {
        State::Awake(awake) | State::Draining { awake, .. } => {
            if ended_by_order(exit_code) {
                return (State::Asleep(by_hand), None);
            }
            (State::Failed(died(awake.since, awake.tries, exit_code, facts)), None)
        }
        State::Unknown { before: Some(Before::Awake { since, tries, .. }), .. } if !ended_by_order(exit_code) => {
            (State::Failed(died(since, tries, exit_code, facts)), None)
        }
        State::Waking(Waking { stage: Stage::Probing(_), foreign: true, .. }) if ended_by_order(exit_code) => {
            (State::Asleep(by_hand), None)
        }
        State::Waking(Waking { stage: Stage::Probing(_), tries, .. }) => {
            let why = match error.filter(|text| !text.is_empty()) {
                Some(text) => Failure::Start(text.into()),
                None => Failure::ExitedEarly(exit_code),
            };
            (State::Failed(cool_down(why, tries, facts)), None)
        }
        State::Stopping { .. } => stopped(state, Ok(()), facts, rules),
        State::Unknown { before: Some(Before::Failed(failed)), .. } if !failed.is_by_engine() => {
            (State::Failed(failed), None)
        }
        State::Unknown { before: Some(Before::Asleep(down)), .. } if down.paused.is_none() => {
            (State::Asleep(down), None)
        }
        State::Unknown { .. } | State::Gone => {
            (State::Asleep(Down { paused: None, respected_until: None, stays_down: false }), None)
        }
        // Only its engine had failed, which is back.
        State::Failed(failed) if failed.is_by_engine() => {
            (State::Asleep(Down { paused: None, respected_until: None, stays_down: false }), None)
        }
        State::Asleep(down) => (State::Asleep(Down { paused: None, respected_until: None, ..down }), None),
        same @ (State::Waking(_) | State::Failed(_)) => (same, None),
    }
}

/// Exit codes of a clean end or of the signals that people and engines stop with: 0, and 128 plus INT, KILL, TERM.
fn ended_by_order(exit_code: Option<i64>) -> bool {
    matches!(exit_code, None | Some(0 | 130 | 137 | 143))
}

fn died(since: Instant, tries: u32, exit_code: Option<i64>, facts: Facts) -> Failed {
    let why = Failure::Died(exit_code);
    if facts.now.duration_since(since) >= STEADY || tries == 0 {
        Failed { why, until: facts.now, tries: 1 }
    } else {
        cool_down(why, tries, facts)
    }
}

fn seen_gone(state: State) -> (State, Option<Action>) {
    match state {
        // The engine call in hand decides.
        same @ State::Waking(Waking { stage: Stage::Gathering | Stage::Starting(_), .. }) => (same, None),
        State::Unknown { .. }
        | State::Asleep(_)
        | State::Waking(_)
        | State::Awake(_)
        | State::Draining { .. }
        | State::Stopping { .. }
        | State::Failed(_)
        | State::Gone => (State::Gone, None),
    }
}

pub(super) fn unreachable_while_running(
    state: State,
    at: Arc<Running>,
    facts: Facts,
    rules: Rules<'_>,
) -> (State, Option<Action>) {
    match state {
        State::Awake(awake) if awake.at != at => (State::Awake(Awake { at, ..awake }), None),
        State::Awake(awake) => probe_foreign(facts, rules, awake.tries),
        state => (state, None),
    }
}
