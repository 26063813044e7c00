//! What tests of the driver share: backends on the simulated engine, most under a paused clock, where hours pass in
//! milliseconds.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    model::{BackendId, BackendSpec, Cause, Condition, IdlePolicy, Provenance, Readiness, Unit},
    provider::{Script, Simulated},
    telemetry::Journal,
};

pub(super) struct World {
    pub(super) engine: Simulated,
    pub(super) around: Surroundings,
    pub(super) end: CancellationToken,
}

pub(super) fn world() -> World {
    let engine = Simulated::new("sim".parse().unwrap());
    let around = Surroundings {
        provider: Arc::new(engine.clone()),
        turns: Arc::new(Semaphore::new(8)),
        journal: Journal::default(),
    };
    World { engine, around, end: CancellationToken::new() }
}

pub(super) fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(super) fn minutes(count: u64) -> Duration {
    secs(60 * count)
}

pub(super) fn policy(idle: u64) -> IdlePolicy {
    IdlePolicy { idle_timeout: Some(secs(idle)), ..IdlePolicy::default() }
}

pub(super) fn cause() -> Cause {
    Cause::Person("test".into())
}

impl World {
    /// The same engine, and a journal of its own.
    pub(super) fn elsewhere(&self) -> Surroundings {
        Surroundings { journal: Journal::default(), ..self.around.clone() }
    }

    pub(super) fn spec(&self, name: &str, policy: IdlePolicy) -> BackendSpec {
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

    pub(super) fn backend(&self, name: &str, policy: IdlePolicy, script: Script) -> Backend {
        self.dependent(name, policy, script, Vec::new())
    }

    pub(super) fn dependent(
        &self,
        name: &str,
        policy: IdlePolicy,
        script: Script,
        on: Vec<(Backend, Condition)>,
    ) -> Backend {
        self.engine.add(name, script);
        let spec = self.spec(name, policy);
        Backend::spawn(spec, on, self.around.clone(), Restored::default(), self.end.clone()).0
    }
}

pub(super) async fn until(backend: &Backend, state: StatusState) {
    let mut status = backend.status();
    let reached = status.wait_for(|status| status.state == state);
    tokio::time::timeout(minutes(600), reached).await.expect("the state is reached").expect("the driver lives");
}

/// Open, but nobody answers there.
pub(super) fn listener() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}
