//! One contender beside itself, so configured and otherwise.

use std::{io, time::Duration};

use crate::{
    Options,
    contender::{self, Kind, Routes, Running, host, request},
    load::{Manner, Plan},
    process,
    scenario::{directory, visit},
    table::{self, Spread},
    upstream::Upstream,
    wire::Front,
};

/// So many routes are many.
pub(crate) const MANY: usize = 50_000;

/// What a route of so many may take.
pub(crate) const BYTES: f64 = 1024.0;
/// The same once they were read again, with what that leaves behind.
pub(crate) const RELOADED: f64 = 1536.0;

/// What idle tracking, many routes, metrics and a silent access log may cost together.
pub(crate) const EVERYTHING: f64 = 1.03;

/// The cost of many routes: each contender with ten and with fifty thousand, asked for any of them.
pub(crate) fn routes(options: &Options, upstream: &Upstream) -> io::Result<()> {
    let mut rows = Vec::new();
    for kind in options.contenders.iter().filter(|kind| kind.is_close()) {
        let [few, many] = few_and_many(options, *kind, upstream)?;
        let bytes = bytes_a_route(&few, &many);
        // A prime step visits the hosts in no order that a cache would like.
        let visits = |routes: usize| (0..routes.min(5_000)).map(move |number| number * 7_919 % routes);
        let (ratio, failed) = beside(options, [&few, &many], &[of_hosts(visits(10)), of_hosts(visits(MANY))])?;
        rows.push(vec![kind.name().to_owned(), printed(ratio), format!("{bytes:.0}"), failed.to_string()]);
    }
    println!("{MANY} host routes against 10. Must and goal for Dormouse: 1.15 / 1.03, {BYTES} / 300 bytes a route.\n");
    table::print(&["contender", "processor time, ratio (quartiles)", "bytes a route", "failed"], &rows);
    Ok(())
}

/// A contender with ten routes, and again with fifty thousand.
pub(crate) fn few_and_many(options: &Options, kind: Kind, upstream: &Upstream) -> io::Result<[Running; 2]> {
    let place = directory(options, kind);
    let few = contender::start(kind, &place.join("few"), upstream.port, Routes::Fixed(10), &[])?;
    let many = contender::start(kind, &place.join("many"), upstream.port, Routes::Fixed(MANY), &[])?;
    Ok([few, many])
}

/// What a route takes, by the difference of the two in memory.
pub(crate) fn bytes_a_route(few: &Running, many: &Running) -> f64 {
    process::memory(many.pid()).saturating_sub(process::memory(few.pid())) as f64 * 1024.0 / (MANY - 10) as f64
}

/// The cost of all that is on in earnest, for one and the same request: Dormouse beside itself with ten fixed addresses.
pub(crate) fn everything(options: &Options, upstream: &Upstream) -> io::Result<()> {
    let kind = Kind::Dormouse;
    if !options.contenders.contains(&kind) {
        return Ok(());
    }
    let place = directory(options, kind);
    let plain = contender::start(kind, &place.join("plain"), upstream.port, Routes::Fixed(10), &[])?;
    let all = contender::start(kind, &place.join("all"), upstream.port, Routes::Everything(MANY), &[])?;
    let plan = || of_hosts(std::iter::once(0));
    let (ratio, failed) = beside(options, [&plain, &all], &[plan(), plan()])?;
    println!(
        "The first line with a backend that may sleep, {MANY} other routes and a silent access log, against ten fixed addresses. \
         Must: {EVERYTHING}.\n"
    );
    table::print(
        &["contender", "processor time, ratio (quartiles)", "failed"],
        &[vec![kind.name().to_owned(), printed(ratio), failed.to_string()]],
    );
    if ratio.is_some_and(|ratio| ratio.low > EVERYTHING) {
        println!("Over what must be kept: everything.\n");
    }
    Ok(())
}

/// Kept connections that ask these hosts in turn.
fn of_hosts(hosts: impl Iterator<Item = usize>) -> Plan {
    let requests = hosts.map(|number| request("/1k", &host(number), "")).collect();
    Plan { front: Front::Plain, connections: 64, requests, manner: Manner::KeepAlive }
}

/// What the second costs beside the first, visited in turn; and how many requests failed.
fn beside(options: &Options, both: [&Running; 2], plans: &[Plan; 2]) -> io::Result<(Option<Spread>, u64)> {
    let (repetitions, time) = if options.quick { (3, 300) } else { (15, 1_000) };
    let mut costs = [Vec::new(), Vec::new()];
    let mut failed = 0;
    for repetition in 0..=repetitions {
        for step in 0..2 {
            let which = (repetition + step) % 2;
            let (cost, outcome) = visit(both[which], &plans[which], Duration::from_millis(time))?;
            failed += outcome.failed;
            // The first round warms up.
            if repetition > 0 {
                costs[which].push(cost);
            }
        }
    }
    Ok((Spread::of(costs[1].iter().zip(&costs[0]).map(|(second, first)| second / first)), failed))
}

fn printed(ratio: Option<Spread>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high))
}
