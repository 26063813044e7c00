//! Where the certificates in force come from, and what is known of them.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    tls_certificate::Certificate,
    tls_choice::Choice,
    tls_entries::{Entry, ending, loaded},
    tls_files::Found,
    tls_staple::{Fingerprint, Stapling},
    tls_succession::Successions,
};
use crate::model::{Place, Problem, TlsSettings};

/// What all certificates are chosen from.
#[derive(Debug, Default)]
pub(super) struct Sources {
    entries: Vec<(Entry, Found)>,
    authority: Vec<Arc<Certificate>>,
    authority_problems: Vec<Problem>,
    /// Absent: nobody asks what authorities say.
    stapling: Option<HashMap<Fingerprint, Arc<Stapling>>>,
    successions: Successions,
}

impl Sources {
    /// The entries are those of the settings. One that can not be read keeps what it gave before.
    pub(super) fn configure(&mut self, settings: &TlsSettings) {
        let before = std::mem::take(&mut self.entries);
        self.entries = Entry::all(settings).map(|entry| loaded(entry, &before)).collect();
    }

    /// Reads the files again.
    pub(super) fn reload(&mut self) {
        let before = std::mem::take(&mut self.entries);
        self.entries = before.iter().map(|(entry, _)| loaded(entry.clone(), &before)).collect();
    }

    /// Takes what comes from an authority, and what is wrong there.
    pub(super) fn set_authority(&mut self, certificates: Vec<Arc<Certificate>>, problems: Vec<Problem>) {
        (self.authority, self.authority_problems) = (certificates, problems);
    }

    /// Carries out a change, and says what to choose from then.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Self), now: Timestamp) -> Choice {
        let before: Vec<_> = self.all().cloned().collect();
        change(self);
        // One that was read again keeps its staple.
        self.attach();
        if self.stapling.is_some() {
            let after: Vec<_> = self.all().cloned().collect();
            self.successions.changed(&before, &after, now);
        }
        self.choice(now)
    }

    /// Takes what is known now; says what to choose from where that is something else than before.
    pub(super) fn set_stapling(
        &mut self,
        stapling: HashMap<Fingerprint, Arc<Stapling>>,
        now: Timestamp,
    ) -> Option<Choice> {
        self.stapling = Some(stapling);
        self.attach();
        let all: Vec<_> = self.all().cloned().collect();
        self.successions.review(&all, now).then(|| self.choice(now))
    }

    /// When a certificate has waited long enough for what is known of it, if one waits.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.successions.next_end()
    }

    /// All certificates, those of files first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.entries.iter().flat_map(|(_, found)| &found.certificates).chain(&self.authority)
    }

    fn choice(&self, now: Timestamp) -> Choice {
        Choice::build(self.successions.shown(self.all()), now)
    }

    /// Gives each certificate what is known of it.
    fn attach(&self) {
        for certificate in self.all() {
            let known = self.stapling.as_ref().and_then(|stapling| stapling.get(&certificate.fingerprint));
            certificate.attached.set(&certificate.key, known);
        }
    }

    /// What is wrong with files, and with certificates whose end is near or that clients refuse.
    pub(super) fn problems(&self, now: Timestamp) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (entry, found) in &self.entries {
            problems.extend(found.problems.iter().cloned());
            problems.extend(found.certificates.iter().filter_map(|one| ending(one, entry.place(), now)));
            problems.extend(found.certificates.iter().filter_map(|one| self.stapling_problem(one, entry.place(), now)));
        }
        problems.extend(self.authority.iter().filter_map(|one| {
            let place = Place::Host(one.names.first()?.clone());
            self.stapling_problem(one, &place, now)
        }));
        problems.extend(self.authority_problems.iter().cloned());
        problems
    }

    fn stapling_problem(&self, certificate: &Certificate, place: &Place, now: Timestamp) -> Option<Problem> {
        let problem = certificate.stapling_problem(place, now)?;
        Some(match self.successions.until(certificate.fingerprint) {
            Some(until) => {
                problem.with_hint(format!("the one before it is shown until there is, at most until {until}"))
            }
            None => problem,
        })
    }

    /// The directories in which a change may be one of certificates.
    pub(super) fn directories(&self) -> BTreeSet<PathBuf> {
        self.entries.iter().flat_map(|(entry, _)| entry.directories()).collect()
    }
}
