//! The ways on which a case reaches its backend.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use dormouse::{
    backend::{Backend, Order, Restored, StatusState, Surroundings},
    model::{BackendId, BackendSpec, IdlePolicy, Provenance, Readiness, Unit},
    provider::{Script, Simulated},
    telemetry::Journal,
};
use tokio_util::sync::CancellationToken;

use crate::{client::Client, relay::Relay};

/// How a case reaches its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In clear.
    Clear,
    /// Through TLS.
    Secure,
    /// In clear, and the backend sleeps.
    Asleep,
}

/// A relay on one of the ways.
#[derive(Debug)]
pub(crate) struct Front {
    relay: Relay,
    way: Way,
    sleeper: Option<Sleeper>,
}

/// A backend that sleeps, on the simulated engine.
#[derive(Debug)]
struct Sleeper {
    engine: Simulated,
    backend: Backend,
    runtime: tokio::runtime::Runtime,
}

impl Front {
    /// Starts it on a port of its own.
    pub(crate) fn start(way: Way, upstream: SocketAddr) -> Self {
        let sleeper = (way == Way::Asleep).then(Sleeper::new);
        let backend = sleeper.as_ref().map(|sleeper| sleeper.backend.clone());
        Self { relay: Relay::serve(upstream, backend, way == Way::Secure), way, sleeper }
    }

    /// A client's connection.
    pub(crate) fn connect(&self) -> Client {
        match self.way {
            Way::Clear | Way::Asleep => Client::connect(self.relay.address),
            Way::Secure => Client::connect_secure(self.relay.address),
        }
    }

    /// How often the backend was woken; 0 for one that does not sleep.
    pub(crate) fn wakes(&self) -> usize {
        self.sleeper.as_ref().map_or(0, |sleeper| sleeper.engine.start_calls("app"))
    }

    /// Sends the backend to sleep, where it is one that does.
    pub(crate) fn sleep(&self) {
        let Some(Sleeper { backend, runtime, .. }) = &self.sleeper else { return };
        runtime.block_on(backend.order(Order::SleepNow, "a test"));
        let since = Instant::now();
        while backend.status().borrow().state != StatusState::Stopped {
            assert!(since.elapsed() < Duration::from_secs(20), "it does not sleep");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Sleeper {
    fn new() -> Self {
        let engine = Simulated::new("sim".parse().expect("a name"));
        engine.add("app", Script::default());
        let spec = BackendSpec {
            id: BackendId::new("sim".parse().expect("a name"), "app").expect("a backend's id"),
            unit: Unit { name: "app".into(), network: None, command: None },
            policy: IdlePolicy { idle_timeout: Some(Duration::from_secs(3600)), ..IdlePolicy::default() },
            ready: Readiness::Tcp,
            ports: Vec::new(),
            depends_on: Vec::new(),
            provenance: Provenance::Discovered,
        };
        let around = Surroundings {
            provider: Arc::new(engine.clone()),
            turns: Arc::new(tokio::sync::Semaphore::new(8)),
            journal: Journal::default(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let guard = runtime.enter();
        let backend = Backend::spawn(spec, Vec::new(), around, Restored::default(), CancellationToken::new()).0;
        drop(guard);
        Self { engine, backend, runtime }
    }
}
