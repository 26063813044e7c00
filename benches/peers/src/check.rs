//! The gate for changes: what a request costs in the two figures that do not swing, and what a route takes. Needs no
//! quiet machine.

use std::io;

use crate::{
    Options,
    contender::{Kind, Routes},
    counters, loads, pairs, scenario, table,
    upstream::Upstream,
};

/// User instructions of a keep-alive request of 1 KiB.
const INSTRUCTIONS: f64 = 18_000.0;
/// Its system calls.
const CALLS: f64 = 4.5;

/// Prints the figures, and fails when one is above its bound.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let (kind, directory) = (Kind::Dormouse, scenario::directory(options, Kind::Dormouse));
    if !options.contenders.contains(&kind) {
        return Err(io::Error::other("Dormouse is not there"));
    }
    let (plan, counted) = loads::keep_alive().ok_or_else(|| io::Error::other("no scenario"))?;
    let upstream = Upstream::start()?;
    // What a start costs is not the same each time, as keys are drawn: so many requests that it does not count.
    let requests = if options.quick { counted } else { counted * 12 };
    let load = counters::Load { kind, directory: &directory, upstream: upstream.port, plan: &plan };
    let instructions = |routes| counters::instructions(&load, routes, requests);
    let fixed = instructions(Routes::Fixed(10))?;
    let sleeping = instructions(Routes::Sleeping)?;
    let everything = instructions(Routes::Everything(10))?;
    let calls = counters::system_calls(&load, requests)?;
    let [few, many] = pairs::few_and_many(options, kind, &upstream)?;
    let bytes = pairs::bytes_a_route(&few, &many);
    many.reload()?;
    let reloaded = pairs::bytes_a_route(&few, &many);
    let bounds = [
        ("user instructions", fixed, INSTRUCTIONS, 0),
        ("user instructions, backend that may sleep", sleeping, INSTRUCTIONS, 0),
        ("ratio of the two: idle tracking", sleeping / fixed, pairs::EVERYTHING, 3),
        ("ratio with a silent access log, too", everything / fixed, pairs::EVERYTHING, 3),
        ("system calls", calls, CALLS, 2),
        ("bytes a route, of 50,000", bytes, pairs::BYTES, 0),
        ("the same after a reload", reloaded, pairs::RELOADED, 0),
    ];
    let row = |(name, value, bound, digits): &(&str, f64, f64, usize)| {
        vec![(*name).to_owned(), format!("{value:.digits$}"), format!("{bound:.digits$}")]
    };
    table::print(&["a keep-alive request of 1 KiB", "counted", "at most"], &bounds.iter().map(row).collect::<Vec<_>>());
    // A figure that is no number is not within its bound.
    let over: Vec<&str> = bounds.iter().filter(|line| line.1.is_nan() || line.1 > line.2).map(|line| line.0).collect();
    if over.is_empty() { Ok(()) } else { Err(io::Error::other(format!("above the bound: {}", over.join("; ")))) }
}
