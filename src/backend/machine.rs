//! The life of one backend as a pure function: state, event and facts in; next state and at most one action out.
//!
//! No clock, no async, no engine in here. The timer, the gate, the answers to callers and the published status are
//! derived from the state after each step (see `deadline`, `is_open`, `verdict`), so none can be forgotten.

// A state that an event does not concern stays as it is: that arm is the rule here, not an oversight.
#![allow(clippy::wildcard_enum_match_arm)]

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    elapsed::{not_ready, tick},
    found::{self, not_seen, unreachable_while_running},
    state::{
        Action, Awake, Before, CallFailed, Down, Drain, Event, Facts, Failed, Failure, Order, Paused, Rules, Stage,
        State, Waking,
    },
};
use crate::{
    model::{Running, SleepMethod},
    provider::Changed,
};

/// A pause by another hand is respected this long before callers have it thawed.
pub(super) const FOREIGN_PAUSE: Duration = Duration::from_secs(30);
/// The first cool-down after a failed start; it doubles up to [`LONGEST_COOL_DOWN`].
pub(super) const FIRST_COOL_DOWN: Duration = Duration::from_secs(5);
/// The longest cool-down.
pub(super) const LONGEST_COOL_DOWN: Duration = Duration::from_secs(300);
/// How soon an engine that is away is asked again.
pub(super) const AWAY_AGAIN: Duration = Duration::from_secs(1);

/// The next state, and what is to be done.
pub fn step(state: State, event: Event, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    let by_pager = matches!(state, State::Unknown { wanted: true, .. });
    let (next, action) = react(state, event, facts, rules);
    let somebody_wants_it = facts.waiting > 0 || by_pager || next.is_wanted_from_inside(facts);
    if action.is_none() && somebody_wants_it && matches!(next, State::Asleep(_) | State::Failed(_)) {
        return wanted(next, facts, rules, false);
    }
    (next, action)
}

fn react(state: State, event: Event, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    match event {
        Event::Wanted => wanted(state, facts, rules, false),
        Event::Ordered(order) => ordered(state, order, facts, rules),
        Event::Gathered(result) => gathered(state, result, facts, rules),
        Event::Started(result) => started(state, result, facts),
        Event::Ready(at) => ready(state, at, facts),
        Event::Stopped(result) => stopped(state, result, facts, rules),
        // What the engine shows while it lets it down is on the way; the call's answer decides.
        Event::Seen(_) if matches!(state, State::Stopping { call_failed: false, .. }) => (state, None),
        Event::Seen(Ok(seen)) => found::seen(state, seen, facts, rules),
        Event::Seen(Err(why)) => not_seen(state, why, facts),
        Event::Unreachable(at) => unreachable_while_running(state, at, facts, rules),
        Event::Barred(why) => barred(state, why, facts, rules),
        Event::Busy(busy) => busy_answered(state, busy, facts),
        Event::Renewed => renewed(state, facts),
        Event::Tick => tick(state, facts, rules),
    }
}

pub(super) fn wake(facts: Facts, rules: Rules<'_>, tries: u32) -> (State, Option<Action>) {
    let waking = |stage| State::Waking(Waking { stage, since: facts.now, tries, foreign: false });
    if rules.gathers {
        (waking(Stage::Gathering), Some(Action::Gather))
    } else {
        (waking(Stage::Starting(facts.now + rules.policy.wake_timeout)), Some(Action::Start))
    }
}

pub(super) fn probe_foreign(facts: Facts, rules: Rules<'_>, tries: u32) -> (State, Option<Action>) {
    let stage = Stage::Probing(facts.now + rules.policy.wake_timeout);
    (State::Waking(Waking { stage, since: facts.now, tries, foreign: true }), Some(Action::Probe))
}

pub(super) fn wanted(state: State, facts: Facts, rules: Rules<'_>, by_order: bool) -> (State, Option<Action>) {
    match state {
        State::Asleep(down) => {
            let respected = down.respected_until.is_some_and(|until| facts.now < until);
            if by_order || !(down.stays_down || respected) {
                wake(facts, rules, 0)
            } else {
                (State::Asleep(down), None)
            }
        }
        State::Failed(failed) if by_order || facts.now >= failed.until => wake(facts, rules, failed.tries),
        State::Draining { awake, why: Drain::Idle, .. } => (State::Awake(awake), None),
        State::Draining { awake, why, .. } => (State::Draining { awake, why, wanted: true }, None),
        State::Stopping { method, failed, was, call_failed, .. } => {
            let wanted = by_order || failed.is_none();
            (State::Stopping { method, wanted, failed, was, call_failed }, None)
        }
        State::Unknown { again, before, .. } if by_order => {
            // An order overrides a cool-down.
            let before = before.filter(|before| !matches!(before, Before::Failed(_)));
            (State::Unknown { away: None, again, wanted: true, before }, Some(Action::Look))
        }
        State::Unknown { away, again, before, .. } => {
            (State::Unknown { wanted: away.is_none(), away, again, before }, None)
        }
        same @ (State::Waking(_) | State::Awake(_) | State::Failed(_) | State::Gone) => (same, None),
    }
}

fn ordered(state: State, order: Order, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    let method = rules.policy.stop_method;
    match (order, state) {
        (Order::Wake, state) => wanted(state, facts, rules, true),
        (Order::Sleep | Order::Restart, State::Awake(awake) | State::Draining { awake, .. }) => {
            let restart = order == Order::Restart;
            let why = Drain::Ordered { until: facts.now + rules.policy.drain_timeout, restart };
            (State::Draining { awake, why, wanted: restart }, None)
        }
        (Order::SleepNow, State::Awake(awake) | State::Draining { awake, .. }) => (
            State::Stopping { method, wanted: false, failed: None, was: Some(awake), call_failed: false },
            Some(Action::Stop(method)),
        ),
        // Nothing of it has been started. It may be paused: the engine tells.
        (Order::Sleep | Order::SleepNow, State::Waking(Waking { stage: Stage::Gathering, .. })) => {
            (State::Asleep(Down { paused: None, respected_until: None, stays_down: false }), Some(Action::Look))
        }
        (Order::Sleep | Order::SleepNow, State::Waking(_)) => give_up_wake(false),
        // What is half started is let down, and started anew for those who wait; what is not comes up fresh anyway.
        (Order::Restart, State::Waking(Waking { stage: Stage::Starting(_) | Stage::Probing(_), .. })) => {
            give_up_wake(true)
        }
        (Order::Restart, state @ (State::Asleep(_) | State::Failed(_))) => wanted(state, facts, rules, true),
        (Order::Sleep | Order::SleepNow | Order::Restart, state) => (state, None),
    }
}

/// Lets down what was half started.
pub(super) fn give_up_wake(wanted: bool) -> (State, Option<Action>) {
    let method = SleepMethod::Stop;
    (State::Stopping { method, wanted, failed: None, was: None, call_failed: false }, Some(Action::Stop(method)))
}

/// It is another unit from now on, or is started otherwise: what was begun as before comes to nothing, and how it failed
/// before says nothing.
fn renewed(state: State, facts: Facts) -> (State, Option<Action>) {
    match state {
        State::Waking(Waking { stage: Stage::Starting(_) | Stage::Probing(_), foreign: false, .. }) => {
            give_up_wake(true)
        }
        State::Failed(failed) => (State::Failed(Failed { until: facts.now, tries: 0, ..failed }), None),
        same => (same, None),
    }
}

fn gathered(state: State, result: Result<(), Arc<str>>, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    match (state, result) {
        (State::Waking(Waking { stage: Stage::Gathering, since, tries, foreign }), Ok(())) => {
            let stage = Stage::Starting(facts.now + rules.policy.wake_timeout);
            (State::Waking(Waking { stage, since, tries, foreign }), Some(Action::Start))
        }
        (State::Waking(Waking { stage: Stage::Gathering, tries, .. }), Err(why)) => {
            (State::Failed(cool_down(Failure::Dependency(why), tries, facts)), None)
        }
        (state, _) => (state, None),
    }
}

fn started(state: State, result: Result<Changed, CallFailed>, facts: Facts) -> (State, Option<Action>) {
    match (state, result) {
        (State::Waking(waking), Ok(changed)) => match waking.stage {
            Stage::Starting(until) => {
                // What ran already is not ours to stop when it does not get ready.
                let foreign = waking.foreign || changed == Changed::Already;
                (State::Waking(Waking { stage: Stage::Probing(until), foreign, ..waking }), Some(Action::Probe))
            }
            Stage::Gathering | Stage::Probing(_) => (State::Waking(waking), None),
        },
        (State::Waking(waking), Err(failed)) => {
            let why = if failed.away { Failure::EngineAway(failed.why) } else { Failure::Start(failed.why) };
            (State::Failed(cool_down(why, waking.tries, facts)), None)
        }
        // It answered while the call was under way, and then the call failed: ask.
        (state @ State::Awake(_), Err(_)) => (state, Some(Action::Look)),
        (state, _) => (state, None),
    }
}

fn ready(state: State, at: Arc<Running>, facts: Facts) -> (State, Option<Action>) {
    match state {
        State::Waking(waking) if !matches!(waking.stage, Stage::Gathering) => {
            let ours = !waking.foreign;
            (State::Awake(awake(at, facts.now, ours, waking.tries)), None)
        }
        state => (state, None),
    }
}

pub(super) fn awake(at: Arc<Running>, since: Instant, ours: bool, tries: u32) -> Awake {
    Awake { at, since, ours, busy_at: None, asking: false, sleep_again: None, tries }
}

pub(super) fn stopped(
    state: State,
    result: Result<(), CallFailed>,
    facts: Facts,
    rules: Rules<'_>,
) -> (State, Option<Action>) {
    match (state, result) {
        (State::Stopping { failed: Some(failed), wanted: false, .. }, Ok(())) => (State::Failed(failed), None),
        (State::Stopping { method, wanted, failed, was, .. }, Ok(())) => {
            if wanted || facts.waiting > 0 {
                return wake(facts, rules, failed.map_or(0, |f| f.tries));
            }
            let at = was.map(|awake| awake.at);
            let paused = (method == SleepMethod::Pause).then_some(Paused { since: facts.now, at });
            (State::Asleep(Down { paused, respected_until: None, stays_down: false }), None)
        }
        (State::Stopping { method, wanted, failed, was, .. }, Err(_)) => {
            (State::Stopping { method, wanted, failed, was, call_failed: true }, Some(Action::Look))
        }
        (state, _) => (state, None),
    }
}

fn barred(state: State, why: Arc<str>, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    match state {
        State::Waking(waking) => not_ready(&waking, Failure::Barred(why), facts, rules),
        state => (state, None),
    }
}

fn busy_answered(state: State, busy: bool, facts: Facts) -> (State, Option<Action>) {
    match state {
        State::Awake(awake) if awake.asking => {
            if busy {
                return (State::Awake(Awake { asking: false, busy_at: Some(facts.now), ..awake }), None);
            }
            let awake = Awake { asking: false, ..awake };
            (State::Draining { awake, why: Drain::Idle, wanted: false }, None)
        }
        state => (state, None),
    }
}

pub(super) fn cool_down(why: Failure, tries: u32, facts: Facts) -> Failed {
    let pause = match why {
        Failure::EngineAway(_) => AWAY_AGAIN,
        Failure::Start(_)
        | Failure::ExitedEarly(_)
        | Failure::TimedOut(..)
        | Failure::Dependency(_)
        | Failure::Died(_)
        | Failure::Barred(_) => FIRST_COOL_DOWN.saturating_mul(1 << tries.min(10)).min(LONGEST_COOL_DOWN),
    };
    let tries = if matches!(why, Failure::EngineAway(_)) { tries } else { tries + 1 };
    Failed { why, until: facts.now + pause, tries }
}
