//! What the authority behind a certificate says of it (OCSP, RFC 6960), shown with it in handshakes.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::sign::CertifiedKey;

use super::tls_certificate::Certificate;
use crate::model::{Place, Problem};

/// Tells certificates apart: SHA-256 of the certificate itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// An answer of a responder that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staple {
    /// The whole answer, as it is shown.
    pub answer: Arc<[u8]>,
    /// It is good from here on.
    pub since: Timestamp,
    /// It is good until here.
    pub until: Timestamp,
}

/// Where a certificate stands with its responder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stapling {
    /// The responder's address; absent: it names none.
    pub responder: Option<String>,
    /// Clients that heed it refuse the certificate without a staple (RFC 7633).
    pub must_staple: bool,
    /// Its responder is asked, and has never answered yet.
    pub awaited: bool,
    /// What is shown with the certificate.
    pub staple: Option<Staple>,
    /// Since when it is revoked, if it is.
    pub revoked: Option<Timestamp>,
    /// Why there is no staple, or no newer one.
    pub trouble: Option<String>,
}

/// What is known of one certificate now.
#[derive(Debug, Default)]
pub(super) struct Attached(ArcSwapOption<Shown>);

#[derive(Debug)]
struct Shown {
    stapling: Arc<Stapling>,
    /// The certificate with its staple, and until when that is good.
    key: Option<(Arc<CertifiedKey>, Timestamp)>,
}

impl Fingerprint {
    pub(super) fn of(certificate: &[u8]) -> Self {
        let mut print = [0; 32];
        print.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, certificate).as_ref());
        Self(print)
    }

    /// A number that is the same for the same certificate, below this one.
    pub fn share_of(&self, whole: u64) -> u64 {
        let [a, b, c, d, ..] = self.0;
        let product = u128::from(u32::from_be_bytes([a, b, c, d])) * u128::from(whole);
        u64::try_from(product >> 32).unwrap_or(whole)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Stapling {
    /// The staple, while it is good.
    pub fn good_staple(&self, now: Timestamp) -> Option<&Staple> {
        self.staple.as_ref().filter(|staple| now < staple.until)
    }

    /// What clients will refuse.
    fn problem(&self, certificate: &Certificate, place: &Place, now: Timestamp) -> Option<Problem> {
        let names = certificate.names.join("`, `");
        if let Some(since) = self.revoked {
            let problem = Problem::error(place.clone(), format!("the certificate of `{names}` was revoked at {since}"));
            return Some(problem.with_hint("clients that ask its authority refuse it: put a new one into its place"));
        }
        if !self.must_staple || self.good_staple(now).is_some() {
            return None;
        }
        let why = self.trouble.as_deref().unwrap_or("its responder has not answered yet");
        let what = format!("the certificate of `{names}` must be shown with an OCSP answer, and there is none: {why}");
        Some(Problem::warning(place.clone(), what).with_hint("clients that heed this refuse it meanwhile"))
    }
}

impl Attached {
    /// Whether the first word is still to come, or it is not known yet whether there will be one.
    pub(super) fn is_awaited(&self) -> bool {
        self.0.load().as_ref().is_none_or(|shown| shown.stapling.awaited)
    }

    /// From now on this is known.
    pub(super) fn set(&self, plain: &Arc<CertifiedKey>, stapling: Option<&Arc<Stapling>>) {
        let before = self.0.load();
        let same = |shown: &Arc<Shown>| stapling.is_some_and(|stapling| Arc::ptr_eq(stapling, &shown.stapling));
        if before.as_ref().is_some_and(same) {
            return;
        }
        self.0.store(stapling.map(|stapling| {
            let key = stapling.staple.as_ref().map(|staple| {
                let ocsp = Some(staple.answer.to_vec());
                let (cert, key) = (plain.cert.clone(), Arc::clone(&plain.key));
                (Arc::new(CertifiedKey { cert, key, ocsp }), staple.until)
            });
            Arc::new(Shown { stapling: Arc::clone(stapling), key })
        }));
    }
}

impl Certificate {
    /// What a client is shown: with the staple, while that is good.
    pub(super) fn shown(&self, now: Timestamp) -> Arc<CertifiedKey> {
        match self.attached.0.load().as_ref().and_then(|shown| shown.key.as_ref()) {
            Some((key, until)) if now < *until => Arc::clone(key),
            Some(_) | None => Arc::clone(&self.key),
        }
    }

    /// Where it stands with its responder. Nothing where it names none and needs none.
    pub fn stapling(&self) -> Option<Arc<Stapling>> {
        self.attached.0.load().as_ref().map(|shown| Arc::clone(&shown.stapling))
    }

    pub(super) fn stapling_problem(&self, place: &Place, now: Timestamp) -> Option<Problem> {
        self.stapling()?.problem(self, place, now)
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::{super::tls_samples::sample, *};

    #[test]
    fn a_staple_is_shown_until_its_end_and_not_a_moment_longer() {
        let (certificate, now) = (sample(&["app.test"]), Timestamp::now());
        assert_eq!(certificate.shown(now).ocsp, None);
        let staple = Staple { answer: b"good"[..].into(), since: now, until: now + 1.hour() };
        let stapling = Arc::new(Stapling { staple: Some(staple), must_staple: true, ..Stapling::default() });
        certificate.attached.set(&certificate.key, Some(&stapling));
        let place = Place::Host("app.test".to_owned());
        let shown = certificate.shown(now);
        assert_eq!((shown.ocsp.as_deref(), shown.cert.clone()), (Some(&b"good"[..]), certificate.key.cert.clone()));
        assert_eq!(certificate.stapling_problem(&place, now), None);
        certificate.attached.set(&certificate.key, Some(&stapling));
        assert!(Arc::ptr_eq(&shown, &certificate.shown(now)), "the same again is no change");
        assert_eq!(certificate.shown(now + 1.hour()).ocsp, None);
        let told = certificate.stapling_problem(&place, now + 1.hour()).unwrap().to_string();
        assert!(told.starts_with("warning: host app.test: the certificate of `app.test` must be shown with"), "{told}");
        let revoked = Arc::new(Stapling { revoked: Some(now), ..Stapling::default() });
        certificate.attached.set(&certificate.key, Some(&revoked));
        assert_eq!(certificate.shown(now).ocsp, None);
        let told = certificate.stapling_problem(&place, now).unwrap().to_string();
        assert!(told.starts_with("error: host app.test: the certificate of `app.test` was revoked at 2"), "{told}");
        certificate.attached.set(&certificate.key, None);
        assert_eq!(certificate.stapling(), None);
    }

    #[test]
    fn shares_are_spread_and_below_the_whole() {
        let shares: Vec<u64> = (0..64_u8).map(|one| Fingerprint::of(&[one]).share_of(100)).collect();
        assert!(shares.iter().all(|share| *share < 100));
        assert!(shares.iter().any(|share| *share < 25) && shares.iter().any(|share| *share >= 75), "{shares:?}");
        assert_eq!(Fingerprint([0xff; 32]).share_of(100), 99);
        assert!(Fingerprint([0xff; 32]).share_of(u64::MAX) < u64::MAX);
        assert_eq!(Fingerprint([0xab; 32]).to_string(), "ab".repeat(32));
    }
}
