//! The store as it is used, and its one task that writes.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection, SqliteConnection};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    BackendMemory, StateInUse,
    file::{self, Unusable},
    lock::{Lock, NoLock},
    rows,
};
use crate::{
    model::{BackendId, Problem},
    telemetry::chain,
};

/// The least time between two transactions.
const PACE: Duration = Duration::from_secs(2);

/// The longest time between two tries to write when writing fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The store; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What was read when it was opened.
    remembered: Vec<BackendMemory>,
    /// What is not written yet; `None` is to be deleted. A std mutex: held for a move, never across an await.
    changed: Mutex<Changes>,
    /// Wakes the writer.
    knock: Notify,
    /// Ends its pause.
    hurry: Notify,
    /// Rounds of writing that were begun, and how those that ended did.
    begun: AtomicU64,
    ended: watch::Sender<Rounds>,
    /// Of the writer of now: one that was closed may be opened again.
    closing: Mutex<CancellationToken>,
    errors: AtomicU64,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// How the rounds of writing ended.
#[derive(Debug, Clone, Default)]
struct Rounds {
    /// The last that ended, well or not.
    last: u64,
    /// The last after which nothing was left unwritten.
    good: u64,
    /// Why the last that failed did.
    why: Arc<str>,
}

/// What was saved could not be written: it is lost when the program ends, unless it can be written later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it could not be written down: {why}")]
pub struct NotWritten {
    /// Why.
    pub why: Arc<str>,
}

type Changes = BTreeMap<BackendId, Option<Box<BackendMemory>>>;

impl Store {
    /// Opens the store in this directory, and makes the directory when there is none. What is wrong with it is told,
    /// and does not keep the store from working. Must be called within a runtime, which the writing task lives on.
    pub async fn open(dir: &Path) -> Result<(Self, Vec<Problem>), StateInUse> {
        Self::open_paced(dir, PACE).await
    }

    pub(super) async fn open_paced(dir: &Path, pace: Duration) -> Result<(Self, Vec<Problem>), StateInUse> {
        let in_memory = |why: String| {
            let told = Problem::error(file::place(dir), format!("nothing is kept across a restart: {why}"))
                .with_hint("give a state directory that can be written to");
            Ok((Self::in_memory(), vec![told]))
        };
        if let Err(error) = file::make_dir(dir) {
            return in_memory(format!("the state directory can not be made: {error}"));
        }
        let lock = match Lock::take(dir) {
            Ok(lock) => lock,
            Err(NoLock::InUse(in_use)) => return Err(in_use),
            Err(NoLock::Failed(error)) => return in_memory(format!("the state directory can not be locked: {error}")),
        };
        let mut told: Vec<Problem> = file::open_to_others(dir).into_iter().collect();
        let path = dir.join("state.db");
        let opened = match file::open(&path).await {
            Err(Unusable::Broken(why)) => match file::move_aside(&path) {
                Ok(aside) => {
                    told.push(
                        Problem::error(file::place(&path), format!("the state can not be used: {why}")).with_hint(
                            format!("it is kept as `{}`; idle clocks and statistics start afresh", aside.display()),
                        ),
                    );
                    file::open(&path).await
                }
                Err(error) => Err(Unusable::Place(format!("{why}, and it can not be moved aside: {error}"))),
            },
            other => other,
        };
        let (connection, read) = match opened {
            Ok(opened) => opened,
            Err(why) => {
                let (store, more) = in_memory(why.to_string())?;
                told.extend(more);
                return Ok((store, told));
            }
        };
        if read.unreadable > 0 {
            told.push(Problem::warning(
                file::place(&path),
                format!("{} backends were forgotten: their rows make no sense", read.unreadable),
            ));
        }
        let store = Self::with(read.memories);
        store.begin(connection, lock, pace);
        Ok((store, told))
    }

    fn begin(&self, connection: SqliteConnection, lock: Lock, pace: Duration) {
        let closing = CancellationToken::new();
        *lock_of(&self.shared.closing) = closing.clone();
        let writer = Writer { shared: Arc::clone(&self.shared), connection, lock, pace, closing };
        *lock_of(&self.shared.writer) = Some(tokio::spawn(writer.run()));
    }

    /// Opens a store again that was closed, in the directory that it was in. What it holds by now is not read.
    pub async fn reopen(&self, dir: &Path) -> Result<(), Problem> {
        let told = |why: String| Problem::error(file::place(dir), format!("nothing is kept across a restart: {why}"));
        let lock = Lock::take(dir).map_err(|error| {
            told(match error {
                NoLock::InUse(in_use) => in_use.to_string(),
                NoLock::Failed(error) => format!("the state directory can not be locked: {error}"),
            })
        })?;
        let (connection, _) = file::open(&dir.join("state.db")).await.map_err(|why| told(why.to_string()))?;
        self.begin(connection, lock, PACE);
        Ok(())
    }

    /// A store that keeps nothing beyond the process.
    pub fn in_memory() -> Self {
        Self::with(Vec::new())
    }

    fn with(remembered: Vec<BackendMemory>) -> Self {
        Self {
            shared: Arc::new(Shared {
                remembered,
                changed: Mutex::default(),
                knock: Notify::new(),
                hurry: Notify::new(),
                begun: AtomicU64::new(0),
                ended: watch::Sender::default(),
                closing: Mutex::default(),
                errors: AtomicU64::new(0),
                writer: Mutex::new(None),
            }),
        }
    }

    /// What was known when the store was opened.
    pub fn load(&self) -> Vec<BackendMemory> {
        self.shared.remembered.clone()
    }

    /// Remembers this of its backend, in place of what was known before. Never waits.
    pub fn save(&self, memory: BackendMemory) {
        self.change(memory.id.clone(), Some(Box::new(memory)));
    }

    /// Forgets a backend that is gone for good.
    pub fn forget(&self, id: &BackendId) {
        self.change(id.clone(), None);
    }

    fn change(&self, id: BackendId, to: Option<Box<BackendMemory>>) {
        if self.is_kept() {
            lock_of(&self.shared.changed).insert(id, to);
            self.shared.knock.notify_one();
        }
    }

    /// Waits until what was saved before is written, or could not be: for what somebody is told has been done. What
    /// could not be is tried again. A store that was closed, or is in memory, has nothing to wait for.
    ///
    /// # Errors
    /// The reason why it could not be written now.
    pub async fn flush(&self) -> Result<(), NotWritten> {
        if !self.is_kept() {
            return Ok(());
        }
        let mut ended = self.shared.ended.subscribe();
        // One that was begun before may have left out what was saved last.
        let next = self.shared.begun.load(Ordering::SeqCst) + 1;
        self.shared.knock.notify_one();
        self.shared.hurry.notify_one();
        let closing = lock_of(&self.shared.closing).clone();
        // The other side lives as long as this handle.
        let Ok(ended) = ended.wait_for(|ended| ended.last >= next || closing.is_cancelled()).await else {
            return Ok(());
        };
        // A later round writes what an earlier one could not.
        if ended.last >= next && ended.good < next { Err(NotWritten { why: Arc::clone(&ended.why) }) } else { Ok(()) }
    }

    /// Whether anything outlives the process.
    pub fn is_kept(&self) -> bool {
        lock_of(&self.shared.writer).is_some()
    }

    /// Whether anything waits for the writer.
    #[cfg(test)]
    pub(super) fn has_changes(&self) -> bool {
        !lock_of(&self.shared.changed).is_empty()
    }

    /// How often writing failed. What could not be written is tried again.
    pub fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::Relaxed)
    }

    /// Writes what is left, closes the file and frees the directory. What is saved afterwards is lost.
    pub async fn close(&self) {
        let writer = lock_of(&self.shared.writer).take();
        lock_of(&self.shared.closing).cancel();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the writer of the state ended badly");
        }
    }
}

/// The task that writes.
struct Writer {
    shared: Arc<Shared>,
    connection: SqliteConnection,
    lock: Lock,
    pace: Duration,
    closing: CancellationToken,
}

impl Writer {
    async fn run(mut self) {
        let mut pause = self.pace;
        loop {
            tokio::select! {
                () = self.shared.knock.notified() => {}
                () = self.closing.cancelled() => {}
            }
            // Looked at before the last write, so that nothing saved before the closing is left out.
            let closing = self.closing.is_cancelled();
            let round = self.shared.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let written = self.write().await;
            let done = written.is_ok();
            self.shared.ended.send_modify(|rounds| {
                rounds.last = round;
                match written {
                    Ok(()) => rounds.good = round,
                    Err(why) => rounds.why = why,
                }
            });
            if closing {
                break;
            }
            pause = if done { self.pace } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shared.hurry.notified() => {}
                () = self.closing.cancelled() => {}
            }
            if !done {
                self.shared.knock.notify_one();
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the state file was not closed well");
        }
        drop(self.lock);
    }

    /// Writes all changes in one transaction. What can not be written goes back, unless it changed again meanwhile.
    async fn write(&mut self) -> Result<(), Arc<str>> {
        let changes = std::mem::take(&mut *lock_of(&self.shared.changed));
        if changes.is_empty() {
            return Ok(());
        }
        match self.transact(&changes).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let count = self.shared.errors.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::error!(%error, count, "the state could not be written; it will be tried again");
                let mut changed = lock_of(&self.shared.changed);
                for (id, to) in changes {
                    changed.entry(id).or_insert(to);
                }
                Err(chain(&error).into())
            }
        }
    }

    async fn transact(&mut self, changes: &Changes) -> Result<(), sqlx::Error> {
        let mut transaction = self.connection.begin().await?;
        for (id, to) in changes {
            match to {
                Some(memory) => rows::write(&mut transaction, memory).await?,
                None => rows::delete(&mut transaction, id).await?,
            }
        }
        transaction.commit().await
    }
}

fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
