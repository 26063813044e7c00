//! The records of one order: put into the DNS, waited for, and taken out again.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{dns_ask::Spot, dns_provider::Client, hook};
use crate::model::{DnsAccess, DnsHook};

/// Whose turn it is to change records. Providers replace all values of a name at once, so that two who add one each at
/// the same time would leave one of them.
pub(super) type Turns = Arc<Mutex<()>>;

/// What an order has in the DNS.
pub(super) struct Records<'a> {
    by: By<'a>,
    turns: Turns,
    /// Held to the end where a name has one value only.
    turn: Option<OwnedMutexGuard<()>>,
    put: Vec<Put>,
}

enum By<'a> {
    Hook(&'a DnsHook),
    Provider(Box<Client<'a>>),
}

struct Put {
    spot: Spot,
    value: String,
    /// It is there; else it may be.
    is_certain: bool,
}

impl<'a> Records<'a> {
    /// None yet.
    pub(super) async fn open(access: &'a DnsAccess, turns: Turns) -> Result<Self, String> {
        let by = match access {
            DnsAccess::Hook(hook) => By::Hook(hook),
            DnsAccess::Provider(provider) => By::Provider(Box::new(Client::open(provider).await?)),
        };
        let one_value = access.provider().is_some_and(|provider| provider.kind.one_value);
        let turn = if one_value { Some(Arc::clone(&turns).lock_owned().await) } else { None };
        Ok(Self { by, turns, turn, put: Vec::new() })
    }

    /// Puts the value that shows that a host is ours.
    pub(super) async fn put(&mut self, host: &str, value: String) -> Result<(), String> {
        let name = format!("_acme-challenge.{host}.");
        let spot = match &self.by {
            By::Hook(_) => Spot { name, zone: String::new() },
            By::Provider(client) => client.locate(&name).await?,
        };
        // It may be one for a whole host with all names below it.
        if self.turn.is_some() && !self.put.is_empty() {
            return Err(format!(
                "the provider keeps one value only, and this order needs another one for `{}` (hint: ask for `{host}` in a certificate of its own)",
                spot.name
            ));
        }
        // Noted first: it may be there although this breaks off.
        self.put.push(Put { spot: spot.clone(), value: value.clone(), is_certain: true });
        let done = match &self.by {
            By::Hook(hook) => hook::run(hook, "present", &spot.name, &value).await,
            By::Provider(client) => {
                let _turn = self.turn_to_change().await;
                client.put(&spot, &value).await
            }
        };
        if done.is_err() {
            match self.by {
                By::Hook(_) => drop(self.put.pop()),
                // An answer that was lost says nothing about the change.
                By::Provider(_) => self.put.iter_mut().rev().take(1).for_each(|put| put.is_certain = false),
            }
        }
        done
    }

    /// Waits until everybody sees what was put in.
    pub(super) async fn settle(&self) -> Result<(), String> {
        match &self.by {
            By::Hook(hook) => tokio::time::sleep(hook.wait).await,
            By::Provider(client) => {
                // All at once: each may take the whole of the time.
                let seen = self.put.iter().map(|put| client.wait_for(&put.spot, &put.value));
                try_join_all(seen).await?;
            }
        }
        Ok(())
    }

    /// Takes out what was put in.
    pub(super) async fn take_back(&mut self) {
        while let Some(Put { spot, value, is_certain }) = self.put.first() {
            let done = match &self.by {
                By::Hook(hook) => hook::run(hook, "cleanup", &spot.name, value).await,
                By::Provider(client) => {
                    let _turn = self.turn_to_change().await;
                    client.take(spot, value).await
                }
            };
            if let Err(why) = done
                && *is_certain
            {
                tracing::warn!(record = spot.name, why, "a record stays in the DNS");
            }
            self.put.remove(0);
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
            tracing::warn!(record = put.spot.name, "an order broke off: a record stays in the DNS");
        }
    }
}
