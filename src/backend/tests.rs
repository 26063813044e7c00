//! The driver on the simulated engine, under a paused clock: hours pass in milliseconds.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    model::{
        BackendId, BackendSpec, Cause, Condition, Health, IdlePolicy, OnWakeTimeout, Provenance, Readiness,
        SleepMethod, Unit,
    },
    provider::{Script, Simulated},
    telemetry::Journal,
};

struct World {
    engine: Simulated,
    around: Surroundings,
    end: CancellationToken,
}

fn world() -> World {
    let engine = Simulated::new("sim".parse().unwrap());
    let around = Surroundings {
        provider: Arc::new(engine.clone()),
        turns: Arc::new(Semaphore::new(8)),
        journal: Journal::default(),
    };
    World { engine, around, end: CancellationToken::new() }
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn minutes(count: u64) -> Duration {
    secs(60 * count)
}

fn policy(idle: u64) -> IdlePolicy {
    IdlePolicy { idle_timeout: Some(secs(idle)), ..IdlePolicy::default() }
}

fn cause() -> Cause {
    Cause::Person("test".into())
}

impl World {
    fn spec(&self, name: &str, policy: IdlePolicy) -> BackendSpec {
        BackendSpec {
            id: BackendId::new("sim".parse().unwrap(), name).unwrap(),
            unit: Unit { name: name.into(), network: None, command: None },
            policy,
            ready: Readiness::Tcp,
            ports: Vec::new(),
            depends_on: Vec::new(),
            provenance: Provenance::Discovered,
        }
    }

    fn backend(&self, name: &str, policy: IdlePolicy, script: Script) -> Backend {
        self.dependent(name, policy, script, Vec::new())
    }

    fn dependent(&self, name: &str, policy: IdlePolicy, script: Script, on: Vec<(Backend, Condition)>) -> Backend {
        self.engine.add(name, script);
        let spec = self.spec(name, policy);
        Backend::spawn(spec, on, self.around.clone(), Restored::default(), self.end.clone()).0
    }
}

async fn until(backend: &Backend, state: StatusState) {
    let mut status = backend.status();
    let reached = status.wait_for(|status| status.state == state);
    tokio::time::timeout(minutes(600), reached).await.expect("the state is reached").expect("the driver lives");
}

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
    assert_eq!(refused, Refused::TimedOut { after: secs(20) });
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
async fn a_pause_by_another_hand_is_respected_and_then_thawed_for_callers() {
    let world = world();
    let backend = world.backend("app", policy(600), Script::default());
    drop(backend.enter(cause(), secs(5)).await.unwrap());
    world.engine.hand_pause("app");
    backend.hint().await;
    until(&backend, StatusState::Paused).await;
    let begun = Instant::now();
    drop(backend.enter(cause(), minutes(5)).await.unwrap());
    assert!((29..=31).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn dependencies_come_up_first_and_sleep_last() {
    let world = world();
    let needed = IdlePolicy { dependency_only: true, idle_timeout: None, ..IdlePolicy::default() };
    let database = world.backend("db", needed, Script { start_delay: secs(2), ..Script::default() });
    let on = || vec![(database.clone(), Condition::Started)];
    let one = world.dependent("one", policy(30), Script::default(), on());
    let two = world.dependent("two", policy(90), Script::default(), on());
    drop(one.enter(cause(), minutes(1)).await.unwrap());
    drop(two.enter(cause(), minutes(1)).await.unwrap());
    assert_eq!(world.engine.start_calls("db"), 1);
    until(&one, StatusState::Stopped).await;
    assert_eq!(database.status().borrow().state, StatusState::Awake);
    until(&two, StatusState::Stopped).await;
    until(&database, StatusState::Stopped).await;
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_fails_fails_its_dependant_by_name() {
    let world = world();
    let broken = Script { start_fails: Some("disk is gone".into()), ..Script::default() };
    let database = world.backend("db", policy(30), broken);
    let app = world.dependent("app", policy(30), Script::default(), vec![(database, Condition::Started)]);
    let refused = app.enter(cause(), minutes(1)).await.unwrap_err();
    assert!(refused.to_string().contains("sim/db") && refused.to_string().contains("disk is gone"), "{refused}");
    assert_eq!(world.engine.start_calls("app"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_does_not_get_healthy_fails_its_dependant_in_time() {
    let world = world();
    let patient = IdlePolicy { wake_timeout: secs(20), ..policy(600) };
    let ill = Script { health: Some(Health::Unhealthy), ..Script::default() };
    let ill = world.backend("ill", patient, ill);
    let app = world.dependent("app", policy(30), Script::default(), vec![(ill, Condition::Healthy)]);
    let begun = Instant::now();
    let refused = app.enter(cause(), minutes(5)).await.unwrap_err().to_string();
    assert!(refused.contains("`sim/ill`: it was not healthy within 20s"), "{refused}");
    assert_eq!(begun.elapsed().as_secs(), 20);
    // One that ends meanwhile is not healthy either.
    let dies = Script { health: Some(Health::Starting), dies_after: Some((secs(3), 1)), ..Script::default() };
    let dies = world.backend("dies", policy(600), dies);
    let two = world.dependent("two", policy(30), Script::default(), vec![(dies, Condition::Healthy)]);
    let refused = two.enter(cause(), minutes(5)).await.unwrap_err().to_string();
    assert!(refused.contains("`sim/dies`: it ended before it was healthy"), "{refused}");
    assert_eq!(world.engine.start_calls("app") + world.engine.start_calls("two"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_found_running_keeps_its_dependencies_up_though_they_are_ill() {
    let world = world();
    let ill = Script { health: Some(Health::Unhealthy), ..Script::default() };
    let ill = world.backend("ill", IdlePolicy { wake_timeout: secs(20), ..policy(30) }, ill);
    world.engine.add("app", Script::default());
    world.engine.hand_start("app");
    let spec = world.spec("app", policy(3600));
    let on = vec![(ill.clone(), Condition::Healthy)];
    let (app, _) = Backend::spawn(spec, on, world.around.clone(), Restored::default(), world.end.clone());
    until(&app, StatusState::Awake).await;
    tokio::time::sleep(minutes(10)).await;
    assert_eq!((ill.status().borrow().state, world.engine.stop_calls("ill")), (StatusState::Awake, 0));
    world.engine.hand_stop("app", 0);
    until(&ill, StatusState::Stopped).await;
}

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
    let restored = Restored { idle_for: secs(40), ..Restored::default() };
    let (backend, _) =
        Backend::spawn(world.spec("app", policy(60)), Vec::new(), world.around.clone(), restored, world.end.clone());
    let begun = Instant::now();
    until(&backend, StatusState::Awake).await;
    assert!(backend.try_enter_quietly().is_some());
    until(&backend, StatusState::Stopped).await;
    assert!((19..=21).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
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

#[test]
fn a_closed_gate_admits_nobody_and_an_open_one_counts() {
    let gate = Gate::closed(0);
    assert_eq!(gate.enter(), Entered::Closed);
    gate.open();
    assert_eq!(gate.enter(), Entered::Inside);
    assert_eq!(gate.inside(), 1);
    assert_eq!(gate.close(), 1);
    assert_eq!(gate.enter(), Entered::Closed);
    assert!(gate.leave(Some(7)), "the last one out of a closed gate is reported");
    assert_eq!(gate.last_left(), 7);
}

#[test]
fn quiet_leavers_leave_no_stamp() {
    let gate = Gate::closed(3);
    gate.open();
    assert_eq!(gate.enter(), Entered::Inside);
    assert!(!gate.leave(None), "nobody watches an open gate unless asked");
    assert_eq!(gate.last_left(), 3);
    assert_eq!(gate.enter(), Entered::Inside);
    assert_eq!(gate.watch(), 1);
    assert!(gate.leave(Some(9)));
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

fn listener() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
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
async fn a_job_runs_once_to_its_end_before_those_that_need_it() {
    let world = world();
    let job = Script { dies_after: Some((secs(20), 0)), ..Script::default() };
    // Its own idle policy would end it: one that is waited for is in use.
    let migrate = world.backend("migrate", policy(5), job);
    let on = || vec![(migrate.clone(), Condition::Completed)];
    let one = world.dependent("one", policy(30), Script::default(), on());
    let two = world.dependent("two", policy(30), Script::default(), on());
    let begun = Instant::now();
    let (first, second) = tokio::join!(one.enter(cause(), minutes(1)), two.enter(cause(), minutes(1)));
    assert!(first.is_ok() && second.is_ok());
    assert!(begun.elapsed() >= secs(20), "{:?}", begun.elapsed());
    assert_eq!((world.engine.start_calls("migrate"), world.engine.stop_calls("migrate")), (1, 0));
    drop((first, second));
    until(&one, StatusState::Stopped).await;
    drop(one.enter(cause(), minutes(1)).await.unwrap());
    assert_eq!(world.engine.start_calls("migrate"), 1, "it has run already");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_or_does_not_end_fails_its_dependants() {
    let world = world();
    let broken = world.backend("broken", policy(30), Script { dies_after: Some((secs(1), 3)), ..Script::default() });
    let endless = IdlePolicy { wake_timeout: secs(7), ..IdlePolicy::default() };
    let endless = world.backend("endless", endless, Script::default());
    for (job, words) in [(broken, "`sim/broken`: it ended with exit code 3"), (endless, "it has not ended within 7s")] {
        let name = format!("needs-{}", job.id().name());
        let app = world.dependent(&name, policy(30), Script::default(), vec![(job, Condition::Completed)]);
        let refused = app.enter(cause(), minutes(1)).await.unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
        assert_eq!(world.engine.start_calls(&name), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_found_running_has_no_job_run() {
    let world = world();
    let job = world.backend("job", policy(30), Script { dies_after: Some((secs(1), 0)), ..Script::default() });
    world.engine.add("app", Script::default());
    world.engine.hand_start("app");
    let (spec, around) = (world.spec("app", policy(3600)), world.around.clone());
    let on = vec![(job, Condition::Completed)];
    let (app, _driver) = Backend::spawn(spec, on, around, Restored::default(), world.end.clone());
    until(&app, StatusState::Awake).await;
    tokio::time::sleep(minutes(5)).await;
    assert_eq!(world.engine.start_calls("job"), 0);
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
