//! `dormouse serve`: build the world, run it, end it in order.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use arc_swap::ArcSwap;
use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    certificates, files, leftovers, nodes,
    predecessor::{Before, Predecessor, Told},
    service_manager,
    session_key::session_key,
    signals,
    sticky_key::sticky_key,
    successor::Estate,
    wake_all::wake_all,
};
use crate::{
    acme::Acme,
    api::{self, Api, Upgrades},
    config::Loaded,
    control::{self, Control, FileSource, Keeper},
    model::{HttpsRedirect, OnExit, Problems, Settings, format_duration},
    net::{self, TlsServer},
    provider,
    proxy::{Limits, ProxySettings, Shared, Workers, bind_workers, check_health, keep_ports},
    store::Store,
    telemetry::Journal,
};

/// What the command line says.
#[derive(Debug)]
pub struct ServeOptions {
    /// The configuration file; absent: everything is discovered.
    pub config: Option<PathBuf>,
    /// Where what survives a restart is kept.
    pub state_dir: PathBuf,
    /// Only labelled containers are served.
    pub explicit: bool,
    /// The process that is taken over from.
    pub predecessor: Option<Predecessor>,
}

/// Why it did not serve.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The configuration has errors.
    #[error("{0}")]
    Configuration(Problems),
    /// Something else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// An engine that has not answered by then does not keep the routes of others waiting.
const PREPARING: Duration = Duration::from_secs(3);

/// An address that is in use may be that of a process before this one, which lets it go so soon.
const LEAVING: Duration = Duration::from_secs(5);

/// What is under way to the access log has so long to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What is remembered is saved this often, when it has changed.
const REMEMBER: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT.
pub async fn serve(options: ServeOptions) -> Result<(), Failed> {
    control::keep_little();
    signals::claim();
    let source = match (options.config.clone(), options.explicit) {
        (Some(path), _) => FileSource::File(path),
        (None, explicit) => FileSource::None { explicit, https: usual_https() },
    };
    let read_at = Timestamp::now();
    let (loaded, _) = control::check_alone(&source).map_err(Failed::Configuration)?;
    let end = CancellationToken::new();
    let ending = end.clone();
    tokio::spawn(async move {
        signals::until_told_to_end().await;
        ending.cancel();
    });
    let succession = Succession::Of(options.predecessor);
    let world = World { source, loaded, read_at, state_dir: options.state_dir, succession };
    run(world, end, |_| ()).await.map_err(Failed::Other)
}

/// The usual address of HTTPS, where it can be had.
fn usual_https() -> Option<SocketAddr> {
    let address = SocketAddr::from(([0, 0, 0, 0], 443));
    (net::is_handed(address) || net::check_free(address).is_ok()).then_some(address)
}

/// A checked configuration, and where its state is kept.
#[derive(Debug)]
pub(super) struct World {
    pub(super) source: FileSource,
    pub(super) loaded: Loaded,
    /// Before it was read.
    pub(super) read_at: Timestamp,
    pub(super) state_dir: PathBuf,
    pub(super) succession: Succession,
}

/// Whether one process takes over from another.
#[derive(Debug)]
pub(super) enum Succession {
    /// It does, and may have done so.
    Of(Option<Predecessor>),
    /// There is one of it.
    None,
}

/// Runs a checked configuration until the token ends it. `serving` is told once everything listens.
pub(super) async fn run(world: World, end: CancellationToken, serving: impl FnOnce(&Control)) -> anyhow::Result<()> {
    let World { source, loaded, read_at, state_dir, succession } = world;
    let settings = loaded.settings.clone();
    let (predecessor, may_be_succeeded) = match succession {
        Succession::Of(predecessor) => (predecessor, true),
        Succession::None => (None, false),
    };
    // Before anything else, unless another process still has it.
    let mut store = if predecessor.is_none() { Some(open_store(&state_dir).await?) } else { None };
    let own = provider::own_container();
    let nodes = Arc::new(nodes::open(&settings, &state_dir, own.as_deref())?);
    let journal = Journal::default();
    let (mut keeper, control) = Keeper::new(source, loaded, nodes.all.clone(), own, HashMap::new(), journal);
    let kept_in = state_dir.clone();
    control.stick_by(move || sticky_key(&kept_in));
    let files = keeper.files();
    let in_force = keeper.settings_in_force();

    // Bind first: an address in use is the operator's to solve, and nothing has been touched yet.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let connections = connections(raise_descriptors(), workers);
    let proxy = Arc::new(ArcSwap::from_pointee(proxy_settings(&settings, connections)));
    // Streams may want it where nothing listens for HTTPS.
    let tls = TlsServer::new(Arc::clone(control.certificates())).context("set up TLS")?;
    let shared = Shared::with_tls(Arc::clone(control.table()), Arc::clone(&proxy), Some(Arc::new(tls)));
    if let Some(key) = session_key(&state_dir) {
        shared.seal_sessions_by(key);
    }
    let closing = CancellationToken::new();
    let succeeds = predecessor.is_some();
    let bind = || bind_workers(workers, &settings.listen.http, &settings.listen.https);
    let listens = "listen for HTTP (`listen: http` and `https` in the configuration)";
    let mut workers = until_free(succeeds, bind).await.context(listens)?;
    let (api_tcp, api_unix) = bind_api(&settings, &state_dir)?;
    let mut listeners = workers.copies().context("copy the listeners")?;
    listeners.push(api_unix.as_fd().try_clone_to_owned().context("copy the listeners")?);
    if let Some(listener) = &api_tcp {
        listeners.push(listener.as_fd().try_clone_to_owned().context("copy the listeners")?);
    }

    let mut before = match predecessor {
        Some(predecessor) => Some(Before::is_ready(predecessor).await?),
        None => None,
    };
    let store = match store.take() {
        Some(store) => store,
        None => open_store(&state_dir).await?,
    };
    nodes.adopt()?;
    keeper.remember(store.load());
    let mut run = Timestamp::now();
    if let Some(before) = &mut before {
        let awaited = before.wait_for_those_in_use();
        let legacy = &mut before.legacy;
        keeper.take_over(legacy.take_backends(), awaited);
        if let Some((since, entries)) = legacy.take_events() {
            run = since;
            control.journal().follow_on(entries);
        }
    }
    control.keep_in(store.clone());
    // Who connects meanwhile waits in the listener's queue.
    keeper.prepare(PREPARING).await;
    // What is kept is shown to the very first of them.
    let acme = Acme::open(state_dir.clone(), Arc::clone(control.certificates()), in_force.clone());
    // Who comes first may want a stream route on the port of HTTPS, and whoever is told that we serve finds all open.
    workers.make_known(&shared).context("start to serve HTTP")?;
    let keeping_ports = keep_ports(Arc::clone(&shared), control.clone(), end.clone());
    let workers = workers.run(&shared, &closing).context("start to serve HTTP")?;
    for (index, address) in workers.addresses().iter().enumerate() {
        let what = if index < settings.listen.http.len() { "HTTP" } else { "HTTPS" };
        tracing::info!(%address, "serving {what}");
    }

    let world_ends = CancellationToken::new();
    let keeper = tokio::spawn(keeper.run(world_ends.clone()));
    let helpers = tokio_util::task::TaskTracker::new();
    helpers.spawn(keeping_ports);
    helpers.spawn(service_manager::follow_reloads(control.reloads(), end.clone()));
    helpers.spawn(check_health(Arc::clone(&shared), control.clone(), end.clone()));
    helpers.spawn(files::watch_files(control.clone(), (files, read_at), end.clone()));
    helpers.spawn(certificates::watch(Arc::clone(control.certificates()), in_force.clone(), end.clone()));
    helpers.spawn(acme.run(end.clone()));
    helpers.spawn(signals::reload_on_hangup(control.clone(), end.clone()));
    helpers.spawn(follow_settings(in_force, proxy, connections, end.clone()));
    helpers.spawn(remember_now_and_then(control.clone(), store.clone(), end.clone()));
    let (orders_in, orders) = mpsc::channel(1);
    let upgrades = if may_be_succeeded { Upgrades::to(orders_in) } else { Upgrades::default() };
    let (access, api_ends) = (shared.access.clone(), CancellationToken::new());
    let router = api::router(Api { control: control.clone(), run, access, upgrades });
    let api = tokio::spawn(api::serve(router, api_tcp, api_unix, api_ends.clone()));
    helpers.spawn(leftovers::give_back(end.clone()));
    helpers.spawn(provider::reap_orphans(end.clone()));
    helpers.close();
    // What nobody wanted is not listened on any more.
    net::close_unwanted();
    let (predecessors, told) = (tokio_util::task::TaskTracker::new(), Told::default());
    match before {
        // The one before tells the service manager.
        Some(before) => drop(predecessors.spawn(before.help(control.clone(), told.clone()))),
        None => service_manager::ready(),
    }
    predecessors.close();
    serving(&control);

    let estate = Estate { control, store, state_dir, nodes, shared, run, listeners };
    let heir = tokio::select! {
        biased;
        () = end.cancelled() => None,
        heir = estate.until_taken(orders), if may_be_succeeded => Some(heir),
    };
    let Estate { control, store, nodes, shared, listeners, .. } = estate;
    shared.let_ports_go();
    drop(listeners);
    if let Some(heir) = heir {
        shared.at_leisure.send_replace(true);
        told.handed_on.cancel();
        let hurrying = tokio::spawn(tell_the_hurry(shared.at_leisure.subscribe(), told.ending.clone()));
        let on_its_own = CancellationToken::new();
        let standing_by = tokio::spawn(heir.stand_by(Arc::clone(&shared), control, on_its_own.clone()));
        closing.cancel();
        end.cancel();
        api_ends.cancel();
        let signals = tokio::spawn(signals::heed_ends(Arc::clone(&shared)));
        leave(workers, &shared).await?;
        helpers.wait().await;
        // What is in use in the one before this is kept awake through this one.
        predecessors.wait().await;
        on_its_own.cancelled().await;
        signals.abort();
        hurrying.abort();
        world_ends.cancel();
        keeper.await.context("join the keeper")?;
        api.await.context("join the management interface")?.context("serve the management interface")?;
        standing_by.abort();
        tracing::info!("the last request here has ended");
        return Ok(());
    }
    service_manager::stopping();
    told.ending.cancel();
    tracing::info!(
        "ending: no new connections; those in use may finish within {} (a second signal cuts them)",
        format_duration(settings.shutdown_timeout)
    );
    closing.cancel();
    let hurry = shared.hurry.clone();
    let second = tokio::spawn(async move {
        signals::until_told_to_end().await;
        hurry.cancel();
    });
    // First of all: whoever ends us may lose patience with what follows.
    remember_all(&control, &store).await;
    tracing::debug!("what is known of the backends has been kept");
    leave(workers, &shared).await?;
    // What is in use in the one before keeps its processes, too.
    let hurried = shared.hurry.cancelled();
    tokio::select! {
        () = predecessors.wait() => {}
        () = hurried => {}
        () = tokio::time::sleep(settings.shutdown_timeout + LAST_LINES) => {}
    }
    second.abort();
    helpers.wait().await;
    if control.view().settings.on_exit == OnExit::WakeAll {
        wake_all(&control).await;
    }
    remember_all(&control, &store).await;
    world_ends.cancel();
    api_ends.cancel();
    keeper.await.context("join the keeper")?;
    api.await.context("join the management interface")?.context("serve the management interface")?;
    for process in &nodes.processes {
        process.end_all(Duration::from_secs(10)).await;
    }
    store.close().await;
    Ok(())
}

/// Binds. Where this process succeeds others, one of them may be about to let an address go: that is waited for.
async fn until_free<T>(succeeds: bool, bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let since = Instant::now();
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && succeeds && since.elapsed() < LEAVING => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bound => return bound,
        }
    }
}

/// Opens the store, and tells what is wrong with it.
async fn open_store(state_dir: &Path) -> anyhow::Result<Store> {
    let (store, notices) = Store::open(state_dir).await.context("open the state directory")?;
    for notice in notices {
        tracing::error!("{notice}");
    }
    Ok(store)
}

/// Waits until the last client has left, and its line is written.
async fn leave(workers: Workers, shared: &Shared) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || workers.join()).await.context("join the workers")?;
    let access = shared.access.clone();
    tokio::task::spawn_blocking(move || access.flush(LAST_LINES)).await.context("write the access log")
}

/// Tells the one before when clients have no time without end any more.
async fn tell_the_hurry(mut at_leisure: watch::Receiver<bool>, ending: CancellationToken) {
    // The other side lives as long as what is served.
    let _ = at_leisure.wait_for(|at_leisure| !at_leisure).await;
    ending.cancel();
}

/// Binds the management interface: the Unix socket in the state directory, and a loopback address.
fn bind_api(settings: &Settings, state_dir: &Path) -> anyhow::Result<(Option<TcpListener>, UnixListener)> {
    let socket = state_dir.join(api::SOCKET);
    let unix = bind_socket(&socket).with_context(|| format!("listen on `{}`", socket.display()))?;
    let tcp = match settings.listen.api {
        Some(address) => {
            let bound = net::handed_tcp(address)
                .and_then(|handed| handed.into_iter().next().map_or_else(|| TcpListener::bind(address), Ok));
            let listener = bound.map_err(|error| {
                let advice = net::listen_advice(address, &error);
                let what = "for the management interface (`listen: api` in the configuration)";
                anyhow::Error::from(error).context(format!("listen on `{address}` {what} ({advice})"))
            })?;
            tracing::info!(address = %listener.local_addr()?, "serving the management interface");
            Some(listener)
        }
        None => None,
    };
    Ok((tcp, unix))
}

/// The socket of the command line: the one that was handed over, or a new one.
fn bind_socket(path: &Path) -> std::io::Result<UnixListener> {
    match net::handed_unix(path)? {
        Some(handed) => UnixListener::from_std(handed),
        None => api::bind_unix(path),
    }
}

/// Takes as many descriptors as the system lets us have, and says how many that is.
fn raise_descriptors() -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, soft, "the bound on open descriptors can not be raised");
            soft
        }
    }
}

/// Client connections for each worker. A request that is forwarded needs two descriptors, and engines, probes and
/// the management interface have a reserve.
fn connections(descriptors: u64, workers: usize) -> usize {
    let reserve = (descriptors / 4).min(512);
    let each = (descriptors - reserve) / 2 / u64::try_from(workers).unwrap_or(1).max(1);
    usize::try_from(each).unwrap_or(usize::MAX).clamp(16, Limits::default().connections)
}

fn proxy_settings(settings: &Settings, connections: usize) -> ProxySettings {
    ProxySettings {
        limits: Limits { connections, ..Limits::default() },
        trusted_proxies: settings.trusted_proxies.clone(),
        proxy_protocol: settings.proxy_protocol.clone(),
        wakes_per_client: settings.wakes_per_client,
        https_redirect: redirect_port(settings),
        hsts: settings.tls.hsts.map(|hsts| hsts.value()),
        access_log: settings.access_log.clone(),
        shutdown_timeout: settings.shutdown_timeout,
    }
}

/// The port that those are sent to who come in clear.
fn redirect_port(settings: &Settings) -> Option<u16> {
    let listening = settings.listen.https.first().map(SocketAddr::port)?;
    match settings.tls.redirect {
        HttpsRedirect::On => Some(listening),
        HttpsRedirect::Port(port) => Some(port),
        HttpsRedirect::Off => None,
    }
}

/// Gives the data plane its settings anew after each reload.
async fn follow_settings(
    mut in_force: watch::Receiver<Arc<Settings>>,
    proxy: Arc<ArcSwap<ProxySettings>>,
    connections: usize,
    end: CancellationToken,
) {
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            changed = in_force.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        proxy.store(Arc::new(proxy_settings(&in_force.borrow_and_update(), connections)));
    }
}

/// Keeps what is known of all backends, and waits until it is written.
pub(super) async fn remember_all(control: &Control, store: &Store) {
    for backend in control.backends() {
        store.save(control::remember(&backend));
    }
    store.flush().await;
}

async fn remember_now_and_then(control: Control, store: Store, end: CancellationToken) {
    let mut written = HashMap::new();
    loop {
        for backend in control.backends() {
            let status = backend.status().borrow().version;
            let mark = (status, backend.last_used());
            if written.insert(backend.id().clone(), mark) != Some(mark) {
                store.save(control::remember(&backend));
            }
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(REMEMBER) => {}
        }
    }
}
