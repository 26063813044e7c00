//! What stays when the load is over: memory, idle connections, and the processor time of a proxy that nobody asks.

use std::{io, thread, time::Duration};

use crate::{
    Options,
    contender::{self, Routes, Running, host, request},
    load, process,
    scenario::directory,
    table,
    upstream::Upstream,
    wire::Front,
};

/// Memory at the start, after the load, and with idle connections in clear and in TLS; and what a contender does when nothing happens.
pub(crate) fn table(options: &Options, upstream: &Upstream, running: &[Running], at_start: &[u64]) -> io::Result<()> {
    let count = if options.quick { 500 } else { 5_000 };
    let of_tls = count * 2 / 5;
    let (resting, at_rest) = at_rest(options, running);
    let mut rows = Vec::new();
    for ((contender, start), at_rest) in running.iter().zip(at_start).zip(at_rest) {
        let loaded = process::memory(contender.pid());
        let secure = if contender.kind.speaks(Front::Tls) {
            // One that nothing was asked of yet: what earlier connections left behind would hide what these take.
            let place = directory(options, contender.kind).join("fresh");
            let fresh = contender::start(contender.kind, &place, upstream.port, Routes::Fixed(10), &[])?;
            format!("{:.2}", per_connection(&fresh, Front::Tls, of_tls)?)
        } else {
            String::new()
        };
        rows.push(vec![
            contender.kind.name().to_owned(),
            format!("{:.1}", *start as f64 / 1024.0),
            format!("{:.1}", loaded as f64 / 1024.0),
            format!("{:.2}", per_connection(contender, Front::Plain, count)?),
            secure,
            format!("{at_rest:.1}"),
        ]);
    }
    println!("Memory (PSS); {count} idle connections in clear, {of_tls} in TLS.");
    println!("At rest: milliseconds of processor time in {} s in which nothing happens.", resting.as_secs());
    println!("Must and goal for Dormouse: 15 / 8, 40 / 20, 6 / 2, 20 / 10; at rest nothing that shows.\n");
    let head =
        ["contender", "MiB at start", "MiB after the load", "KiB a connection", "KiB a TLS connection", "ms at rest"];
    table::print(&head, &rows);
    Ok(())
}

/// KiB that one of so many idle connections takes.
fn per_connection(contender: &Running, front: Front, count: usize) -> io::Result<f64> {
    let before = process::memory(contender.pid());
    let _held = load::idle_connections(contender.ports, front, count, &request("/1k", &host(0), ""))?;
    Ok(process::memory(contender.pid()).saturating_sub(before) as f64 / count as f64)
}

/// How long was waited, and the milliseconds of processor time that each used meanwhile.
fn at_rest(options: &Options, running: &[Running]) -> (Duration, Vec<f64>) {
    let time = Duration::from_secs(if options.quick { 10 } else { 60 });
    let used = || running.iter().map(|contender| process::processor_time(contender.pid()));
    let before: Vec<u64> = used().collect();
    thread::sleep(time);
    let spent = used().zip(before).map(|(after, before)| after.saturating_sub(before) as f64 / 1e6).collect();
    (time, spent)
}
