//! Which member of a group gets a request. Pure: the same turn among the same members always means the same one.

use std::cmp::Ordering;

use super::members::{MOST_MEMBERS, Members};
use crate::model::BalanceMode;

/// A member as the choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its share; 0: it is never chosen.
    pub weight: u16,
    /// Requests under way to it.
    pub load: u32,
    /// What it is known by, whatever its place among the others.
    pub key: u64,
}

/// A request as the choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Counts the requests of the group.
    pub ticket: u64,
    /// Stands for the client's address.
    pub client: u64,
}

/// Chooses one of `among`; none when all of these have the weight 0. Does not allocate.
pub fn choose(mode: BalanceMode, turn: Turn, all: &[Candidate], among: Members) -> Option<usize> {
    let weighted = |(at, one): (usize, &Candidate)| (one.weight > 0).then_some(at);
    let among = among & all.iter().enumerate().filter_map(weighted).collect();
    match mode {
        _ if among.len() < 2 => among.iter().next(),
        BalanceMode::RoundRobin => smooth(turn.ticket, all, among),
        BalanceMode::LeastConn => least(turn.ticket, all, among),
        BalanceMode::IpHash => among.iter().max_by(|a, b| affinity(turn, all, *a).total_cmp(&affinity(turn, all, *b))),
        BalanceMode::RandomTwo => of_two(turn.ticket, all, among),
    }
}

/// Spreads the bits of a number over all of it (the finaliser of SplitMix64).
pub fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn weight(all: &[Candidate], at: usize) -> u64 {
    all.get(at).map_or(0, |one| u64::from(one.weight))
}

/// Smooth weighted round robin without a memory. Of a cycle as long as the sum of the weights each member has as many
/// places as its weight, as evenly spread as can be: the `j`-th of `w` lies at `(2j + 1) / 2w` of the way. The ticket
/// is a rank among all of these places, and the one of this rank is found from an estimate that is never far off.
fn smooth(ticket: u64, all: &[Candidate], among: Members) -> Option<usize> {
    let sum: u64 = among.iter().map(|at| weight(all, at)).sum();
    let rank = ticket.checked_rem(sum)?;
    let mut taken = [0u64; MOST_MEMBERS];
    let mut before = 0;
    for at in among.iter() {
        // The places up to `rank / sum` of the way.
        let count = (2 * weight(all, at) * rank + sum) / (2 * sum);
        if let Some(taken) = taken.get_mut(at) {
            *taken = count;
        }
        before += count;
    }
    // Whether the place behind those taken comes before another's; of two at one spot the first member's does.
    let place = |taken: &[u64], at: usize| (2 * taken.get(at).copied().unwrap_or(0) + 1, 2 * weight(all, at));
    let compare = |(a, of_a): (u64, u64), (b, of_b): (u64, u64)| (a * of_b).cmp(&(b * of_a));
    while before > rank {
        // One too many: the last of those taken is given back.
        let last = among.iter().filter(|at| taken.get(*at).is_some_and(|count| *count > 0)).max_by(|a, b| {
            let given = |at: usize| (2 * taken.get(at).copied().unwrap_or(1) - 1, 2 * weight(all, at));
            compare(given(*a), given(*b))
        })?;
        *taken.get_mut(last)? -= 1;
        before -= 1;
    }
    loop {
        let next = among.iter().min_by(|a, b| compare(place(&taken, *a), place(&taken, *b)))?;
        if before == rank {
            return Some(next);
        }
        *taken.get_mut(next)? += 1;
        before += 1;
    }
}

/// Compares how loaded two would be with one request more, each for its weight.
fn busier(all: &[Candidate], a: usize, b: usize) -> Ordering {
    let load = |at: usize| all.get(at).map_or(0, |one| u64::from(one.load) + 1);
    (load(a) * weight(all, b)).cmp(&(load(b) * weight(all, a)))
}

/// The least loaded; of several alike each in its turn.
fn least(ticket: u64, all: &[Candidate], among: Members) -> Option<usize> {
    let least = among.iter().min_by(|a, b| busier(all, *a, *b))?;
    let alike: Members = among.iter().filter(|at| busier(all, *at, least) == Ordering::Equal).collect();
    smooth(ticket, all, alike)
}

/// How much a client belongs to a member: the highest wins. Each member's is independent of all others, so that only
/// the clients of one that goes move, and the chance to be the highest is as its weight.
fn affinity(turn: Turn, all: &[Candidate], at: usize) -> f64 {
    let Some(one) = all.get(at) else { return f64::NEG_INFINITY };
    let hash = mixed(one.key ^ mixed(turn.client));
    // In the open interval from 0 to 1.
    let chance = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    f64::from(one.weight) / -chance.ln()
}

/// Of two that are drawn by their weights, the less loaded.
fn of_two(ticket: u64, all: &[Candidate], among: Members) -> Option<usize> {
    let (first, second) = drawn(ticket, all, among)?;
    Some(if busier(all, second, first) == Ordering::Less { second } else { first })
}

/// Two different members.
fn drawn(ticket: u64, all: &[Candidate], among: Members) -> Option<(usize, usize)> {
    let first = draw(mixed(ticket.wrapping_mul(2)), all, among)?;
    let second = draw(mixed(ticket.wrapping_mul(2).wrapping_add(1)), all, among.without(first))?;
    Some((first, second))
}

fn draw(random: u64, all: &[Candidate], among: Members) -> Option<usize> {
    let sum: u64 = among.iter().map(|at| weight(all, at)).sum();
    let mut rest = random.checked_rem(sum)?;
    among.iter().find(|at| {
        let weight = weight(all, *at);
        let found = rest < weight;
        rest = rest.saturating_sub(weight);
        found
    })
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
