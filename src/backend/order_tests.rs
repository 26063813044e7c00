//! What people order.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    test_world::{cause, minutes, policy, secs, until, world},
    *,
};
use crate::{model::Condition, provider::Script};

#[tokio::test(start_paused = true)]
async fn an_ordered_sleep_drains_is_denied_in_time_and_now_cuts() {
    let world = world();
    let backend = world.backend("app", policy(600), Script::default());
    let pass = backend.enter(cause(), secs(5)).await.unwrap();
    let begun = Instant::now();
    let Answer::Denied(why) = backend.order(Order::Sleep, "me").await else { panic!("it is in use") };
    assert!(why.starts_with("1 "), "{why}");
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert!(backend.try_enter().is_some(), "the gate is open again");
    assert_eq!(backend.order(Order::SleepNow, "me").await, Answer::Done);
    assert_eq!(backend.order(Order::Sleep, "me").await, Answer::AlreadySo);
    drop(pass);
    assert_eq!(backend.order(Order::Restart, "me").await, Answer::Done);
    assert_eq!(backend.order(Order::Restart, "me").await, Answer::Done);
    assert_eq!(world.engine.start_calls("app"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_restart_while_it_wakes_begins_anew_and_who_waits_goes_on_waiting() {
    let world = world();
    let script = Script { start_delay: secs(5), ..Script::default() };
    let backend = world.backend("app", policy(600), script);
    let waits = async { backend.enter(cause(), minutes(5)).await };
    let restart = async {
        until(&backend, StatusState::Waking).await;
        while world.engine.start_calls("app") == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        backend.order(Order::Restart, "me").await
    };
    let (entered, restarted) = tokio::join!(waits, restart);
    assert_eq!(restarted, Answer::Done);
    drop(entered.expect("whoever waits is let in by the second start"));
    assert_eq!((world.engine.start_calls("app"), world.engine.stop_calls("app")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_what_has_not_been_started_yet_is_its_start() {
    let world = world();
    let db = world.backend("db", policy(600), Script { start_delay: secs(10), ..Script::default() });
    let app = world.dependent("app", policy(600), Script::default(), vec![(db, Condition::Started)]);
    let waits = async { app.enter(cause(), minutes(5)).await };
    let restart = async {
        until(&app, StatusState::Waking).await;
        app.order(Order::Restart, "me").await
    };
    let (entered, restarted) = tokio::join!(waits, restart);
    assert_eq!(restarted, Answer::Done);
    drop(entered.unwrap());
    assert_eq!((world.engine.start_calls("app"), world.engine.stop_calls("app")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_starts_again_waits_for_no_dependency_that_waits_for_it() {
    let world = world();
    let database = world.backend("db", policy(600), Script::default());
    let on = vec![(database.clone(), Condition::Started)];
    let app = world.dependent("app", policy(600), Script::default(), on);
    drop(app.enter(cause(), secs(5)).await.unwrap());
    let begun = Instant::now();
    let sleep = async { database.order(Order::Sleep, "me").await };
    let restart = async {
        until(&database, StatusState::Draining).await;
        app.order(Order::Restart, "me").await
    };
    let (slept, restarted) = tokio::join!(sleep, restart);
    assert_eq!(restarted, Answer::Done);
    assert!(begun.elapsed() < secs(10), "they waited for each other: {:?}, {slept:?}", begun.elapsed());
    assert_eq!(database.status().borrow().state, StatusState::Awake, "the app needs it");
}

#[tokio::test(start_paused = true)]
async fn a_pin_keeps_it_awake_and_an_unpinned_one_sleeps() {
    let world = world();
    let backend = world.backend("app", policy(10), Script::default());
    let until_then = jiff::Timestamp::now() + Duration::from_secs(3600 * 24);
    assert_eq!(backend.pin(until_then, "me").await, Answer::Done);
    until(&backend, StatusState::Awake).await;
    tokio::time::sleep(minutes(60)).await;
    assert_eq!(world.engine.stop_calls("app"), 0);
    assert!(matches!(backend.order(Order::Sleep, "me").await, Answer::Denied(_)));
    assert_eq!(backend.unpin("me").await, Answer::Done);
    until(&backend, StatusState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_of_a_pin_finds_it_in_the_status() {
    let world = world();
    let backend = world.backend("app", policy(3600), Script::default());
    for round in 1..500 {
        let until = jiff::Timestamp::now() + minutes(round);
        assert_eq!(backend.pin(until, "test").await, Answer::Done);
        assert_eq!(backend.status().borrow().pinned_until, Some(until), "round {round}");
        assert_eq!(backend.unpin("test").await, Answer::Done);
        assert_eq!(backend.status().borrow().pinned_until, None, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_that_an_order_is_done_finds_it_so_in_the_status() {
    let world = world();
    let backend = world.backend("app", policy(3600), Script::default());
    let state = || backend.status().borrow().state;
    for round in 1..200 {
        assert_eq!(backend.order(Order::Wake, "test").await, Answer::Done);
        assert_eq!(state(), StatusState::Awake, "round {round}");
        assert_eq!(backend.order(Order::Sleep, "test").await, Answer::Done);
        assert_eq!(state(), StatusState::Stopped, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ordered_sleep_calls_a_wake_off_and_who_comes_afterwards_begins_another() {
    let world = world();
    let script = Script { start_delay: secs(5), stop_delay: secs(5), ..Script::default() };
    let backend = world.backend("app", policy(600), script);
    let enter = || {
        let backend = backend.clone();
        tokio::spawn(async move { backend.enter(cause(), minutes(5)).await })
    };
    let waits = enter();
    until(&backend, StatusState::Waking).await;
    let ordered = tokio::spawn({
        let backend = backend.clone();
        async move { backend.order(Order::Sleep, "me").await }
    });
    assert_eq!(waits.await.unwrap().unwrap_err(), Refused::PutToSleep);
    until(&backend, StatusState::Stopping).await;
    let comes = enter();
    assert!(matches!(ordered.await.unwrap(), Answer::Denied(why) if why.contains("somebody wanted it")));
    drop(comes.await.unwrap().unwrap());
    assert_eq!((world.engine.start_calls("app"), world.engine.stop_calls("app")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_waits_for_what_it_needs_is_called_off_before_anything_is_started() {
    let world = world();
    let db = world.backend("db", policy(600), Script { start_delay: secs(10), ..Script::default() });
    let app = world.dependent("app", policy(600), Script::default(), vec![(db.clone(), Condition::Started)]);
    let waits = tokio::spawn({
        let app = app.clone();
        async move { app.enter(cause(), minutes(5)).await }
    });
    until(&db, StatusState::Waking).await;
    assert_eq!(app.order(Order::SleepNow, "me").await, Answer::Done);
    assert_eq!(waits.await.unwrap().unwrap_err(), Refused::PutToSleep);
    assert!(app.status().borrow().put_to_sleep);
    until(&db, StatusState::Awake).await;
    assert_eq!((db.passes(), world.engine.start_calls("app")), (0, 0));
    // It can be woken as before.
    drop(app.enter(cause(), minutes(5)).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn who_ordered_a_wake_that_is_called_off_is_told_so() {
    let world = world();
    let backend = world.backend("app", policy(600), Script { start_delay: secs(5), ..Script::default() });
    let woken = tokio::spawn({
        let backend = backend.clone();
        async move { backend.order(Order::Wake, "me").await }
    });
    until(&backend, StatusState::Waking).await;
    assert_eq!(backend.order(Order::Sleep, "somebody else").await, Answer::Done);
    assert!(matches!(woken.await.unwrap(), Answer::Denied(why) if why.contains("put to sleep")));
}
