//! The journal: every change of a backend with its cause, kept for a while and told to whoever follows.
//!
//! Written by `backend` and `control`, read by `api`, the command line and the store. It never blocks its writer.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::broadcast;

use super::Metrics;
use crate::model::{BackendId, Cause};

/// How long the phases of a wake took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases {
    /// Until all dependencies were up.
    pub dependencies: Duration,
    /// The engine's start call.
    pub engine: Duration,
    /// From the engine's answer until it was ready.
    pub ready: Duration,
    /// The whole.
    pub total: Duration,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// A wake began.
    Waking,
    /// It is awake.
    Woke(Phases),
    /// A wake failed, with the reason and the time until the next try is allowed.
    WakeFailed {
        /// The reason, as told to an administrator.
        why: String,
        /// No new try before this has passed.
        retry_after: Duration,
    },
    /// Closed to new passes.
    Draining,
    /// Traffic was found while draining; awake again.
    DrainEnded,
    /// An ordered drain ran out of time with so many passes still out.
    DrainDenied(usize),
    /// A stop, pause or kill was asked of the engine.
    Stopping,
    /// It sleeps, so long after the order.
    Slept {
        /// `stopped` or `paused`.
        how: &'static str,
        /// From the engine call to its end.
        took: Duration,
    },
    /// Letting it down failed, with the reason.
    SleepFailed(String),
    /// It ended by itself or by another hand while awake, with the exit code.
    Ended(Option<i64>),
    /// It was paused by another hand while it was up.
    Paused,
    /// Found running that was thought down.
    FoundRunning,
    /// It is no longer there.
    Gone,
    /// Pinned until.
    Pinned(Timestamp),
    /// No longer pinned.
    Unpinned,
    /// The health checks of a route to it fail, with the reason.
    Unhealthy(String),
    /// They have an answer again.
    Healthy,
    /// Something that concerns a node or the whole: engine away, reload, problem.
    Note(String),
}

impl fmt::Display for Happening {
    /// A sentence whose subject is the backend.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waking => f.write_str("wakes"),
            Self::Woke(phases) => write!(f, "is awake after {} ms", phases.total.as_millis()),
            Self::WakeFailed { why, .. } => write!(f, "did not wake: {why}"),
            Self::Draining => f.write_str("lets nobody in and waits for those inside"),
            Self::DrainEnded => f.write_str("stays awake: somebody came"),
            Self::DrainDenied(passes) => write!(f, "stays awake: still in use by {passes}"),
            Self::Stopping => f.write_str("is let down"),
            Self::Slept { how, took } => write!(f, "sleeps, {how} in {} ms", took.as_millis()),
            Self::SleepFailed(why) => write!(f, "could not be let down: {why}"),
            Self::Ended(None) => f.write_str("ended by itself or by another hand"),
            Self::Ended(Some(code)) => write!(f, "ended by itself or by another hand with exit code {code}"),
            Self::Paused => f.write_str("was paused by another hand"),
            Self::FoundRunning => f.write_str("was found running"),
            Self::Gone => f.write_str("is no longer there"),
            Self::Pinned(until) => write!(f, "is kept awake until {until}"),
            Self::Unpinned => f.write_str("is no longer kept awake"),
            Self::Unhealthy(why) => write!(f, "is unhealthy: {why}"),
            Self::Healthy => f.write_str("is healthy"),
            Self::Note(text) => f.write_str(text),
        }
    }
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts from 1 in each run of the program.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Which backend; absent: the whole program or a node.
    pub backend: Option<BackendId>,
    /// What.
    pub what: Happening,
    /// Why.
    pub cause: Cause,
}

/// The journal; clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The newest entries, and the next number. A std mutex: held for a push or a copy, never across an await.
    kept: Mutex<(u64, VecDeque<Arc<Entry>>)>,
    follow: broadcast::Sender<Arc<Entry>>,
    /// Counts each line.
    metrics: Metrics,
}

/// How many entries are kept in memory.
const KEPT: usize = 4096;

impl Default for Journal {
    fn default() -> Self {
        Self::counted_by(Metrics::default())
    }
}

impl Journal {
    /// An empty journal whose lines these metrics count.
    pub fn counted_by(metrics: Metrics) -> Self {
        let kept = Mutex::new((0, VecDeque::with_capacity(64)));
        Self { shared: Arc::new(Shared { kept, follow: broadcast::channel(1024).0, metrics }) }
    }

    /// The metrics that count its lines.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Adds a line, logs it, and tells all who follow.
    pub fn record(&self, backend: Option<&BackendId>, what: Happening, cause: Cause) {
        let entry = self.add(backend, what, cause);
        match &entry.backend {
            // One line for each wake, however many wait for it: a service that does not come up is looked at.
            Some(id) if matches!(entry.what, Happening::WakeFailed { .. }) => {
                tracing::warn!(backend = %id, cause = %entry.cause, "{}", entry.what);
            }
            Some(id) => tracing::info!(backend = %id, cause = %entry.cause, "{}", entry.what),
            // An engine that goes away is worth a look in the morning, and so is when it came back.
            None if matches!(entry.cause, Cause::Engine(_)) => tracing::warn!(cause = %entry.cause, "{}", entry.what),
            None => tracing::info!(cause = %entry.cause, "{}", entry.what),
        }
    }

    /// As [`Self::record`], of the whole program and as a warning.
    pub fn warn(&self, note: String, cause: Cause) {
        let entry = self.add(None, Happening::Note(note), cause);
        tracing::warn!(cause = %entry.cause, "{}", entry.what);
    }

    fn add(&self, backend: Option<&BackendId>, what: Happening, cause: Cause) -> Arc<Entry> {
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.0 += 1;
        let entry = Arc::new(Entry { seq: kept.0, at: Timestamp::now(), backend: backend.cloned(), what, cause });
        if kept.1.len() == KEPT {
            kept.1.pop_front();
        }
        kept.1.push_back(Arc::clone(&entry));
        // Sent under the lock, so that followers see the order of the numbers.
        let _ = self.shared.follow.send(Arc::clone(&entry));
        drop(kept);
        self.shared.metrics.observe(&entry);
        entry
    }

    /// Goes on after these entries of the process before: what was recorded here so far comes after them.
    pub fn follow_on(&self, before: Vec<Entry>) {
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = before.last().map(|entry| entry.seq) else { return };
        let later = std::mem::take(&mut kept.1).into_iter().map(|entry| {
            let entry = Arc::unwrap_or_clone(entry);
            Arc::new(Entry { seq: last + entry.seq, ..entry })
        });
        kept.1 = before.into_iter().map(Arc::new).chain(later).collect();
        let too_many = kept.1.len().saturating_sub(KEPT);
        kept.1.drain(..too_many);
        kept.0 += last;
    }

    /// The kept entries after this number, oldest first, and a receiver for all that follow them without a gap.
    pub fn since(&self, seq: u64) -> (Vec<Arc<Entry>>, broadcast::Receiver<Arc<Entry>>) {
        let kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = kept.1.iter().filter(|entry| entry.seq > seq).cloned().collect();
        (entries, self.shared.follow.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(journal: &Journal, text: &str) {
        journal.record(None, Happening::Note(text.to_owned()), Cause::Idle);
    }

    #[test]
    fn a_journal_goes_on_after_that_of_the_process_before() {
        let (before, after) = (Journal::default(), Journal::default());
        (1..=3).for_each(|_| note(&before, "old"));
        note(&after, "early");
        let (old, _) = before.since(1);
        after.follow_on(old.into_iter().map(Arc::unwrap_or_clone).collect());
        note(&after, "late");
        let (all, _) = after.since(0);
        let told: Vec<_> = all.iter().map(|entry| (entry.seq, entry.what.to_string())).collect();
        let expected = [(2, "old"), (3, "old"), (4, "early"), (5, "late")];
        assert_eq!(told, expected.map(|(seq, text)| (seq, text.to_owned())));
    }
}
