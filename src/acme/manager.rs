//! The task that sees to it that what is wanted is there.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use instant_acme::Account;
use jiff::Timestamp;
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::{self, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    order::{self, Failed},
    records::Turns,
    schedule::{Kind, Plan},
    vault::Vault,
};
use crate::{
    model::{AcmeSettings, Place, Problem, Settings},
    net::{Certificate, Certificates, Wish, use_one_provider},
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

/// Where certificates can not be kept, that is tried again after so long.
const BROKEN: Duration = Duration::from_secs(60);

/// Gets and renews certificates for as long as the settings ask for it.
#[derive(Debug)]
pub struct Acme {
    state_dir: PathBuf,
    certificates: Arc<Certificates>,
    settings: watch::Receiver<Arc<Settings>>,
    wishes: mpsc::Receiver<Wish>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// None is asked for.
    Off,
    /// What is got could not be kept.
    Broken,
    On(Box<Manager>),
}

impl Acme {
    /// Shows the certificates that are kept. Nothing is ordered before it runs.
    pub fn open(state_dir: PathBuf, certificates: Arc<Certificates>, settings: watch::Receiver<Arc<Settings>>) -> Self {
        use_one_provider();
        let wishes = certificates.wishes();
        let mut acme = Self { state_dir, certificates, settings, wishes, work: Work::Off };
        acme.begin();
        acme
    }

    /// Works until the end.
    pub async fn run(mut self, end: CancellationToken) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                goes_on = self.work() => if !goes_on { return },
            }
            self.begin();
        }
    }

    /// Takes the settings as they are now.
    fn begin(&mut self) {
        // What was under way ends before anything else begins.
        self.work = Work::Off;
        let wanted = self.settings.borrow_and_update().tls.acme.clone();
        self.work = match wanted {
            None => {
                self.certificates.set_from_authority(Vec::new(), Vec::new());
                Work::Off
            }
            Some(wanted) => match Manager::open(&self.state_dir, wanted, Arc::clone(&self.certificates)) {
                Ok(manager) => Work::On(Box::new(manager)),
                Err(error) => {
                    tracing::error!(%error, "certificates can not be kept in the state directory: none are got");
                    Work::Broken
                }
            },
        };
        self.certificates.set_demand(matches!(self.work, Work::On(_)));
    }

    /// Works until that is to be begun anew; says whether it ever will be.
    async fn work(&mut self) -> bool {
        let Self { settings, wishes, .. } = self;
        match &mut self.work {
            Work::Off => tokio::select! {
                changed = settings.changed() => changed.is_ok(),
                () = decline(wishes) => false,
            },
            Work::Broken => tokio::select! {
                changed = tokio::time::timeout(BROKEN, settings.changed()) => changed.unwrap_or(Ok(())).is_ok(),
                () = decline(wishes) => false,
            },
            Work::On(manager) => loop {
                tokio::select! {
                    () = manager.work(wishes) => return false,
                    Ok(()) = settings.changed() => {
                        let now = settings.borrow().tls.acme.clone();
                        match now.filter(|now| manager.settings.is_same(now)) {
                            Some(now) => manager.moved_to(now.place),
                            None => return true,
                        }
                    }
                }
            },
        }
    }
}

/// Nothing comes of a wish: whoever waits for it is told at once.
async fn decline(wishes: &mut mpsc::Receiver<Wish>) {
    while wishes.recv().await.is_some() {}
}

/// What came of an order.
type Outcome = Result<Certificate, Failed>;

struct Manager {
    settings: Arc<AcmeSettings>,
    certificates: Arc<Certificates>,
    vault: Vault,
    // Held while an account is looked up or made: once.
    account: Arc<Mutex<Option<Account>>>,
    turns: Turns,
    plans: Vec<Plan>,
    got: HashMap<Vec<String>, Arc<Certificate>>,
    orders: JoinSet<Outcome>,
    /// The names of the orders under way.
    running: HashMap<task::Id, Vec<String>>,
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
            turns: Turns::default(),
            plans,
            got,
            orders: JoinSet::new(),
            running: HashMap::new(),
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
                Some(done) = self.orders.join_next_with_id() => self.joined(done),
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    fn is_running(&self, names: &[String]) -> bool {
        self.running.values().any(|running| running == names)
    }

    /// The same settings are written elsewhere now.
    fn moved_to(&mut self, place: Place) {
        if self.settings.place != place {
            self.settings = Arc::new(AcmeSettings { place, ..AcmeSettings::clone(&self.settings) });
            self.publish();
        }
    }

    fn give_up(&mut self, now: Timestamp) {
        let before = self.plans.len();
        self.plans.retain(|plan| !plan.is_given_up(now));
        if self.plans.len() < before {
            self.publish();
        }
    }

    /// Begins what is due, and says when to look again.
    fn begin_due(&mut self) -> Duration {
        let now = Timestamp::now();
        self.give_up(now);
        let mut next = LOOK;
        let mut due = Vec::new();
        for plan in &self.plans {
            if self.is_running(&plan.names) {
                continue;
            }
            let left = plan.due().duration_since(now);
            let served = || !plan.on_demand || plan.names.iter().all(|name| self.certificates.names(name));
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
        let turns = Arc::clone(&self.turns);
        tracing::info!(names = names.join(" "), authority = settings.directory, "ordering a certificate");
        let wanted = names.clone();
        let order = self.orders.spawn(async move {
            let get = async {
                let mut known = account.lock().await;
                let account = match known.as_ref() {
                    Some(account) => account.clone(),
                    None => known.insert(order::account(&settings, &vault).await?).clone(),
                };
                drop(known);
                let (key, chain) = order::order(&account, &names, &settings, certificates.challenges(), turns).await?;
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
            outcome
        });
        self.running.insert(order.id(), wanted);
    }

    fn joined(&mut self, done: Result<(task::Id, Outcome), task::JoinError>) {
        let (id, outcome) = done.unwrap_or_else(|error| {
            let why = format!("the order broke off: {error}");
            (error.id(), Err(Failed { kind: Kind::Unreachable, why, account_is_gone: false }))
        });
        if let Some(names) = self.running.remove(&id) {
            self.ended(&names, outcome);
        }
    }

    fn ended(&mut self, names: &[String], outcome: Outcome) {
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
        self.give_up(now);
        let known = self.plans.iter().find(|plan| plan.covers(&host));
        let coming = match known {
            Some(plan) => self.is_running(&plan.names) || plan.due() <= now,
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
        if !self.settings.on_demand || !public || private || !self.certificates.names(host) {
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
        let wanted = |plan: &&Plan| !plan.on_demand || plan.names.iter().all(|name| self.certificates.names(name));
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

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("plans", &self.plans).field("running", &self.running).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::Served;

    fn settings(place: Place) -> AcmeSettings {
        AcmeSettings {
            directory: "https://127.0.0.1:1/".to_owned(),
            root: None,
            email: None,
            external: None,
            challenges: Vec::new(),
            dns: None,
            certificates: vec![vec!["app.example.com".to_owned()]],
            on_demand: true,
            place,
        }
    }

    fn in_line(line: u32) -> Place {
        Place::File { path: "dormouse.yaml".into(), line: Some(line), column: Some(1) }
    }

    fn none() -> Arc<Certificates> {
        Arc::new(Certificates::new(Box::new(|_| Served::ByName), Box::new(|_| None)))
    }

    #[tokio::test]
    async fn an_order_that_panics_is_a_failure_like_any_other_and_moves_with_its_settings() {
        let directory = tempfile::tempdir().unwrap();
        let certificates = none();
        let mut manager = Manager::open(directory.path(), settings(in_line(3)), Arc::clone(&certificates)).unwrap();
        let names = manager.plans[0].names.clone();
        let order = manager.orders.spawn(async { panic!("a fault") });
        manager.running.insert(order.id(), names.clone());
        let done = manager.orders.join_next_with_id().await.unwrap();
        manager.joined(done);
        assert!(!manager.is_running(&names) && manager.plans[0].due() > Timestamp::now());
        let told = || certificates.problems()[0].to_string();
        assert!(told().contains("dormouse.yaml:3:1") && told().contains("the order broke off"), "{}", told());
        manager.moved_to(in_line(4));
        assert!(told().contains("dormouse.yaml:4:1") && told().contains("the order broke off"), "{}", told());
    }

    #[test]
    fn the_place_does_not_tell_settings_apart() {
        let one = settings(in_line(3));
        assert!(one.is_same(&settings(in_line(4))));
        assert!(!one.is_same(&AcmeSettings { on_demand: false, ..settings(in_line(3)) }));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_certificate_that_nobody_gets_is_told_at_once() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("certificates"), "in the way").unwrap();
        let (_send, receive) = watch::channel(Arc::default());
        let mut acme = Acme::open(directory.path().to_owned(), none(), receive);
        let (wish, wishes) = mpsc::channel(1);
        acme.wishes = wishes;
        for work in [Work::Off, Work::Broken] {
            acme.work = work;
            let (done, told) = oneshot::channel();
            wish.try_send(Wish { host: "app.test".to_owned(), done: Some(done) }).unwrap();
            tokio::select! {
                _ = acme.work() => panic!("nothing has changed"),
                told = tokio::time::timeout(Duration::from_secs(1), told) => {
                    told.expect("its handshake is held").unwrap_err();
                }
            }
        }
    }

    #[tokio::test]
    async fn a_state_directory_that_was_not_to_be_used_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("certificates"), "in the way").unwrap();
        let with = |line| {
            let tls = crate::model::TlsSettings { acme: Some(settings(in_line(line))), ..Default::default() };
            Arc::new(Settings { tls, ..Settings::default() })
        };
        let (send, receive) = watch::channel(with(3));
        let mut acme = Acme::open(directory.path().to_owned(), none(), receive);
        assert!(matches!(acme.work, Work::Broken));
        fs::remove_file(directory.path().join("certificates")).unwrap();
        send.send(with(4)).unwrap();
        assert!(acme.work().await);
        acme.begin();
        assert!(matches!(acme.work, Work::On(_)));
    }
}
