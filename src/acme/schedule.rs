//! When a certificate is due. Pure.

use std::time::Duration;

use jiff::Timestamp;

/// Pauses after failures grow up to these.
const LONGEST: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(12 * 3600));

/// So many refusals in a row are enough for a host that somebody once asked for.
const ENOUGH: u32 = 5;

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The authority, or whoever puts records into the DNS, was not reached or gave no answer: tried again soon.
    Unreachable,
    /// One of them said no: an authority counts how often it must.
    Refused,
}

/// How many failures there were, of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) unreachable: u32,
    pub(super) refused: u32,
}

impl Counts {
    /// One more.
    pub(super) fn add(&mut self, kind: Kind) {
        let count = match kind {
            Kind::Unreachable => &mut self.unreachable,
            Kind::Refused => &mut self.refused,
        };
        *count = count.saturating_add(1);
    }

    /// Those of one kind.
    pub(super) fn of(self, kind: Kind) -> u32 {
        match kind {
            Kind::Unreachable => self.unreachable,
            Kind::Refused => self.refused,
        }
    }

    /// All of them.
    pub(super) fn sum(self) -> u32 {
        self.unreachable.saturating_add(self.refused)
    }
}

/// The failures in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failures {
    /// An authority counts what it has refused, whatever else fails between: each kind has its own count.
    pub(super) counts: Counts,
    pub(super) last: Timestamp,
    /// Of the last one.
    pub(super) kind: Kind,
    pub(super) why: String,
}

/// A certificate to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// What it is for; the first one names it.
    pub(super) names: Vec<String>,
    /// From when to when the one that is there is good.
    pub(super) has: Option<(Timestamp, Timestamp)>,
    pub(super) failures: Option<Failures>,
    /// Wanted because somebody asked for the host, and only as long as it is served.
    pub(super) on_demand: bool,
}

impl Plan {
    pub(super) fn new(names: Vec<String>, on_demand: bool) -> Self {
        Self { names, has: None, failures: None, on_demand }
    }

    /// When it is to be ordered.
    pub(super) fn due(&self) -> Timestamp {
        let wanted = self.has.map_or(Timestamp::MIN, |(from, to)| {
            let lifetime = to.duration_since(from).unsigned_abs();
            to.saturating_sub(lifetime / 3).unwrap_or(Timestamp::MIN)
        });
        let again = self.failures.as_ref().map_or(Timestamp::MIN, |failures| {
            let pause = pause(failures.counts.of(failures.kind), failures.kind);
            failures.last.saturating_add(pause).unwrap_or(Timestamp::MAX)
        });
        wanted.max(again)
    }

    /// One was got that is good from then to then.
    pub(super) fn got(&mut self, from: Timestamp, to: Timestamp) {
        self.has = Some((from, to));
        self.failures = None;
    }

    /// It was tried in vain.
    pub(super) fn failed(&mut self, now: Timestamp, kind: Kind, why: String) {
        let mut counts = self.failures.as_ref().map(|before| before.counts).unwrap_or_default();
        counts.add(kind);
        self.failures = Some(Failures { counts, last: now, kind, why });
    }

    /// Whether it is not tried again before somebody asks for the host once more: refused so often when it is due, and
    /// never got.
    pub(super) fn is_given_up(&self, now: Timestamp) -> bool {
        let refused = |failures: &Failures| failures.counts.refused >= ENOUGH;
        self.on_demand && self.has.is_none() && self.failures.as_ref().is_some_and(refused) && self.due() <= now
    }

    /// Whether it is for this host, also by a wildcard.
    pub(super) fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(suffix) => host.split_once('.').is_some_and(|(_, rest)| rest == suffix),
            None => name == host,
        })
    }
}

/// How long nothing is tried after so many failures in a row.
pub(super) fn pause(count: u32, kind: Kind) -> Duration {
    let exponent = count.saturating_sub(1).min(16);
    match kind {
        Kind::Unreachable => Duration::from_secs(5).saturating_mul(2u32.saturating_pow(exponent)).min(LONGEST.0),
        Kind::Refused => Duration::from_secs(60).saturating_mul(5u32.saturating_pow(exponent)).min(LONGEST.1),
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn one_that_is_missing_is_due_at_once_and_one_that_is_there_at_a_third_of_its_time_left() {
        let mut plan = Plan::new(vec!["app.example.com".into()], false);
        assert!(plan.due() <= now());
        plan.has = Some((now(), now() + (90 * 24).hours()));
        assert_eq!(plan.due(), now() + (60 * 24).hours());
        plan.has = Some((now(), now() + (6 * 24).hours()));
        assert_eq!(plan.due(), now() + (4 * 24).hours());
    }

    #[test]
    fn failures_make_it_wait_ever_longer_but_not_for_ever() {
        let mut plan = Plan::new(vec!["app.example.com".into()], false);
        let mut waits = Vec::new();
        for _ in 0..8 {
            plan.failed(now(), Kind::Refused, "no".into());
            waits.push(plan.due().duration_since(now()).as_secs());
        }
        assert_eq!(waits, [60, 300, 1500, 7500, 37_500, 43_200, 43_200, 43_200]);
        plan.failed(now(), Kind::Unreachable, "away".into());
        assert_eq!(plan.due().duration_since(now()).as_secs(), 5, "another kind of failure has a count of its own");
        for _ in 0..40 {
            plan.failed(now(), Kind::Unreachable, "away".into());
        }
        assert_eq!(plan.due().duration_since(now()).as_secs(), 3600);
    }

    #[test]
    fn refusals_make_it_wait_ever_longer_whatever_fails_between_them_until_there_is_one() {
        let mut plan = Plan::new(vec!["app.example.com".into()], false);
        let mut waits = Vec::new();
        for kind in [Kind::Refused, Kind::Unreachable, Kind::Refused, Kind::Unreachable, Kind::Refused] {
            plan.failed(now(), kind, "no".into());
            waits.push(plan.due().duration_since(now()).as_secs());
        }
        assert_eq!(waits, [60, 5, 300, 10, 1500]);
        assert_eq!(plan.failures.as_ref().unwrap().counts.sum(), 5);
        plan.got(now(), now() + 1.hour());
        plan.failed(now(), Kind::Refused, "no".into());
        assert_eq!(plan.failures.unwrap().counts, Counts { unreachable: 0, refused: 1 });
    }

    #[test]
    fn a_host_that_was_asked_for_is_given_up_when_it_was_refused_often_and_would_be_due_again() {
        let mut plan = Plan::new(vec!["app.example.com".into()], true);
        for _ in 0..4 {
            plan.failed(now(), Kind::Refused, "no".into());
        }
        assert!(!plan.is_given_up(plan.due()));
        plan.failed(now(), Kind::Refused, "no".into());
        assert!(plan.is_given_up(plan.due()) && !plan.is_given_up(plan.due() - 1.second()));
        let at = plan.due();
        assert!(!Plan { on_demand: false, ..plan.clone() }.is_given_up(at));
        assert!(!Plan { has: Some((now(), now() + 1.hour())), ..plan }.is_given_up(at));
    }

    #[test]
    fn a_wildcard_is_for_one_label_more() {
        let plan = Plan::new(vec!["example.com".into(), "*.example.com".into()], false);
        assert!(plan.covers("example.com") && plan.covers("a.example.com"));
        assert!(!plan.covers("b.a.example.com") && !plan.covers("example.org"));
    }
}
