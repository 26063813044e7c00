//! A backend that sleeps, on the simulated engine.

use std::sync::Arc;

use dormouse::{
    backend::{Backend, Restored, Surroundings},
    model::{BackendId, BackendSpec, IdlePolicy, Provenance, Readiness, Unit},
    provider::{Script, Simulated},
    telemetry::Journal,
};
use tokio_util::sync::CancellationToken;

/// The backend `sim/app`, with what it lives in.
#[derive(Debug)]
pub(crate) struct Sleeping {
    pub(crate) engine: Simulated,
    pub(crate) backend: Backend,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Sleeping {
    pub(crate) fn new(script: Script, policy: IdlePolicy) -> Self {
        let engine = Simulated::new("sim".parse().expect("a name"));
        engine.add("app", script);
        let spec = BackendSpec {
            id: Self::id(),
            unit: Unit { name: "app".into(), network: None, command: None },
            policy,
            // The engine's word: a probe would be one more connection for the scripts to count.
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

    /// By which routes name it.
    pub(crate) fn id() -> BackendId {
        BackendId::new("sim".parse().expect("a name"), "app").expect("a backend's id")
    }
}
