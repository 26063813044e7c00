//! When a responder is asked again. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::net::Fingerprint;

/// After an answer nothing is asked for a quarter of the time that is left of it, within these bounds: an answer that
/// was made in advance may come when half of its time is over already.
const QUIET: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));

/// Asked at least so often, however long an answer is good.
const SELDOM: Duration = Duration::from_secs(7 * 24 * 3600);

/// The pause after a failure, and what it grows to.
const PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));

/// After an answer that is good from one time to another: when half of that is over, each certificate a bit later than
/// others.
pub(super) fn renewal(now: Timestamp, (since, until): (Timestamp, Timestamp), of: Fingerprint) -> Timestamp {
    let life = until.duration_since(since).unsigned_abs();
    let half = since.saturating_add(life / 2 + share(of, life / 8)).unwrap_or(until);
    let left = until.duration_since(now).unsigned_abs();
    let soonest = now.saturating_add((left / 4).clamp(QUIET.0, QUIET.1)).unwrap_or(until);
    let latest = now.saturating_add(SELDOM).unwrap_or(until);
    half.clamp(soonest, latest)
}

/// After so many failures in a row.
pub(super) fn again(now: Timestamp, failures: u32, of: Fingerprint) -> Timestamp {
    let pause = PAUSE.0.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16))).min(PAUSE.1);
    now.saturating_add(pause + share(of, pause / 4)).unwrap_or(now)
}

fn share(of: Fingerprint, whole: Duration) -> Duration {
    Duration::from_millis(of.share_of(u64::try_from(whole.as_millis()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use jiff::{Span, ToSpan};

    use super::{super::samples::fingerprint, *};

    fn now() -> Timestamp {
        "2026-03-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn an_answer_is_renewed_about_half_way_but_never_in_a_hurry() {
        let check = |began: Span, life: Span, from: Span, to: Span| {
            let since = now() - began;
            let renewals: Vec<_> = (0..50).map(|n| renewal(now(), (since, since + life), fingerprint(n))).collect();
            let (least, most) = (*renewals.iter().min().unwrap(), *renewals.iter().max().unwrap());
            assert!(now() + from <= least && most <= now() + to, "{life}: {least} {most}");
            (most - least).get_seconds()
        };
        let spread = check(0.hours(), 96.hours(), 48.hours(), 60.hours());
        assert!(spread > 3600 * 6, "they are spread: {spread}");
        // What was made some time ago.
        check(24.hours(), 96.hours(), 24.hours(), 36.hours());
        check(90.hours(), 96.hours(), 1.hour(), 1.hour());
        check(59.minutes(), 1.hour(), 15.seconds(), 15.seconds());
        check(0.hours(), 8.seconds(), 10.seconds(), 10.seconds());
        check(0.hours(), (24 * 365 * 5000).hours(), (24 * 7).hours(), (24 * 7).hours());
        check(0.hours(), (24 * 365).hours(), (24 * 7).hours(), (24 * 7).hours());
    }

    #[test]
    fn failures_make_it_wait_ever_longer_but_not_for_ever() {
        let pauses: Vec<u64> =
            (1..12).map(|count| (again(now(), count, fingerprint(3)) - now()).get_seconds() as u64).collect();
        assert!(pauses.windows(2).all(|two| two[0] <= two[1]), "{pauses:?}");
        assert!((30..=38).contains(&pauses[0]), "{pauses:?}");
        assert!((3600..=4500).contains(pauses.last().unwrap()), "{pauses:?}");
        assert_eq!(again(now(), u32::MAX, fingerprint(3)), again(now(), 12, fingerprint(3)));
    }
}
