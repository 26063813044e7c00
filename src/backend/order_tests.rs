//! What people order.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    test_world::{cause, minutes, policy, secs, until, world},
    *,
};
use crate::provider::Script;

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
