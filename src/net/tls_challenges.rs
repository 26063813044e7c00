//! What an authority asks for to see that a host is ours, while it asks.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::sign::CertifiedKey;

/// Answers to challenges, for as long as they stand.
#[derive(Default)]
pub struct Challenges {
    /// How many there are: nobody looks further while there is none.
    count: AtomicUsize,
    // Read by workers only while there is one; written twice in an order.
    answers: RwLock<Answers>,
}

#[derive(Default)]
struct Answers {
    by_token: HashMap<String, String>,
    by_host: HashMap<String, Arc<CertifiedKey>>,
}

impl Challenges {
    /// The answer to a token that is asked for by HTTP.
    pub fn answer(&self, token: &str) -> Option<String> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.answers.read().unwrap_or_else(PoisonError::into_inner).by_token.get(token).cloned()
    }

    /// The certificate that a host must show.
    pub(super) fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.answers.read().unwrap_or_else(PoisonError::into_inner).by_host.get(host).cloned()
    }

    /// Whether a host is to show a certificate to an authority.
    pub fn expects(&self, host: &str) -> bool {
        self.certificate(host).is_some()
    }

    /// From now on this token is answered so.
    pub fn put_answer(&self, token: &str, answer: &str) {
        self.change(|answers| {
            answers.by_token.insert(token.to_owned(), answer.to_owned());
        });
    }

    /// From now on this host shows this certificate to those who ask for it.
    pub fn put_certificate(&self, host: &str, certificate: Arc<CertifiedKey>) {
        self.change(|answers| {
            answers.by_host.insert(host.to_owned(), certificate);
        });
    }

    /// The token is not asked for any more.
    pub fn remove_answer(&self, token: &str) {
        self.change(|answers| {
            answers.by_token.remove(token);
        });
    }

    /// The host is not asked any more.
    pub fn remove_certificate(&self, host: &str) {
        self.change(|answers| {
            answers.by_host.remove(host);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Answers)) {
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut answers);
        self.count.store(answers.by_token.len() + answers.by_host.len(), Ordering::Release);
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").field("count", &self.count).finish_non_exhaustive()
    }
}
