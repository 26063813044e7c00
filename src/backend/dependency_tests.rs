//! Backends that need others, and jobs that come before them.

use tokio::time::Instant;

use super::{
    test_world::{cause, minutes, policy, secs, until, world},
    *,
};
use crate::{
    model::{Condition, Health, IdlePolicy},
    provider::Script,
};

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
