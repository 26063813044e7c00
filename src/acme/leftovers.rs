//! What orders have left in the DNS that broke off, or could not take it out: taken out when nothing else is under way.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{task::JoinSet, time::timeout};

use super::{
    desk::Desk,
    failed::Failed,
    notes::{Note, Notes},
    records::{Records, Turns},
    schedule::{Kind, pause},
};
use crate::model::AcmeSettings;

/// The notes are looked through this often at least: a program before this one may have left one more.
const LOOK: Duration = Duration::from_secs(3600);

/// Whoever takes it out may need so long until it can be asked.
const PATIENCE: Duration = Duration::from_secs(30);

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

    /// An order may have left something. Where what was left before can not be taken out, that waits for its pause: orders
    /// wait for each look.
    pub(super) fn may_be_more(&mut self) {
        if self.failures == 0 {
            self.due = self.due.min(Timestamp::now());
        }
    }

    /// When to look.
    pub(super) fn due(&self) -> Timestamp {
        self.due
    }

    /// Whether some are being taken out, which ends within minutes. No order is to begin meanwhile: it may need a record
    /// of the same name.
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
                self.due = again.unwrap_or(Timestamp::MAX);
            }
            None => std::future::pending().await,
        }
    }
}

/// Takes these out of the DNS; says whether something stays that can be taken out later.
async fn take_out(left: Vec<Note>, settings: &AcmeSettings, turns: Turns, notes: &Notes) -> bool {
    let access = settings.dns.as_ref();
    let (mut left, foreign): (Vec<_>, Vec<_>) =
        left.into_iter().partition(|note| access.is_some_and(|access| access.name() == note.by));
    for note in foreign {
        let Note { by, spot, value, .. } = &note;
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
    let opened = timeout(PATIENCE, Records::open(access, turns, notes)).await;
    let opened = opened.unwrap_or_else(|_| Err(Failed::passing(format!("no answer within {} s", PATIENCE.as_secs()))));
    match opened {
        Ok(mut records) => {
            // One that hangs does not keep the others from their turn.
            left.sort_by_key(|note| note.failures.sum());
            records.take_over(left);
            records.take_back().await
        }
        Err(failed) => {
            // Nobody was asked: what is missing may be there the next time.
            let failed = Failed { kind: Kind::Unreachable, ..failed };
            let mut stays = false;
            for note in left {
                stays |= notes.failed(note, &failed, u32::MAX);
            }
            stays
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::ToSpan;

    use super::{
        super::{
            dns_ask::Spot,
            dns_secrets::samples::given,
            manager::samples::{in_line, settings},
            schedule::Counts,
        },
        *,
    };
    use crate::model::{DnsAccess, DnsProviderKind};

    #[tokio::test]
    async fn a_secret_that_is_missing_is_waited_for_but_no_longer_than_a_week() {
        let (provider, secrets) = given(DnsProviderKind::find("cloudflare").unwrap());
        fs::remove_dir_all(secrets.path()).unwrap();
        let settings = AcmeSettings { dns: Some(DnsAccess::Provider(provider)), ..settings(in_line(1)) };
        let directory = tempfile::tempdir().unwrap();
        let notes = Notes::open(directory.path());
        let note = |name: &str| {
            let spot = Spot { name: name.to_owned(), zone: "a.test".to_owned() };
            Note::new("cloudflare", spot, "v".to_owned())
        };
        let (new, old) = (note("new.a.test"), note("old.a.test"));
        notes.keep(&new).unwrap();
        notes.keep(&Note { since: old.since - 169.hours(), ..old }).unwrap();
        assert!(take_out(notes.all(), &settings, Turns::default(), &notes).await);
        assert_eq!(notes.all(), [Note { failures: Counts { unreachable: 1, refused: 0 }, ..new }]);
    }

    #[test]
    fn an_order_brings_a_look_forward_unless_the_last_one_has_left_something() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        for (failures, is_due) in [(0, true), (1, false)] {
            let mut leftovers = Leftovers::new(Notes::open(directory.path()));
            (leftovers.due, leftovers.failures) = (now + 1.hour(), failures);
            leftovers.may_be_more();
            assert_eq!(leftovers.due() < now + 1.hour(), is_due, "{failures}");
        }
    }
}
