//! The certificates in force: chosen for each client, read anew when their files change.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::{
    server::{ClientHello, ResolvesServerCert, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use tokio::sync::{mpsc, watch};

use super::{
    tls_certificate::Certificate,
    tls_challenges::Challenges,
    tls_choice::Choice,
    tls_clients::Profiles,
    tls_demand::{Demand, Wish},
    tls_entries::{Entry, beside},
    tls_self_signed::SelfSigned,
    tls_sources::Sources,
    tls_staple::{Fingerprint, Stapling},
};
use crate::model::{Place, Problem, Problems, Served, TlsSettings};

/// Says how a host (in canonical spelling) is served here.
pub type Serves = Box<dyn Fn(&str) -> Served + Send + Sync>;

/// Says which profile of client certificates a host asks for, if any.
pub type Asks = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// So many hosts with self-signed certificates are told of one by one.
const TOLD: usize = 20;

/// The certificates in force, for all workers.
pub struct Certificates {
    choice: ArcSwap<Choice>,
    self_signed: SelfSigned,
    challenges: Challenges,
    demand: Demand,
    serves: Serves,
    asks: Asks,
    profiles: ArcSwap<Profiles>,
    // Held while files are read and the choice is built: changes come one after the other.
    sources: Mutex<Sources>,
    /// Told after each change of what is in force.
    changes: watch::Sender<()>,
}

/// Reads every certificate that the settings name, and tells what is wrong with them.
pub fn check_certificates(settings: &TlsSettings) -> Problems {
    let certificates = Entry::all(settings).flat_map(|entry| entry.load().problems);
    Problems(certificates.chain(Profiles::new(&settings.clients, &Profiles::default()).problems()).collect())
}

impl Certificates {
    /// None yet. `serves` says for which hosts a self-signed one is made, `asks` what clients of a host must show.
    pub fn new(serves: Serves, asks: Asks) -> Self {
        Self {
            choice: ArcSwap::default(),
            self_signed: SelfSigned::default(),
            challenges: Challenges::default(),
            demand: Demand::default(),
            serves,
            asks,
            profiles: ArcSwap::default(),
            sources: Mutex::default(),
            changes: watch::Sender::default(),
        }
    }

    /// Takes these settings. An entry that can not be read keeps what it gave before.
    pub fn configure(&self, settings: &TlsSettings) {
        self.change(|sources| {
            self.take_profiles(|before| Profiles::new(&settings.clients, before));
            sources.configure(settings);
        });
    }

    /// Reads the files again.
    pub fn reload(&self) {
        self.change(|sources| {
            self.take_profiles(Profiles::again);
            sources.reload();
        });
    }

    /// Takes these from an authority, in place of all that came from one before, and what is wrong there.
    pub fn set_from_authority(&self, certificates: Vec<Arc<Certificate>>, problems: Vec<Problem>) {
        self.change(|sources| sources.set_authority(certificates, problems));
    }

    /// Whether hosts without a certificate can get one.
    pub fn set_demand(&self, active: bool) {
        self.demand.set_active(active);
    }

    fn change(&self, change: impl FnOnce(&mut Sources)) {
        let mut sources = self.sources();
        self.choice.store(Arc::new(sources.change(change, Timestamp::now())));
        drop(sources);
        self.changes.send_replace(());
    }

    /// Takes what the authorities behind certificates say of them, in place of all that was known before. Returns when
    /// to tell it again at the latest: where one before a certificate is shown because of what is not known yet.
    pub fn set_stapling(&self, stapling: HashMap<Fingerprint, Arc<Stapling>>) -> Option<Timestamp> {
        let mut sources = self.sources();
        if let Some(choice) = sources.set_stapling(stapling, Timestamp::now()) {
            self.choice.store(Arc::new(choice));
        }
        sources.next_end()
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change of the certificates in force.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn take_profiles(&self, read: impl FnOnce(&Profiles) -> Profiles) {
        let before = self.profiles.load();
        let (now, known) = (read(&before), before.problems());
        for problem in now.problems().iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!("{problem:#}");
        }
        self.profiles.store(Arc::new(now));
    }

    /// Whether a host (in canonical spelling) has a certificate that is not of our own making.
    pub fn certify(&self, host: &str) -> bool {
        self.choice.load().find(host).is_some()
    }

    /// Whether a host (in canonical spelling) is served here by its own name. Only such a one gets a certificate when
    /// it is asked for: of the others there are as many as somebody cares to invent.
    pub fn names(&self, host: &str) -> bool {
        (self.serves)(host) == Served::ByName
    }

    /// The profile of client certificates that a host (in canonical spelling) asks for, and what checks them; absent:
    /// the profile can not be used.
    pub(super) fn profile_of(&self, host: &str) -> Option<(String, Option<Arc<dyn ClientCertVerifier>>)> {
        let name = (self.asks)(host)?;
        let verifier = self.profiles.load().verifier(&name);
        Some((name, verifier))
    }

    /// What an authority asks for.
    pub fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// The hosts that are asked for without having a certificate. One taker gets them.
    pub fn wishes(&self) -> mpsc::Receiver<Wish> {
        self.demand.listen()
    }

    /// Whether hosts get certificates when they are asked for.
    pub fn come_on_demand(&self) -> bool {
        self.demand.is_heard()
    }

    /// A host (in canonical spelling) is asked for in clear: it may get a certificate for the next time.
    pub fn wish_for(&self, host: &str) {
        self.demand.tell(host, || self.names(host));
    }

    /// A host (in canonical spelling) is asked for by TLS. Waits for its certificate when one is on its way.
    pub(super) async fn wait_for(&self, host: &str) {
        if !self.certify(host) && self.names(host) {
            self.demand.wait(host).await;
        }
    }

    /// All of them, those of files first.
    pub fn all(&self) -> Vec<Arc<Certificate>> {
        self.sources().all().cloned().collect()
    }

    /// The hosts that were shown a self-signed certificate.
    pub fn self_signed_hosts(&self) -> Vec<String> {
        let mut hosts = self.self_signed.hosts();
        hosts.retain(|host| !self.certify(host));
        hosts
    }

    /// What is wrong now: with files, with certificates whose end is near, with hosts that have none.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.sources().problems(Timestamp::now());
        problems.extend(self.profiles.load().problems());
        let hosts = self.self_signed_hosts();
        for host in hosts.iter().take(TOLD) {
            let place = Place::Host(host.clone());
            let problem = Problem::warning(place, "has no certificate: a self-signed one is shown");
            problems.push(problem.with_hint(
                "name its files below `tls: certificates`, or set `acme`: a host that a route or an alias below \
                 `domains` names gets one then",
            ));
        }
        problems
    }

    /// The directories in which a change may be one of certificates.
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        let mut directories = self.sources().directories();
        directories.extend(self.profiles.load().files().filter_map(beside));
        directories
    }

    fn key_for(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let choice = self.choice.load();
        let certificate = match name {
            Some(name) => choice.find(name),
            // One that names no host gets what most would.
            None => choice.first(),
        };
        if let Some(certificate) = certificate {
            return Some(certificate.shown(Timestamp::now()));
        }
        let made = match name {
            Some(name) if (self.serves)(name) != Served::No => self.self_signed.of(name).map(|(key, new)| {
                if new {
                    tracing::warn!(host = name, "no certificate for this host: a self-signed one is shown");
                }
                key
            }),
            Some(_) | None => self.self_signed.of_nobody(),
        };
        made.inspect_err(|error| tracing::error!(%error, "a self-signed certificate could not be made")).ok()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // The library has seen to the spelling, but for capitals and the last dot.
        let name = hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        self.key_for(name.as_deref())
    }
}

/// Shows what an authority asks for, and nothing else.
#[derive(Debug)]
pub(super) struct Challenged(pub(super) Arc<Certificates>);

impl ResolvesServerCert for Challenged {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.challenges.certificate(&hello.server_name()?.to_ascii_lowercase())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("all", &self.all()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "tls_certificates_tests.rs"]
mod tests;
