//! Workers: one thread, one runtime, one listener for each address, one pool.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::{Arc, OnceLock},
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use pingora_limits::rate::Rate;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    control::LiveTable,
    model::{AccessLog, Spot},
    net::{self, Lack, TlsClients, TlsServer},
    proxy::{
        crowd::{self, Crowd},
        ports::{self, PortPost, PortPosts},
    },
    telemetry::{AccessWriter, ConnectionCounters, TurnedAway},
};

use super::{
    buffer::Buffers,
    crowded,
    dial::{self, Names},
    front,
    guests::Guests,
    limits::Limits,
    middleware::Ledger,
    pool::Pool,
    secure::Https,
    session_key::SessionKey,
};

/// So often others give way for one connection.
const GIVING_WAY: usize = 4;

/// What of the settings concerns the data plane; swapped as a whole on reload.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Networks whose `X-Forwarded-*` fields are believed and extended.
    pub trusted_proxies: Vec<IpNet>,
    /// Networks whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol: Vec<IpNet>,
    /// Requests that cause a wake, for each client address and minute.
    pub wakes_per_client: u32,
    /// Limits and time-outs of the front.
    pub limits: Limits,
    /// How long requests in flight may take to end at a shutdown.
    pub shutdown_timeout: Duration,
    /// Those who come in clear to a host that has a certificate are sent to this port; absent: they are not.
    pub https_redirect: Option<u16>,
    /// What browsers are told to remember; absent: nothing.
    pub hsts: Option<String>,
    /// What is written down of requests; absent: nothing.
    pub access_log: Option<Arc<AccessLog>>,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            wakes_per_client: 30,
            limits: Limits::default(),
            shutdown_timeout: Duration::from_secs(30),
            https_redirect: None,
            hsts: None,
            access_log: None,
        }
    }
}

/// What all workers share.
pub struct Shared {
    /// The live routes.
    pub table: Arc<ArcSwap<LiveTable>>,
    /// The settings.
    pub settings: Arc<ArcSwap<ProxySettings>>,
    /// TLS, where there is any.
    pub(super) tls: Option<Arc<TlsServer>>,
    /// TLS towards endpoints.
    pub(super) tls_clients: TlsClients,
    /// Marks what passed through this very program, so that a loop is seen.
    pub(super) mark: String,
    /// Requests that caused a wake, by client.
    wakes: Rate,
    /// What middlewares remember.
    pub(super) ledger: Ledger,
    /// By which sessions are sealed.
    sessions: OnceLock<SessionKey>,
    /// Where workers are told of ports that were opened.
    pub(in crate::proxy) ports: PortPosts,
    /// Who writes the access log.
    pub access: AccessWriter,
    /// Who is connected.
    pub(in crate::proxy) crowd: Arc<Crowd>,
    /// Once cancelled, a shutdown waits for nobody any more.
    pub hurry: CancellationToken,
    /// Another process has taken over: clients have all the time they want, until this is said no longer.
    pub at_leisure: watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Shared {
    /// Waits until the last of these has ended; no longer than a shutdown may take. Tells whether all have.
    pub(in crate::proxy) async fn ended_in_peace(&self, tasks: &TaskTracker) -> bool {
        let late = async {
            let mut at_leisure = self.at_leisure.subscribe();
            // The other side lives as long as this.
            let _ = at_leisure.wait_for(|at_leisure| !at_leisure).await;
            tokio::time::sleep(self.settings.load().shutdown_timeout).await;
        };
        tokio::select! {
            biased;
            () = tasks.wait() => true,
            () = self.hurry.cancelled() => false,
            () = late => false,
        }
    }

    /// Sessions are sealed by this key from now on, unless some were already.
    pub fn seal_sessions_by(&self, key: SessionKey) {
        let _ = self.sessions.set(key);
    }

    /// The key of sessions; one of this run alone where none was given.
    pub(super) fn session_key(&self) -> Option<&SessionKey> {
        match self.sessions.get() {
            Some(key) => Some(key),
            None => SessionKey::random().map(|key| self.sessions.get_or_init(|| key)),
        }
    }

    /// The same, if there is one already.
    pub(super) fn drawn_session_key(&self) -> Option<&SessionKey> {
        self.sessions.get()
    }

    /// Whether another process serves whoever comes.
    pub(in crate::proxy) fn is_succeeded(&self) -> bool {
        *self.at_leisure.borrow()
    }

    /// Copies of the sockets of all stream routes, for a process that takes over.
    pub fn copies_of_ports(&self) -> io::Result<Vec<OwnedFd>> {
        self.ports.copies()
    }

    /// Nothing is held open any more but by those who serve it.
    pub fn let_ports_go(&self) {
        self.ports.let_all_go();
    }

    /// Shares these, without TLS.
    pub fn new(table: Arc<ArcSwap<LiveTable>>, settings: Arc<ArcSwap<ProxySettings>>) -> Arc<Self> {
        Self::with_tls(table, settings, None)
    }

    /// Shares these.
    pub fn with_tls(
        table: Arc<ArcSwap<LiveTable>>,
        settings: Arc<ArcSwap<ProxySettings>>,
        tls: Option<Arc<TlsServer>>,
    ) -> Arc<Self> {
        // Seeded by the operating system: nobody outside can guess it.
        let mark = format!("{:016x}{:016x}", RandomState::new().hash_one(1), RandomState::new().hash_one(2));
        Arc::new(Self {
            table,
            settings,
            tls,
            tls_clients: TlsClients::default(),
            mark,
            wakes: Rate::new(Duration::from_secs(60)),
            ledger: Ledger::default(),
            sessions: OnceLock::new(),
            ports: PortPosts::default(),
            access: AccessWriter::default(),
            crowd: Arc::default(),
            hurry: CancellationToken::new(),
            at_leisure: watch::Sender::new(false),
        })
    }

    /// Numbers of the connections of clients.
    pub fn connections(&self) -> &Arc<ConnectionCounters> {
        &self.crowd.counters
    }

    /// What a listener of HTTPS needs.
    fn https_at(&self, listener: &StdListener) -> Option<Https> {
        let (tls, address) = (self.tls.clone()?, listener.local_addr().ok()?);
        Some(Https { tls, beside: self.ports.beside(address)? })
    }

    /// TLS, as clients are spoken to by it.
    pub(in crate::proxy) fn tls(&self) -> Option<&TlsServer> {
        self.tls.as_deref()
    }

    /// Counts a request that would cause a wake; says whether this client may.
    pub(in crate::proxy) fn may_wake(&self, client: IpAddr) -> bool {
        let allowed = isize::try_from(self.settings.load().wakes_per_client).unwrap_or(isize::MAX);
        self.wakes.observe(&crowd::subscriber(client), 1) <= allowed
    }
}

/// One worker's own things. Not shared between threads.
#[derive(Debug, Clone)]
pub struct Worker(pub(in crate::proxy) Rc<Inner>);

#[derive(Debug)]
pub(in crate::proxy) struct Inner {
    pub(in crate::proxy) shared: Arc<Shared>,
    pub(super) buffers: Rc<Buffers>,
    pub(super) pool: Rc<Pool>,
    pub(in crate::proxy) names: Names,
    pub(in crate::proxy) permits: Arc<Semaphore>,
    /// Places that flows of UDP may take besides: connections must have one even where datagrams from everywhere
    /// pretend to be flows.
    pub(in crate::proxy) flows: Arc<Semaphore>,
    pub(super) guests: Rc<Guests>,
}

impl Worker {
    /// A worker with an empty pool.
    pub fn new(shared: Arc<Shared>) -> Self {
        let connections = shared.settings.load().limits.connections;
        Self(Rc::new(Inner {
            shared,
            buffers: Rc::default(),
            pool: Rc::default(),
            names: Names::default(),
            permits: Arc::new(Semaphore::new(connections)),
            flows: Arc::new(Semaphore::new(connections / 2)),
            guests: Rc::default(),
        }))
    }
}

impl Inner {
    /// Has those give way who can be spared: connections to upstreams that wait for requests, where descriptors ran
    /// out; then one of a client who is quiet. Says whether there is room in a moment.
    pub(in crate::proxy) fn make_room(&self, lack: Lack) -> bool {
        (lack == Lack::Descriptors && self.pool.give_way()) || self.guests.make_room()
    }

    /// Connects, within a time. Where descriptors have run out others give way.
    pub(in crate::proxy) async fn connect(&self, to: Spot, patience: Duration) -> io::Result<TcpStream> {
        for _ in 0..GIVING_WAY {
            match dial::connect(to, patience).await {
                Err(error) if net::is_scarcity(&error) && self.make_room(Lack::Descriptors) => {
                    // Who gives way does so before we go on.
                    tokio::task::yield_now().await;
                }
                done => return done,
            }
        }
        dial::connect(to, patience).await
    }
}

/// Serves a listener until `shutdown`, then lets the requests in flight end, up to the deadline in the settings.
/// Runs inside a current-thread runtime on which local tasks can be spawned.
pub async fn serve(worker: Worker, listener: StdListener, shutdown: CancellationToken) -> io::Result<()> {
    serve_with(worker, listener, None, shutdown).await
}

async fn serve_with(
    worker: Worker,
    listener: StdListener,
    https: Option<Rc<Https>>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let tasks = TaskTracker::new();
    let permits = Arc::clone(&worker.0.permits);
    let take = |stream, peer, permit| {
        worker.0.guests.add(|guest| {
            let (worker, https, shutdown) = (worker.clone(), https.clone(), shutdown.clone());
            let task = tasks.spawn_local(async move {
                front::connection(worker, stream, https, (peer, guest), shutdown).await;
                drop(permit);
            });
            task.abort_handle()
        });
    };
    let make_room = |lack| worker.0.make_room(lack);
    // So many are waited for at once; a hoard of more is told and cut.
    let lobby = Arc::new(Semaphore::new((permits.available_permits() / 8).clamp(4, 64)));
    let linger = worker.0.shared.settings.load().limits.linger;
    let is_secure = https.is_some();
    let counters = Arc::clone(worker.0.shared.connections());
    let turn_away = |stream| {
        counters.turned_away(TurnedAway::Full);
        let Ok(place) = Arc::clone(&lobby).try_acquire_owned() else {
            return crowded::turn_away_at_once(stream, is_secure, TurnedAway::Full);
        };
        tasks.spawn_local(async move {
            crowded::turn_away(stream, is_secure, linger).await;
            drop(place);
        });
    };
    net::accept(listener, permits, shutdown.clone(), take, (make_room, turn_away)).await;
    tasks.close();
    if !worker.0.shared.ended_in_peace(&tasks).await {
        tracing::warn!(cut = tasks.len(), "connections were still in use at the end of the shutdown time");
    }
    Ok(())
}

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
        let mut threads = Vec::new();
        for (index, (listeners, opened)) in self.sets.into_iter().zip(self.posts).enumerate() {
            let (shared, shutdown) = (Arc::clone(shared), shutdown.child_token());
            let thread = std::thread::Builder::new()
                .name(format!("http-{index}"))
                .spawn(move || work(listeners, opened, &shared, &shutdown))?;
            threads.push(thread);
        }
        Ok(Workers { addresses: self.addresses, threads })
    }
}

fn work(listeners: Vec<Bound>, opened: PortPost, shared: &Arc<Shared>, shutdown: &CancellationToken) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker of the data plane could not start");
            return;
        }
    };
    runtime.block_on(async {
        let worker = Worker::new(Arc::clone(shared));
        let ports = tokio::task::spawn_local(ports::serve(worker.clone(), opened, shutdown.clone()));
        let serve = |Bound { listener, secure }| {
            // Those that are not in clear are there only with TLS.
            let https = if secure { shared.https_at(&listener).map(Rc::new) } else { None };
            tokio::task::spawn_local(serve_with(worker.clone(), listener, https, shutdown.clone()))
        };
        let serving: Vec<_> = listeners.into_iter().map(serve).collect();
        for task in serving {
            if let Ok(Err(error)) = task.await {
                tracing::error!(%error, "a listener could not be served");
            }
        }
        let _ = ports.await;
    });
}
