//! `dormouse serve`: build the world, run it, end it in order.

use std::{collections::HashMap, os::fd::AsFd, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    bind::{bind_api, until_free, usual_https},
    certificates, files, leftovers, nodes,
    plane::{Places, follow_settings, proxy_settings, raise_descriptors},
    predecessor::{Before, Predecessor, Told},
    remember::{open_store, remember_all, remember_now_and_then},
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
    model::{Cause, OnExit, Problems, Severity, format_duration},
    net::{self, TlsServer},
    ocsp::Stapler,
    provider,
    proxy::{Shared, Workers, bind_workers, check_health, keep_ports},
    telemetry::{Happening, Journal, chain},
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

impl Failed {
    /// The errors alone, without the word for them.
    pub fn why(&self) -> String {
        match self {
            Self::Configuration(problems) => {
                let errors = problems.0.iter().filter(|problem| problem.severity == Severity::Error);
                errors.map(|problem| format!("{problem:#}")).collect::<Vec<_>>().join("\n")
            }
            Self::Other(error) => chain(error.as_ref()),
        }
    }
}

/// An engine that has not answered by then does not keep the routes of others waiting.
const PREPARING: Duration = Duration::from_secs(3);

/// What is under way to the access log has so long to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT.
pub async fn serve(options: ServeOptions) -> Result<(), Failed> {
    control::keep_little();
    signals::claim();
    let source = match (options.config.clone(), options.explicit) {
        (Some(path), _) => FileSource::File(path),
        (None, explicit) => FileSource::None { explicit, https: usual_https() },
    };
    let read_at = Timestamp::now();
    let (loaded, _) = control::load_alone(&source).map_err(Failed::Configuration)?;
    let outputs = control::access_outputs(&loaded);
    // The disk beneath a log may hang, and is nothing that the start waits for.
    drop(tokio::task::spawn_blocking(move || control::tell_of_access_logs(&outputs)));
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
    let places = Places::of(raise_descriptors(), workers);
    places.tell_of(&settings);
    let proxy = Arc::new(ArcSwap::from_pointee(proxy_settings(&settings, places)));
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
    let stapler = Stapler::open(&state_dir, Arc::clone(control.certificates()), in_force.clone());
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
    helpers.spawn(stapler.run(end.clone()));
    helpers.spawn(signals::reload_on_hangup(control.clone(), end.clone()));
    helpers.spawn(signals::look_at_logs(shared.access.clone(), end.clone()));
    helpers.spawn(follow_settings(in_force, proxy, places, end.clone()));
    helpers.spawn(remember_now_and_then(control.clone(), store.clone(), end.clone()));
    let (orders_in, orders) = mpsc::channel(1);
    let upgrades = if may_be_succeeded { Upgrades::to(orders_in) } else { Upgrades::default() };
    let (access, api_ends) = (shared.access.clone(), CancellationToken::new());
    let connections = Arc::clone(shared.connections());
    let router = api::router(Api { control: control.clone(), run, access, connections, upgrades });
    let api = tokio::spawn(api::serve(router, api_tcp, api_unix, api_ends.clone()));
    helpers.spawn(leftovers::give_back(end.clone()));
    helpers.spawn(provider::reap_orphans(end.clone()));
    helpers.close();
    // What nobody wanted is not listened on any more.
    let unwanted = net::close_unwanted();
    let (predecessors, told) = (tokio_util::task::TaskTracker::new(), Told::default());
    match before {
        // The one before tells the service manager.
        Some(before) => {
            tell_of_succession(control.journal());
            drop(predecessors.spawn(before.help(control.clone(), unwanted, told.clone())));
        }
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
    let patience = shared.settings.load().shutdown_timeout;
    tracing::info!(
        "ending: no new connections; those in use may finish within {} (a second signal cuts them)",
        format_duration(patience)
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
        () = tokio::time::sleep(patience + LAST_LINES) => {}
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

/// An upgrade is something that happened, as the events tell it.
fn tell_of_succession(journal: &Journal) {
    let (ours, before) = (std::process::id(), std::os::unix::process::parent_id());
    let note = format!("process {ours} (version {}) has taken over from process {before}", env!("CARGO_PKG_VERSION"));
    journal.record(None, Happening::Note(note), Cause::Dormouse("upgrade".into()));
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
