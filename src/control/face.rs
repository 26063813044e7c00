//! The handle that the API, the command line's socket and the data plane hold.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use jiff::Timestamp;
use tokio::sync::{Mutex, broadcast, mpsc, oneshot, watch};

use super::{
    FileSource, Lending, LiveRoute, LiveTable, StickyKey, Taken,
    access_outputs::{Looks, access_outputs, warn_of},
    keeper::Request,
    remember,
    sticky::StickyKeeper,
};
use crate::{
    backend::{Backend, Lender},
    catalog::Catalog,
    model::{AccessOutput, BackendId, Container, NodeName, Problems, Settings},
    net::Certificates,
    store::{NotWritten, Store},
    telemetry::{Journal, check_access_outputs},
};

/// The running world. Clones share it.
#[derive(Debug, Clone)]
pub struct Control {
    pub(super) source: Arc<FileSource>,
    pub(super) table: Arc<ArcSwap<LiveTable>>,
    pub(super) backends: Arc<DashMap<BackendId, Backend>>,
    pub(super) view: Arc<ArcSwap<View>>,
    pub(super) journal: Journal,
    pub(super) requests: mpsc::Sender<Request>,
    /// Held from the reading of the file to the answer: what was read before never replaces what was read later.
    pub(super) turn: Arc<Mutex<()>>,
    pub(super) looks: Looks,
    pub(super) reloads: broadcast::Sender<Reload>,
    pub(super) store: Arc<OnceLock<Store>>,
    pub(super) streams: watch::Sender<Arc<[Arc<LiveRoute>]>>,
    pub(super) troubles: Arc<ArcSwap<Problems>>,
    pub(super) sticky: Arc<StickyKeeper>,
    pub(super) certificates: Arc<Certificates>,
}

/// What exists now, as a snapshot.
#[derive(Debug, Clone)]
pub struct View {
    /// Routes, backends, problems, exclusions.
    pub catalog: Arc<Catalog>,
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// The nodes.
    pub nodes: BTreeMap<NodeName, NodeView>,
    /// Problems of the last reload that was refused; empty when the last one was taken.
    pub refused: Problems,
    /// All units that the nodes told of, by node and name, where they are discovered.
    pub containers: Arc<Vec<Container>>,
    /// The networks of the container that Dormouse itself runs in.
    pub own_networks: Vec<String>,
    /// When the configuration in force was taken.
    pub loaded_at: Timestamp,
}

/// A node as it is seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeView {
    /// The engine in words, such as `docker unix:///var/run/docker.sock`.
    pub engine: String,
    /// Why it can not be reached; absent: it can, or has not been asked yet.
    pub away: Option<Away>,
    /// Units it told of.
    pub units: usize,
    /// It has been listed at least once.
    pub listed: bool,
}

/// An engine that can not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// Why, as it was told last.
    pub why: String,
    /// Since when, to the second.
    pub since: Timestamp,
}

/// A reload as it goes, whoever wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The configuration is about to be read.
    Begun,
    /// It was taken or refused, or nobody waits for that any more.
    Over,
}

/// Tells of a reload, and at its end that it is over.
struct Told<'a>(&'a broadcast::Sender<Reload>);

impl<'a> Told<'a> {
    fn of(reloads: &'a broadcast::Sender<Reload>) -> Self {
        // Perhaps nobody listens.
        let _ = reloads.send(Reload::Begun);
        Self(reloads)
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let _ = self.0.send(Reload::Over);
    }
}

/// Why a reload was not taken: the running world is as before.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReloadFailed {
    /// The configuration has errors.
    #[error("the configuration has errors")]
    Problems(#[source] Problems),
    /// The program ends.
    #[error("the program ends")]
    Ending,
    /// A panic of ours ended the reading.
    #[error("a fault in Dormouse ended the reading, see its log")]
    Fault,
}

impl Control {
    /// From now on what is told to be done is kept here first.
    pub fn keep_in(&self, store: Store) {
        // A second store would be a second owner of the state directory: the first stays.
        let _ = self.store.set(store);
    }

    /// Clients stay with their members by cookies that are made with the key that this gives, which is asked once, for
    /// the first group that needs it. To be told before the first route is made; otherwise there is a key of this run
    /// alone.
    pub fn stick_by(&self, kept: impl Fn() -> StickyKey + Send + Sync + 'static) {
        self.sticky.ask(Box::new(kept));
    }

    /// Writes down what is to be remembered of a backend, and waits until it is written.
    ///
    /// # Errors
    /// It could not be written: it holds while the program runs.
    pub async fn keep(&self, backend: &Backend) -> Result<(), NotWritten> {
        let Some(store) = self.store.get() else { return Ok(()) };
        store.save(remember(backend));
        store.flush().await
    }

    /// The live route table.
    pub fn table(&self) -> &Arc<ArcSwap<LiveTable>> {
        &self.table
    }

    /// The live stream routes, told anew whenever any route changes.
    pub fn stream_routes(&self) -> watch::Receiver<Arc<[Arc<LiveRoute>]>> {
        self.streams.subscribe()
    }

    /// What is wrong with what runs, other than with its configuration: ports that can not be opened. Replaces what
    /// was told before.
    pub fn tell_troubles(&self, troubles: Problems) {
        self.troubles.store(Arc::new(troubles));
    }

    /// What was told last of what is wrong with what runs.
    pub fn troubles(&self) -> Arc<Problems> {
        self.troubles.load_full()
    }

    /// The certificates that clients are shown.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// The snapshot of now.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// All backends, by name.
    pub fn backends(&self) -> Vec<Backend> {
        let mut all: Vec<Backend> = self.backends.iter().map(|entry| entry.value().clone()).collect();
        all.sort_by(|a, b| a.id().cmp(b.id()));
        all
    }

    /// The backend of this id.
    pub fn backend(&self, id: &BackendId) -> Option<Backend> {
        self.backends.get(id).map(|entry| entry.value().clone())
    }

    /// The backend that somebody means by `node/name`, by a name alone when it is the only one, or by an alias.
    pub fn find(&self, text: &str) -> Option<Backend> {
        if let Ok(id) = text.parse()
            && let Some(backend) = self.backend(&id)
        {
            return Some(backend);
        }
        let view = self.view();
        if let Some(route) = text.parse().ok().and_then(|alias| view.catalog.routes.get(&alias)) {
            let mut all = route.backends();
            if let (Some(id), None) = (all.next(), all.next())
                && let Some(backend) = self.backend(id)
            {
                return Some(backend);
            }
        }
        let mut named = self.backends.iter().filter(|entry| entry.key().name() == text);
        let first = named.next()?;
        if named.next().is_some() { None } else { Some(first.value().clone()) }
    }

    /// Tells of each reload from now on: when it begins, and when it is over.
    pub fn reloads(&self) -> broadcast::Receiver<Reload> {
        self.reloads.subscribe()
    }

    /// Reads the configuration again and takes it if it has no errors. Returns what changed.
    pub async fn reload(&self) -> Result<Taken, ReloadFailed> {
        let taken = async {
            let (mut taken, outputs) = self.take().await?;
            // Of one that was taken: a disk that hangs, or a fault in the look, does not undo that.
            let found = self.looks.look(move || check_access_outputs(&outputs)).await;
            warn_of(&found);
            taken.problems.0.extend(found.0);
            Ok(taken)
        };
        // A disk may be slow: the keeper does not wait for it, and neither does the end.
        tokio::select! {
            biased;
            taken = taken => taken,
            () = self.requests.closed() => Err(ReloadFailed::Ending),
        }
    }

    /// Takes what it reads, and tells where the access logs of that go. The next may begin once this is over.
    async fn take(&self) -> Result<(Taken, Vec<Arc<AccessOutput>>), ReloadFailed> {
        let _turn = self.turn.lock().await;
        let _told = Told::of(&self.reloads);
        let source = Arc::clone(&self.source);
        let read = apart(move || source.load()).await?.map(Box::new);
        let outputs = read.as_deref().map(access_outputs).unwrap_or_default();
        Ok((self.ask(|reply| Request::Reload(read, reply)).await?, outputs))
    }

    /// Gives all backends into the hands of another process, until the lender says that they are back. Nothing is read,
    /// made or retired meanwhile.
    pub async fn lend(&self, lender: Lender) -> Result<Lending, ReloadFailed> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Lend(lender, reply)).await.map_err(|_| ReloadFailed::Ending)?;
        answer.await.map_err(|_| ReloadFailed::Ending)
    }

    /// What a configuration text would change, without changing anything. With all its problems. A stranger's text has
    /// nothing of this machine read for it, and its settings are not compared: by what is the same in it a stranger
    /// could guess at secrets.
    pub async fn dry_run(&self, text: String, strangers: bool) -> Result<Taken, ReloadFailed> {
        let source = Arc::clone(&self.source);
        let checked = apart(move || source.check(&text, strangers)).await?;
        let loaded = Box::new(checked.map_err(ReloadFailed::Problems)?);
        let taken = self.ask(|reply| Request::DryRun(loaded, reply)).await?;
        Ok(if strangers { Taken { settings: Vec::new(), ..taken } } else { taken })
    }

    /// What the keeper answers.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, ReloadFailed>>) -> Request,
    ) -> Result<T, ReloadFailed> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| ReloadFailed::Ending)?;
        answer.await.map_err(|_| ReloadFailed::Ending)?
    }
}

/// Has files read where nobody else waits for the disk.
async fn apart<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Result<T, ReloadFailed> {
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| if error.is_panic() { ReloadFailed::Fault } else { ReloadFailed::Ending })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_while_reading_is_not_told_as_the_end_of_the_program() {
        let faulty: fn() -> u8 = || panic!("on purpose");
        assert_eq!(apart(faulty).await, Err(ReloadFailed::Fault));
        assert_eq!(apart(|| 1).await, Ok(1));
    }
}
