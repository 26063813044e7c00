//! The relay under test: one worker, one route from `app.test` to one address.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use dormouse::{
    control::{LiveRoute, LiveTable},
    model::{Endpoint, Place, RouteMatch, RouteSpec, RouteTarget, Scheme},
    proxy::{ProxySettings, Shared, Workers, run_workers},
};
use tokio_util::sync::CancellationToken;

/// A running relay; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    workers: Option<Workers>,
}

impl Relay {
    /// Starts it on a port of its own.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let spec = spec(upstream);
        let route = Arc::new(LiveRoute { spec: Arc::new(spec), backend: None, counters: Arc::default() });
        let table = Arc::new(ArcSwap::from_pointee(LiveTable::build([route])));
        let settings = ProxySettings { shutdown_timeout: Duration::from_millis(200), ..ProxySettings::default() };
        let shared = Shared::new(table, Arc::new(ArcSwap::from_pointee(settings)));
        let shutdown = CancellationToken::new();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let workers = run_workers(1, &[loopback], &shared, &shutdown).expect("a port for the relay");
        Self { address: workers.addresses()[0], shutdown, workers: Some(workers) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.workers.take().into_iter().for_each(Workers::join);
    }
}

fn spec(upstream: SocketAddr) -> RouteSpec {
    let endpoint = Endpoint { scheme: Scheme::Http, port: upstream.port() };
    let matches = RouteMatch { hosts: ["app.test".parse().expect("a host")].into(), ..RouteMatch::default() };
    let target = RouteTarget::Address { host: upstream.ip().to_string().into(), endpoint };
    RouteSpec::new("app".parse().expect("a name"), Place::Body("test".into()), matches, target)
}
