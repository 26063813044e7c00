//! Workers: one thread, one runtime, one listener for each address, one pool.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
};

use tokio::runtime::{Builder, LocalOptions};
use tokio_util::sync::CancellationToken;

use super::{listener, ports};
use crate::{
    net,
    proxy::{
        http::{HttpWorker, Https, Ledger, Serving},
        listening::PortPost,
        tcp,
        worker::{Shared, Worker},
    },
};

/// Running workers.
#[derive(Debug)]
pub struct Workers {
    addresses: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Where they listen, in the order asked for; a port 0 is replaced by the one that was given.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until all have ended. Blocks: they end after the shutdown that they were started with.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker of the data plane panicked");
            }
        }
    }
}

/// Binds all addresses for each of `count` workers, then starts them. An error is one of binding: nothing runs.
pub fn run_workers(
    count: usize,
    addresses: &[SocketAddr],
    shared: &Arc<Shared>,
    shutdown: &CancellationToken,
) -> io::Result<Workers> {
    bind_workers(count, addresses, &[])?.run(shared, shutdown)
}

/// Listeners whose clients wait: nothing is accepted yet.
#[derive(Debug)]
pub struct BoundWorkers {
    addresses: Vec<SocketAddr>,
    /// For each worker.
    sets: Vec<Vec<Bound>>,
    /// Where each is told of ports, once it is known.
    posts: Vec<PortPost>,
}

/// A listener, in clear or with TLS.
#[derive(Debug)]
struct Bound {
    listener: StdListener,
    secure: bool,
}

/// Binds all addresses, those in clear and those with TLS, for each of `count` workers.
pub fn bind_workers(count: usize, clear: &[SocketAddr], secure: &[SocketAddr]) -> io::Result<BoundWorkers> {
    let mut addresses = Vec::new();
    let mut sets: Vec<Vec<Bound>> = (0..count.max(1)).map(|_| Vec::new()).collect();
    let wanted = clear.iter().map(|address| (address, false)).chain(secure.iter().map(|address| (address, true)));
    for (address, secure) in wanted {
        let told = |error: io::Error| {
            let advice = net::listen_advice(*address, &error);
            io::Error::new(error.kind(), format!("`{address}`: {error} ({advice})"))
        };
        let bound = net::bind_for(*address, count).map_err(told)?;
        addresses.extend(bound.iter().flatten().next().map(StdListener::local_addr).transpose()?);
        for (set, listeners) in sets.iter_mut().zip(bound) {
            set.extend(listeners.into_iter().map(|listener| Bound { listener, secure }));
        }
    }
    Ok(BoundWorkers { addresses, sets, posts: Vec::new() })
}

impl BoundWorkers {
    /// Copies of all listeners, for a process that takes over.
    pub fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        self.sets.iter().flatten().map(|bound| bound.listener.as_fd().try_clone_to_owned()).collect()
    }

    /// Makes known where they listen, so that ports can be opened before anybody is accepted: the first client of HTTPS
    /// may want a stream route on its port.
    pub fn make_known(&mut self, shared: &Shared) -> io::Result<()> {
        for bound in self.sets.iter().flatten().filter(|bound| bound.secure) {
            shared.ports.serves_https_at(bound.listener.local_addr()?);
        }
        self.posts = self.sets.iter().map(|_| shared.ports.worker()).collect();
        Ok(())
    }

    /// Starts to accept.
    pub fn run(mut self, shared: &Arc<Shared>, shutdown: &CancellationToken) -> io::Result<Workers> {
        if self.posts.is_empty() {
            self.make_known(shared)?;
        }
        let ledger = Arc::<Ledger>::default();
        let mut threads = Vec::new();
        for (index, (listeners, opened)) in self.sets.into_iter().zip(self.posts).enumerate() {
            let (all, shutdown) = ((Arc::clone(shared), Arc::clone(&ledger)), shutdown.child_token());
            let thread = std::thread::Builder::new()
                .name(format!("http-{index}"))
                .spawn(move || work(listeners, opened, all, &shutdown))?;
            threads.push(thread);
        }
        Ok(Workers { addresses: self.addresses, threads })
    }
}

fn work(
    listeners: Vec<Bound>,
    opened: PortPost,
    (shared, ledger): (Arc<Shared>, Arc<Ledger>),
    shutdown: &CancellationToken,
) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker of the data plane could not start");
            return;
        }
    };
    runtime.block_on(async {
        let http = Rc::new(HttpWorker::new(shared, ledger));
        let worker = Rc::new(Worker::clone(&http));
        let ports = tokio::task::spawn_local(ports::serve(Rc::clone(&worker), opened, shutdown.clone()));
        let giving = Rc::clone(&worker);
        let giving = tokio::task::spawn_local(async move { giving.give_places().await });
        let serve = |Bound { listener, secure }| {
            // Those that are not in clear are there only with TLS.
            let https = if secure { https(&worker, &listener).map(Rc::new) } else { None };
            tokio::task::spawn_local(listener::serve(Rc::clone(&http), listener, https, shutdown.clone()))
        };
        let serving: Vec<_> = listeners.into_iter().map(serve).collect();
        for task in serving {
            if let Ok(Err(error)) = task.await {
                tracing::error!(%error, "a listener could not be served");
            }
        }
        let _ = ports.await;
        giving.abort();
    });
}

/// What a listener of HTTPS needs. Its clients that want a stream route are served as on a port of that.
fn https(worker: &Rc<Worker>, listener: &StdListener) -> Option<Https> {
    let (shared, address) = (&worker.shared, listener.local_addr().ok()?);
    let (tls, beside) = (shared.tls.clone()?, shared.ports.beside(address)?);
    let worker = Rc::clone(worker);
    let streams = Box::new(move |met| Box::pin(tcp::serve(Rc::clone(&worker), met)) as Serving);
    Some(Https { tls, beside, streams })
}
