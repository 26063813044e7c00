//! When it is let down, and what is known of it then.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    test_world::{cause, minutes, policy, secs, until, world},
    *,
};
use crate::{
    model::{IdlePolicy, SleepMethod},
    provider::Script,
};

#[tokio::test(start_paused = true)]
async fn traffic_keeps_it_awake_for_hours_and_quiet_requests_do_not() {
    let world = world();
    let backend = world.backend("app", policy(10), Script::default());
    for _ in 0..1000 {
        drop(backend.enter(cause(), secs(5)).await.unwrap());
        tokio::time::sleep(secs(9)).await;
    }
    assert_eq!((world.engine.start_calls("app"), world.engine.stop_calls("app")), (1, 0));
    for _ in 0..12 {
        drop(backend.try_enter_quietly());
        tokio::time::sleep(secs(1)).await;
    }
    until(&backend, StatusState::Stopped).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_backend_is_stopped_after_its_time() {
    let world = world();
    let policy = IdlePolicy { stop_method: SleepMethod::Pause, stop_after: Some(minutes(60)), ..policy(10) };
    let backend = world.backend("app", policy, Script::default());
    drop(backend.enter(cause(), secs(5)).await.unwrap());
    until(&backend, StatusState::Paused).await;
    let paused = Instant::now();
    until(&backend, StatusState::Stopped).await;
    assert_eq!(paused.elapsed().as_secs(), 3600);
}

#[tokio::test]
async fn a_busy_check_vetoes_the_sleep() {
    let world = world();
    let directory = tempfile::tempdir().unwrap();
    let asked = directory.path().join("asked");
    let short = |busy: String| IdlePolicy {
        idle_timeout: Some(Duration::from_millis(50)),
        busy: Some(busy),
        ..IdlePolicy::default()
    };
    let backend = world.backend("app", short(format!("echo >> {}", asked.display())), Script::default());
    drop(backend.enter(cause(), secs(5)).await.unwrap());
    while std::fs::read(&asked).unwrap_or_default().len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.engine.stop_calls("app"), 0);
    backend.configure(world.spec("app", short("exit 1".into())), Vec::new()).await;
    until(&backend, StatusState::Stopped).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_stop_gives_back_is_told_and_a_pause_gives_nothing() {
    let world = world();
    let stops = world.backend("stops", policy(60), Script::default());
    let pauses =
        world.backend("pauses", IdlePolicy { stop_method: SleepMethod::Pause, ..policy(60) }, Script::default());
    until(&stops, StatusState::Stopped).await;
    assert_eq!(stops.status().borrow().gives_back(), None, "nobody knows what it used before");
    for (backend, asleep, gives_back) in
        [(&stops, StatusState::Stopped, Some(64 << 20)), (&pauses, StatusState::Paused, None)]
    {
        drop(backend.enter(cause(), minutes(1)).await.unwrap());
        assert_eq!(backend.status().borrow().gives_back(), None, "it is up");
        until(backend, asleep).await;
        assert_eq!(backend.status().borrow().gives_back(), gives_back);
        assert!(backend.status().borrow().put_to_sleep);
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_of_use_until_it_is_let_down() {
    let world = world();
    let app = world.backend("app", policy(60), Script::default());
    let pass = app.enter(cause(), minutes(1)).await.unwrap();
    let generation = pass.generation();
    let over = tokio::spawn({
        let app = app.clone();
        async move { app.outlives(generation).await }
    });
    tokio::time::sleep(minutes(5)).await;
    assert!(!over.is_finished(), "it is in use");
    drop(pass);
    until(&app, StatusState::Stopped).await;
    tokio::time::timeout(secs(1), over).await.expect("told at once").unwrap();
    app.outlives(generation).await;
}
