//! What is found: running already, moved by other hands, not answering, or without its engine or its driver.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    test_world::{cause, listener, minutes, policy, secs, until, world},
    *,
};
use crate::{
    model::{BackendSpec, Cause, IdlePolicy, SleepMethod},
    provider::Script,
};

#[tokio::test(start_paused = true)]
async fn what_other_hands_do_is_seen_by_a_hint() {
    let world = world();
    let backend = world.backend("app", policy(600), Script::default());
    until(&backend, StatusState::Stopped).await;
    world.engine.hand_start("app");
    backend.hint().await;
    until(&backend, StatusState::Awake).await;
    world.engine.hand_signal("app");
    backend.hint().await;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(backend.status().borrow().state, StatusState::Awake);
    world.engine.hand_stop("app", 143);
    backend.hint().await;
    until(&backend, StatusState::Stopped).await;
    let pass = backend.enter(cause(), secs(5)).await.unwrap();
    world.engine.hand_stop("app", 3);
    backend.hint().await;
    until(&backend, StatusState::Failed).await;
    drop(pass);
    drop(backend.enter(cause(), secs(5)).await.expect("a first death is followed by a fresh wake"));
    world.engine.hand_remove("app");
    backend.hint().await;
    until(&backend, StatusState::Gone).await;
    assert_eq!(backend.enter(cause(), secs(5)).await.unwrap_err(), Refused::Gone);
    world.engine.add("app", Script::default());
    backend.hint().await;
    until(&backend, StatusState::Stopped).await;
}

#[tokio::test(start_paused = true)]
async fn a_removal_is_told_as_that_whatever_was_last_done_with_it() {
    let world = world();
    let backend = world.backend("app", policy(10), Script::default());
    drop(backend.enter(cause(), secs(5)).await.unwrap());
    until(&backend, StatusState::Stopped).await;
    for awake in [false, true] {
        if awake {
            drop(backend.enter(cause(), secs(5)).await.unwrap());
        }
        world.engine.hand_remove("app");
        backend.hint().await;
        until(&backend, StatusState::Gone).await;
        let removed = Cause::Engine("removed".to_owned());
        let last = world.around.journal.since(0).0.pop().unwrap();
        assert_eq!((last.what.to_string().as_str(), &last.cause), ("is no longer there", &removed));
        assert_eq!(backend.status().borrow().cause, Some(removed));
        world.engine.add("app", Script::default());
        backend.hint().await;
        until(&backend, StatusState::Stopped).await;
        assert_eq!(backend.status().borrow().cause, None, "it is there again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_by_another_hand_is_respected_and_then_thawed_for_callers() {
    let world = world();
    let backend = world.backend("app", policy(600), Script::default());
    drop(backend.enter(cause(), secs(5)).await.unwrap());
    world.engine.hand_pause("app");
    backend.hint().await;
    until(&backend, StatusState::Paused).await;
    let begun = Instant::now();
    let (first, second) = tokio::join!(backend.enter(cause(), minutes(5)), backend.enter(cause(), minutes(5)));
    drop((first.unwrap(), second.unwrap()));
    assert!((29..=31).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let told: Vec<String> = world.around.journal.since(0).0.iter().map(|entry| entry.what.to_string()).collect();
    let count = |words: &str| told.iter().filter(|text| text.contains(words)).count();
    assert_eq!(count("was paused by another hand"), 1, "{told:?}");
    assert_eq!(count("is asked for while it is paused by another hand: 30s more are waited"), 1, "{told:?}");
    assert_eq!(count("ended by itself"), 0, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_inside_when_another_hand_pauses_it_is_a_reason_to_thaw_it() {
    let world = world();
    let backend = world.backend("app", policy(600), Script::default());
    let pass = backend.enter(cause(), secs(5)).await.unwrap();
    world.engine.hand_pause("app");
    backend.hint().await;
    until(&backend, StatusState::Paused).await;
    let begun = Instant::now();
    tokio::time::timeout(minutes(5), until(&backend, StatusState::Awake))
        .await
        .expect("it is thawed for who is inside");
    assert!((29..=31).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let journal = world.around.journal.since(0).0;
    let told: Vec<String> = journal.iter().map(|entry| format!("{} {}", entry.what, entry.cause)).collect();
    let count = |words: &str| told.iter().filter(|text| text.contains(words)).count();
    assert_eq!(count("is paused by another hand with 1 inside: 30s are waited"), 1, "{told:?}");
    assert!(count("those who were inside when it was paused wait for it") > 0, "{told:?}");
    drop(pass);
}

#[tokio::test(start_paused = true)]
async fn a_pause_by_another_hand_holds_where_nobody_is_inside_or_its_owner_keeps_it_down() {
    let world = world();
    let left = world.backend("left", policy(600), Script::default());
    let stays_down = IdlePolicy { wake_after_manual_stop: false, ..policy(600) };
    let kept = world.backend("kept", stays_down, Script::default());
    drop(left.enter(cause(), secs(5)).await.unwrap());
    let pass = kept.enter(cause(), secs(5)).await.unwrap();
    for (backend, name) in [(&left, "left"), (&kept, "kept")] {
        world.engine.hand_pause(name);
        backend.hint().await;
        until(backend, StatusState::Paused).await;
    }
    tokio::time::sleep(minutes(10)).await;
    for backend in [&left, &kept] {
        assert_eq!(backend.status().borrow().state, StatusState::Paused);
    }
    drop(pass);
}

#[tokio::test(start_paused = true)]
async fn once_its_engine_is_back_what_it_says_holds() {
    let world = world();
    let pauses = IdlePolicy { stop_method: SleepMethod::Pause, ..policy(60) };
    let (slept, started) = (
        world.backend("slept", policy(60), Script::default()),
        world.backend("started", policy(3600), Script::default()),
    );
    let paused = world.backend("paused", pauses, Script::default());
    for backend in [&slept, &paused] {
        drop(backend.enter(cause(), secs(5)).await.unwrap());
        until(backend, StatusState::Awake).await;
    }
    until(&slept, StatusState::Stopped).await;
    until(&paused, StatusState::Paused).await;
    world.engine.go_away("connection refused");
    let all = [&slept, &started, &paused];
    for backend in all {
        assert!(matches!(backend.enter(cause(), secs(5)).await.unwrap_err(), Refused::EngineAway { .. }));
        until(backend, StatusState::Failed).await;
    }
    world.engine.hand_start("started");
    world.engine.come_back();
    for backend in all {
        backend.hint().await;
    }
    for (backend, state) in all.into_iter().zip([StatusState::Stopped, StatusState::Awake, StatusState::Paused]) {
        until(backend, state).await;
        assert_eq!(backend.status().borrow().failure, None);
    }
    assert!(slept.status().borrow().put_to_sleep, "it is down by our doing, as before");
    assert_eq!(world.engine.start_calls("slept"), 2, "nobody has asked for it since");
}

#[tokio::test(start_paused = true)]
async fn a_sleep_that_fails_is_told_in_the_words_of_its_engine() {
    let world = world();
    let backend = world.backend("app", policy(60), Script::default());
    drop(backend.enter(cause(), secs(5)).await.unwrap());
    world.engine.go_away("connection refused");
    tokio::time::sleep(minutes(2)).await;
    let told: Vec<String> = world.around.journal.since(0).0.iter().map(|entry| entry.what.to_string()).collect();
    let failed = told.iter().find(|text| text.contains("could not be let down")).expect("it failed");
    assert!(failed.contains("its engine is away") && failed.contains("connection refused"), "{failed}");
    let Answer::Denied(why) = backend.order(Order::SleepNow, "me").await else { panic!("it can not be") };
    assert!(why.contains("connection refused"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_refuses_fast_and_leaves_the_running_ones_alone() {
    let world = world();
    let running = world.backend("up", policy(3600), Script::default());
    let sleeping = world.backend("down", policy(60), Script::default());
    drop(running.enter(cause(), secs(5)).await.unwrap());
    world.engine.go_away("connection refused");
    let begun = Instant::now();
    assert!(matches!(sleeping.enter(cause(), minutes(5)).await.unwrap_err(), Refused::EngineAway { .. }));
    assert!(begun.elapsed() < Duration::from_millis(100));
    assert!(running.try_enter().is_some());
    tokio::time::sleep(minutes(90)).await;
    assert!(running.try_enter().is_some(), "a sleep that the engine can not carry out leaves it up");
    world.engine.come_back();
    drop(sleeping.enter(cause(), minutes(5)).await.unwrap());
    until(&running, StatusState::Stopped).await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_found_running_is_awake_at_once_with_its_idle_clock() {
    let world = world();
    world.engine.add("app", Script::default());
    world.engine.hand_start("app");
    let restored = Restored { quiet_since: Some(Instant::now() - secs(40)), ..Restored::default() };
    let (backend, _) =
        Backend::spawn(world.spec("app", policy(60)), Vec::new(), world.around.clone(), restored, world.end.clone());
    let begun = Instant::now();
    until(&backend, StatusState::Awake).await;
    assert!(backend.try_enter_quietly().is_some());
    until(&backend, StatusState::Stopped).await;
    assert!((19..=21).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn one_that_does_not_answer_is_up_again_once_it_does_though_the_engine_is_away() {
    let world = world();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.engine.add("app", Script::default());
    world.engine.hand_start("app");
    let spec = BackendSpec { ports: vec![port], ..world.spec("app", policy(3600)) };
    let around = world.around.clone();
    let (backend, _driver) = Backend::spawn(spec, Vec::new(), around, Restored::default(), world.end.clone());
    until(&backend, StatusState::Awake).await;
    backend.suspect();
    until(&backend, StatusState::Waking).await;
    world.engine.go_away("the cable is cut");
    let _app = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    until(&backend, StatusState::Awake).await;
}

#[tokio::test(start_paused = true)]
async fn a_port_that_stays_closed_keeps_nobody_from_the_others() {
    let world = world();
    let (free, open) = (listener(), listener());
    let closed = free.local_addr().unwrap().port();
    drop(free);
    world.engine.add("app", Script::default());
    world.engine.hand_start("app");
    let spec =
        BackendSpec { ports: vec![closed, open.local_addr().unwrap().port()], ..world.spec("app", policy(3600)) };
    let around = world.around.clone();
    let (backend, _driver) = Backend::spawn(spec, Vec::new(), around, Restored::default(), world.end.clone());
    until(&backend, StatusState::Awake).await;
    backend.suspect();
    until(&backend, StatusState::Waking).await;
    let begun = Instant::now();
    until(&backend, StatusState::Awake).await;
    assert!(begun.elapsed() < secs(12), "{:?}", begun.elapsed());
    let version = backend.status().borrow().version;
    backend.suspect();
    tokio::time::sleep(secs(5)).await;
    assert_eq!(backend.status().borrow().version, version, "those of the open port are left alone");
}

#[tokio::test(start_paused = true)]
async fn what_ran_before_it_was_started_is_never_stopped_for_not_answering() {
    let world = world();
    let closed = listener().local_addr().unwrap().port();
    world.engine.add("app", Script::default());
    world.engine.hand_start("app");
    let spec = BackendSpec { ports: vec![closed], ..world.spec("app", policy(3600)) };
    let around = world.around.clone();
    let (backend, _driver) = Backend::spawn(spec, Vec::new(), around, Restored::default(), world.end.clone());
    until(&backend, StatusState::Awake).await;
    backend.suspect();
    until(&backend, StatusState::Failed).await;
    assert!(matches!(backend.order(Order::Wake, "test").await, Answer::Denied(_)));
    assert_eq!((world.engine.start_calls("app"), world.engine.stop_calls("app")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn where_the_driver_has_ended_nobody_gets_in_and_nobody_waits() {
    let world = world();
    let spawn = |name: &str, start_delay, wake_timeout| {
        world.engine.add(name, Script { start_delay, ..Script::default() });
        let spec = world.spec(name, IdlePolicy { wake_timeout, ..policy(600) });
        Backend::spawn(spec, Vec::new(), world.around.clone(), Restored::default(), world.end.clone())
    };
    let (up, driver) = spawn("up", secs(0), minutes(1));
    drop(up.enter(cause(), minutes(5)).await.unwrap());
    assert!(up.try_enter_quietly().is_some());
    driver.abort();
    assert!(driver.await.unwrap_err().is_cancelled());
    assert!(up.try_enter_quietly().is_none());
    assert_eq!(up.enter(cause(), minutes(5)).await.unwrap_err(), Refused::Gone);
    assert_eq!(up.order(Order::Wake, "me").await, Answer::Denied("there is no such backend any more".into()));
    // A fault of ours: this one waits for longer than can be counted. No configuration holds such a time.
    let (faulty, driver) = spawn("faulty", secs(5), Duration::MAX);
    assert_eq!(faulty.enter(cause(), minutes(5)).await.unwrap_err(), Refused::Gone);
    assert!(driver.await.unwrap_err().is_panic());
}
