//! The relay under test: one worker, one route from `app.test` to one address.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use dormouse::{
    backend::Backend,
    control::{LiveRoute, LiveTable, StickyKey},
    model::{Endpoint, Place, RouteMatch, RouteSpec, RouteTarget, Scheme, Served},
    net::{Certificates, TlsServer},
    proxy::{ProxySettings, Shared, Workers, bind_workers},
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
        Self::serve(upstream, None, false)
    }

    /// Starts it on a port of its own, before this backend if there is one, and with TLS or in clear.
    pub(crate) fn serve(upstream: SocketAddr, backend: Option<Backend>, secure: bool) -> Self {
        let spec = spec(upstream, backend.as_ref());
        let backend = move |_: &RouteSpec| backend.clone();
        let route = Arc::new(LiveRoute::new(Arc::new(spec), &backend, &StickyKey::random, None));
        let table = Arc::new(ArcSwap::from_pointee(LiveTable::build([route])));
        let shutdown_timeout = Duration::from_millis(200);
        let settings = ProxySettings { shutdown_timeout, wakes_per_client: u32::MAX, ..ProxySettings::default() };
        let certificates = Certificates::new(Box::new(|_| Served::ByName), Box::new(|_| None));
        let tls = TlsServer::new(Arc::new(certificates)).expect("TLS");
        let shared = Shared::with_tls(table, Arc::new(ArcSwap::from_pointee(settings)), Some(Arc::new(tls)));
        let shutdown = CancellationToken::new();
        let loopback = [SocketAddr::from(([127, 0, 0, 1], 0))];
        let (clear, tls) = if secure { (&[][..], &loopback[..]) } else { (&loopback[..], &[][..]) };
        let bound = bind_workers(1, clear, tls).expect("a port for the relay");
        let workers = bound.run(&shared, &shutdown).expect("a worker");
        Self { address: workers.addresses()[0], shutdown, workers: Some(workers) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.workers.take().into_iter().for_each(Workers::join);
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
