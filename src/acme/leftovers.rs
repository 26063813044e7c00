//! What orders have left in the DNS that broke off, or could not take it out: taken out when nothing else is under way.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::{
    desk::Desk,
    notes::{Note, Notes},
    records::{Records, Turns},
    schedule::{Kind, pause},
};
use crate::model::AcmeSettings;

/// The notes are looked through this often at least: a program before this one may have left one more.
const LOOK: Duration = Duration::from_secs(3600);

/// After so many looks in a row that left something it is left to the next order and the next start.
const ENOUGH: u32 = 24;

/// What is to be taken out, and when.
#[derive(Debug)]
pub(super) struct Leftovers {
    notes: Notes,
    due: Timestamp,
    /// Looks in a row after which something stayed.
    failures: u32,
    /// The look under way: says whether something stays.
    look: JoinSet<bool>,
}

impl Leftovers {
    /// To be looked for at once.
    pub(super) fn new(notes: Notes) -> Self {
        Self { notes, due: Timestamp::MIN, failures: 0, look: JoinSet::new() }
    }

    /// An order may have left something.
    pub(super) fn may_be_more(&mut self) {
        self.due = self.due.min(Timestamp::now());
    }

    /// When to look.
    pub(super) fn due(&self) -> Timestamp {
        self.due
    }

    /// Whether some are being taken out. No order is to begin meanwhile: it may need a record of the same name.
    pub(super) fn are_under_way(&self) -> bool {
        !self.look.is_empty()
    }

    /// Begins to take out what there is, if it is time. No order is under way: whatever is noted is left over.
    pub(super) fn begin_due(&mut self, desk: &Desk, now: Timestamp) {
        if self.due > now || self.are_under_way() {
            return;
        }
        self.due = now.saturating_add(LOOK).unwrap_or(Timestamp::MAX);
        let left = self.notes.all();
        if left.is_empty() {
            return;
        }
        let (settings, turns, notes) = (Arc::clone(&desk.settings), Arc::clone(&desk.turns), self.notes.clone());
        self.look.spawn(async move { take_out(left, &settings, turns, &notes).await });
    }

    /// Resolves when a look has ended; never while there is none.
    pub(super) async fn ended(&mut self) {
        match self.look.join_next().await {
            Some(Ok(false)) => self.failures = 0,
            // One that broke off may have left everything.
            Some(Ok(true) | Err(_)) => {
                self.failures = self.failures.saturating_add(1);
                let again = Timestamp::now().saturating_add(pause(self.failures, Kind::Unreachable));
                self.due = again.ok().filter(|_| self.failures < ENOUGH).unwrap_or(Timestamp::MAX);
            }
            None => std::future::pending().await,
        }
    }
}

/// Takes these out of the DNS; says whether something stays that can be taken out later.
async fn take_out(left: Vec<Note>, settings: &AcmeSettings, turns: Turns, notes: &Notes) -> bool {
    let access = settings.dns.as_ref();
    let (left, foreign): (Vec<_>, Vec<_>) =
        left.into_iter().partition(|note| access.is_some_and(|access| access.name() == note.by));
    for note in foreign {
        let Note { by, spot, value } = &note;
        let (record, zone) = (&spot.name, &spot.zone);
        tracing::warn!(
            record,
            zone,
            value,
            by,
            "a record stays in the DNS: `acme: dns` does not name any more who put it there"
        );
        notes.forget(&note);
    }
    let Some(access) = access.filter(|_| !left.is_empty()) else { return false };
    tracing::info!(records = left.len(), by = access.name(), "taking records out of the DNS that were left there");
    match Records::open(access, turns, notes).await {
        Ok(mut records) => {
            records.take_over(left);
            records.take_back().await
        }
        Err(failed) => {
            tracing::warn!(why = failed.why, "records stay in the DNS for now: it is tried again");
            true
        }
    }
}
