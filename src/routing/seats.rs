//! Which members of a group take part now, and which one is woken. Pure.
//!
//! Requests are kept together: of those members that can sleep only as many take part as the requests under way need,
//! `wake_more_at` for each, and always the same ones first. The others get nothing, and fall asleep by their own idle
//! rule. Members that never sleep cost the same whether they are asked or not, and always take part.

use std::time::Duration;

use super::members::Members;

/// A member as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Whether it can be entered.
    pub state: SeatState,
    /// It falls asleep when nobody uses it.
    pub sleeps: bool,
    /// It answers, as far as is known.
    pub fit: bool,
    /// Requests under way to it.
    pub load: u32,
    /// How long its wakes usually take, where that is known.
    pub wakes_in: Option<Duration>,
}

/// Whether a member can be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeatState {
    /// At once.
    Awake,
    /// Soon: it is being woken.
    Waking,
    /// After a wake, for which its memory was kept.
    Paused,
    /// After a wake.
    Stopped,
    /// Perhaps: it failed a moment ago, or its engine is away.
    Doubtful,
    /// Never.
    Closed,
}

/// What is done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// One of these gets it at once; and this one is woken, for those that follow.
    Among(Members, Option<usize>),
    /// This one is entered with patience.
    Wait(usize),
    /// Nobody is left to ask.
    Nobody,
}

/// Decides among the members that may be asked.
pub fn plan(seats: &[Seat], may: Members, wake_more_at: u32) -> Step {
    let those = |wanted: &dyn Fn(&Seat) -> bool| -> Members {
        may.iter().filter(|at| seats.get(*at).is_some_and(wanted)).collect()
    };
    let awake = those(&|seat| seat.state == SeatState::Awake && seat.fit);
    if !awake.is_empty() {
        return spread(seats, may, awake, wake_more_at);
    }
    let fit = those(&|seat| seat.fit && !matches!(seat.state, SeatState::Awake | SeatState::Closed));
    let sound = those(&|seat| seat.fit && seat.state < SeatState::Doubtful);
    if let Some(soonest) = soonest(seats, sound) {
        return Step::Wait(soonest);
    }
    // Better one that may not answer than none.
    let unfit = those(&|seat| seat.state == SeatState::Awake);
    if !unfit.is_empty() {
        return Step::Among(unfit, None);
    }
    let rest = those(&|seat| seat.state != SeatState::Closed);
    soonest(seats, fit).or_else(|| soonest(seats, rest)).map_or(Step::Nobody, Step::Wait)
}

/// Nobody waits longer than so for a member whose wakes are not known, before another one is woken, too.
const UNKNOWN: Duration = Duration::from_secs(10);

/// A wake that takes so long is not late, however short those before were.
const SOON: Duration = Duration::from_secs(2);

/// How often the usual time may pass.
const TIMES: u32 = 3;

/// How long after its beginning a wake is late, so that another member is woken, too. Never later than half of the time
/// that it may take at all.
pub fn late_after(usual: Option<Duration>, wake_timeout: Duration) -> Duration {
    let bearable = usual.map_or(UNKNOWN, |usual| usual.saturating_mul(TIMES).max(SOON));
    bearable.min(wake_timeout / 2)
}

/// Keeps requests together on as many of the awake as they need.
fn spread(seats: &[Seat], may: Members, awake: Members, wake_more_at: u32) -> Step {
    let load: u64 = awake.iter().filter_map(|at| seats.get(at)).map(|seat| u64::from(seat.load)).sum();
    let needed = (load + 1).div_ceil(u64::from(wake_more_at.max(1)));
    let needed = usize::try_from(needed).unwrap_or(usize::MAX);
    let (sleepers, steady) = split(seats, awake);
    let least = usize::from(steady.is_empty());
    let used = sleepers.first(needed.saturating_sub(steady.len()).max(least));
    let among = steady.iter().chain(used.iter()).collect();
    let is = |at: &usize, wanted: &dyn Fn(&Seat) -> bool| seats.get(*at).is_some_and(wanted);
    let waking = may.iter().filter(|at| is(at, &|seat| seat.state == SeatState::Waking)).count();
    let more = if needed > awake.len() + waking {
        let asleep = may
            .iter()
            .filter(|at| is(at, &|seat| seat.fit && matches!(seat.state, SeatState::Paused | SeatState::Stopped)));
        soonest(seats, asleep.collect())
    } else {
        None
    };
    Step::Among(among, more)
}

/// Those that sleep, and those that never do.
fn split(seats: &[Seat], all: Members) -> (Members, Members) {
    let sleeps = |at: &usize| seats.get(*at).is_some_and(|seat| seat.sleeps);
    (all.iter().filter(sleeps).collect(), all.iter().filter(|at| !sleeps(at)).collect())
}

/// The one that can be entered soonest: already waking before paused before stopped, then by how long its wakes have
/// taken, then by its place. One that has never been woken comes after those that have: so it is always the same one.
fn soonest(seats: &[Seat], among: Members) -> Option<usize> {
    among.iter().min_by_key(|at| {
        let seat = seats.get(*at);
        (seat.map(|seat| seat.state), seat.and_then(|seat| seat.wakes_in).unwrap_or(Duration::MAX), *at)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AWAKE: Seat =
        Seat { state: SeatState::Awake, sleeps: true, fit: true, load: 0, wakes_in: Some(Duration::from_secs(1)) };
    const ASLEEP: Seat = Seat { state: SeatState::Stopped, ..AWAKE };
    const STEADY: Seat = Seat { sleeps: false, ..AWAKE };

    fn set(places: &[usize]) -> Members {
        places.iter().copied().collect()
    }

    fn all(seats: &[Seat]) -> Members {
        (0..seats.len()).collect()
    }

    #[track_caller]
    fn check(seats: &[Seat], expected: Step) {
        assert_eq!(plan(seats, all(seats), 10), expected, "{seats:?}");
    }

    #[test]
    fn of_a_sleeping_group_the_one_that_wakes_soonest_is_woken() {
        let slow = Seat { wakes_in: Some(Duration::from_secs(9)), ..ASLEEP };
        let unknown = Seat { wakes_in: None, ..ASLEEP };
        let paused = Seat { state: SeatState::Paused, wakes_in: None, ..ASLEEP };
        let waking = Seat { state: SeatState::Waking, ..slow };
        check(&[slow, ASLEEP], Step::Wait(1));
        check(&[unknown, slow], Step::Wait(1));
        check(&[unknown, unknown], Step::Wait(0));
        check(&[ASLEEP, paused], Step::Wait(1));
        check(&[paused, waking], Step::Wait(1));
        check(&[Seat { fit: false, ..paused }, slow], Step::Wait(1));
        check(&[Seat { state: SeatState::Doubtful, ..paused }, slow], Step::Wait(1));
    }

    #[test]
    fn the_awake_are_asked_and_only_as_many_sleepers_as_are_needed() {
        check(&[ASLEEP, AWAKE], Step::Among(set(&[1]), None));
        check(&[AWAKE, AWAKE], Step::Among(set(&[0]), None));
        check(&[Seat { load: 9, ..AWAKE }, AWAKE], Step::Among(set(&[0]), None));
        check(&[Seat { load: 10, ..AWAKE }, AWAKE], Step::Among(set(&[0, 1]), None));
        check(&[STEADY, STEADY, AWAKE], Step::Among(set(&[0, 1]), None));
        check(&[STEADY, Seat { load: 12, ..STEADY }, AWAKE], Step::Among(set(&[0, 1]), None));
        check(&[STEADY, Seat { load: 20, ..STEADY }, AWAKE], Step::Among(set(&[0, 1, 2]), None));
    }

    #[test]
    fn another_one_is_woken_when_those_awake_are_not_enough() {
        let full = Seat { load: 10, ..AWAKE };
        check(&[full, ASLEEP], Step::Among(set(&[0]), Some(1)));
        check(&[full, Seat { state: SeatState::Waking, ..AWAKE }, ASLEEP], Step::Among(set(&[0]), None));
        check(&[full, Seat { fit: false, ..ASLEEP }], Step::Among(set(&[0]), None));
        check(&[Seat { load: 20, ..STEADY }, ASLEEP], Step::Among(set(&[0]), Some(1)));
    }

    #[test]
    fn one_that_is_not_fit_is_asked_only_when_there_is_no_other() {
        let ill = Seat { fit: false, ..AWAKE };
        check(&[ill, AWAKE], Step::Among(set(&[1]), None));
        check(&[ill, ASLEEP], Step::Wait(1));
        check(&[ill, ill], Step::Among(set(&[0, 1]), None));
        check(&[ill, Seat { state: SeatState::Doubtful, ..ASLEEP }], Step::Among(set(&[0]), None));
        check(&[Seat { state: SeatState::Doubtful, ..ASLEEP }], Step::Wait(0));
        check(&[Seat { state: SeatState::Closed, ..ASLEEP }], Step::Nobody);
        assert_eq!(plan(&[AWAKE], Members::default(), 10), Step::Nobody);
    }

    #[test]
    fn a_wake_is_late_after_some_times_its_usual_time() {
        let check = |usual: Option<u64>, wake_timeout, expected| {
            let secs = Duration::from_secs;
            assert_eq!(late_after(usual.map(secs), secs(wake_timeout)), secs(expected), "{usual:?} {wake_timeout}");
        };
        check(None, 180, 10);
        check(Some(0), 180, 2);
        check(Some(7), 180, 21);
        check(Some(100), 180, 90);
        check(None, 6, 3);
    }

    fn seat() -> impl Strategy<Value = Seat> {
        let states = [
            SeatState::Awake,
            SeatState::Waking,
            SeatState::Paused,
            SeatState::Stopped,
            SeatState::Doubtful,
            SeatState::Closed,
        ];
        (prop::sample::select(states.to_vec()), any::<bool>(), any::<bool>(), 0..50u32, 0..3u64).prop_map(
            |(state, sleeps, fit, load, wakes)| Seat {
                state,
                sleeps,
                fit,
                load,
                wakes_in: (wakes > 0).then(|| Duration::from_secs(wakes)),
            },
        )
    }

    proptest! {
        #[test]
        fn whoever_is_asked_at_once_is_awake_and_fit_where_anybody_is(
            seats in prop::collection::vec(seat(), 1..8), wake_more_at in 1..30u32, may in any::<u64>(),
        ) {
            let may: Members = (0..seats.len()).filter(|at| may >> at & 1 == 1).collect();
            let ready = |at: &usize| seats[*at].state == SeatState::Awake && seats[*at].fit;
            match plan(&seats, may, wake_more_at) {
                Step::Among(among, more) => {
                    prop_assert!(!among.is_empty());
                    prop_assert!(among.iter().all(|at| may.has(at) && seats[at].state == SeatState::Awake));
                    if may.iter().any(|at| ready(&at)) {
                        prop_assert!(among.iter().all(|at| ready(&at)));
                    }
                    let asleep = |at: usize| matches!(seats[at].state, SeatState::Paused | SeatState::Stopped);
                    let fine = more.is_none_or(|at| may.has(at) && seats[at].fit && asleep(at));
                    prop_assert!(fine);
                }
                Step::Wait(at) => {
                    let fine = may.has(at) && !matches!(seats[at].state, SeatState::Awake | SeatState::Closed);
                    prop_assert!(fine);
                    prop_assert!(!may.iter().any(|at| ready(&at)));
                }
                Step::Nobody => prop_assert!(may.iter().all(|at| seats[at].state == SeatState::Closed)),
            }
        }
    }
}
