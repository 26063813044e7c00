//! The life of one backend as a pure function: state, event and facts in; next state and at most one action out.
//!
//! No clock, no async, no engine in here. The timer, the gate, the answers to callers and the published status are
//! derived from the state after each step (see `deadline`, `is_open`, `verdict`), so none can be forgotten.

// A state that an event does not concern stays as it is: that arm is the rule here, not an oversight.
#![allow(clippy::wildcard_enum_match_arm)]

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::state::{
    Action, Awake, Before, CallFailed, Down, Drain, Event, Facts, Failed, Failure, Order, Paused, Rules, Stage, State,
    Waking,
};
use crate::{
    model::{ContainerState, IdlePolicy, OnWakeTimeout, Running, SleepMethod},
    provider::Changed,
};

/// A pause by another hand is respected this long before callers have it thawed.
pub(super) const FOREIGN_PAUSE: Duration = Duration::from_secs(30);
/// The first cool-down after a failed start; it doubles up to [`LONGEST_COOL_DOWN`].
pub(super) const FIRST_COOL_DOWN: Duration = Duration::from_secs(5);
/// The longest cool-down.
pub(super) const LONGEST_COOL_DOWN: Duration = Duration::from_secs(300);
/// How soon an engine that is away is asked again.
const AWAY_AGAIN: Duration = Duration::from_secs(1);
/// A backend that ran this long and then died is started again without a cool-down.
const STEADY: Duration = Duration::from_secs(10);
/// The first pause after a failed sleep; it doubles up to five minutes.
const SLEEP_AGAIN: Duration = Duration::from_secs(5);

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
        Event::Seen(Ok(seen)) => self::seen(state, seen, facts, rules),
        Event::Seen(Err(why)) => not_seen(state, why, facts),
        Event::Unreachable(at) => unreachable_while_running(state, at, facts, rules),
        Event::Barred(why) => barred(state, why, facts, rules),
        Event::Busy(busy) => busy_answered(state, busy, facts),
        Event::Renewed => renewed(state, facts),
        Event::Tick => tick(state, facts, rules),
    }
}

fn wake(facts: Facts, rules: Rules<'_>, tries: u32) -> (State, Option<Action>) {
    let waking = |stage| State::Waking(Waking { stage, since: facts.now, tries, foreign: false });
    if rules.gathers {
        (waking(Stage::Gathering), Some(Action::Gather))
    } else {
        (waking(Stage::Starting(facts.now + rules.policy.wake_timeout)), Some(Action::Start))
    }
}

fn probe_foreign(facts: Facts, rules: Rules<'_>, tries: u32) -> (State, Option<Action>) {
    let stage = Stage::Probing(facts.now + rules.policy.wake_timeout);
    (State::Waking(Waking { stage, since: facts.now, tries, foreign: true }), Some(Action::Probe))
}

fn wanted(state: State, facts: Facts, rules: Rules<'_>, by_order: bool) -> (State, Option<Action>) {
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
fn give_up_wake(wanted: bool) -> (State, Option<Action>) {
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

fn awake(at: Arc<Running>, since: Instant, ours: bool, tries: u32) -> Awake {
    Awake { at, since, ours, busy_at: None, asking: false, sleep_again: None, tries }
}

fn stopped(state: State, result: Result<(), CallFailed>, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
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

fn not_seen(state: State, why: Arc<str>, facts: Facts) -> (State, Option<Action>) {
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

fn seen(state: State, seen: ContainerState, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    match seen {
        ContainerState::Running(at) => seen_running(state, Arc::new(at), facts, rules),
        ContainerState::Paused(at) => seen_paused(state, Arc::new(at), facts, rules),
        ContainerState::Stopped { exit_code, error } => seen_stopped(state, exit_code, error, facts, rules),
        ContainerState::Gone => seen_gone(state),
        ContainerState::Changing => (state, None),
    }
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

fn unreachable_while_running(
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

fn tick(state: State, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    match state {
        State::Unknown { again: Some(again), away, wanted, before } if facts.now >= again => {
            (State::Unknown { away, again: None, wanted, before }, Some(Action::Look))
        }
        State::Asleep(down) => asleep_tick(down, facts, rules),
        State::Waking(waking) => waking_tick(waking, facts, rules),
        State::Awake(awake) => awake_tick(awake, facts, rules),
        State::Draining { awake, why, wanted } => draining_tick(awake, why, wanted, facts, rules),
        state => (state, None),
    }
}

fn asleep_tick(down: Down, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    if stop_after(&down, rules.policy).is_some_and(|at| facts.now >= at) {
        let method = SleepMethod::Stop;
        return (
            State::Stopping { method, wanted: false, failed: None, was: None, call_failed: false },
            Some(Action::Stop(method)),
        );
    }
    (State::Asleep(down), None)
}

pub(super) fn stop_after(down: &Down, policy: &IdlePolicy) -> Option<Instant> {
    if down.respected_until.is_some() {
        return None;
    }
    Some(down.paused.as_ref()?.since + policy.stop_after?)
}

fn waking_tick(waking: Waking, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    let (Stage::Starting(until) | Stage::Probing(until)) = waking.stage else { return (State::Waking(waking), None) };
    if facts.now < until {
        return (State::Waking(waking), None);
    }
    not_ready(&waking, Failure::TimedOut(rules.policy.wake_timeout), facts, rules)
}

/// It runs, and does not get ready.
fn not_ready(waking: &Waking, why: Failure, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    let failed = cool_down(why, waking.tries, facts);
    if waking.foreign || rules.policy.on_wake_timeout == OnWakeTimeout::Leave {
        return (State::Failed(failed), None);
    }
    let method = SleepMethod::Stop;
    (
        State::Stopping { method, wanted: false, failed: Some(failed), was: None, call_failed: false },
        Some(Action::Stop(method)),
    )
}

fn awake_tick(awake: Awake, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    let idle = idle_deadline(&awake, facts, rules.policy).is_some_and(|at| facts.now >= at);
    if !idle || facts.inside > 0 || awake.asking {
        return (State::Awake(awake), None);
    }
    if rules.policy.busy.is_some() {
        return (State::Awake(Awake { asking: true, ..awake }), Some(Action::AskBusy));
    }
    (State::Draining { awake, why: Drain::Idle, wanted: false }, None)
}

fn draining_tick(awake: Awake, why: Drain, wanted: bool, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
    let method = match why {
        Drain::Ordered { restart: true, .. } => SleepMethod::Stop,
        Drain::Ordered { .. } | Drain::Idle => rules.policy.stop_method,
    };
    let traffic = facts.inside > 0 || facts.waiting > 0;
    match why {
        Drain::Idle if traffic || idle_deadline(&awake, facts, rules.policy).is_none_or(|at| facts.now < at) => {
            (State::Awake(awake), None)
        }
        Drain::Ordered { until, .. } if facts.inside > 0 && facts.now >= until => (State::Awake(awake), None),
        Drain::Ordered { .. } if facts.inside > 0 => (State::Draining { awake, why, wanted }, None),
        Drain::Idle | Drain::Ordered { .. } => (
            State::Stopping { method, wanted, failed: None, was: Some(awake), call_failed: false },
            Some(Action::Stop(method)),
        ),
    }
}

/// When an awake backend falls idle if nobody comes; absent: never by itself.
pub(super) fn idle_deadline(awake: &Awake, facts: Facts, policy: &IdlePolicy) -> Option<Instant> {
    let timeout = match policy.idle_timeout {
        Some(timeout) => timeout,
        None if policy.dependency_only && awake.ours => Duration::ZERO,
        None => return None,
    };
    // A backend that was found running, or has just been woken, counts from then on.
    let quiet_since = if awake.ours { facts.quiet_since.max(awake.since) } else { facts.quiet_since };
    let quiet_since = awake.busy_at.map_or(quiet_since, |at| at.max(quiet_since));
    let mut at = (quiet_since + timeout).max(awake.since + policy.min_uptime);
    if let Some(kept) = facts.kept_until {
        at = at.max(kept);
    }
    if let Some((_, again)) = awake.sleep_again {
        at = at.max(again);
    }
    Some(at)
}

fn cool_down(why: Failure, tries: u32, facts: Facts) -> Failed {
    let pause = match why {
        Failure::EngineAway(_) => AWAY_AGAIN,
        Failure::Start(_)
        | Failure::ExitedEarly(_)
        | Failure::TimedOut(_)
        | Failure::Dependency(_)
        | Failure::Died(_)
        | Failure::Barred(_) => FIRST_COOL_DOWN.saturating_mul(1 << tries.min(10)).min(LONGEST_COOL_DOWN),
    };
    let tries = if matches!(why, Failure::EngineAway(_)) { tries } else { tries + 1 };
    Failed { why, until: facts.now + pause, tries }
}
