//! The task that sees to it that what is wanted is there.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use instant_acme::Account;
use jiff::Timestamp;
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    order::{self, Failed},
    schedule::{Kind, Plan},
    vault::Vault,
};
use crate::{
    model::{AcmeSettings, Place, Problem, Settings},
    net::{Certificate, Certificates, Wish},
};

/// Orders at once.
const PARALLEL: usize = 4;

/// New hosts that get a certificate because somebody asked for them, in an hour.
const HOURLY: usize = 30;

/// An order takes no longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// The clock on the wall is looked at this often at least.
const LOOK: Duration = Duration::from_secs(3600);

/// Ends of names that no public authority signs for.
const PRIVATE: [&str; 7] = ["localhost", "local", "internal", "home.arpa", "lan", "home", "test"];

/// Gets and renews certificates for as long as the settings ask for it, until the end.
pub async fn run(
    state_dir: PathBuf,
    certificates: Arc<Certificates>,
    mut settings: watch::Receiver<Arc<Settings>>,
    end: CancellationToken,
) {
    let mut wishes = certificates.wishes();
    loop {
        let wanted = settings.borrow_and_update().tls.acme.clone();
        certificates.set_demand(wanted.is_some());
        let Some(wanted) = wanted else {
            certificates.set_from_authority(Vec::new(), Vec::new());
            tokio::select! {
                () = end.cancelled() => return,
                changed = settings.changed() => if changed.is_err() { return },
                // Nobody gets what is wished for.
                Some(_) = wishes.recv() => {}
            }
            continue;
        };
        let mut manager = match Manager::open(&state_dir, wanted, Arc::clone(&certificates)) {
            Ok(manager) => manager,
            Err(error) => {
                tracing::error!(%error, "certificates can not be kept in the state directory: none are got");
                return;
            }
        };
        let in_force = Arc::clone(&manager.settings);
        tokio::select! {
            () = end.cancelled() => return,
            () = manager.work(&mut wishes) => {}
            () = other(&mut settings, &in_force) => {}
        }
    }
}

/// Resolves when the settings are others.
async fn other(settings: &mut watch::Receiver<Arc<Settings>>, in_force: &AcmeSettings) {
    while settings.changed().await.is_ok() {
        if settings.borrow().tls.acme.as_ref() != Some(in_force) {
            settings.mark_changed();
            return;
        }
    }
    std::future::pending().await
}

/// What came of an order.
type Outcome = (Vec<String>, Result<Certificate, Failed>);

struct Manager {
    settings: Arc<AcmeSettings>,
    certificates: Arc<Certificates>,
    vault: Vault,
    // Held while an account is looked up or made: once.
    account: Arc<Mutex<Option<Account>>>,
    plans: Vec<Plan>,
    got: HashMap<Vec<String>, Arc<Certificate>>,
    orders: JoinSet<Outcome>,
    running: Vec<Vec<String>>,
    waiting: Vec<(String, oneshot::Sender<()>)>,
    /// When hosts were taken because somebody asked for them.
    taken: VecDeque<Instant>,
}

impl Manager {
    fn open(state_dir: &Path, settings: AcmeSettings, certificates: Arc<Certificates>) -> std::io::Result<Self> {
        let vault = Vault::open(state_dir, &settings.directory)?;
        let mut plans: Vec<Plan> = settings.certificates.iter().cloned().map(|names| Plan::new(names, false)).collect();
        let mut got = HashMap::new();
        for certificate in vault.certificates() {
            let (mut names, validity) = (certificate.names.clone(), (certificate.not_before, certificate.not_after));
            let same = |plan: &&mut Plan| {
                plan.names.len() == names.len() && plan.names.iter().all(|name| names.contains(name))
            };
            if let Some(plan) = plans.iter_mut().find(same) {
                plan.has = Some(validity);
                names.clone_from(&plan.names);
            } else if names.len() == 1 && settings.on_demand {
                plans.push(Plan { has: Some(validity), ..Plan::new(names.clone(), true) });
            } else {
                continue;
            }
            got.insert(names, Arc::new(certificate));
        }
        let manager = Self {
            settings: Arc::new(settings),
            certificates,
            vault,
            account: Arc::default(),
            plans,
            got,
            orders: JoinSet::new(),
            running: Vec::new(),
            waiting: Vec::new(),
            taken: VecDeque::new(),
        };
        manager.publish();
        Ok(manager)
    }

    async fn work(&mut self, wishes: &mut mpsc::Receiver<Wish>) {
        loop {
            let next = self.begin_due();
            tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(wish) => self.wished(wish),
                    None => return,
                },
                Some(done) = self.orders.join_next() => match done {
                    Ok((names, outcome)) => self.ended(&names, outcome),
                    Err(error) => tracing::error!(%error, "an order for a certificate broke off"),
                },
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    /// Begins what is due, and says when to look again.
    fn begin_due(&mut self) -> Duration {
        let now = Timestamp::now();
        let mut next = LOOK;
        let mut due = Vec::new();
        for plan in &self.plans {
            if self.running.contains(&plan.names) {
                continue;
            }
            let left = plan.due().duration_since(now);
            let served = || !plan.on_demand || plan.names.iter().all(|name| self.certificates.serves(name));
            if left.is_positive() {
                // Not before it is due, by rounding.
                next = next.min(left.unsigned_abs() + Duration::from_millis(10));
            } else if served() {
                due.push(plan.names.clone());
            }
        }
        for names in due {
            if self.running.len() >= PARALLEL {
                // The end of another one is heard of.
                break;
            }
            self.begin(names);
        }
        next
    }

    fn begin(&mut self, names: Vec<String>) {
        let (settings, vault) = (Arc::clone(&self.settings), self.vault.clone());
        let (account, certificates) = (Arc::clone(&self.account), Arc::clone(&self.certificates));
        tracing::info!(names = names.join(" "), authority = settings.directory, "ordering a certificate");
        self.running.push(names.clone());
        self.orders.spawn(async move {
            let get = async {
                let mut known = account.lock().await;
                let account = match known.as_ref() {
                    Some(account) => account.clone(),
                    None => known.insert(order::account(&settings, &vault).await?).clone(),
                };
                drop(known);
                let (key, chain) = order::order(&account, &names, &settings, certificates.challenges()).await?;
                Ok(vault.keep(&names, &key, &chain)?)
            };
            let outcome = tokio::time::timeout(PATIENCE, get).await.unwrap_or_else(|_| {
                let why = format!("no end within {} s", PATIENCE.as_secs());
                Err(Failed { kind: Kind::Unreachable, why, account_is_gone: false })
            });
            if outcome.as_ref().is_err_and(|failed| failed.account_is_gone) {
                *account.lock().await = None;
                if let Err(error) = vault.forget_account() {
                    tracing::warn!(%error, "the account that is gone can not be forgotten");
                }
            }
            (names, outcome)
        });
    }

    fn ended(&mut self, names: &[String], outcome: Result<Certificate, Failed>) {
        self.running.retain(|running| running != names);
        let Some(plan) = self.plans.iter_mut().find(|plan| plan.names == names) else { return };
        match outcome {
            Ok(certificate) => {
                tracing::info!(names = names.join(" "), until = %certificate.not_after, "got a certificate");
                plan.has = Some((certificate.not_before, certificate.not_after));
                plan.failures = None;
                self.got.insert(names.to_vec(), Arc::new(certificate));
            }
            Err(failed) => {
                plan.failed(Timestamp::now(), failed.kind, failed.why.clone());
                let again = plan.due();
                tracing::warn!(names = names.join(" "), why = failed.why, %again, "no certificate was got");
            }
        }
        let plan = plan.clone();
        self.publish();
        self.waiting.retain(|(host, waiter)| !plan.covers(host) && !waiter.is_closed());
    }

    fn wished(&mut self, Wish { host, done }: Wish) {
        let now = Timestamp::now();
        let known = self.plans.iter().find(|plan| plan.covers(&host));
        let coming = match known {
            Some(plan) => self.running.contains(&plan.names) || plan.due() <= now,
            None => self.take(&host),
        };
        if coming && let Some(done) = done {
            self.waiting.push((host, done));
        }
    }

    /// Takes a host that was asked for, if it may have a certificate of its own.
    fn take(&mut self, host: &str) -> bool {
        let public = host.contains('.') && host.parse::<std::net::IpAddr>().is_err();
        // An authority of one's own may sign for private names.
        let private = self.settings.root.is_none()
            && PRIVATE
                .iter()
                .any(|end| host.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
        if !self.settings.on_demand || !public || private || !self.certificates.serves(host) {
            return false;
        }
        let now = Instant::now();
        self.taken.retain(|at| now.duration_since(*at) < Duration::from_secs(3600));
        if self.taken.len() >= HOURLY {
            tracing::warn!(host, "too many new hosts in this hour: this one gets no certificate now");
            return false;
        }
        self.taken.push_back(now);
        self.plans.push(Plan::new(vec![host.to_owned()], true));
        true
    }

    fn publish(&self) {
        let mut certificates: Vec<_> = self.got.values().cloned().collect();
        certificates.sort_by(|a, b| a.names.cmp(&b.names));
        let wanted = |plan: &&Plan| !plan.on_demand || plan.names.iter().all(|name| self.certificates.serves(name));
        let failures = self.plans.iter().filter(wanted).filter_map(|plan| Some((plan, plan.failures.as_ref()?)));
        let problems = failures.map(|(plan, failures)| {
            let place = match plan.names.as_slice() {
                [host] if plan.on_demand => Place::Host(host.clone()),
                _ => self.settings.place.clone(),
            };
            let names = plan.names.join("`, `");
            let what = format!("no certificate for `{names}` from `{}`: {}", self.settings.directory, failures.why);
            let times = if failures.count == 1 { "once".to_owned() } else { format!("{} times", failures.count) };
            Problem::warning(place, what).with_hint(format!("failed {times} in a row; tried again at {}", plan.due()))
        });
        self.certificates.set_from_authority(certificates, problems.collect());
    }
}
