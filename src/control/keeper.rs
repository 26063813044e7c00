//! The keeper: one task that holds what files and engines say and makes it exist.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, broadcast, mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Away, Control, FileSource, Lending, LiveTable, NodeView, ReloadFailed, Taken, View,
    access_outputs::Looks,
    settings::{keep_for_this_process, setting_changes},
    slack,
    watcher::{self, News},
};
use crate::{
    backend::{Backend, Lender, Restored, Waiter},
    catalog::{self, Catalog, FilePart, diff},
    config::Loaded,
    model::{BackendId, Cause, Container, NodeName, Problems, Settings},
    net::Certificates,
    provider::SharedProvider,
    store::BackendMemory,
    telemetry::{Happening, Journal},
};

/// Routes of a container that is gone answer 503 for so long, since most come back under their name.
pub(super) const DEPARTED: Duration = Duration::from_secs(60);

/// A node and its engine.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its provider.
    pub provider: SharedProvider,
    /// The engine in words.
    pub engine: String,
    /// Its units are discovered by labels and ports.
    pub discovers: bool,
}

/// What handles ask of the keeper.
#[derive(Debug)]
pub(super) enum Request {
    Reload(Result<Box<Loaded>, Problems>, oneshot::Sender<Result<Taken, ReloadFailed>>),
    DryRun(Box<Loaded>, oneshot::Sender<Result<Taken, ReloadFailed>>),
    /// Another process is to have all backends, until they are given back.
    Lend(Lender, oneshot::Sender<Lending>),
}

/// A backend and what ends it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) end: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

/// What is left when the keeper has ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Backends that existed, for a last word.
    pub backends: Vec<Backend>,
}

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    pub(super) control: Control,
    pub(super) source: FileSource,
    pub(super) nodes: BTreeMap<NodeName, Node>,
    pub(super) turns: BTreeMap<NodeName, Arc<Semaphore>>,
    /// The id of the container that Dormouse itself runs in.
    pub(super) own_container: Option<String>,
    pub(super) loaded: Loaded,
    pub(super) listed: BTreeMap<NodeName, Vec<Container>>,
    pub(super) departed: HashMap<(NodeName, String), (Container, Instant)>,
    pub(super) away: BTreeMap<NodeName, Away>,
    pub(super) kept: HashMap<BackendId, Kept>,
    pub(super) remembered: HashMap<BackendId, BackendMemory>,
    /// What another process knew of backends that it gave to this one; goes before what is remembered.
    pub(super) known: HashMap<BackendId, Restored>,
    /// Who waits for backends that are not made yet.
    pub(super) awaited: HashMap<BackendId, Waiter>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) refused: Problems,
    pub(super) loaded_at: Timestamp,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) news: mpsc::Receiver<News>,
    pub(super) news_in: mpsc::Sender<News>,
    pub(super) watchers: JoinSet<()>,
    /// The files to be watched, whenever they change.
    pub(super) files: tokio::sync::watch::Sender<Vec<PathBuf>>,
    /// The settings in force.
    pub(super) settings: tokio::sync::watch::Sender<Arc<Settings>>,
}

impl Keeper {
    /// Builds the world of a checked configuration and starts watching its nodes. Must be called inside a runtime.
    pub fn new(
        source: FileSource,
        loaded: Loaded,
        nodes: BTreeMap<NodeName, Node>,
        own_container: Option<String>,
        remembered: HashMap<BackendId, BackendMemory>,
        journal: Journal,
    ) -> (Self, Control) {
        let (requests_in, requests) = mpsc::channel(16);
        let (news_in, news) = mpsc::channel(256);
        let catalog = Arc::new(Catalog::default());
        let view = View {
            catalog: Arc::clone(&catalog),
            settings: Arc::new(loaded.settings.clone()),
            nodes: BTreeMap::new(),
            refused: Problems::default(),
            containers: Arc::default(),
            own_networks: Vec::new(),
            loaded_at: Timestamp::now(),
        };
        let table = Arc::new(ArcSwap::from_pointee(LiveTable::build([])));
        let hosts = Arc::clone(&table);
        let asking = Arc::clone(&table);
        let profile = move |host: &str| {
            let table = asking.load();
            table.by_host.of_host(host).into_iter().find_map(|route| route.spec.options.client_profile.clone())
        };
        let served = move |host: &str| hosts.load().served(host);
        let certificates = Certificates::new(Box::new(served), Box::new(profile));
        certificates.configure(&loaded.settings.tls);
        let control = Control {
            source: Arc::new(source.clone()),
            table,
            certificates: Arc::new(certificates),
            backends: Arc::new(DashMap::new()),
            view: Arc::new(ArcSwap::from_pointee(view)),
            journal,
            requests: requests_in,
            store: Arc::default(),
            streams: tokio::sync::watch::Sender::new(Arc::default()),
            troubles: Arc::default(),
            sticky: Arc::default(),
            turn: Arc::default(),
            looks: Looks::default(),
            reloads: broadcast::Sender::new(64),
        };
        let most = loaded.settings.max_parallel_wakes;
        let turns = nodes.keys().map(|name| (name.clone(), Arc::new(Semaphore::new(most)))).collect();
        let settings = tokio::sync::watch::Sender::new(Arc::new(loaded.settings.clone()));
        let files = tokio::sync::watch::Sender::new(loaded.files.clone());
        let mut keeper = Self {
            control: control.clone(),
            source,
            nodes,
            turns,
            own_container,
            loaded,
            listed: BTreeMap::new(),
            departed: HashMap::new(),
            away: BTreeMap::new(),
            kept: HashMap::new(),
            remembered,
            known: HashMap::new(),
            awaited: HashMap::new(),
            catalog,
            refused: Problems::default(),
            loaded_at: Timestamp::now(),
            requests,
            news,
            news_in,
            watchers: JoinSet::new(),
            files,
            settings,
        };
        keeper.watch_nodes();
        keeper.publish();
        (keeper, control)
    }

    pub(super) fn watch_nodes(&mut self) {
        for (name, node) in &self.nodes {
            self.watchers.spawn(watcher::watch(name.clone(), Arc::clone(&node.provider), self.news_in.clone()));
        }
    }

    /// What is known of backends from before, where it was not known at once: to be told before they are made.
    pub fn remember(&mut self, memories: Vec<BackendMemory>) {
        self.remembered = memories.into_iter().map(|memory| (memory.id.clone(), memory)).collect();
    }

    /// What the process that had the backends until now knew of them, and who is inside from their first moment on: to
    /// be told before they are made.
    pub fn take_over(&mut self, known: HashMap<BackendId, Restored>, awaited: HashMap<BackendId, Waiter>) {
        (self.known, self.awaited) = (known, awaited);
    }

    /// The files to be watched.
    pub fn files(&self) -> tokio::sync::watch::Receiver<Vec<PathBuf>> {
        self.files.subscribe()
    }

    /// The settings in force, told anew after each reload.
    pub fn settings_in_force(&self) -> tokio::sync::watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// Makes the routes of files and, as far as they answer in this time, of engines: whoever is served afterwards is
    /// not told that there is no such route only because Dormouse has just been started.
    pub async fn prepare(&mut self, patience: Duration) {
        self.rebuild().await;
        slack::give_back(self.catalog.routes.len());
        let late = Instant::now() + patience;
        while self.nodes.iter().any(|(name, node)| node.discovers && !self.has_heard_of(name)) {
            match tokio::time::timeout_at(late, self.news.recv()).await {
                Ok(Some(news)) => self.heard(news).await,
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn has_heard_of(&self, node: &NodeName) -> bool {
        self.listed.contains_key(node) || self.away.contains_key(node)
    }

    /// Runs until the token ends it. The engines are left as they are.
    pub async fn run(mut self, end: CancellationToken) -> Ended {
        // Else it has been prepared.
        if self.catalog.routes.is_empty() {
            self.rebuild().await;
        }
        loop {
            tokio::select! {
                () = end.cancelled() => break,
                Some(request) = self.requests.recv() => self.request(request, &end).await,
                Some(news) = self.news.recv() => self.heard(news).await,
            }
        }
        let backends = self.control.backends();
        self.watchers.shutdown().await;
        for (_, kept) in self.kept.drain() {
            kept.end.cancel();
            let _ = kept.task.await;
        }
        Ended { backends }
    }

    async fn request(&mut self, request: Request, end: &CancellationToken) {
        match request {
            Request::Reload(read, reply) => {
                let _ = reply.send(self.reload(read).await);
                // The configuration before is of no more use.
                slack::give_back(self.catalog.routes.len());
            }
            Request::DryRun(loaded, reply) => {
                let _ = reply.send(Ok(self.dry_run(&loaded)));
            }
            Request::Lend(lender, reply) => self.lend(lender, reply, end).await,
        }
    }

    async fn reload(&mut self, read: Result<Box<Loaded>, Problems>) -> Result<Taken, ReloadFailed> {
        let outcome = read.and_then(|loaded| {
            let catalog = self.merge(&loaded);
            let errors: Vec<_> = catalog.file_errors().cloned().collect();
            if errors.is_empty() { Ok(loaded) } else { Err(Problems(errors)) }
        });
        match outcome {
            Ok(loaded) => {
                let mut loaded = *loaded;
                keep_equal_routes(&self.catalog, &mut loaded);
                self.refused = Problems::default();
                let problems = loaded.problems.clone();
                let settings = setting_changes(&self.loaded, &loaded);
                keep_for_this_process(&self.loaded, &mut loaded, &settings);
                self.loaded = loaded;
                self.loaded_at = Timestamp::now();
                self.files.send_replace(self.loaded.files.clone());
                let changes = self.rebuild().await;
                self.control.certificates.configure(&self.loaded.settings.tls);
                self.settings.send_replace(Arc::new(self.loaded.settings.clone()));
                let taken = Taken { settings, changes, problems };
                self.control.journal.record(None, Happening::Note(taken.note()), Cause::Dormouse("reload".into()));
                Ok(taken)
            }
            Err(problems) => {
                self.refused = problems.clone();
                self.publish();
                let note = format!("configuration refused, the one before stays: {problems}");
                self.control.journal.warn(note, Cause::Dormouse("reload".into()));
                Err(ReloadFailed::Problems(problems))
            }
        }
    }

    fn dry_run(&self, loaded: &Loaded) -> Taken {
        let catalog = self.merge(loaded);
        let (settings, changes) = (setting_changes(&self.loaded, loaded), diff(&self.catalog, &catalog));
        Taken { settings, changes, problems: catalog.problems }
    }

    pub(super) fn merge(&self, loaded: &Loaded) -> Catalog {
        let departed = self.departed.values().map(|(unit, _)| unit).filter(|unit| self.discovers(&unit.node));
        let containers: Vec<&Container> = self.discovered().chain(departed).collect();
        let parts = catalog::discover(&containers, &loaded.settings, self.own_container.as_deref());
        Catalog::merge(FilePart::new(self.source.name(), loaded), parts)
    }

    /// What the nodes told of, where units are discovered.
    fn discovered(&self) -> impl Iterator<Item = &Container> {
        self.listed.iter().filter(|(name, _)| self.discovers(name)).flat_map(|(_, units)| units)
    }

    fn discovers(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|node| node.discovers)
    }

    pub(super) fn publish(&self) {
        let nodes = self.nodes.iter().map(|(name, node)| {
            let view = NodeView {
                engine: node.engine.clone(),
                away: self.away.get(name).cloned(),
                units: self.listed.get(name).map_or(0, Vec::len),
                listed: self.listed.contains_key(name),
            };
            (name.clone(), view)
        });
        self.control.view.store(Arc::new(View {
            catalog: Arc::clone(&self.catalog),
            settings: Arc::new(self.settings().clone()),
            nodes: nodes.collect(),
            refused: self.refused.clone(),
            containers: Arc::new(self.discovered().cloned().collect()),
            own_networks: catalog::own_networks(self.discovered(), self.own_container.as_deref()),
            loaded_at: self.loaded_at,
        }));
    }

    fn settings(&self) -> &Settings {
        &self.loaded.settings
    }
}

/// Routes that are as they were stay the same values: the route table, which is not made anew for them, holds those.
fn keep_equal_routes(before: &Catalog, loaded: &mut Loaded) {
    for route in &mut loaded.routes {
        if let Some(kept) = before.routes.get(&route.alias).filter(|kept| *kept == route) {
            *route = Arc::clone(kept);
        }
    }
}
