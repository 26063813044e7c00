//! The relay under test: one worker, one route from `app.test` to one address, or to a backend that sleeps.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use dormouse::{
    backend::{Backend, Order, Restored, StatusState, Surroundings},
    control::{LiveRoute, LiveTable},
    model::{
        BackendId, BackendSpec, Endpoint, IdlePolicy, Place, Provenance, Readiness, RouteMatch, RouteSpec, RouteTarget,
        Scheme, Served, Unit,
    },
    net::{Certificates, TlsServer},
    provider::{Script, Simulated},
    proxy::{ProxySettings, Shared, Workers, bind_workers},
    telemetry::Journal,
};
use tokio_util::sync::CancellationToken;

use crate::client::Client;

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

/// A running relay; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    pub(crate) way: Way,
    sleeper: Option<Sleeper>,
    shutdown: CancellationToken,
    workers: Option<Workers>,
}

/// The backend of a relay whose cases meet a wake.
#[derive(Debug)]
struct Sleeper {
    engine: Simulated,
    backend: Backend,
    runtime: tokio::runtime::Runtime,
}

impl Relay {
    /// Starts it on a port of its own.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        Self::start_on(Way::Clear, upstream)
    }

    /// Starts it for this way.
    pub(crate) fn start_on(way: Way, upstream: SocketAddr) -> Self {
        let sleeper = (way == Way::Asleep).then(Sleeper::new);
        let backend = sleeper.as_ref().map(|sleeper| sleeper.backend.clone());
        let spec = spec(upstream, backend.as_ref());
        let route = Arc::new(LiveRoute { spec: Arc::new(spec), backend, counters: Arc::default() });
        let table = Arc::new(ArcSwap::from_pointee(LiveTable::build([route])));
        let shutdown_timeout = Duration::from_millis(200);
        let settings = ProxySettings { shutdown_timeout, wakes_per_client: u32::MAX, ..ProxySettings::default() };
        let certificates = Certificates::new(Box::new(|_| Served::ByName), Box::new(|_| None));
        let tls = TlsServer::new(Arc::new(certificates)).expect("TLS");
        let shared = Shared::with_tls(table, Arc::new(ArcSwap::from_pointee(settings)), Some(Arc::new(tls)));
        let shutdown = CancellationToken::new();
        let loopback = [SocketAddr::from(([127, 0, 0, 1], 0))];
        let (clear, secure) = if way == Way::Secure { (&[][..], &loopback[..]) } else { (&loopback[..], &[][..]) };
        let bound = bind_workers(1, clear, secure).expect("a port for the relay");
        let workers = bound.run(&shared, &shutdown).expect("a worker");
        Self { address: workers.addresses()[0], way, sleeper, shutdown, workers: Some(workers) }
    }

    /// A client's connection.
    pub(crate) fn connect(&self) -> Client {
        match self.way {
            Way::Clear | Way::Asleep => Client::connect(self.address),
            Way::Secure => Client::connect_secure(self.address),
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

impl Drop for Relay {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.workers.take().into_iter().for_each(Workers::join);
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

fn spec(upstream: SocketAddr, backend: Option<&Backend>) -> RouteSpec {
    let endpoint = Endpoint { scheme: Scheme::Http, port: upstream.port() };
    let matches = RouteMatch { hosts: ["app.test".parse().expect("a host")].into(), ..RouteMatch::default() };
    let target = match backend {
        Some(backend) => RouteTarget::Backend { id: backend.id().clone(), endpoint },
        None => RouteTarget::Address { host: upstream.ip().to_string().into(), endpoint },
    };
    RouteSpec::new("app".parse().expect("a name"), Place::Body("test".into()), matches, target)
}
