//! Opens and closes ports as the routes want them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::TcpListener,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::wanted::wanted;
use crate::{
    control::{Control, LiveRoute},
    model::{Problem, Problems, Transport},
    net,
    proxy::{
        listening::{Opened, Port, PortKey, PortRoutes, Socket},
        worker::Shared,
    },
};

/// The first and the longest pause before a port that could not be opened is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// Why a port is not open, and when it is tried again.
struct Failed {
    error: io::Error,
    tries: u32,
    again: Instant,
}

struct Ports {
    shared: Arc<Shared>,
    open: BTreeMap<PortKey, Arc<Port>>,
    failed: BTreeMap<PortKey, Failed>,
    /// Those where HTTPS listens.
    shared_with_https: BTreeSet<PortKey>,
    /// What was told last of what is missing.
    told: Problems,
}

/// Opens what the stream routes want, and then keeps that open as they change, until `end`. The workers must be
/// known; they serve what was opened before they start as soon as they do.
pub fn keep_ports(
    shared: Arc<Shared>,
    control: Control,
    end: CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    let mut routes = control.stream_routes();
    let mut ports = Ports {
        shared,
        open: BTreeMap::new(),
        failed: BTreeMap::new(),
        shared_with_https: BTreeSet::new(),
        told: Problems::default(),
    };
    ports.follow(&mut routes, &control);
    async move {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                changed = routes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = ports.next_try() => {}
            }
            ports.follow(&mut routes, &control);
        }
    }
}

impl Ports {
    /// Opens and closes as the routes of now want it, and tells what can not be opened.
    fn follow(&mut self, routes: &mut watch::Receiver<Arc<[Arc<LiveRoute>]>>, control: &Control) {
        let troubles = self.make(wanted(&routes.borrow_and_update()));
        for trouble in troubles.0.iter().filter(|trouble| !self.told.0.contains(trouble)) {
            tracing::warn!("{trouble}");
        }
        control.tell_troubles(troubles.clone());
        self.told = troubles;
    }

    /// Closes what is not wanted any more, swaps the routes of what stays, and opens what is missing. Returns what is
    /// still missing.
    fn make(&mut self, wanted: BTreeMap<PortKey, PortRoutes>) -> Problems {
        self.failed.retain(|key, _| wanted.contains_key(key));
        self.open.retain(|key, port| {
            let stays = wanted.contains_key(key);
            if !stays {
                port.closed.cancel();
                self.shared.ports.let_go(*key);
                tracing::info!(address = %key.address, "closed a port for {}", word(key.transport));
            }
            stays
        });
        let (mut troubles, mut opened) = (Problems::default(), Vec::new());
        let (beside, wanted): (BTreeMap<_, _>, BTreeMap<_, _>) =
            wanted.into_iter().partition(|(key, _)| self.is_of_https(*key));
        troubles.0.extend(self.share_with_https(beside));
        for (key, routes) in wanted {
            if let Some(port) = self.open.get(&key) {
                port.routes.store(Arc::new(routes));
                continue;
            }
            let names = routes.all().map(Arc::clone).collect::<Vec<_>>();
            match self.open(key, routes) {
                Ok(sockets) => opened.extend(sockets),
                // A port that was closed a moment ago may not be free yet.
                Err((_, ..=1)) => {}
                Err((error, _)) => {
                    troubles.0.extend(names.iter().map(|route| trouble(key, &route.spec, &error)));
                }
            }
        }
        // Nobody is served before this is known: it might be ourselves.
        self.shared.ports.are_open(self.open.keys().chain(&self.shared_with_https));
        for (worker, opened) in opened {
            self.shared.ports.hand_over(worker, opened);
        }
        troubles
    }

    fn is_of_https(&self, key: PortKey) -> bool {
        key.transport == Transport::Tcp && self.shared.ports.beside(key.address).is_some()
    }

    /// Swaps the routes that share their port with HTTPS. Returns what is wrong with them.
    fn share_with_https(&mut self, wanted: BTreeMap<PortKey, PortRoutes>) -> Vec<Problem> {
        let gone = self.shared_with_https.iter().filter(|key| !wanted.contains_key(key));
        gone.filter_map(|key| self.shared.ports.beside(key.address)).for_each(|beside| beside.set(None));
        self.shared_with_https = wanted.keys().copied().collect();
        let mut troubles = Vec::new();
        for (key, mut routes) in wanted {
            troubles.extend(routes.take_nameless().map(|route| nameless(key, &route.spec)));
            if let Some(beside) = self.shared.ports.beside(key.address) {
                beside.set(Some(routes).filter(|routes| routes.all().next().is_some()));
            }
        }
        troubles
    }

    /// A port with a socket for each worker that serves it.
    fn open(&mut self, key: PortKey, routes: PortRoutes) -> Result<Vec<(usize, Opened)>, (String, u32)> {
        if let Some(failed) = self.failed.get(&key).filter(|failed| failed.again > Instant::now()) {
            return Err((failed.error.to_string(), failed.tries));
        }
        let port = Port::new(key, routes);
        match self.bind(&port) {
            Ok(opened) => {
                tracing::info!(address = %key.address, "serving {}", word(key.transport));
                self.failed.remove(&key);
                self.open.insert(key, port);
                Ok(opened)
            }
            Err(error) => {
                let tries = self.failed.get(&key).map_or(0, |failed| failed.tries) + 1;
                let pause = PAUSES.0.saturating_mul(1 << tries.min(16)).min(PAUSES.1);
                let told = (error.to_string(), tries);
                self.failed.insert(key, Failed { error, tries, again: Instant::now() + pause });
                Err(told)
            }
        }
    }

    /// Binds a socket for each worker that serves the port.
    fn bind(&self, port: &Arc<Port>) -> io::Result<Vec<(usize, Opened)>> {
        let address = port.key.address;
        let posts = &self.shared.ports;
        let opened = |socket| Opened { port: Arc::clone(port), socket };
        match port.key.transport {
            Transport::Tcp => {
                let sets = net::bind_for(address, posts.workers())?;
                posts.keep(port.key, sets.iter().flatten())?;
                let each = sets.into_iter().enumerate();
                let opened = |(worker, set): (usize, Vec<TcpListener>)| {
                    set.into_iter().map(move |listener| (worker, opened(Socket::Tcp(listener))))
                };
                Ok(each.flat_map(opened).collect())
            }
            // All datagrams of a client go through one socket: they keep their order. Ports are spread over workers.
            Transport::Udp => {
                let socket = match net::handed_udp(address)? {
                    Some(handed) => handed,
                    None => net::bind_udp(address)?,
                };
                posts.keep(port.key, [&socket])?;
                let worker = posts.turns.fetch_add(1, Ordering::Relaxed) % posts.workers().max(1);
                Ok(vec![(worker, opened(Socket::Udp(socket)))])
            }
        }
    }

    /// Resolves when a port that could not be opened is to be tried again.
    async fn next_try(&self) {
        match self.failed.values().map(|failed| failed.again).min() {
            Some(again) => tokio::time::sleep_until(again).await,
            None => std::future::pending().await,
        }
    }
}

fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    }
}

fn nameless(key: PortKey, route: &crate::model::RouteSpec) -> Problem {
    let what = format!("route `{}` can not have all of `{}`, where HTTPS is served", route.alias, key.address);
    let hint = "name with `sni` whom it answers to, or write another listening port: `listen:target`";
    Problem::error(route.place.clone(), what).with_hint(hint)
}

fn trouble(key: PortKey, route: &crate::model::RouteSpec, error: &str) -> Problem {
    let (alias, address) = (&route.alias, key.address);
    let what = format!("route `{alias}` can not listen on `{address}` ({}): {error}", word(key.transport));
    let hint = "end what listens there, or write another listening port: `listen:target`; it is tried again";
    Problem::error(route.place.clone(), what).with_hint(hint)
}
