//! The scenarios, and the order in which they visit the contenders.

use std::{
    io,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use crate::{
    Options,
    contender::{self, Kind, LOAD_CORE, Routes, Running, host, request},
    counters,
    load::{self, Manner, Outcome, Plan, Until},
    process,
    table::{self, Spread},
};

/// A load whose cost in processor time is compared, with the ratios to HAProxy that Dormouse must and would like to keep.
struct Scenario {
    name: &'static str,
    must: f64,
    goal: f64,
    plan: Plan,
    /// Requests of one count of instructions or system calls; 0: these are not counted.
    counted: u64,
}

fn scenarios() -> Vec<Scenario> {
    let get = |path: &str, extra: &str| vec![request(path, &host(0), extra)];
    let plan = |connections, requests, manner| Plan { connections, requests, manner };
    let keep = Manner::KeepAlive;
    let post = {
        let get = String::from_utf8_lossy(&request("/post", &host(0), "Content-Length: 16384\r\n"))
            .replacen("GET", "POST", 1);
        let mut post = get.into_bytes();
        post.resize(post.len() + 16_384, b'x');
        post
    };
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    vec![
        Scenario { name: "keep-alive", must: 0.85, goal: 0.70, plan: plan(64, get("/1k", ""), keep), counted: 2_000 },
        Scenario {
            name: "new",
            must: 1.05,
            goal: 0.95,
            plan: plan(32, get("/1k", "Connection: close\r\n"), Manner::Fresh),
            counted: 1_000,
        },
        Scenario { name: "64k", must: 0.90, goal: 0.65, plan: plan(32, get("/64k", ""), keep), counted: 500 },
        Scenario { name: "1m", must: 0.75, goal: 0.60, plan: plan(8, get("/1m", ""), keep), counted: 100 },
        Scenario { name: "chunked", must: 1.00, goal: 0.85, plan: plan(32, get("/chunked", ""), keep), counted: 500 },
        Scenario { name: "post", must: 0.70, goal: 0.50, plan: plan(64, vec![post], keep), counted: 500 },
        Scenario {
            name: "websocket",
            must: 1.05,
            goal: 0.90,
            plan: plan(32, get("/ws", handshake), Manner::WebSocket),
            counted: 0,
        },
    ]
}

/// Names that `--scenario` knows beside those of the processor-time table.
const OTHERS: [&str; 4] = ["memory", "routes", "instructions", "calls"];

/// The upstream's process; ended when dropped.
pub(crate) struct Upstream {
    child: Child,
    pub(crate) port: u16,
}

impl Upstream {
    pub(crate) fn start() -> io::Result<Self> {
        let port = contender::free_port()?;
        let own = std::env::current_exe()?;
        let child =
            Command::new("taskset").args(["-c", LOAD_CORE]).arg(own).args(["upstream", &port.to_string()]).spawn()?;
        let upstream = Self { child, port };
        for _ in 0..500 {
            if load::answers(port, &request("/1k", "up", "")) {
                return Ok(upstream);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other("the upstream does not answer"))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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
        routes(options, &upstream)?;
    }
    if wanted("instructions") || wanted("calls") {
        per_request_counters(options, &upstream, &scenarios, wanted("instructions"), wanted("calls"))?;
    }
    Ok(())
}

/// Processor microseconds per request of one visit.
fn visit(running: &Running, plan: &Plan, time: Duration) -> io::Result<(f64, Outcome)> {
    let before = process::processor_time(running.pid());
    let outcome = load::drive(running.port, plan, Until::Elapsed(time))?;
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
        for contender in &running {
            load::drive(contender.port, &scenario.plan, Until::Elapsed(time / 3))?;
        }
        let mut costs = vec![Vec::new(); running.len()];
        let mut rates = vec![Vec::new(); running.len()];
        let mut failed = vec![0; running.len()];
        for repetition in 0..repetitions {
            for step in 0..running.len() {
                let place = (repetition + step) % running.len();
                let (cost, outcome) = visit(&running[place], &scenario.plan, time)?;
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
    if memory { memory_table(options, &running, &at_start) } else { Ok(()) }
}

/// Memory at the start, after the load, and with idle connections.
fn memory_table(options: &Options, running: &[Running], at_start: &[u64]) -> io::Result<()> {
    let count = if options.quick { 500 } else { 5_000 };
    let mut rows = Vec::new();
    for (contender, start) in running.iter().zip(at_start) {
        let loaded = process::memory(contender.pid());
        let connections = load::idle_connections(contender.port, count, &request("/1k", &host(0), ""))?;
        let held = process::memory(contender.pid());
        drop(connections);
        rows.push(vec![
            contender.kind.name().to_owned(),
            format!("{:.1}", *start as f64 / 1024.0),
            format!("{:.1}", loaded as f64 / 1024.0),
            format!("{:.2}", held.saturating_sub(loaded) as f64 / count as f64),
        ]);
    }
    println!("Memory (PSS); {count} idle connections. Must and goal for Dormouse: 15 / 8, 40 / 20, 6 / 2.\n");
    table::print(&["contender", "MiB at start", "MiB after the load", "KiB per idle connection"], &rows);
    Ok(())
}

/// The cost of many routes: the same contender with ten and with fifty thousand, asked for any of them.
fn routes(options: &Options, upstream: &Upstream) -> io::Result<()> {
    const MANY: usize = 50_000;
    let (repetitions, time) = if options.quick { (3, 300) } else { (15, 1_000) };
    let time = Duration::from_millis(time);
    let mut rows = Vec::new();
    for kind in &options.contenders {
        let place = directory(options, *kind);
        let few = contender::start(*kind, &place.join("few"), upstream.port, Routes::Fixed(10), &[])?;
        let many = contender::start(*kind, &place.join("many"), upstream.port, Routes::Fixed(MANY), &[])?;
        let bytes =
            process::memory(many.pid()).saturating_sub(process::memory(few.pid())) as f64 * 1024.0 / (MANY - 10) as f64;
        let plan = |routes: usize| Plan {
            connections: 64,
            // A prime step visits the hosts in no order that a cache would like.
            requests: (0..routes.min(5_000)).map(|number| request("/1k", &host(number * 7_919 % routes), "")).collect(),
            manner: Manner::KeepAlive,
        };
        let plans = [plan(10), plan(MANY)];
        let mut costs = [Vec::new(), Vec::new()];
        let mut failed = 0;
        for repetition in 0..=repetitions {
            for step in 0..2 {
                let which = (repetition + step) % 2;
                let (cost, outcome) = visit([&few, &many][which], &plans[which], time)?;
                failed += outcome.failed;
                // The first round warms up.
                if repetition > 0 {
                    costs[which].push(cost);
                }
            }
        }
        let ratio = Spread::of(costs[1].iter().zip(&costs[0]).map(|(many, few)| many / few));
        rows.push(vec![
            kind.name().to_owned(),
            ratio.map_or_else(String::new, |ratio| format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high)),
            format!("{bytes:.0}"),
            failed.to_string(),
        ]);
    }
    println!("{MANY} host routes against 10. Must and goal for Dormouse: 1.15 / 1.03, 1024 / 300 bytes a route.\n");
    table::print(&["contender", "processor time, ratio (quartiles)", "bytes a route", "failed"], &rows);
    Ok(())
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
        for kind in &options.contenders {
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

/// The first line of the table, and how many requests are counted of it.
pub(crate) fn keep_alive() -> Option<(Plan, u64)> {
    scenarios().into_iter().next().map(|scenario| (scenario.plan, scenario.counted))
}

pub(crate) fn directory(options: &Options, kind: Kind) -> std::path::PathBuf {
    Path::new(&options.directory).join(kind.name())
}
