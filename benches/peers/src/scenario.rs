//! The tables, and the order in which their scenarios visit the contenders.

use std::{io, path::Path, time::Duration};

use crate::{
    Options, attack,
    contender::{self, Kind, Routes, Running},
    counters,
    load::{self, Outcome, Plan, Until},
    loads::{Scenario, scenarios},
    memory, pairs, process,
    table::{self, Spread},
    upstream::Upstream,
};

/// Names that `--scenario` knows beside those of the processor-time table.
const OTHERS: [&str; 6] = ["memory", "routes", "everything", "instructions", "calls", "attack"];

pub(crate) fn run_all(options: &Options) -> io::Result<()> {
    let scenarios = scenarios();
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    if let Some(only) = &options.only {
        let known: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).chain(OTHERS).collect();
        if !known.contains(&only.as_str()) {
            return Err(io::Error::other(format!("unknown scenario `{only}`; known: {}", known.join(", "))));
        }
    }
    let versions: Vec<String> =
        options.contenders.iter().map(|kind| format!("{} {}", kind.name(), kind.version())).collect();
    println!("Contenders: {}.\n", versions.join(", "));
    let upstream = Upstream::start()?;
    let chosen: Vec<&Scenario> = scenarios.iter().filter(|scenario| wanted(scenario.name)).collect();
    if !chosen.is_empty() || wanted("memory") {
        processor_time_and_memory(options, &upstream, &chosen, wanted("memory"))?;
    }
    if wanted("routes") {
        pairs::routes(options, &upstream)?;
    }
    if wanted("everything") {
        pairs::everything(options, &upstream)?;
    }
    if wanted("instructions") || wanted("calls") {
        per_request_counters(options, &upstream, &scenarios, wanted("instructions"), wanted("calls"))?;
    }
    if wanted("attack") {
        attack::run(options, &upstream)?;
    }
    Ok(())
}

/// Processor microseconds per request of one visit.
pub(crate) fn visit(running: &Running, plan: &Plan, time: Duration) -> io::Result<(f64, Outcome)> {
    let before = process::processor_time(running.pid());
    let outcome = load::drive(running.ports, plan, Until::Elapsed(time))?;
    let used = process::processor_time(running.pid()).saturating_sub(before);
    Ok((used as f64 / 1_000.0 / outcome.done.max(1) as f64, outcome))
}

/// All contenders run at once; each repetition visits all of them, beginning with the next one each time.
fn processor_time_and_memory(
    options: &Options,
    upstream: &Upstream,
    scenarios: &[&Scenario],
    memory: bool,
) -> io::Result<()> {
    let (repetitions, time) = if options.quick { (3, 300) } else { (15, 1_000) };
    let time = Duration::from_millis(time);
    let running: Vec<Running> = options
        .contenders
        .iter()
        .map(|kind| contender::start(*kind, &directory(options, *kind), upstream.port, Routes::Fixed(10), &[]))
        .collect::<io::Result<_>>()?;
    let at_start: Vec<u64> = running.iter().map(|contender| process::memory(contender.pid())).collect();

    let mut rows = Vec::new();
    let mut over = Vec::new();
    for scenario in scenarios {
        let running: Vec<&Running> =
            running.iter().filter(|contender| contender.kind.speaks(scenario.plan.front)).collect();
        for contender in &running {
            load::drive(contender.ports, &scenario.plan, Until::Elapsed(time / 3))?;
        }
        let mut costs = vec![Vec::new(); running.len()];
        let mut rates = vec![Vec::new(); running.len()];
        let mut failed = vec![0; running.len()];
        for repetition in 0..repetitions {
            for step in 0..running.len() {
                let place = (repetition + step) % running.len();
                let (cost, outcome) = visit(running[place], &scenario.plan, time)?;
                costs[place].push(cost);
                rates[place].push(outcome.done as f64 / time.as_secs_f64());
                failed[place] += outcome.failed;
            }
        }
        let anchor = running.iter().position(|contender| contender.kind == Kind::HaProxy);
        for (place, contender) in running.iter().enumerate() {
            let ratio = anchor.and_then(|anchor| {
                Spread::of(costs[place].iter().zip(&costs[anchor]).map(|(own, anchor)| own / anchor))
            });
            let ours = contender.kind == Kind::Dormouse;
            // The line fails when even the lower quartile is above what must be kept.
            if ours && ratio.is_some_and(|ratio| ratio.low > scenario.must) {
                over.push(scenario.name);
            }
            rows.push(vec![
                scenario.name.to_owned(),
                contender.kind.name().to_owned(),
                Spread::of(costs[place].iter().copied()).map_or_else(String::new, |cost| format!("{:.1}", cost.median)),
                ratio.map_or_else(String::new, |ratio| {
                    format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high)
                }),
                if ours { format!("{:.2} / {:.2}", scenario.must, scenario.goal) } else { String::new() },
                Spread::of(rates[place].iter().copied()).map_or_else(String::new, |rate| format!("{:.0}", rate.median)),
                failed[place].to_string(),
            ]);
        }
    }
    if !rows.is_empty() {
        println!("Processor time per request, {repetitions} interleaved repetitions of {} ms.\n", time.as_millis());
        table::print(
            &["scenario", "contender", "µs", "ratio to haproxy (quartiles)", "must / goal", "requests/s", "failed"],
            &rows,
        );
        if !over.is_empty() {
            println!("Over what must be kept: {}.\n", over.join(", "));
        }
    }
    if memory { memory::table(options, upstream, &running, &at_start) } else { Ok(()) }
}

/// What processor time is a noisy measure of, for every scenario that is made of requests.
fn per_request_counters(
    options: &Options,
    upstream: &Upstream,
    scenarios: &[Scenario],
    instructions: bool,
    calls: bool,
) -> io::Result<()> {
    let mut rows = Vec::new();
    for scenario in scenarios.iter().filter(|scenario| scenario.counted > 0) {
        let requests = if options.quick { scenario.counted / 2 } else { scenario.counted * 2 };
        for kind in options.contenders.iter().filter(|kind| kind.is_close()) {
            let place = directory(options, *kind);
            let load = counters::Load { kind: *kind, directory: &place, upstream: upstream.port, plan: &scenario.plan };
            let count = |wanted: bool, of: &dyn Fn() -> io::Result<f64>, digits: usize| {
                if wanted { of().map(|count| format!("{count:.digits$}")) } else { Ok(String::new()) }
            };
            rows.push(vec![
                scenario.name.to_owned(),
                kind.name().to_owned(),
                count(instructions, &|| counters::instructions(&load, Routes::Fixed(10), requests), 0)?,
                count(calls, &|| counters::system_calls(&load, requests), 2)?,
            ]);
        }
    }
    println!("Per request. Must and goal for Dormouse, keep-alive: 18000 / 12000, 4.5 / 4.1.\n");
    table::print(&["scenario", "contender", "user instructions", "system calls"], &rows);
    Ok(())
}

pub(crate) fn directory(options: &Options, kind: Kind) -> std::path::PathBuf {
    Path::new(&options.directory).join(kind.name())
}
