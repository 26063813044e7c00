//! A fault of ours in a call to an engine: it costs that call, not the backend.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{future::BoxFuture, stream::BoxStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    model::{
        BackendId, BackendSpec, Cause, Condition, Container, ContainerState, IdlePolicy, Provenance, Readiness, Unit,
    },
    provider::{Changed, Hint, Provider, ProviderError, Script, Simulated, StopOrder},
    telemetry::Journal,
};

/// A simulated engine whose calls panic when told so.
#[derive(Debug)]
struct Faulty {
    engine: Simulated,
    start: AtomicBool,
    stop: AtomicBool,
    looks: AtomicUsize,
    memories: AtomicUsize,
}

fn faulty(engine: &Simulated) -> Arc<Faulty> {
    let (start, stop) = (AtomicBool::new(true), AtomicBool::new(true));
    let (looks, memories) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Arc::new(Faulty { engine: engine.clone(), start, stop, looks, memories })
}

fn spec(name: &str) -> BackendSpec {
    BackendSpec {
        id: BackendId::new("sim".parse().unwrap(), name).unwrap(),
        unit: Unit { name: name.into(), network: None, command: None },
        policy: IdlePolicy { idle_timeout: Some(Duration::from_secs(10)), ..IdlePolicy::default() },
        ready: Readiness::Tcp,
        ports: Vec::new(),
        depends_on: Vec::new(),
        provenance: Provenance::Discovered,
    }
}

impl Provider for Faulty {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Container>, ProviderError>> {
        self.engine.list()
    }

    fn look<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Result<ContainerState, ProviderError>> {
        let number = self.looks.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            assert!(number > 0, "the first look is one too many");
            self.engine.look(unit).await
        })
    }

    fn start<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Result<Changed, ProviderError>> {
        Box::pin(async move {
            assert!(!self.start.swap(false, Ordering::Relaxed), "a start is one too many");
            self.engine.start(unit).await
        })
    }

    fn stop<'a>(&'a self, unit: &'a Unit, order: StopOrder) -> BoxFuture<'a, Result<Changed, ProviderError>> {
        Box::pin(async move {
            assert!(!self.stop.swap(false, Ordering::Relaxed), "a stop is one too many");
            self.engine.stop(unit, order).await
        })
    }

    fn events(&self) -> BoxStream<'static, Hint> {
        self.engine.events()
    }

    /// Panics before the first sleep, and never answers before the second.
    fn memory<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Option<u64>> {
        Box::pin(async move {
            match self.memories.fetch_add(1, Ordering::Relaxed) {
                0 => panic!("what it uses is one too many"),
                1 => pending().await,
                _ => self.engine.memory(unit).await,
            }
        })
    }

    fn may_own(&self, unit: &Unit, port: u16) -> bool {
        self.engine.may_own(unit, port)
    }

    fn log_file(&self, _: &Unit) -> Option<std::path::PathBuf> {
        None
    }

    fn log_lines<'a>(&'a self, unit: &'a Unit) -> BoxStream<'a, String> {
        self.engine.log_lines(unit)
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_engine_call_fails_that_call_and_the_backend_goes_on() {
    let engine = Simulated::new("sim".parse().unwrap());
    engine.add("app", Script::default());
    let turns = Arc::new(Semaphore::new(1));
    let around = Surroundings { provider: faulty(&engine), turns, journal: Journal::default() };
    let (backend, driver) =
        Backend::spawn(spec("app"), Vec::new(), around, Restored::default(), CancellationToken::new());
    let cause = || Cause::Person("test".into());
    let mut status = backend.status();
    let mut asleep = async || {
        let asleep = status.wait_for(|status| status.state == StatusState::Stopped);
        tokio::time::timeout(Duration::from_secs(600), asleep).await.expect("it sleeps in the end").unwrap();
    };
    // The first look panics, and it is looked at again. Then it is started, in vain.
    asleep().await;
    let refused = backend.enter(cause(), Duration::from_secs(60)).await.unwrap_err();
    assert!(matches!(&refused, Refused::WakeFailed { why, .. } if why.contains("a fault in Dormouse")), "{refused}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    // The turn on the node was given back, and the next wake is as any other.
    drop(backend.enter(cause(), Duration::from_secs(60)).await.unwrap());
    assert_eq!(engine.start_calls("app"), 1);
    // The stop panics once and is tried again.
    asleep().await;
    assert_eq!(engine.stop_calls("app"), 1);
    assert_eq!(backend.status().borrow().gives_back(), None, "nobody could tell");
    drop(backend.enter(cause(), Duration::from_secs(60)).await.unwrap());
    asleep().await;
    assert_eq!(backend.status().borrow().gives_back(), Some(64 << 20), "by now it can be told");
    assert!(!driver.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_driver_itself_is_told_as_a_failure() {
    let engine = Simulated::new("sim".parse().unwrap());
    engine.add("app", Script::default());
    engine.hand_start("app");
    let around =
        Surroundings { provider: Arc::new(engine), turns: Arc::new(Semaphore::new(1)), journal: Journal::default() };
    let (backend, driver) =
        Backend::spawn(spec("app"), Vec::new(), around, Restored::default(), CancellationToken::new());
    let mut status = backend.status();
    status.wait_for(|status| status.state == StatusState::Awake).await.unwrap();
    // A time that no clock reaches: no configuration can say it.
    let policy = IdlePolicy { idle_timeout: Some(Duration::MAX), ..IdlePolicy::default() };
    backend.configure(BackendSpec { policy, ..spec("app") }, Vec::new()).await;
    driver.await.unwrap_err();
    let status = backend.status().borrow().clone();
    assert_eq!(status.state, StatusState::Failed);
    assert!(status.failure.as_ref().is_some_and(|why| why.contains("a fault in Dormouse")), "{status:?}");
    assert!(backend.try_enter().is_none());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_job_are_told_of_a_panic_in_it() {
    let engine = Simulated::new("sim".parse().unwrap());
    engine.add("migrate", Script { dies_after: Some((Duration::from_secs(1), 0)), ..Script::default() });
    engine.add("app", Script::default());
    let provider = faulty(&engine);
    let around = Surroundings { provider, turns: Arc::new(Semaphore::new(1)), journal: Journal::default() };
    let spawn =
        |name, on| Backend::spawn(spec(name), on, around.clone(), Restored::default(), CancellationToken::new()).0;
    let migrate = spawn("migrate", Vec::new());
    let app = spawn("app", vec![(migrate, Condition::Completed)]);
    let enter = || app.enter(Cause::Person("test".into()), Duration::from_secs(60));
    let refused = enter().await.unwrap_err().to_string();
    assert!(refused.contains("`sim/migrate`: a fault in Dormouse"), "{refused}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    drop(enter().await.unwrap());
    assert_eq!(engine.start_calls("migrate"), 1);
}
