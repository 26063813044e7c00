//! A backend in the hands of another process.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    test_world::{cause, minutes, policy, secs, until, world},
    *,
};
use crate::{model::IdlePolicy, provider::Script};

fn lender() -> (Lender, mpsc::UnboundedReceiver<Ask>) {
    let (sender, asks) = mpsc::unbounded_channel();
    (Lender { asks: sender, back: CancellationToken::new(), kept: CancellationToken::new() }, asks)
}

async fn next(asks: &mut mpsc::UnboundedReceiver<Ask>) -> Ask {
    tokio::time::timeout(minutes(10), asks.recv()).await.expect("it asks").expect("it lives")
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_is_freed_by_the_last_who_leaves_and_nobody_enters_then_without_asking() {
    let world = world();
    let backend = world.backend("app", policy(10), Script::default());
    let pass = backend.enter(cause(), secs(5)).await.unwrap();
    let (lender, mut asks) = lender();
    assert!(matches!(backend.lend(lender).await, Lent::Given { in_use: true, .. }));
    // Others may enter while it is kept awake for the one inside.
    let other = backend.enter(cause(), secs(5)).await.unwrap();
    drop(pass);
    tokio::time::sleep(secs(1)).await;
    assert!(asks.try_recv().is_err(), "freed while it is in use");
    drop(other);
    assert!(matches!(next(&mut asks).await, Ask::Free(id) if id == *backend.id()));
    assert!(backend.try_enter().is_none());
    // However long nobody uses it, it is not let down here.
    tokio::time::sleep(minutes(60)).await;
    assert_eq!(world.engine.stop_calls("app"), 0);
    let entering = tokio::spawn({
        let backend = backend.clone();
        async move { backend.enter(cause(), minutes(5)).await }
    });
    let Ask::Hold(id, reply) = next(&mut asks).await else { panic!("it asks to be kept awake") };
    assert!(id == *backend.id() && !entering.is_finished());
    reply.send(Ok(())).unwrap();
    let pass = entering.await.unwrap().unwrap();
    assert_eq!((backend.passes(), world.engine.start_calls("app")), (1, 1));
    assert_eq!(backend.status().borrow().state, StatusState::Awake);
    drop(pass);
    assert!(matches!(next(&mut asks).await, Ask::Free(_)));
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_why_it_is_not_kept_awake() {
    let world = world();
    let backend = world.backend("app", policy(10), Script::default());
    until(&backend, StatusState::Stopped).await;
    let (lender, mut asks) = lender();
    assert!(matches!(backend.lend(lender).await, Lent::Given { in_use: false, .. }));
    let entering = tokio::spawn({
        let backend = backend.clone();
        async move { backend.enter(cause(), minutes(5)).await }
    });
    let Ask::Hold(_, reply) = next(&mut asks).await else { panic!("it asks to be kept awake") };
    reply.send(Err("it burns".into())).unwrap();
    let refused = entering.await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("it burns"), "{refused}");
    // The other process has ended.
    drop(asks);
    assert!(backend.enter(cause(), minutes(5)).await.is_err());
    assert_eq!(backend.status().borrow().state, StatusState::Stopped);
    assert_eq!(world.engine.start_calls("app"), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_serves_who_waited_and_falls_idle_again() {
    let world = world();
    let backend = world.backend("app", policy(10), Script::default());
    drop(backend.enter(cause(), secs(5)).await.unwrap());
    let (lender, mut asks) = lender();
    assert!(matches!(backend.lend(lender.clone()).await, Lent::Given { in_use: false, .. }));
    let entering = tokio::spawn({
        let backend = backend.clone();
        async move { backend.enter(cause(), minutes(5)).await }
    });
    let asked = next(&mut asks).await;
    lender.back.cancel();
    drop(asked);
    drop(entering.await.unwrap().unwrap());
    until(&backend, StatusState::Stopped).await;
    assert_eq!((world.engine.start_calls("app"), world.engine.stop_calls("app")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn one_on_its_way_up_is_not_given_away() {
    let world = world();
    let script = Script { start_delay: Duration::from_secs(5), ..Script::default() };
    let backend = world.backend("app", policy(10), script);
    until(&backend, StatusState::Stopped).await;
    backend.knock(cause());
    until(&backend, StatusState::Waking).await;
    assert!(matches!(backend.lend(lender().0).await, Lent::Busy));
    until(&backend, StatusState::Awake).await;
    assert!(matches!(backend.lend(lender().0).await, Lent::Given { in_use: false, .. }));
}

#[tokio::test(start_paused = true)]
async fn what_is_known_goes_on_with_another_driver() {
    let world = world();
    let broken = Script { exits_at_once: Some(3), ..Script::default() };
    let idle = IdlePolicy { min_uptime: minutes(3), ..policy(60) };
    let backends = [
        world.backend("up", idle, Script::default()),
        world.backend("down", policy(10), Script::default()),
        world.backend("broken", policy(10), broken),
    ];
    for backend in &backends {
        let _ = backend.enter(cause(), secs(5)).await;
    }
    until(&backends[1], StatusState::Stopped).await;
    let before: Vec<_> = backends.iter().map(|backend| backend.status().borrow().clone()).collect();
    let (elsewhere, lent) = (world.elsewhere(), lender());
    tokio::time::sleep(secs(20)).await;
    for (backend, before) in backends.iter().zip(before) {
        let Lent::Given { known, .. } = backend.lend(lent.0.clone()).await else { panic!("it is calm") };
        let spec = world.spec(backend.id().name(), policy(60));
        let end = world.end.clone();
        let (other, _driver) = Backend::spawn(spec, Vec::new(), elsewhere.clone(), *known, end);
        until(&other, before.state).await;
        let now = other.status().borrow().clone();
        assert_eq!((now.since, now.since_instant, &now.cause), (before.since, before.since_instant, &before.cause));
        assert_eq!((&now.failure, now.tries, now.retry_at), (&before.failure, before.tries, before.retry_at));
        assert_eq!((&now.wakes, now.put_to_sleep), (&before.wakes, before.put_to_sleep));
        assert!(other.quiet_for().abs_diff(backend.quiet_for()) < Duration::from_millis(1));
    }
    assert!(elsewhere.journal.since(0).0.is_empty(), "nothing has happened");
}
