//! Where orders are placed: what all of them share.

use std::{io, path::Path, sync::Arc, time::Duration};

use instant_acme::Account;
use tokio::sync::Mutex;

use super::{failed::Failed, notes::Notes, order, records::Turns, vault::Vault};
use crate::{
    model::{AcmeSettings, Place},
    net::{Certificate, Certificates},
};

/// An order takes no longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// What came of an order.
pub(super) type Outcome = Result<Certificate, Failed>;

/// What orders need. A copy shares the account and the turns.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) settings: Arc<AcmeSettings>,
    pub(super) vault: Vault,
    pub(super) notes: Notes,
    pub(super) turns: Turns,
    certificates: Arc<Certificates>,
    // Held while an account is looked up or made: once.
    account: Arc<Mutex<Option<Account>>>,
}

impl Desk {
    pub(super) fn open(state_dir: &Path, settings: AcmeSettings, certificates: Arc<Certificates>) -> io::Result<Self> {
        let vault = Vault::open(state_dir, &settings.directory)?;
        let (notes, turns, account) = (Notes::open(state_dir), Turns::default(), Arc::default());
        Ok(Self { settings: Arc::new(settings), vault, notes, turns, certificates, account })
    }

    /// The same settings are written elsewhere now.
    pub(super) fn move_to(&mut self, place: Place) {
        self.settings = Arc::new(AcmeSettings { place, ..AcmeSettings::clone(&self.settings) });
    }

    /// Gets a certificate for these names, and keeps it.
    pub(super) async fn get(self, names: Vec<String>) -> Outcome {
        let outcome = tokio::time::timeout(PATIENCE, self.order(&names))
            .await
            .unwrap_or_else(|_| Err(Failed::passing(format!("no end within {} s", PATIENCE.as_secs()))));
        if outcome.as_ref().is_err_and(|failed| failed.account_is_gone) {
            *self.account.lock().await = None;
            if let Err(error) = self.vault.forget_account() {
                tracing::warn!(%error, "the account that is gone can not be forgotten");
            }
        }
        outcome
    }

    async fn order(&self, names: &[String]) -> Outcome {
        let Self { settings, vault, certificates, .. } = self;
        let mut known = self.account.lock().await;
        let account = match known.as_ref() {
            Some(account) => account.clone(),
            None => known.insert(order::account(settings, vault).await?).clone(),
        };
        drop(known);
        let dns = (Arc::clone(&self.turns), &self.notes);
        let (key, chain) = order::order(&account, names, settings, certificates.challenges(), dns).await?;
        Ok(vault.keep(names, &key, &chain)?)
    }
}
