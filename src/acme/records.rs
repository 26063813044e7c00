//! The records of one order: put into the DNS, waited for, and taken out again.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::Instant,
};

use super::{
    dns_ask::Spot,
    dns_provider::Client,
    failed::Failed,
    hook::{self, Undone},
    notes::{Note, Notes},
};
use crate::model::{DnsAccess, DnsHook};

/// Nothing more is taken out now when that has taken so long; what is being taken out has its own time (two minutes).
const LONG: Duration = Duration::from_secs(60);

/// So many times a command may say that it can not take a record out, over some minutes: what is behind it may be away.
const OFTEN: u32 = 8;

/// Whose turn it is to change records. Providers replace all values of a name at once, so that two who add one each at
/// the same time would leave one of them.
pub(super) type Turns = Arc<Mutex<()>>;

/// What an order has in the DNS.
pub(super) struct Records<'a> {
    access: &'a DnsAccess,
    by: By<'a>,
    turns: Turns,
    /// Held to the end where a name has one value only.
    turn: Option<OwnedMutexGuard<()>>,
    notes: &'a Notes,
    put: Vec<Put>,
}

enum By<'a> {
    Hook(&'a DnsHook),
    Provider(Box<Client<'a>>),
}

struct Put {
    note: Note,
    /// It is there; else it may be.
    is_certain: bool,
}

impl<'a> Records<'a> {
    /// None yet.
    pub(super) async fn open(access: &'a DnsAccess, turns: Turns, notes: &'a Notes) -> Result<Self, Failed> {
        let by = match access {
            DnsAccess::Hook(hook) => By::Hook(hook),
            DnsAccess::Provider(provider) => By::Provider(Box::new(Client::open(provider).await?)),
        };
        let one_value = access.provider().is_some_and(|provider| provider.kind.one_value);
        let turn = if one_value { Some(Arc::clone(&turns).lock_owned().await) } else { None };
        Ok(Self { access, by, turns, turn, notes, put: Vec::new() })
    }

    /// Takes over what was put there by orders before, with the same access.
    pub(super) fn take_over(&mut self, left: Vec<Note>) {
        self.put.extend(left.into_iter().map(|note| Put { note, is_certain: true }));
    }

    /// Puts the value that shows that a host is ours.
    pub(super) async fn put(&mut self, host: &str, value: String) -> Result<(), Failed> {
        let name = format!("_acme-challenge.{host}.");
        let spot = match &self.by {
            By::Hook(_) => Spot { name, zone: String::new() },
            By::Provider(client) => client.locate(&name).await?,
        };
        // It may be one for a whole host with all names below it.
        if self.turn.is_some() && !self.put.is_empty() {
            return Err(Failed::refused(format!(
                "the provider keeps one value only, and this order needs another one for `{}` (hint: ask for `{host}` in a certificate of its own)",
                spot.name
            )));
        }
        // Noted first: it may be there although this breaks off.
        let note = Note::new(self.access.name(), spot.clone(), value.clone());
        self.notes.keep(&note)?;
        self.put.push(Put { note, is_certain: true });
        let undone = match &self.by {
            By::Hook(hook) => hook::put(hook, &spot.name, &value).await,
            By::Provider(client) => {
                let _turn = self.turn_to_change().await;
                client.put(&spot, &value).await.map_err(Undone::Ran)
            }
        };
        match undone {
            Ok(()) => Ok(()),
            Err(Undone::NotRun(failed)) => {
                if let Some(put) = self.put.pop() {
                    self.notes.forget(&put.note);
                }
                Err(failed)
            }
            // An answer that was lost says nothing about the change, and no more does the end of a command.
            Err(Undone::Ran(failed)) => {
                self.put.iter_mut().rev().take(1).for_each(|put| put.is_certain = false);
                Err(failed)
            }
        }
    }

    /// Waits until everybody sees what was put in.
    pub(super) async fn settle(&self) -> Result<(), Failed> {
        match &self.by {
            By::Hook(hook) => tokio::time::sleep(hook.wait).await,
            By::Provider(client) => {
                // All at once: each may take the whole of the time.
                let seen = self.put.iter().map(|put| client.wait_for(&put.note.spot, &put.note.value));
                try_join_all(seen).await?;
            }
        }
        Ok(())
    }

    /// Takes out what was put in, within a bounded time. What can not be taken out now stays noted; says whether there is
    /// any.
    pub(super) async fn take_back(&mut self) -> bool {
        let (mut stays, begun) = (false, Instant::now());
        while let Some(Put { note: Note { spot, value, .. }, .. }) = self.put.first() {
            if begun.elapsed() >= LONG {
                let records = self.put.len();
                tracing::debug!(records, "records stay in the DNS for now: taking others out took too long");
                self.put.clear();
                return true;
            }
            let done = match &self.by {
                By::Hook(hook) => hook::take(hook, &spot.name, value).await,
                By::Provider(client) => {
                    let _turn = self.turn_to_change().await;
                    client.take(spot, value).await
                }
            };
            let put = self.put.remove(0);
            match done {
                Ok(()) => self.notes.forget(&put.note),
                // A command that says no may have met what is away for a moment.
                Err(failed) if put.is_certain || failed.passes() || matches!(self.by, By::Hook(_)) => {
                    stays |= self.notes.failed(put.note, &failed, self.refusals());
                }
                Err(_) => self.notes.forget(&put.note),
            }
        }
        stays
    }

    /// So many refusals are enough.
    fn refusals(&self) -> u32 {
        match self.by {
            By::Hook(_) => OFTEN,
            By::Provider(_) => 1,
        }
    }

    async fn turn_to_change(&self) -> Option<OwnedMutexGuard<()>> {
        match self.turn {
            Some(_) => None,
            None => Some(Arc::clone(&self.turns).lock_owned().await),
        }
    }
}

/// Also of an order that breaks off.
impl Drop for Records<'_> {
    fn drop(&mut self) {
        for put in self.put.iter().filter(|put| put.is_certain) {
            let record = &put.note.spot.name;
            tracing::warn!(record, "an order broke off: its record stays in the DNS until it is taken out later");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use jiff::ToSpan;

    use super::*;

    /// A command that puts in whatever it is given, and takes out by this script; each call is a line of a file.
    fn hook(directory: &Path, cleanup: &str) -> DnsAccess {
        let calls = directory.join("calls");
        let script = format!("echo $1 >>{}; test $1 = present || {cleanup}", calls.display());
        let command = ["sh", "-c", &script, "hook"].map(str::to_owned).to_vec();
        DnsAccess::Hook(DnsHook { command, wait: Duration::ZERO })
    }

    fn cleanups(directory: &Path) -> usize {
        fs::read_to_string(directory.join("calls")).unwrap_or_default().matches("cleanup").count()
    }

    async fn open<'a>(access: &'a DnsAccess, notes: &'a Notes) -> Records<'a> {
        Records::open(access, Turns::default(), notes).await.unwrap()
    }

    /// Takes out what is noted; says whether something stays.
    async fn take_out(access: &DnsAccess, notes: &Notes) -> bool {
        let mut records = open(access, notes).await;
        records.take_over(notes.all());
        records.take_back().await
    }

    #[tokio::test]
    async fn a_cleanup_that_never_goes_well_is_not_run_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let (access, notes) = (hook(directory.path(), "exit 1"), Notes::open(directory.path()));
        let mut records = open(&access, &notes).await;
        records.put("a.test", "v".to_owned()).await.unwrap();
        assert!(records.take_back().await && notes.all().len() == 1);
        while take_out(&access, &notes).await {
            assert!(cleanups(directory.path()) < 8, "{:?}", notes.all());
        }
        assert_eq!((cleanups(directory.path()), notes.all()), (8, Vec::new()));
    }

    #[tokio::test]
    async fn a_command_that_is_away_is_waited_for_but_no_longer_than_a_week() {
        let directory = tempfile::tempdir().unwrap();
        let command = vec!["/nonexistent/hook".to_owned()];
        let access = DnsAccess::Hook(DnsHook { command, wait: Duration::ZERO });
        let notes = Notes::open(directory.path());
        let spot = |name: &str| Spot { name: name.to_owned(), zone: String::new() };
        let (new, mut old) = ("new.test.", Note::new(access.name(), spot("old.test."), "v".to_owned()));
        old.since -= 169.hours();
        for note in [Note::new(access.name(), spot(new), "v".to_owned()), old] {
            notes.keep(&note).unwrap();
        }
        for tries in 1..=20 {
            assert!(take_out(&access, &notes).await);
            let left: Vec<_> =
                notes.all().into_iter().map(|note| (note.spot.name, note.failures.unreachable)).collect();
            assert_eq!(left, [(new.to_owned(), tries)]);
        }
    }

    /// A command that does this when it is to put a record in, which is there from then on: its file is.
    fn puts_and_then(directory: &Path, then: &str) -> DnsAccess {
        let there = directory.join("there");
        let script = format!("case $1 in present) touch {0}; {then};; *) rm {0};; esac", there.display());
        let command = ["sh", "-c", &script, "hook"].map(str::to_owned).to_vec();
        DnsAccess::Hook(DnsHook { command, wait: Duration::ZERO })
    }

    #[tokio::test]
    async fn what_a_command_has_put_in_before_it_failed_is_taken_out() {
        let directory = tempfile::tempdir().unwrap();
        let (access, notes) = (puts_and_then(directory.path(), "exit 3"), Notes::open(directory.path()));
        let mut records = open(&access, &notes).await;
        assert!(records.put("a.test", "v".to_owned()).await.unwrap_err().why.contains("exit status: 3"));
        assert!(directory.path().join("there").exists());
        // By the next order, when this one breaks off.
        drop(records);
        assert_eq!(notes.all().len(), 1);
        assert!(!take_out(&access, &notes).await && !directory.path().join("there").exists());
        assert_eq!(notes.all(), []);
        // And by the same one else.
        let mut records = open(&access, &notes).await;
        records.put("a.test", "v".to_owned()).await.unwrap_err();
        assert!(!records.take_back().await && !directory.path().join("there").exists());
        assert_eq!(notes.all(), []);
    }

    /// Only the clock of the program is to go on.
    #[tokio::test(start_paused = true)]
    async fn what_a_command_has_put_in_that_hangs_stays_noted() {
        let directory = tempfile::tempdir().unwrap();
        let (access, notes) = (puts_and_then(directory.path(), "exec sleep 600"), Notes::open(directory.path()));
        let failed = open(&access, &notes).await.put("a.test", "v".to_owned()).await.unwrap_err();
        assert!(failed.why.contains("did not end within"), "{failed:?}");
        assert_eq!(notes.all().len(), 1);
    }

    #[tokio::test]
    async fn what_no_command_has_put_in_is_not_noted() {
        let directory = tempfile::tempdir().unwrap();
        let command = vec!["/nonexistent/hook".to_owned()];
        let access = DnsAccess::Hook(DnsHook { command, wait: Duration::ZERO });
        let notes = Notes::open(directory.path());
        let mut records = open(&access, &notes).await;
        records.put("a.test", "v".to_owned()).await.unwrap_err();
        assert!(notes.all().is_empty() && !records.take_back().await);
    }

    /// Only the clock of the program is to go on.
    #[tokio::test(start_paused = true)]
    async fn a_cleanup_that_hangs_holds_nobody_up_once_for_each_record() {
        let directory = tempfile::tempdir().unwrap();
        let (access, notes) = (hook(directory.path(), "exec sleep 600"), Notes::open(directory.path()));
        for host in ["a.test.", "b.test.", "c.test."] {
            let spot = Spot { name: host.to_owned(), zone: String::new() };
            notes.keep(&Note::new(access.name(), spot, "v".to_owned())).unwrap();
        }
        let begun = Instant::now();
        assert!(take_out(&access, &notes).await);
        assert!(begun.elapsed() <= Duration::from_secs(180), "{:?}", begun.elapsed());
        let tried = notes.all().iter().map(|note| note.failures.unreachable).sum::<u32>();
        assert_eq!((tried, notes.all().len()), (1, 3));
    }
}
