//! Certificates that stay where newer ones have come: clients that heed it refuse a certificate that must be shown with
//! the word of its authority (RFC 7633) and is shown without. Until that word has come they are shown the one before.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{tls_certificate::Certificate, tls_staple::Fingerprint};

/// A new certificate waits no longer for its first answer.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// Who waits for whose place.
#[derive(Debug, Default)]
pub(super) struct Successions(Vec<Succession>);

#[derive(Debug, Clone)]
struct Succession {
    heir: Fingerprint,
    /// What is shown meanwhile.
    shown: Arc<Certificate>,
    until: Timestamp,
}

impl Successions {
    /// Those of `after` have come in the place of those of `before`.
    pub(super) fn changed(&mut self, before: &[Arc<Certificate>], after: &[Arc<Certificate>], now: Timestamp) {
        self.review(after, now);
        let is_in =
            |all: &[Arc<Certificate>], one: &Certificate| all.iter().any(|all| all.fingerprint == one.fingerprint);
        // One may have come in the place of another that still waits itself.
        let waited_for: Vec<_> = self.0.iter().map(|one| Arc::clone(&one.shown)).collect();
        let gone: Vec<_> = before.iter().chain(&waited_for).filter(|one| !is_in(after, one)).collect();
        for heir in after.iter().filter(|one| one.lacks_its_first_staple(now) && !is_in(before, one)) {
            for shown in gone.iter().filter(|gone| gone.names.iter().any(|name| heir.names.contains(name))) {
                if let Some(until) = shown.can_be_shown_until(now) {
                    let until = until.min(now.saturating_add(PATIENCE).unwrap_or(until));
                    let names = heir.names.join(" ");
                    tracing::info!(names, %until, "a new certificate waits for its OCSP answer: the one before it is shown");
                    self.0.push(Succession { heir: heir.fingerprint, shown: Arc::clone(shown), until });
                }
            }
        }
        self.0.retain(|one| after.iter().any(|heir| heir.fingerprint == one.heir));
    }

    /// Ends what has waited for enough; says whether there was any.
    pub(super) fn review(&mut self, all: &[Arc<Certificate>], now: Timestamp) -> bool {
        let before = self.0.len();
        self.0.retain(|one| {
            let mut heirs = all.iter().filter(|heir| heir.fingerprint == one.heir);
            let waits = heirs.any(|heir| heir.lacks_its_first_staple(now));
            if waits && one.until <= now {
                let names = one.shown.names.join(" ");
                tracing::warn!(names, "a new certificate is shown without its OCSP answer: it has not come in time");
            }
            // That of one that is gone may be needed by the next.
            one.until > now && (waits || all.iter().all(|other| other.fingerprint != one.heir))
        });
        self.0.len() < before
    }

    /// All certificates in the order in which they are chosen from.
    pub(super) fn shown<'a>(
        &'a self,
        all: impl Iterator<Item = &'a Arc<Certificate>>,
    ) -> impl Iterator<Item = &'a Arc<Certificate>> {
        all.flat_map(|heir| {
            let before = self.0.iter().filter(|one| one.heir == heir.fingerprint).map(|one| &one.shown);
            before.chain([heir])
        })
    }

    /// Until when a certificate waits at most, if it does.
    pub(super) fn until(&self, heir: Fingerprint) -> Option<Timestamp> {
        self.0.iter().filter(|one| one.heir == heir).map(|one| one.until).max()
    }

    /// When the next one has waited for enough.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.0.iter().map(|one| one.until).min()
    }
}

impl Certificate {
    /// Whether clients may refuse it now, and will not when its responder has answered.
    fn lacks_its_first_staple(&self, now: Timestamp) -> bool {
        self.must_staple && !self.has_expired(now) && self.attached.is_awaited()
    }

    /// Until when clients take it, if they do.
    fn can_be_shown_until(&self, now: Timestamp) -> Option<Timestamp> {
        let stapling = self.stapling();
        if stapling.as_ref().is_some_and(|stapling| stapling.revoked.is_some()) {
            return None;
        }
        let staple = stapling.as_ref().and_then(|stapling| stapling.good_staple(now)).map(|staple| staple.until);
        let until = if self.must_staple { staple?.min(self.not_after) } else { self.not_after };
        (now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::{
        super::{
            tls_samples::{must_staple, sample},
            tls_staple::{Staple, Stapling},
        },
        *,
    };

    fn know(one: &Certificate, stapling: Stapling) {
        one.attached.set(&one.key, Some(&Arc::new(stapling)));
    }

    fn good(until: Timestamp) -> Stapling {
        let staple = Some(Staple { answer: b"good"[..].into(), since: until, until });
        Stapling { staple, must_staple: true, ..Stapling::default() }
    }

    fn awaited() -> Stapling {
        Stapling { must_staple: true, awaited: true, ..Stapling::default() }
    }

    /// What is chosen from after a change from one to the other.
    fn shown(before: &Arc<Certificate>, after: &Arc<Certificate>, now: Timestamp) -> (usize, Option<Timestamp>) {
        let mut successions = Successions::default();
        successions.changed(&[Arc::clone(before)], &[Arc::clone(after)], now);
        let shown: Vec<_> = successions.shown([after].into_iter()).collect();
        assert!(Arc::ptr_eq(shown.last().unwrap(), after));
        (shown.len(), successions.until(after.fingerprint))
    }

    #[test]
    fn one_that_must_be_stapled_waits_behind_the_one_before_it_while_that_is_good() {
        let now = Timestamp::now();
        let [plain, other] = [sample(&["a.test", "b.test"]), sample(&["c.test"])].map(Arc::new);
        let [old, new] = [(); 2].map(|()| Arc::new(must_staple(&["a.test"])));
        assert_eq!(shown(&plain, &new, now), (2, Some(now + 10.minutes())));
        assert_eq!(shown(&other, &new, now), (1, None), "it is for other hosts");
        assert_eq!(shown(&old, &plain, now), (1, None), "it need not be stapled");
        assert_eq!(shown(&old, &new, now), (1, None), "the old one is bare, too");
        know(&old, good(now + 3.minutes()));
        assert_eq!(shown(&old, &new, now), (2, Some(now + 3.minutes())));
        know(&old, Stapling { revoked: Some(now), ..good(now + 3.minutes()) });
        assert_eq!(shown(&old, &new, now), (1, None), "it is revoked");
        let mut ends = must_staple(&["a.test"]);
        (ends.not_after, ends.must_staple) = (now + 1.minute(), false);
        let ends = Arc::new(ends);
        assert_eq!(shown(&ends, &new, now), (2, Some(now + 1.minute())));
        assert_eq!(shown(&ends, &new, now + 1.minute()), (1, None), "its time is over");
        know(&new, Stapling { awaited: false, ..awaited() });
        assert_eq!(shown(&plain, &new, now), (1, None), "nobody can be asked");
        know(&new, good(now + 3.minutes()));
        assert_eq!(shown(&plain, &new, now), (1, None), "its answer was there before");
    }

    #[test]
    fn it_waits_until_its_answer_is_there_or_for_as_long_as_it_may() {
        let now = Timestamp::now();
        let old = Arc::new(sample(&["a.test"]));
        let new = || Arc::new(must_staple(&["a.test"]));
        let (first, second) = (new(), new());
        let mut successions = Successions::default();
        successions.changed(&[Arc::clone(&old)], &[Arc::clone(&first)], now);
        know(&first, awaited());
        assert!(!successions.review(&[Arc::clone(&first)], now));
        // Another one comes in its place before it was ever shown.
        successions.changed(&[Arc::clone(&first)], &[Arc::clone(&second)], now);
        let all = [Arc::clone(&second)];
        let is_old = |successions: &Successions| Arc::ptr_eq(successions.shown(all.iter()).next().unwrap(), &old);
        assert!(is_old(&successions));
        assert_eq!((successions.until(first.fingerprint), successions.next_end()), (None, Some(now + 10.minutes())));
        know(&second, awaited());
        assert!(!successions.review(&all, now + 9.minutes()) && is_old(&successions));
        assert!(successions.review(&all, now + 10.minutes()) && !is_old(&successions));
        successions.changed(&[Arc::clone(&old)], &all, now);
        assert!(is_old(&successions));
        know(&second, good(now + 1.hour()));
        assert!(successions.review(&all, now) && !is_old(&successions));
        assert_eq!(successions.next_end(), None);
    }
}
