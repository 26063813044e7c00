//! What certificates are wanted, which of them are there, and the orders under way.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    task::{self, JoinSet},
    time::Instant,
};

use super::{
    desk::{Desk, Outcome},
    failed::Failed,
    leftovers::Leftovers,
    schedule::Plan,
};
use crate::{
    model::{AcmeSettings, Place, Problem},
    net::{Certificate, Certificates, Wish},
};

/// Orders at once.
const PARALLEL: usize = 4;

/// New hosts that get a certificate because somebody asked for them, in an hour.
const HOURLY: usize = 30;

/// The clock on the wall is looked at this often at least.
const LOOK: Duration = Duration::from_secs(3600);

/// Ends of names that no public authority signs for.
const PRIVATE: [&str; 7] = ["localhost", "local", "internal", "home.arpa", "lan", "home", "test"];

/// Begins orders when they are due, and keeps what comes of them.
pub(super) struct Manager {
    desk: Desk,
    certificates: Arc<Certificates>,
    leftovers: Leftovers,
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
    /// Shows what is kept. Nothing is ordered before it works.
    pub(super) fn open(
        state_dir: &Path,
        settings: AcmeSettings,
        certificates: Arc<Certificates>,
    ) -> std::io::Result<Self> {
        let desk = Desk::open(state_dir, settings, Arc::clone(&certificates))?;
        let settings = &desk.settings;
        let mut plans: Vec<Plan> = settings.certificates.iter().cloned().map(|names| Plan::new(names, false)).collect();
        let mut got = HashMap::new();
        for certificate in desk.vault.certificates() {
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
            leftovers: Leftovers::new(desk.notes.clone()),
            desk,
            certificates,
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

    /// Works without an end.
    pub(super) async fn work(&mut self, wishes: &mut mpsc::Receiver<Wish>) {
        loop {
            let next = self.begin_due();
            tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(wish) => self.wished(wish),
                    None => return,
                },
                Some(done) = self.orders.join_next_with_id() => self.joined(done),
                () = self.leftovers.ended() => {}
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    fn is_running(&self, names: &[String]) -> bool {
        self.running.values().any(|running| running == names)
    }

    /// Whether it works by these settings.
    pub(super) fn is_by(&self, settings: &AcmeSettings) -> bool {
        self.desk.settings.is_same(settings)
    }

    /// The same settings are written elsewhere now.
    pub(super) fn moved_to(&mut self, place: Place) {
        if self.desk.settings.place != place {
            self.desk.move_to(place);
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
        if self.running.is_empty() {
            self.leftovers.begin_due(&self.desk, now);
            if self.leftovers.are_under_way() {
                // Their end is heard of.
                return next;
            }
            next = next.min(time_to(self.leftovers.due(), now));
        }
        let mut due = Vec::new();
        for plan in &self.plans {
            if self.is_running(&plan.names) {
                continue;
            }
            let served = || !plan.on_demand || plan.names.iter().all(|name| self.certificates.names(name));
            if plan.due() > now {
                next = next.min(time_to(plan.due(), now));
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
        let authority = &self.desk.settings.directory;
        tracing::info!(names = names.join(" "), authority, "ordering a certificate");
        let order = self.orders.spawn(self.desk.clone().get(names.clone()));
        self.running.insert(order.id(), names);
    }

    fn joined(&mut self, done: Result<(task::Id, Outcome), task::JoinError>) {
        let (id, outcome) =
            done.unwrap_or_else(|error| (error.id(), Err(Failed::passing(format!("the order broke off: {error}")))));
        self.leftovers.may_be_more();
        if let Some(names) = self.running.remove(&id) {
            self.ended(&names, outcome);
        }
    }

    fn ended(&mut self, names: &[String], outcome: Outcome) {
        let Some(plan) = self.plans.iter_mut().find(|plan| plan.names == names) else { return };
        match outcome {
            Ok(certificate) => {
                tracing::info!(names = names.join(" "), until = %certificate.not_after, "got a certificate");
                plan.got(certificate.not_before, certificate.not_after);
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
        let private = self.desk.settings.root.is_none()
            && PRIVATE
                .iter()
                .any(|end| host.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
        if !self.desk.settings.on_demand || !public || private || !self.certificates.names(host) {
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
                _ => self.desk.settings.place.clone(),
            };
            let names = plan.names.join("`, `");
            let what =
                format!("no certificate for `{names}` from `{}`: {}", self.desk.settings.directory, failures.why);
            let times = match failures.counts.sum() {
                1 => "once".to_owned(),
                count => format!("{count} times"),
            };
            Problem::warning(place, what).with_hint(format!("failed {times} in a row; tried again at {}", plan.due()))
        });
        self.certificates.set_from_authority(certificates, problems.collect());
    }
}

/// How long it is until then; not less, by rounding.
fn time_to(then: Timestamp, now: Timestamp) -> Duration {
    then.duration_since(now).try_into().unwrap_or(Duration::ZERO).saturating_add(Duration::from_millis(10))
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("plans", &self.plans).field("running", &self.running).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use crate::model::Served;

    pub(in crate::acme) fn settings(place: Place) -> AcmeSettings {
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

    pub(in crate::acme) fn in_line(line: u32) -> Place {
        Place::File { path: "dormouse.yaml".into(), line: Some(line), column: Some(1) }
    }

    pub(in crate::acme) fn none() -> Arc<Certificates> {
        Arc::new(Certificates::new(Box::new(|_| Served::ByName), Box::new(|_| None)))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        samples::{in_line, none, settings},
        *,
    };

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
}
