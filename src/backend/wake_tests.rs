//! What wakes it, and who is held, let in or refused meanwhile.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    test_world::{cause, minutes, policy, secs, until, world},
    *,
};
use crate::{
    model::{Command, IdlePolicy, OnWakeTimeout},
    provider::Script,
};

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_share_one_start_and_the_last_one_out_starts_the_idle_clock() {
    let world = world();
    let backend = world.backend("app", policy(60), Script { start_delay: secs(3), ..Script::default() });
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let backend = backend.clone();
            tokio::spawn(async move { backend.enter(cause(), minutes(1)).await.unwrap() })
        })
        .collect();
    let mut passes = Vec::new();
    for caller in callers {
        passes.push(caller.await.unwrap());
    }
    assert!(passes.iter().all(Pass::waited));
    assert_eq!(world.engine.start_calls("app"), 1);
    tokio::time::sleep(minutes(30)).await;
    assert_eq!(world.engine.stop_calls("app"), 0, "it is in use");
    drop(passes);
    let left = Instant::now();
    until(&backend, StatusState::Stopped).await;
    assert!(left.elapsed() >= secs(60) && left.elapsed() < secs(62), "{:?}", left.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_meets_a_stop_waits_and_wakes_it_again() {
    let world = world();
    let backend = world.backend("app", policy(10), Script { stop_delay: secs(5), ..Script::default() });
    drop(backend.enter(cause(), secs(5)).await.unwrap());
    until(&backend, StatusState::Stopping).await;
    let pass = backend.enter(cause(), minutes(1)).await.unwrap();
    assert!(pass.waited());
    assert_eq!(world.engine.start_calls("app"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_takes_too_long_answers_all_and_stops_what_is_half_started() {
    let world = world();
    let patient = IdlePolicy { wake_timeout: secs(20), ..policy(10) };
    let backend = world.backend("app", patient, Script { start_delay: minutes(10), ..Script::default() });
    let begun = Instant::now();
    let refused = backend.enter(cause(), minutes(5)).await.unwrap_err();
    assert_eq!(refused, Refused::TimedOut { after: secs(20), tried: Some(Attempt::NotStarted.to_string().into()) });
    assert_eq!(begun.elapsed().as_secs(), 20);
    assert!(matches!(backend.enter(cause(), minutes(5)).await.unwrap_err(), Refused::CoolingDown { .. }));
    assert_eq!(world.engine.stop_calls("app"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_on_a_timeout_is_not_stopped() {
    let world = world();
    let policy = IdlePolicy { wake_timeout: secs(20), on_wake_timeout: OnWakeTimeout::Leave, ..policy(10) };
    let backend = world.backend("app", policy, Script { start_delay: minutes(10), ..Script::default() });
    backend.enter(cause(), minutes(5)).await.unwrap_err();
    assert_eq!(world.engine.stop_calls("app"), 0);
}

#[tokio::test(start_paused = true)]
async fn failed_starts_cool_down_twice_as_long_each_time_and_an_order_overrides() {
    let world = world();
    let broken = Script { start_fails: Some("no such file".into()), ..Script::default() };
    let backend = world.backend("app", policy(10), broken);
    for expected in [5, 10, 20] {
        let refused = backend.enter(cause(), minutes(5)).await.unwrap_err();
        let Refused::WakeFailed { why, retry_after } = refused else { panic!("{refused:?}") };
        assert!(why.contains("no such file"));
        assert_eq!(retry_after.as_secs(), expected);
        let refused = backend.enter(cause(), minutes(5)).await.unwrap_err();
        assert!(matches!(refused, Refused::CoolingDown { .. }), "{refused:?}");
        tokio::time::sleep(secs(expected)).await;
    }
    let starts = world.engine.start_calls("app");
    backend.enter(cause(), minutes(5)).await.unwrap_err();
    world.engine.script("app", |script| script.start_fails = None);
    assert_eq!(backend.order(Order::Wake, "me").await, Answer::Done);
    assert_eq!(world.engine.start_calls("app"), starts + 2);
}

#[tokio::test(start_paused = true)]
async fn too_many_held_are_refused_and_those_who_leave_make_room() {
    let world = world();
    let tight = IdlePolicy { max_held: 2, ..policy(60) };
    let backend = world.backend("app", tight, Script { start_delay: secs(30), ..Script::default() });
    let enter = || {
        let backend = backend.clone();
        tokio::spawn(async move { backend.enter(cause(), minutes(5)).await })
    };
    let (first, second) = (enter(), enter());
    tokio::time::sleep(secs(1)).await;
    assert!(matches!(enter().await.unwrap(), Err(Refused::TooManyHeld { .. })));
    first.abort();
    tokio::time::sleep(secs(1)).await;
    let third = enter();
    assert!(second.await.unwrap().is_ok());
    assert!(third.await.unwrap().is_ok());
    assert_eq!(world.engine.start_calls("app"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_in_finds_it_awake_by_its_status_too() {
    let world = world();
    let backend = world.backend("app", policy(3600), Script::default());
    for round in 0..500 {
        let pass = backend.enter(cause(), secs(60)).await.unwrap();
        assert_eq!(backend.status().borrow().state, StatusState::Awake, "round {round}");
        drop(pass);
        assert!(matches!(backend.order(Order::SleepNow, "test").await, Answer::Done | Answer::AlreadySo));
    }
}

#[tokio::test(start_paused = true)]
async fn waits_and_refusals_are_counted() {
    let world = world();
    let app = world.backend("app", IdlePolicy { max_held: 1, ..policy(60) }, Script::default());
    let (first, second) = tokio::join!(app.enter(cause(), minutes(1)), app.enter(cause(), minutes(1)));
    assert!(first.is_ok() && matches!(second, Err(Refused::TooManyHeld { .. })), "{first:?} {second:?}");
    drop(app.enter(cause(), minutes(1)).await.unwrap());
    let sample = crate::telemetry::BackendSample {
        id: app.id().clone(),
        state: "awake",
        passes: 0,
        held: 0,
        asleep: Duration::ZERO,
        gives_back: 0,
    };
    let all = crate::telemetry::World {
        backends: vec![sample],
        routes: Vec::new(),
        endpoints: Vec::new(),
        certificates: Vec::new(),
        access_log_dropped: 0,
        connections: std::sync::Arc::default(),
    };
    let text = world.around.journal.metrics().render(&all);
    for line in [
        r#"dormouse_held_seconds_count{backend="sim/app"} 1"#,
        r#"dormouse_refused_total{backend="sim/app",reason="too_many_held"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_started_otherwise_is_started_anew_for_those_who_wait() {
    let world = world();
    let backend = world.backend("app", policy(600), Script { start_delay: secs(5), ..Script::default() });
    let waits = tokio::spawn({
        let backend = backend.clone();
        async move { backend.enter(cause(), minutes(5)).await }
    });
    until(&backend, StatusState::Waking).await;
    let mut spec = world.spec("app", policy(60));
    backend.configure(spec.clone(), Vec::new()).await;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(world.engine.stop_calls("app"), 0, "another policy ends no wake");
    let command = Command { argv: vec!["mended".into()], env: BTreeMap::new(), directory: None, user: None };
    spec.unit.command = Some(command);
    backend.configure(spec, Vec::new()).await;
    drop(waits.await.unwrap().unwrap());
    assert_eq!((world.engine.start_calls("app"), world.engine.stop_calls("app")), (2, 1));
}
