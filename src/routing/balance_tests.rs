use proptest::prelude::*;

use super::*;

const MODES: [BalanceMode; 4] =
    [BalanceMode::RoundRobin, BalanceMode::LeastConn, BalanceMode::IpHash, BalanceMode::RandomTwo];

fn candidates(weights: &[u16]) -> Vec<Candidate> {
    let one = |(key, weight): (u64, &u16)| Candidate { weight: *weight, load: 0, key: mixed(key + 1) };
    (0..).zip(weights).map(one).collect()
}

fn all(of: &[Candidate]) -> Members {
    (0..of.len()).collect()
}

fn turn(ticket: u64) -> Turn {
    Turn { ticket, client: 0 }
}

fn order(weights: &[u16], count: u64) -> Vec<usize> {
    let of = candidates(weights);
    (0..count).map(|ticket| choose(BalanceMode::RoundRobin, turn(ticket), &of, all(&of)).unwrap()).collect()
}

#[test]
fn round_robin_goes_round() {
    assert_eq!(order(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
    assert_eq!(order(&[7, 7], 4), [0, 1, 0, 1]);
}

#[test]
fn a_heavy_member_is_not_asked_in_a_row_where_that_can_be_avoided() {
    assert_eq!(order(&[2, 1], 6), [0, 1, 0, 0, 1, 0]);
    assert_eq!(order(&[3, 2, 1], 6), [0, 1, 0, 2, 1, 0]);
    assert_eq!(order(&[4, 1], 5), [0, 0, 1, 0, 0]);
}

#[test]
fn nobody_is_chosen_where_all_have_the_weight_0() {
    let of = candidates(&[0, 0]);
    for mode in MODES {
        assert_eq!(choose(mode, turn(3), &of, all(&of)), None);
        assert_eq!(choose(mode, turn(3), &of, Members::default()), None);
    }
}

#[test]
fn the_least_loaded_for_its_weight_is_chosen() {
    let mut of = candidates(&[1, 4]);
    (of[0].load, of[1].load) = (1, 5);
    assert_eq!(choose(BalanceMode::LeastConn, turn(0), &of, all(&of)), Some(1));
    of[1].load = 8;
    assert_eq!(choose(BalanceMode::LeastConn, turn(0), &of, all(&of)), Some(0));
    // Alike ones take turns.
    let of = candidates(&[1, 1, 1]);
    let chosen: Vec<_> = (0..3).map(|ticket| choose(BalanceMode::LeastConn, turn(ticket), &of, all(&of))).collect();
    assert_eq!(chosen, [Some(0), Some(1), Some(2)]);
}

#[test]
fn clients_are_spread_by_weight() {
    let of = candidates(&[3, 1]);
    let mut counts = [0u32; 2];
    for client in 0..20_000 {
        let turn = Turn { ticket: 0, client };
        counts[choose(BalanceMode::IpHash, turn, &of, all(&of)).unwrap()] += 1;
    }
    assert!((14_500..15_500).contains(&counts[0]), "{counts:?}");
}

fn weights() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(0..20u16, 1..9)
}

proptest! {
    #[test]
    fn over_a_cycle_each_is_asked_as_often_as_its_weight_says(weights in weights(), from in 0..1_000_000u64) {
        let of = candidates(&weights);
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut counts = vec![0u16; weights.len()];
        for ticket in from..from + sum {
            counts[choose(BalanceMode::RoundRobin, turn(ticket), &of, all(&of)).unwrap()] += 1;
        }
        prop_assert_eq!(counts, weights);
    }

    #[test]
    fn at_no_point_of_a_cycle_is_one_far_from_its_share(weights in weights()) {
        let of = candidates(&weights);
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut counts = vec![0u64; weights.len()];
        for ticket in 0..sum {
            counts[choose(BalanceMode::RoundRobin, turn(ticket), &of, all(&of)).unwrap()] += 1;
            for (count, weight) in counts.iter().zip(&weights) {
                let share = (ticket + 1) as f64 * f64::from(*weight) / sum as f64;
                prop_assert!((*count as f64 - share).abs() <= weights.len() as f64 / 2.0 + 1.0, "{:?} {}", counts, ticket);
            }
        }
    }

    #[test]
    fn only_clients_of_a_member_that_goes_move(weights in prop::collection::vec(1..9u16, 2..9), gone in 0..8usize, client in any::<u64>()) {
        let of = candidates(&weights);
        let gone = gone % of.len();
        let turn = Turn { ticket: 0, client };
        let before = choose(BalanceMode::IpHash, turn, &of, all(&of)).unwrap();
        let after = choose(BalanceMode::IpHash, turn, &of, all(&of).without(gone)).unwrap();
        let moved_rightly = if before == gone { after != gone } else { after == before };
        prop_assert!(moved_rightly);
    }

    #[test]
    fn of_two_the_more_loaded_is_never_chosen(
        members in prop::collection::vec((1..9u16, 0..30u32), 2..9), ticket in any::<u64>(),
    ) {
        let of: Vec<_> = members.iter().map(|(weight, load)| Candidate { weight: *weight, load: *load, key: 0 }).collect();
        let (first, second) = drawn(ticket, &of, all(&of)).unwrap();
        prop_assert_ne!(first, second);
        let chosen = choose(BalanceMode::RandomTwo, turn(ticket), &of, all(&of)).unwrap();
        prop_assert!(chosen == first || chosen == second);
        let other = if chosen == first { second } else { first };
        let load = |at: usize| f64::from(of[at].load + 1) / f64::from(of[at].weight);
        prop_assert!(load(chosen) <= load(other) + 1e-9);
    }

    #[test]
    fn whoever_is_chosen_may_be_and_has_a_weight(weights in weights(), may in any::<u64>(), ticket in any::<u64>(), client in any::<u64>()) {
        let of = candidates(&weights);
        let may: Members = (0..of.len()).filter(|at| may >> at & 1 == 1).collect();
        for mode in MODES {
            match choose(mode, Turn { ticket, client }, &of, may) {
                Some(at) => prop_assert!(may.has(at) && weights[at] > 0),
                None => prop_assert!(may.iter().all(|at| weights[at] == 0)),
            }
        }
    }
}
