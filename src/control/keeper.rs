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
    sync::{Semaphore, mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Control, FileSource, LiveRoute, LiveTable, NodeView, ReloadFailed, View, memory, slack,
    watcher::{self, News},
};
use crate::{
    backend::{Backend, Surroundings},
    catalog::{self, Catalog, Change, FilePart, diff},
    config::Loaded,
    model::{
        Alias, BackendId, BackendSpec, Cause, Condition, Container, NodeName, Place, Problem, Problems, Settings,
        Severity,
    },
    net::Certificates,
    provider::SharedProvider,
    store::BackendMemory,
    telemetry::{Happening, Journal, RouteCounters},
};

/// Routes of a container that is gone answer 503 for so long, since most come back under their name.
const DEPARTED: Duration = Duration::from_secs(60);

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
    Reload(oneshot::Sender<Result<Vec<Change>, ReloadFailed>>),
    DryRun(String, oneshot::Sender<Result<(Vec<Change>, Problems), ReloadFailed>>),
}

/// A backend and what ends it.
#[derive(Debug)]
struct Kept {
    end: CancellationToken,
    task: JoinHandle<()>,
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
    control: Control,
    source: FileSource,
    nodes: BTreeMap<NodeName, Node>,
    turns: BTreeMap<NodeName, Arc<Semaphore>>,
    /// The id of the container that Dormouse itself runs in.
    own_container: Option<String>,
    loaded: Loaded,
    listed: BTreeMap<NodeName, Vec<Container>>,
    departed: HashMap<(NodeName, String), (Container, Instant)>,
    away: BTreeMap<NodeName, String>,
    kept: HashMap<BackendId, Kept>,
    remembered: HashMap<BackendId, BackendMemory>,
    catalog: Arc<Catalog>,
    refused: Problems,
    loaded_at: Timestamp,
    requests: mpsc::Receiver<Request>,
    news: mpsc::Receiver<News>,
    watchers: JoinSet<()>,
    /// The files to be watched, whenever they change.
    files: tokio::sync::watch::Sender<Vec<PathBuf>>,
    /// The settings in force.
    settings: tokio::sync::watch::Sender<Arc<Settings>>,
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
        let table = Arc::new(ArcSwap::from_pointee(LiveTable::build(std::iter::empty())));
        let hosts = Arc::clone(&table);
        let asking = Arc::clone(&table);
        let profile = move |host: &str| {
            let table = asking.load();
            table.of_host(host).into_iter().find_map(|route: &Arc<LiveRoute>| route.spec.options.client_profile.clone())
        };
        let certificates = Certificates::new(Box::new(move |host| hosts.load().knows_host(host)), Box::new(profile));
        certificates.configure(&loaded.settings.tls);
        let control = Control {
            table,
            certificates: Arc::new(certificates),
            backends: Arc::new(DashMap::new()),
            view: Arc::new(ArcSwap::from_pointee(view)),
            journal,
            requests: requests_in,
            store: Arc::default(),
            streams: tokio::sync::watch::Sender::new(Arc::default()),
            troubles: Arc::default(),
        };
        let mut watchers = JoinSet::new();
        for (name, node) in &nodes {
            watchers.spawn(watcher::watch(name.clone(), Arc::clone(&node.provider), news_in.clone()));
        }
        let most = loaded.settings.max_parallel_wakes;
        let turns = nodes.keys().map(|name| (name.clone(), Arc::new(Semaphore::new(most)))).collect();
        let settings = tokio::sync::watch::Sender::new(Arc::new(loaded.settings.clone()));
        let files = tokio::sync::watch::Sender::new(loaded.files.clone());
        let keeper = Self {
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
            catalog,
            refused: Problems::default(),
            loaded_at: Timestamp::now(),
            requests,
            news,
            watchers,
            files,
            settings,
        };
        keeper.publish();
        (keeper, control)
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
        self.rebuild().await;
        loop {
            tokio::select! {
                () = end.cancelled() => break,
                Some(request) = self.requests.recv() => self.request(request).await,
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

    async fn request(&mut self, request: Request) {
        match request {
            Request::Reload(reply) => {
                let _ = reply.send(self.reload().await);
            }
            Request::DryRun(text, reply) => {
                let _ = reply.send(self.dry_run(&text));
            }
        }
    }

    async fn reload(&mut self) -> Result<Vec<Change>, ReloadFailed> {
        let outcome = self.source.load().and_then(|loaded| {
            let catalog = self.merge(&loaded);
            let errors: Vec<_> = catalog.file_errors().cloned().collect();
            if errors.is_empty() { Ok(loaded) } else { Err(Problems(errors)) }
        });
        match outcome {
            Ok(loaded) => {
                self.refused = Problems::default();
                let before = std::mem::replace(&mut self.loaded, loaded);
                warn_of_restarts(&before.settings, &mut self.loaded);
                drop(before);
                self.loaded_at = Timestamp::now();
                self.files.send_replace(self.loaded.files.clone());
                let changes = self.rebuild().await;
                self.control.certificates.configure(&self.loaded.settings.tls);
                self.settings.send_replace(Arc::new(self.loaded.settings.clone()));
                let note = format!("configuration read again, changes: {}", changes.len());
                self.control.journal.record(None, Happening::Note(note), Cause::Dormouse("reload"));
                Ok(changes)
            }
            Err(problems) => {
                self.refused = problems.clone();
                self.publish();
                let note = format!("configuration refused, the one before stays: {problems}");
                self.control.journal.record(None, Happening::Note(note), Cause::Dormouse("reload"));
                Err(ReloadFailed::Problems(problems))
            }
        }
    }

    fn dry_run(&self, text: &str) -> Result<(Vec<Change>, Problems), ReloadFailed> {
        let loaded = self.source.check(text).map_err(ReloadFailed::Problems)?;
        let catalog = self.merge(&loaded);
        Ok((diff(&self.catalog, &catalog), catalog.problems))
    }

    async fn heard(&mut self, news: News) {
        match news {
            News::Listed(node, units) => self.node_listed(node, units).await,
            News::Hint(node, name) => {
                if let Some(backend) = self.backend_of(node, &name) {
                    backend.hint().await;
                }
            }
            News::Started(node, name) => {
                if let Some(backend) = self.backend_of(node, &name) {
                    backend.started().await;
                }
            }
            News::Ended(node, name, exit_code) => {
                if let Some(backend) = self.backend_of(node, &name) {
                    backend.ended(exit_code).await;
                }
            }
            News::HintAll(node) => {
                for backend in self.backends_of(&node) {
                    backend.hint().await;
                }
            }
            News::Away(node, why) => self.node_away(node, why),
        }
    }

    fn backend_of(&self, node: NodeName, name: &str) -> Option<Backend> {
        BackendId::new(node, name).ok().and_then(|id| self.control.backend(&id))
    }

    fn backends_of(&self, node: &NodeName) -> Vec<Backend> {
        self.control.backends().into_iter().filter(|backend| backend.id().node() == node).collect()
    }

    fn node_away(&mut self, node: NodeName, why: String) {
        if self.away.get(&node) == Some(&why) {
            return;
        }
        let note = format!("node `{node}` is away: {why}");
        if self.away.insert(node, why).is_none() {
            self.control.journal.record(None, Happening::Note(note), Cause::Engine("away".to_owned()));
        } else {
            tracing::debug!("{note}");
        }
        self.publish();
    }

    async fn node_listed(&mut self, node: NodeName, units: Vec<Container>) {
        if self.away.remove(&node).is_some() {
            let note = format!("node `{node}` is back");
            self.control.journal.record(None, Happening::Note(note), Cause::Engine("back".to_owned()));
        }
        let now = Instant::now();
        let present = |name: &str| units.iter().any(|unit| unit.name == name);
        for gone in self.listed.get(&node).into_iter().flatten().filter(|unit| !present(&unit.name)) {
            self.departed.insert((node.clone(), gone.name.clone()), (gone.clone(), now));
        }
        self.departed.retain(|(of, name), (_, since)| now - *since < DEPARTED && !(*of == node && present(name)));
        if self.listed.get(&node) != Some(&units) || self.catalog.routes.is_empty() {
            self.listed.insert(node.clone(), units);
            self.rebuild().await;
        }
        let units = self.listed.get(&node).map(Vec::as_slice).unwrap_or_default();
        for unit in units {
            let backend = BackendId::new(node.clone(), &unit.name).ok().and_then(|id| self.control.backend(&id));
            if let Some(backend) = backend {
                backend.seen(unit.state.clone()).await;
            }
        }
        for (of, name) in self.departed.keys().filter(|(of, _)| *of == node) {
            let backend = BackendId::new(of.clone(), name).ok().and_then(|id| self.control.backend(&id));
            if let Some(backend) = backend {
                backend.hint().await;
            }
        }
    }

    fn merge(&self, loaded: &Loaded) -> Catalog {
        let discovers = |name: &NodeName| self.nodes.get(name).is_some_and(|node| node.discovers);
        let listed = self.listed.iter().filter(|(name, _)| discovers(name)).flat_map(|(_, units)| units);
        let departed = self.departed.values().map(|(unit, _)| unit).filter(|unit| discovers(&unit.node));
        let containers: Vec<&Container> = listed.chain(departed).collect();
        let parts = catalog::discover(&containers, &loaded.settings, self.own_container.as_deref());
        Catalog::merge(FilePart::new(self.source.name(), loaded), parts)
    }

    /// What the nodes told of, where units are discovered.
    fn discovered(&self) -> impl Iterator<Item = &Container> {
        let discovers = |name: &NodeName| self.nodes.get(name).is_some_and(|node| node.discovers);
        self.listed.iter().filter(move |(name, _)| discovers(name)).flat_map(|(_, units)| units)
    }

    /// Merges anew and carries out the difference.
    async fn rebuild(&mut self) -> Vec<Change> {
        let catalog = Arc::new(self.merge(&self.loaded));
        let changes = diff(&self.catalog, &catalog);
        for problem in catalog.problems.0.iter().filter(|problem| !self.catalog.problems.0.contains(problem)) {
            match problem.severity {
                Severity::Error | Severity::Warning => tracing::warn!("{problem}"),
                Severity::Hint => tracing::info!("{problem}"),
            }
        }
        self.catalog = catalog;
        for change in &changes {
            self.carry_out(change);
        }
        if !changes.is_empty() {
            self.connect_dependencies(&changes).await;
            self.swap_table();
        }
        self.publish();
        slack::give_back(changes.len());
        changes
    }

    fn carry_out(&mut self, change: &Change) {
        match change {
            Change::AddBackend(spec) => self.add_backend(spec),
            Change::RemoveBackend(id) => {
                self.control.backends.remove(id);
                if let Some(kept) = self.kept.remove(id) {
                    kept.end.cancel();
                }
            }
            // Given to the backend together with its dependencies; routes are swapped as a whole.
            Change::ChangeBackend { .. }
            | Change::AddRoute(_)
            | Change::ChangeRoute { .. }
            | Change::RemoveRoute(_) => {}
        }
    }

    fn add_backend(&mut self, spec: &BackendSpec) {
        let Some(node) = self.nodes.get(spec.id.node()) else {
            tracing::warn!(backend = %spec.id, "no such node");
            return;
        };
        let turns = self.turns.entry(spec.id.node().clone()).or_insert_with(|| Arc::new(Semaphore::new(1)));
        let around = Surroundings {
            provider: Arc::clone(&node.provider),
            turns: Arc::clone(turns),
            journal: self.control.journal.clone(),
        };
        let restored =
            self.remembered.remove(&spec.id).map(|memory| memory::restored(&memory, &spec.policy)).unwrap_or_default();
        let end = CancellationToken::new();
        let (backend, task) = Backend::spawn(spec.clone(), Vec::new(), around, restored, end.clone());
        self.control.backends.insert(spec.id.clone(), backend);
        self.kept.insert(spec.id.clone(), Kept { end, task });
    }

    /// Gives each new or changed backend its specification and handles of what it needs.
    async fn connect_dependencies(&self, changes: &[Change]) {
        for change in changes {
            let spec = match change {
                Change::AddBackend(spec) if spec.depends_on.is_empty() => continue,
                Change::AddBackend(spec) | Change::ChangeBackend { new: spec, .. } => spec,
                Change::AddRoute(_)
                | Change::ChangeRoute { .. }
                | Change::RemoveRoute(_)
                | Change::RemoveBackend(_) => continue,
            };
            let Some(backend) = self.control.backend(&spec.id) else { continue };
            let on: Vec<(Backend, Condition)> = spec
                .depends_on
                .iter()
                .filter_map(|dependency| Some((self.control.backend(&dependency.on)?, dependency.condition)))
                .collect();
            backend.configure((**spec).clone(), on).await;
        }
    }

    fn swap_table(&self) {
        let catalog = Arc::clone(&self.catalog);
        let before = self.control.table.load();
        let known: HashMap<&Alias, &Arc<RouteCounters>> =
            before.targets().map(|route| (&route.spec.alias, &route.counters)).collect();
        let live = catalog.routes.values().cloned().map(|spec| {
            let counters = known.get(&spec.alias).map(|counters| Arc::clone(counters)).unwrap_or_default();
            let backend = spec.backend().and_then(|id| self.control.backend(id));
            (spec.matches.clone(), Arc::new(LiveRoute { spec, backend, counters }))
        });
        let table = LiveTable::build(live);
        let streams = table.targets().filter(|route| !route.spec.matches.listen.is_empty()).cloned().collect();
        self.control.table.store(Arc::new(table));
        self.control.streams.send_replace(streams);
    }

    fn publish(&self) {
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

/// Keys that are read at the start only keep their value; that they were changed is told.
fn warn_of_restarts(before: &Settings, loaded: &mut Loaded) {
    let now = &mut loaded.settings;
    let changed = [
        ("listen", before.listen != now.listen),
        ("nodes", before.nodes != now.nodes),
        ("max_parallel_wakes", before.max_parallel_wakes != now.max_parallel_wakes),
    ];
    (now.listen, now.nodes) = (before.listen.clone(), before.nodes.clone());
    now.max_parallel_wakes = before.max_parallel_wakes;
    for (key, _) in changed.iter().filter(|(_, changed)| *changed) {
        let place = Place::File {
            path: loaded.files.first().map_or_else(String::new, |file| file.display().to_string()).into(),
            line: None,
            column: None,
        };
        let problem = Problem::warning(place, format!("`{key}` was changed, which takes effect at the next start"));
        loaded.problems.0.push(problem.with_hint("start Dormouse again"));
    }
}
