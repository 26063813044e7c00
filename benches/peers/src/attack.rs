//! How others fare while somebody attacks: what well-behaved clients wait for their answers, beside HAProxy under the same.
//!
//! The attacker has one thread on the core of the load, does so much a second and no more, and begins anew where its
//! connections are ended. The others come in clear, one request at a time, on connections that they keep.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Options,
    contender::{self, Kind, Routes, Running, host, request},
    load, process,
    scenario::directory,
    table::{self, Spread},
    upstream::Upstream,
    wire::{Front, Wire},
};

/// Clients beside the attacker, and how long each rests between two requests.
const OTHERS: usize = 8;
const REST: Duration = Duration::from_millis(4);

/// So long after an attack has begun, what goes on is what is measured.
const SETTLES: Duration = Duration::from_millis(500);

/// Milliseconds that an answer is waited for.
const PATIENCE: f64 = 10_000.0;

/// What is allowed: so much longer than beside HAProxy.
const MUST: f64 = 1.5;

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

/// What somebody does to harm others.
struct Attack {
    name: &'static str,
    front: Front,
    connections: usize,
    /// What each connection begins with.
    begin: Vec<u8>,
    /// What each goes on with, by the number of the step.
    step: fn(u32) -> Vec<u8>,
    /// A step of all connections takes so long.
    pace: Duration,
    /// It takes what is answered.
    reads: bool,
}

fn attacks() -> Vec<Attack> {
    let fast = Duration::from_millis(40);
    let http2 = |name, begin: Vec<u8>, step| {
        let begin = [hello(&[]), begin].concat();
        Attack { name, front: Front::Http2, connections: 8, begin, step, pace: fast, reads: true }
    };
    let clear = |name, connections, begin: &[u8], step| {
        let (begin, pace) = (begin.to_vec(), Duration::from_secs(1));
        Attack { name, front: Front::Plain, connections, begin, step, pace, reads: false }
    };
    let large = |at: u32| frame(1, WHOLE, 2 * at + 1, &get("/1m"));
    vec![
        clear("none", 0, b"", nothing),
        // 20,000 a second of each.
        http2("rapid resets", Vec::new(), |step| {
            let reset =
                |at: u32| [frame(1, WHOLE, 2 * at + 1, &get("/1k")), frame(3, 0, 2 * at + 1, &[0, 0, 0, 8])].concat();
            (step * 100..step * 100 + 100).flat_map(reset).collect()
        }),
        http2("continuations", frame(1, 1, 1, &get("/1k")), |_| frame(CONTINUATION, 0, 1, &[]).repeat(100)),
        http2("settings", Vec::new(), |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]).repeat(100)),
        http2("pings", Vec::new(), |_| frame(PING, 0, 0, &[0; 8]).repeat(100)),
        Attack {
            begin: [hello(&[0, 4, 0, 0, 0, 0]), (0..100).flat_map(large).collect()].concat(),
            reads: false,
            ..http2("closed windows", Vec::new(), nothing)
        },
        clear("unread answers", 100, &request("/1m", &host(0), ""), nothing),
        clear("slow heads", 2_000, format!("GET / HTTP/1.1\r\nHost: {}\r\n", host(0)).as_bytes(), |_| {
            b"X-A: b\r\n".to_vec()
        }),
        clear(
            "slow bodies",
            1_000,
            format!("POST /1k HTTP/1.1\r\nHost: {}\r\nContent-Length: 100000\r\n\r\n", host(0)).as_bytes(),
            |_| b"x".to_vec(),
        ),
        clear("idle connections", 9_000, &request("/1k", &host(0), ""), nothing),
        // More than HAProxy and Dormouse have places for by their limit of descriptors; what waits then fits its queue.
        Attack { reads: true, ..clear("more than fit", 13_000, &request("/1k", &host(0), ""), nothing) },
    ]
}

fn nothing(_: u32) -> Vec<u8> {
    Vec::new()
}

/// Flags of a request without a body: the block and the stream end.
const WHOLE: u8 = 5;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn hello(settings: &[u8]) -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, settings)].concat()
}

/// A GET as a block of fields, none of them remembered.
fn get(path: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap_or(0)], text.as_bytes()].concat();
    [vec![0x82, 0x87, 0x04], text(path), vec![0x01], text(&host(0))].concat()
}

/// Prints what others wait under each attack.
pub(crate) fn run(options: &Options, upstream: &Upstream) -> io::Result<()> {
    let (repetitions, time) = if options.quick { (2, 1) } else { (9, 2) };
    let (mut rows, mut over) = (Vec::new(), Vec::new());
    let close: Vec<Kind> = options.contenders.iter().copied().filter(|kind| kind.is_close()).collect();
    for attack in attacks() {
        let running: Vec<Running> = close
            .iter()
            .map(|kind| contender::start(*kind, &directory(options, *kind), upstream.port, Routes::Fixed(10), &[]))
            .collect::<io::Result<_>>()?;
        let mut seen: Vec<Vec<Seen>> = running.iter().map(|_| Vec::new()).collect();
        for repetition in 0..repetitions {
            for step in 0..running.len() {
                let place = (repetition + step) % running.len();
                seen[place].push(visit(&running[place], &attack, Duration::from_secs(time))?);
            }
        }
        let anchor = running.iter().position(|contender| contender.kind == Kind::HaProxy);
        for (place, contender) in running.iter().enumerate() {
            let median = |of: &dyn Fn(&Seen) -> f64| {
                Spread::of(seen[place].iter().map(of))
                    .map_or_else(String::new, |spread| format!("{:.1}", spread.median))
            };
            let ratio = anchor.and_then(|anchor| {
                Spread::of(seen[place].iter().zip(&seen[anchor]).map(|(own, anchor)| own.slow / anchor.slow))
            });
            if contender.kind == Kind::Dormouse && ratio.is_some_and(|ratio| ratio.low > MUST) {
                over.push(attack.name);
            }
            rows.push(vec![
                attack.name.to_owned(),
                contender.kind.name().to_owned(),
                median(&|seen| seen.middle),
                median(&|seen| seen.slow),
                ratio.map_or_else(String::new, |ratio| {
                    format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high)
                }),
                seen[place].iter().map(|seen| seen.failed).sum::<usize>().to_string(),
                seen[place].iter().map(|seen| seen.ended).sum::<usize>().to_string(),
                median(&|seen| seen.memory),
            ]);
        }
    }
    println!(
        "Answers to {OTHERS} clients while others attack, {repetitions} interleaved repetitions of {time} s. Must for Dormouse: {MUST}.\n"
    );
    let head = [
        "attack",
        "contender",
        "p50, ms",
        "p99, ms",
        "p99, ratio to haproxy (quartiles)",
        "failed",
        "attackers ended",
        "MiB",
    ];
    table::print(&head, &rows);
    if !over.is_empty() {
        println!("Over what must be kept: {}.\n", over.join(", "));
    }
    Ok(())
}

/// What was seen of one contender under one attack: milliseconds, counts, and MiB at its end.
struct Seen {
    middle: f64,
    slow: f64,
    failed: usize,
    ended: usize,
    memory: f64,
}

fn visit(running: &Running, attack: &Attack, time: Duration) -> io::Result<Seen> {
    let over = AtomicBool::new(false);
    let begun = AtomicBool::new(attack.connections == 0);
    thread::scope(|scope| {
        let attacker = scope.spawn(|| harm(running, attack, &begun, &over));
        while !begun.load(Ordering::Relaxed) && !attacker.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
        // What the beginning of it costs is over.
        thread::sleep(SETTLES);
        let others: Vec<_> = (0..OTHERS).map(|_| scope.spawn(|| ask(running, time))).collect();
        let (mut waits, mut failed) = (Vec::new(), 0);
        for other in others {
            let (took, lost) = other.join().map_err(|_| io::Error::other("a client has failed"))?;
            waits.extend(took);
            failed += lost;
        }
        let memory = process::memory(running.pid()) as f64 / 1024.0;
        over.store(true, Ordering::Relaxed);
        let ended = attacker.join().map_err(|_| io::Error::other("the attacker has failed"))?;
        waits.sort_by(f64::total_cmp);
        let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).copied().unwrap_or(PATIENCE);
        Ok(Seen { middle: at(0.5), slow: at(0.99), failed, ended, memory })
    })
}

/// Asks again and again; milliseconds of each answer, all that is waited where there is none, and how often that was.
fn ask(running: &Running, time: Duration) -> (Vec<f64>, usize) {
    let (since, request) = (Instant::now(), request("/1k", &host(0), ""));
    let (mut waits, mut failed, mut connection) = (Vec::new(), 0, None);
    while since.elapsed() < time {
        let begun = Instant::now();
        let answered = match connection.take() {
            None => load::connect(running.ports, Front::Plain),
            Some(kept) => Ok(kept),
        }
        .and_then(|mut kept| load::ask(&mut kept, &request).map(|()| kept));
        match answered {
            Ok(kept) => {
                waits.push(begun.elapsed().as_secs_f64() * 1e3);
                connection = Some(kept);
            }
            Err(_) => {
                waits.push(PATIENCE);
                failed += 1;
            }
        }
        thread::sleep(REST);
    }
    (waits, failed)
}

/// Attacks until it is over; how many of its connections were ended.
fn harm(running: &Running, attack: &Attack, begun: &AtomicBool, over: &AtomicBool) -> usize {
    let mut connections: Vec<Option<(Wire<TcpStream>, u32)>> = (0..attack.connections).map(|_| None).collect();
    let (mut ended, mut first) = (0, true);
    while !over.load(Ordering::Relaxed) && attack.connections > 0 {
        let since = Instant::now();
        for connection in &mut connections {
            if over.load(Ordering::Relaxed) {
                break;
            }
            *connection = match connection.take() {
                None => begin(running, attack).ok().map(|wire| (wire, 0)),
                Some((mut wire, step)) => go_on(&mut wire, attack, step).then_some((wire, step + 1)),
            };
            ended += usize::from(connection.is_none());
        }
        if std::mem::take(&mut first) {
            begun.store(true, Ordering::Relaxed);
        }
        thread::sleep(attack.pace.saturating_sub(since.elapsed()).min(Duration::from_millis(200)));
    }
    ended
}

fn begin(running: &Running, attack: &Attack) -> io::Result<Wire<TcpStream>> {
    let mut wire = load::connect(running.ports, attack.front)?;
    wire.write_all(&attack.begin)?;
    wire.flush()?;
    wire.socket().set_nonblocking(true)?;
    Ok(wire)
}

/// One step; false when the connection is no more.
fn go_on(wire: &mut Wire<TcpStream>, attack: &Attack, step: u32) -> bool {
    let again = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    let bytes = (attack.step)(step);
    // What the other side does not take is dropped: it has stopped us that way.
    if !bytes.is_empty() && wire.write(&bytes).is_err_and(|error| !again(&error)) {
        return false;
    }
    if !attack.reads {
        return true;
    }
    let mut scratch = [0; 64 * 1024];
    loop {
        match wire.read(&mut scratch) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return again(&error),
        }
    }
}
