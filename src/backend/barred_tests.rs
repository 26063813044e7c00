//! What runs and is not reached: that is told at once, and nobody waits for it.

use std::sync::Arc;

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    attempt::Attempts,
    machine::step,
    readiness::{Before, Outcome, until_ready},
    state::{Action, Event, Facts, Failed, Failure, Rules, Stage, State, Waking},
    test_world::{minutes, policy, secs, world},
};
use crate::{
    model::{ContainerState, Namespace, OnWakeTimeout, Running, SleepMethod},
    provider::Script,
};

fn closed() -> Running {
    Running { namespace: Some(Namespace::Closed("no way in".into())), ..Running::default() }
}

/// What becomes of a wake that meets it.
fn after_wake(foreign: bool, on_wake_timeout: OnWakeTimeout) -> (State, Option<Action>, Instant) {
    let now = Instant::now();
    let facts = Facts { now, inside: 0, waiting: 0, quiet_since: now, kept_until: None, tried: None };
    let policy = crate::model::IdlePolicy { on_wake_timeout, ..policy(10) };
    let rules = Rules { policy: &policy, gathers: true };
    let waking = Waking { stage: Stage::Probing(now + secs(60)), since: now, tries: 0, foreign };
    let (state, action) = step(State::Waking(waking), Event::Barred("no way in".into()), facts, rules);
    (state, action, now)
}

#[tokio::test]
async fn what_we_started_and_do_not_reach_is_let_down_and_what_ran_is_left_alone() {
    let why = Failure::Barred("no way in".into());
    let (state, action, _) = after_wake(false, OnWakeTimeout::Stop);
    assert!(matches!(state, State::Stopping { failed: Some(failed), .. } if failed.why == why));
    assert_eq!(action, Some(Action::Stop(SleepMethod::Stop)));
    for (foreign, on_wake_timeout) in [(true, OnWakeTimeout::Stop), (false, OnWakeTimeout::Leave)] {
        let (state, action, _) = after_wake(foreign, on_wake_timeout);
        assert!(matches!(state, State::Failed(failed) if failed.why == why));
        assert_eq!(action, None);
    }
}

#[tokio::test]
async fn that_it_runs_is_no_reason_to_try_again_and_a_caller_after_the_pause_is() {
    let (state, _, now) = after_wake(true, OnWakeTimeout::Stop);
    let State::Failed(Failed { until, .. }) = state else { panic!("{state:?}") };
    let policy = policy(10);
    let rules = Rules { policy: &policy, gathers: false };
    let facts = Facts { now, inside: 0, waiting: 0, quiet_since: now, kept_until: None, tried: None };
    let (state, action) = step(state, Event::Seen(Ok(ContainerState::Running(closed()))), facts, rules);
    assert!(matches!(state, State::Failed(_)) && action.is_none());
    let (state, action) = step(state, Event::Wanted, facts, rules);
    assert!(matches!(state, State::Failed(_)) && action.is_none(), "it cools down");
    let (_, action) = step(state, Event::Wanted, Facts { now: until, ..facts }, rules);
    assert_eq!(action, Some(Action::Start));
}

#[tokio::test(start_paused = true)]
async fn no_try_is_made_where_none_will_do() {
    let world = world();
    world.engine.add("app", Script::default());
    let before = Before { thawed: false, known: Some(Arc::new(closed())), others_from: Instant::now() };
    let mut spec = world.spec("app", policy(10));
    spec.ports.push(80);
    let provider = &*world.around.provider;
    let outcome =
        timeout(minutes(1), until_ready(provider, &spec, &before, &Notify::new(), &Attempts::default())).await.unwrap();
    assert!(matches!(&outcome, Outcome::Barred(why) if &**why == "no way in"), "{outcome:?}");
}
