//! The task that sees to it that certificates are shown with what their authorities say of them.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::{self, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Verdict, judge},
    drawer::Drawer,
    question::{Facts, Question},
    responder::{self, PATIENCE},
    schedule,
};
use crate::{
    model::{OcspStapling, Settings},
    net::{Certificate, Certificates, Fingerprint, Staple, Stapling},
};

/// Questions at once.
const PARALLEL: usize = 4;

/// The clock on the wall is looked at this often at least, while there is anything to ask.
const LOOK: Duration = Duration::from_secs(3600);

/// Asks the responders of all certificates in force.
#[derive(Debug)]
pub struct Stapler {
    drawer: Drawer,
    certificates: Arc<Certificates>,
    changes: watch::Receiver<()>,
    settings: watch::Receiver<Arc<Settings>>,
    watched: HashMap<Fingerprint, Watched>,
    questions: JoinSet<Outcome>,
    /// The certificates that the questions under way are about.
    running: HashMap<task::Id, Fingerprint>,
    /// When the certificates are to be told again what is known.
    told_again: Option<Timestamp>,
}

/// What came of a question.
type Outcome = Result<(Vec<u8>, Verdict), String>;

/// A certificate that names a responder, or needs one.
#[derive(Debug)]
struct Watched {
    names: String,
    /// The settings want nothing to be asked.
    off: bool,
    /// Absent: there is nothing to ask.
    question: Option<Arc<Question>>,
    stapling: Arc<Stapling>,
    /// When it is asked about.
    due: Timestamp,
    failures: u32,
    /// Nothing is believed that is older than what was heard before.
    heard: Timestamp,
    ends: Timestamp,
}

impl Stapler {
    /// Shows what is kept. Nothing is asked before it runs.
    pub fn open(state_dir: &Path, certificates: Arc<Certificates>, settings: watch::Receiver<Arc<Settings>>) -> Self {
        let mut stapler = Self {
            drawer: Drawer::new(state_dir),
            changes: certificates.changes(),
            certificates,
            settings,
            watched: HashMap::new(),
            questions: JoinSet::new(),
            running: HashMap::new(),
            told_again: None,
        };
        stapler.look();
        stapler
    }

    /// Works until the end.
    pub async fn run(mut self, end: CancellationToken) {
        loop {
            let next = self.begin_due();
            tokio::select! {
                () = end.cancelled() => return,
                Ok(()) = self.changes.changed() => self.look(),
                Ok(()) = self.settings.changed() => self.look(),
                Some(done) = self.questions.join_next_with_id() => self.joined(done),
                () = tokio::time::sleep(next.unwrap_or_default()), if next.is_some() => {}
            }
        }
    }

    /// Takes certificates and settings as they are now.
    fn look(&mut self) {
        self.changes.mark_unchanged();
        let on = self.settings.borrow_and_update().tls.ocsp == OcspStapling::On;
        let (now, mut before) = (Timestamp::now(), std::mem::take(&mut self.watched));
        for certificate in self.certificates.all() {
            let asks = |watched: &Watched| watched.question.is_some();
            if self.watched.get(&certificate.fingerprint).is_some_and(|watched| !on || asks(watched)) {
                // It lies in several places.
                continue;
            }
            // One of which nobody can be asked may have got its issuer meanwhile.
            let same = before.remove(&certificate.fingerprint).filter(|watched| watched.off != on);
            let same = same.filter(|watched| !on || asks(watched));
            let watched = same.or_else(|| if on { self.on(&certificate, now) } else { Watched::off(&certificate) });
            self.watched.extend(watched.map(|watched| (certificate.fingerprint, watched)));
        }
        self.drawer.tidy(&self.watched.keys().copied().collect::<HashSet<_>>());
        self.publish();
    }

    /// A certificate that is new here, with what is kept about it.
    fn on(&self, certificate: &Certificate, now: Timestamp) -> Option<Watched> {
        let mut watched = Watched::new(certificate)?;
        let of = certificate.fingerprint;
        let Some(question) = &watched.question else {
            if watched.stapling.must_staple {
                let why = watched.stapling.trouble.as_deref().unwrap_or_default();
                tracing::warn!(
                    names = watched.names,
                    why,
                    "this certificate must be shown with an OCSP answer, and there is none"
                );
            }
            return Some(watched);
        };
        let kept = self.drawer.kept(of).and_then(|answer| Some((judge(&answer, question, now).ok()?, answer)));
        if let Some((verdict, answer)) = kept.filter(|(verdict, _)| verdict.revoked.is_none()) {
            watched.takes(of, verdict, answer, now);
        }
        Some(watched)
    }

    /// Begins what is due, and says when to look again, if ever.
    fn begin_due(&mut self) -> Option<Duration> {
        let now = Timestamp::now();
        if self.told_again.is_some_and(|at| at <= now) {
            self.publish();
        }
        let mut next = self.told_again.map(|at| time_to(at, now));
        let asking: HashSet<Fingerprint> = self.running.values().copied().collect();
        for (of, watched) in &self.watched {
            let Some(question) = watched.question.as_ref().filter(|_| now < watched.ends && !asking.contains(of))
            else {
                continue;
            };
            if watched.due > now {
                next = Some(next.unwrap_or(LOOK).min(time_to(watched.due, now)));
            } else if self.running.len() < PARALLEL {
                tracing::debug!(names = watched.names, responder = %question.responder, "asking whether the certificate is good");
                let begun = self.questions.spawn(ask(Arc::clone(question)));
                self.running.insert(begun.id(), *of);
            }
            // Else the end of another question is heard of.
        }
        next
    }

    fn joined(&mut self, done: Result<(task::Id, Outcome), task::JoinError>) {
        let (id, outcome) = done.unwrap_or_else(|error| (error.id(), Err(format!("the question broke off: {error}"))));
        if let Some(of) = self.running.remove(&id) {
            self.answered(of, outcome);
        }
    }

    fn answered(&mut self, of: Fingerprint, outcome: Outcome) {
        // One that is gone meanwhile needs no answer.
        let Some(watched) = self.watched.get_mut(&of).filter(|watched| !watched.off) else { return };
        let now = Timestamp::now();
        let outcome = outcome.and_then(|(answer, verdict)| match verdict.since < watched.heard {
            true => Err(format!("its answer is older than that of {} which came before", watched.heard)),
            false => Ok((answer, verdict)),
        });
        let names = watched.names.clone();
        match outcome {
            Ok((_, verdict @ Verdict { revoked: Some(since), .. })) => {
                if watched.stapling.revoked.is_none() {
                    tracing::error!(names, %since, "the authority has revoked this certificate: clients that ask it refuse it");
                }
                watched.revoked(of, verdict, since, now);
                self.drawer.forget(of);
            }
            Ok((answer, verdict)) => {
                let until = verdict.until;
                if watched.stapling.good_staple(now).is_none() {
                    tracing::info!(names, %until, "the certificate is shown with an OCSP answer");
                } else {
                    tracing::debug!(names, %until, "the certificate has a new OCSP answer");
                }
                self.drawer.keep(of, &answer);
                watched.takes(of, verdict, answer, now);
            }
            Err(why) => {
                watched.failed(of, why.clone(), now);
                let again = watched.due;
                match watched.stapling.good_staple(now) {
                    Some(staple) => {
                        tracing::info!(names, why, until = %staple.until, %again, "no new OCSP answer: the last one is shown");
                    }
                    None if watched.stapling.must_staple => {
                        tracing::warn!(names, why, %again, "this certificate must be shown with an OCSP answer, and there is none");
                    }
                    None => tracing::warn!(names, why, %again, "no OCSP answer: the certificate is shown without"),
                }
            }
        }
        self.publish();
    }

    fn publish(&mut self) {
        let stapling = self.watched.iter().map(|(of, watched)| (*of, Arc::clone(&watched.stapling)));
        self.told_again = self.certificates.set_stapling(stapling.collect());
    }
}

/// How long it is until then, as long as the clock is to be looked at; not less, by rounding.
fn time_to(then: Timestamp, now: Timestamp) -> Duration {
    let left = then.duration_since(now).try_into().unwrap_or(Duration::ZERO);
    left.saturating_add(Duration::from_millis(10)).min(LOOK)
}

async fn ask(question: Arc<Question>) -> Outcome {
    let request = question.request().ok_or_else(|| "the certificate can not be asked about".to_owned())?;
    let answer = responder::ask(&question.responder, request, PATIENCE).await.map_err(|error| error.to_string())?;
    let verdict = judge(&answer, &question, Timestamp::now()).map_err(|error| error.to_string())?;
    Ok((answer, verdict))
}

impl Watched {
    /// Nothing where a certificate neither names a responder nor needs one.
    fn new(certificate: &Certificate) -> Option<Self> {
        let facts = Facts::read(&certificate.chain().collect::<Vec<_>>())?;
        if facts.responder.is_none() && !facts.must_staple {
            return None;
        }
        let stapling = Stapling {
            responder: facts.responder,
            must_staple: facts.must_staple,
            awaited: facts.question.is_ok(),
            trouble: facts.question.as_ref().err().map(|why| (*why).to_owned()),
            ..Stapling::default()
        };
        Some(Self {
            names: certificate.names.join(" "),
            off: false,
            question: facts.question.ok().map(Arc::new),
            stapling: Arc::new(stapling),
            due: Timestamp::MIN,
            failures: 0,
            heard: Timestamp::MIN,
            ends: certificate.not_after,
        })
    }

    /// The same where none is asked for: only one that needs a staple is told of.
    fn off(certificate: &Certificate) -> Option<Self> {
        let mut watched = Self::new(certificate).filter(|watched| watched.stapling.must_staple)?;
        let stapling = Arc::make_mut(&mut watched.stapling);
        (stapling.trouble, stapling.awaited) = (Some("`tls: ocsp` is off".to_owned()), false);
        Some(Self { off: true, question: None, ..watched })
    }

    fn takes(&mut self, of: Fingerprint, verdict: Verdict, answer: Vec<u8>, now: Timestamp) {
        let Verdict { since, until, .. } = verdict;
        let stapling = Arc::make_mut(&mut self.stapling);
        stapling.staple = Some(Staple { answer: answer.into(), since, until });
        (stapling.revoked, stapling.trouble) = (None, None);
        self.heard(of, verdict, now);
    }

    fn revoked(&mut self, of: Fingerprint, verdict: Verdict, since: Timestamp, now: Timestamp) {
        let stapling = Arc::make_mut(&mut self.stapling);
        (stapling.revoked, stapling.staple) = (Some(since), None);
        stapling.trouble = Some("its authority has revoked it".to_owned());
        self.heard(of, verdict, now);
    }

    fn heard(&mut self, of: Fingerprint, Verdict { since, until, .. }: Verdict, now: Timestamp) {
        Arc::make_mut(&mut self.stapling).awaited = false;
        (self.failures, self.heard) = (0, since);
        self.due = schedule::renewal(now, (since, until), of);
    }

    fn failed(&mut self, of: Fingerprint, why: String, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        self.due = schedule::again(now, self.failures, of);
        Arc::make_mut(&mut self.stapling).trouble = Some(why);
    }
}

#[cfg(test)]
#[path = "stapler_tests.rs"]
mod tests;
