//! The records of one order: put into the DNS, waited for, and taken out again.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{
    dns_ask::Spot,
    dns_provider::Client,
    failed::Failed,
    hook,
    notes::{Note, Notes},
};
use crate::model::{DnsAccess, DnsHook};

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
        let note = Note { by: self.access.name().to_owned(), spot: spot.clone(), value: value.clone() };
        self.notes.keep(&note)?;
        self.put.push(Put { note, is_certain: true });
        let done = match &self.by {
            By::Hook(hook) => hook::run(hook, "present", &spot.name, &value).await,
            By::Provider(client) => {
                let _turn = self.turn_to_change().await;
                client.put(&spot, &value).await
            }
        };
        if done.is_err() {
            match self.by {
                By::Hook(_) => {
                    if let Some(put) = self.put.pop() {
                        self.notes.forget(&put.note);
                    }
                }
                // An answer that was lost says nothing about the change.
                By::Provider(_) => self.put.iter_mut().rev().take(1).for_each(|put| put.is_certain = false),
            }
        }
        done
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

    /// Takes out what was put in. What can not be taken out now stays noted; says whether there is any.
    pub(super) async fn take_back(&mut self) -> bool {
        let mut stays = false;
        while let Some(Put { note: Note { spot, value, .. }, .. }) = self.put.first() {
            let done = match &self.by {
                By::Hook(hook) => hook::run(hook, "cleanup", &spot.name, value).await,
                By::Provider(client) => {
                    let _turn = self.turn_to_change().await;
                    client.take(spot, value).await
                }
            };
            let Put { note, is_certain } = self.put.remove(0);
            match done {
                Err(failed) if failed.passes() => {
                    let why = failed.why;
                    tracing::warn!(
                        record = note.spot.name,
                        why,
                        "a record stays in the DNS for now: it is tried again"
                    );
                    stays = true;
                }
                Err(failed) => {
                    if is_certain {
                        let (value, why) = (&note.value, failed.why);
                        tracing::warn!(record = note.spot.name, value, why, "a record stays in the DNS");
                    }
                    self.notes.forget(&note);
                }
                Ok(()) => self.notes.forget(&note),
            }
        }
        stays
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
