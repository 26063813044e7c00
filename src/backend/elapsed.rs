//! The part of the [`machine`](super::machine) for time that passes: deadlines, idle clocks and ends of drains.

// A state that an event does not concern stays as it is: that arm is the rule here, not an oversight.
#![allow(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Attempt,
    machine::cool_down,
    state::{Action, Awake, Down, Drain, Facts, Failure, Rules, Stage, State, Waking},
};
use crate::model::{IdlePolicy, OnWakeTimeout, SleepMethod};

pub(super) fn tick(state: State, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
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
    let untried = matches!(waking.stage, Stage::Starting(_)).then_some(Attempt::NotStarted);
    let tried = facts.tried.or(untried).map(|tried| tried.to_string().into());
    not_ready(&waking, Failure::TimedOut(rules.policy.wake_timeout, tried), facts, rules)
}

/// It runs, and does not get ready.
pub(super) fn not_ready(waking: &Waking, why: Failure, facts: Facts, rules: Rules<'_>) -> (State, Option<Action>) {
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
