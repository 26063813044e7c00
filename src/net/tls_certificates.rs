//! The certificates in force: chosen for each client, read anew when their files change.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
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
    tls_entries::{Entry, beside, ending, loaded},
    tls_files::Found,
    tls_self_signed::SelfSigned,
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

#[derive(Debug, Default)]
struct Sources {
    entries: Vec<(Entry, Found)>,
    authority: Vec<Arc<Certificate>>,
    authority_problems: Vec<Problem>,
    stapling: HashMap<Fingerprint, Arc<Stapling>>,
}

impl Sources {
    /// All certificates, those of files first.
    fn all(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.entries.iter().flat_map(|(_, found)| &found.certificates).chain(&self.authority)
    }

    /// Gives each certificate what is known of it.
    fn attach(&self) {
        for certificate in self.all() {
            certificate.attached.set(&certificate.key, self.stapling.get(&certificate.fingerprint));
        }
    }
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
            let before = std::mem::take(&mut sources.entries);
            sources.entries = Entry::all(settings).map(|entry| loaded(entry, &before)).collect();
        });
    }

    /// Reads the files again.
    pub fn reload(&self) {
        self.change(|sources| {
            self.take_profiles(Profiles::again);
            let before = std::mem::take(&mut sources.entries);
            sources.entries = before.iter().map(|(entry, _)| loaded(entry.clone(), &before)).collect();
        });
    }

    /// Takes these from an authority, in place of all that came from one before, and what is wrong there.
    pub fn set_from_authority(&self, certificates: Vec<Arc<Certificate>>, problems: Vec<Problem>) {
        self.change(|sources| (sources.authority, sources.authority_problems) = (certificates, problems));
    }

    /// Whether hosts without a certificate can get one.
    pub fn set_demand(&self, active: bool) {
        self.demand.set_active(active);
    }

    fn change(&self, change: impl FnOnce(&mut Sources)) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut sources);
        // One that was read again keeps its staple.
        sources.attach();
        self.choice.store(Arc::new(Choice::build(sources.all(), Timestamp::now())));
        drop(sources);
        self.changes.send_replace(());
    }

    /// Takes what the authorities behind certificates say of them, in place of all that was known before.
    pub fn set_stapling(&self, stapling: HashMap<Fingerprint, Arc<Stapling>>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.stapling = stapling;
        sources.attach();
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
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.all().cloned().collect()
    }

    /// The hosts that were shown a self-signed certificate.
    pub fn self_signed_hosts(&self) -> Vec<String> {
        let mut hosts = self.self_signed.hosts();
        hosts.retain(|host| !self.certify(host));
        hosts
    }

    /// What is wrong now: with files, with certificates whose end is near, with hosts that have none.
    pub fn problems(&self) -> Vec<Problem> {
        let now = Timestamp::now();
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems = Vec::new();
        for (entry, found) in &sources.entries {
            problems.extend(found.problems.iter().cloned());
            problems.extend(found.certificates.iter().filter_map(|one| ending(one, entry.place(), now)));
            problems.extend(found.certificates.iter().filter_map(|one| one.stapling_problem(entry.place(), now)));
        }
        problems.extend(sources.authority.iter().filter_map(|one| {
            let place = Place::Host(one.names.first()?.clone());
            one.stapling_problem(&place, now)
        }));
        problems.extend(sources.authority_problems.iter().cloned());
        drop(sources);
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
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let profiles = self.profiles.load();
        let authorities = profiles.files().filter_map(beside);
        sources.entries.iter().flat_map(|(entry, _)| entry.directories()).chain(authorities).collect()
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
mod tests {
    use std::fs;

    use jiff::ToSpan;

    use super::{
        super::tls_samples::{pem, sample},
        *,
    };
    use crate::model::{CertificateFiles, CertificateFolder, ClientProfile};

    fn place() -> Place {
        Place::File { path: "dormouse.yaml".into(), line: Some(3), column: Some(5) }
    }

    fn leaf(certificates: &Certificates, name: Option<&str>) -> Vec<u8> {
        certificates.key_for(name).unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_broken_file_changes_nothing_and_is_told_and_a_whole_one_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let write = |(certificate, key): (String, String)| {
            fs::write(at("a.pem"), certificate).unwrap();
            fs::write(at("a.key"), key).unwrap();
        };
        write(pem(&["app.test"]));
        let files = CertificateFiles { certificate: at("a.pem"), key: at("a.key"), place: place() };
        let settings = TlsSettings { certificates: vec![files], ..TlsSettings::default() };
        let certificates = Certificates::new(Box::new(|_| Served::ByName), Box::new(|_| None));
        certificates.configure(&settings);
        assert_eq!(certificates.problems(), []);
        assert!(certificates.certify("app.test") && !certificates.certify("other.test"));
        let first = leaf(&certificates, Some("app.test"));
        fs::write(at("a.pem"), "-----BEGIN CERTIFICATE-----\nrubbish").unwrap();
        certificates.reload();
        assert_eq!(leaf(&certificates, Some("app.test")), first);
        let problems = certificates.problems();
        assert!(problems[0].to_string().starts_with("error: dormouse.yaml:3:5: `"), "{problems:?}");
        write(pem(&["app.test"]));
        certificates.reload();
        assert_ne!(leaf(&certificates, Some("app.test")), first);
        assert_eq!(certificates.problems(), []);
        assert_eq!(certificates.directories(), BTreeSet::from([directory.path().to_owned()]));
        certificates.configure(&TlsSettings::default());
        assert!(!certificates.certify("app.test"));
    }

    #[test]
    fn what_is_taken_out_of_a_folder_is_gone_whatever_else_is_wrong_there() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("certificates");
        let write = |name: &str, host: &str| {
            let (certificate, key) = pem(&[host]);
            fs::write(inside.join(name), certificate + &key).unwrap();
        };
        fs::create_dir(&inside).unwrap();
        write("app.pem", "app.test");
        write("other.pem", "other.test");
        let folder = CertificateFolder { path: inside.clone(), place: place() };
        let settings = TlsSettings { folders: vec![folder], ..TlsSettings::default() };
        let certificates = Certificates::new(Box::new(|_| Served::ByName), Box::new(|_| None));
        certificates.configure(&settings);
        assert!(certificates.certify("app.test") && certificates.certify("other.test"));
        // One is broken and stays, the other is taken out and goes.
        fs::write(inside.join("other.pem"), "-----BEGIN CERTIFICATE-----\nrubbish").unwrap();
        fs::remove_file(inside.join("app.pem")).unwrap();
        certificates.reload();
        assert!(!certificates.problems().is_empty());
        assert!(certificates.certify("other.test") && !certificates.certify("app.test"));
        // A folder that can not be read says nothing of what is in it.
        fs::rename(&inside, directory.path().join("elsewhere")).unwrap();
        certificates.reload();
        assert!(certificates.certify("other.test"), "{:?}", certificates.problems());
    }

    #[test]
    fn authorities_of_clients_are_read_again_and_what_stays_keeps_its_verifier() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let write = |name: &str| fs::write(at(name), pem(&["authority.test"]).0).unwrap();
        let profile = |name: &str| ClientProfile { authorities: vec![at(name)], system: false, place: place() };
        write("staff.pem");
        write("guests.pem");
        let clients = [("staff".to_owned(), profile("staff.pem")), ("guests".to_owned(), profile("guests.pem"))];
        let settings = TlsSettings { clients: clients.into(), ..TlsSettings::default() };
        let certificates = Certificates::new(Box::new(|_| Served::ByName), Box::new(|host| Some(host.to_owned())));
        certificates.configure(&settings);
        assert_eq!(certificates.directories(), BTreeSet::from([directory.path().to_owned()]));
        let verifier = |of: &str| certificates.profile_of(of).unwrap().1.unwrap();
        let before = ["staff", "guests"].map(verifier);
        // By the watcher, and by SIGHUP.
        let again: [&dyn Fn(); 2] = [&|| certificates.reload(), &|| certificates.configure(&settings)];
        for read in again {
            let last = verifier("staff");
            write("staff.pem");
            read();
            assert!(!Arc::ptr_eq(&last, &verifier("staff")));
            assert!(Arc::ptr_eq(&before[1], &verifier("guests")));
        }
        let last = verifier("staff");
        fs::write(at("staff.pem"), "rubbish").unwrap();
        certificates.reload();
        assert!(Arc::ptr_eq(&last, &verifier("staff")));
        let told = certificates.problems()[0].to_string();
        assert!(told.contains("staff.pem") && told.contains("holds no authority"), "{told}");
    }

    #[test]
    fn a_host_without_a_certificate_gets_one_of_ours_which_is_told_and_certifies_nothing() {
        let serves = |host: &str| if host == "app.test" { Served::ByPattern } else { Served::No };
        let certificates = Certificates::new(Box::new(serves), Box::new(|_| None));
        let shared = leaf(&certificates, None);
        assert_eq!(leaf(&certificates, Some("stranger.test")), shared);
        assert_eq!(certificates.problems(), []);
        assert_ne!(leaf(&certificates, Some("app.test")), shared);
        assert!(!certificates.certify("app.test"));
        assert_eq!(certificates.self_signed_hosts(), ["app.test"]);
        assert!(certificates.problems()[0].to_string().starts_with("warning: host app.test: has no certificate"));
        certificates.set_from_authority(vec![Arc::new(sample(&["app.test"]))], Vec::new());
        assert!(certificates.certify("app.test"));
        assert_eq!(certificates.problems(), []);
    }

    #[tokio::test]
    async fn only_a_host_that_is_served_by_its_name_is_wished_for() {
        let serves = |host: &str| if host == "app.test" { Served::ByName } else { Served::ByPattern };
        let certificates = Certificates::new(Box::new(serves), Box::new(|_| None));
        let mut wishes = certificates.wishes();
        certificates.set_demand(true);
        certificates.wish_for("random.test");
        certificates.wait_for("random.test").await;
        certificates.wish_for("app.test");
        assert_eq!(wishes.try_recv().unwrap().host, "app.test");
        assert!(wishes.try_recv().is_err());
    }

    #[test]
    fn an_end_that_is_near_is_told() {
        let now = Timestamp::now();
        let mut certificate = sample(&["app.test"]);
        let mut check = |lifetime: i64, left: i64, expected: Option<&str>| {
            certificate.not_after = now + (left * 24).hours();
            certificate.not_before = certificate.not_after - (lifetime * 24).hours();
            let told = ending(&certificate, &place(), now).map(|problem| problem.what);
            let told = told.as_deref();
            assert_eq!(told.is_some(), expected.is_some(), "{lifetime} {left}: {told:?}");
            assert!(told.unwrap_or_default().contains(expected.unwrap_or_default()), "{told:?}");
        };
        check(90, 22, None);
        check(90, 20, Some(" ends at "));
        check(6, 3, None);
        check(6, 1, Some(" ends at "));
        check(365, -1, Some(" ended at "));
    }
}
