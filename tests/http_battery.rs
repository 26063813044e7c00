//! Raw requests and responses through the HTTP relay: what is refused, what passes, and what the other side sees.
//!
//! The cases are files under `tests/http`; `tests/http/case.rs` tells how to read them.
#![allow(clippy::expect_used, clippy::panic)] // a test fails by panicking, its helpers too
#![allow(clippy::wildcard_enum_match_arm)] // whatever is not expected is a fault

#[path = "http/case.rs"]
mod case;
#[path = "http/client.rs"]
mod client;
#[path = "http/differential.rs"]
mod differential;
#[path = "http/echo.rs"]
mod echo;
#[path = "http/mutate.rs"]
mod mutate;
#[path = "http/relay.rs"]
mod relay;
#[path = "http/requests.rs"]
mod requests;
#[path = "http/responses.rs"]
mod responses;
#[path = "http/script.rs"]
mod script;
#[path = "http/sleeping.rs"]
mod sleeping;
#[path = "http/ways.rs"]
mod ways;
#[path = "http/wire.rs"]
mod wire;

/// The files of raw requests.
const REQUESTS: [(&str, &str); 8] = [
    ("chunks", include_str!("http/requests/chunks.http")),
    ("framing", include_str!("http/requests/framing.http")),
    ("heads", include_str!("http/requests/heads.http")),
    ("hop", include_str!("http/requests/hop.http")),
    ("hosts", include_str!("http/requests/hosts.http")),
    ("lines", include_str!("http/requests/lines.http")),
    ("talk", include_str!("http/requests/talk.http")),
    ("upgrade", include_str!("http/requests/upgrade.http")),
];

/// The files of raw responses.
const RESPONSES: [(&str, &str); 3] = [
    ("framing", include_str!("http/responses/framing.http")),
    ("heads", include_str!("http/responses/heads.http")),
    ("interim", include_str!("http/responses/interim.http")),
];

#[test]
fn the_battery_is_as_large_as_it_claims() {
    let requests: usize = REQUESTS.iter().map(|(_, text)| case::parse(text).len()).sum();
    let responses: usize = RESPONSES.iter().map(|(_, text)| case::parse(text).len()).sum();
    assert!(requests >= 400, "{requests} raw requests");
    assert!(responses >= 120, "{responses} raw responses");
}

/// One test for each file.
macro_rules! files {
    ($run:path, $files:ident: $($name:ident),*) => { $(
        #[test]
        fn $name() {
            let (_, text) = $files.iter().find(|(name, _)| *name == stringify!($name)).expect("a file of this name");
            none(&$run(text));
        }
    )* };
}

mod raw_requests {
    use super::*;
    files!(requests::run, REQUESTS: chunks, framing, heads, hop, hosts, lines, talk, upgrade);
}

mod raw_requests_through_tls {
    use super::*;
    files!(requests::run_secure, REQUESTS: chunks, framing, heads, hop, hosts, lines, talk, upgrade);
}

/// Each request meets a wake, unless it is refused: what is refused wakes nothing.
mod raw_requests_to_a_sleeper {
    use super::*;
    files!(requests::run_asleep, REQUESTS: chunks, framing, heads, hop, hosts, lines, talk, upgrade);
}

mod raw_responses {
    use super::*;
    files!(responses::run, RESPONSES: framing, heads, interim);
}

/// Requests of the battery that are small enough to be changed, and end by themselves.
fn corpus() -> Vec<Vec<u8>> {
    let cases = REQUESTS.iter().flat_map(|(_, text)| case::parse(text));
    cases.map(|case| case.bytes).filter(|bytes| bytes.len() < 4000 && !bytes.starts_with(b"POST /early")).collect()
}

#[test]
fn what_passes_is_what_hyper_reads() {
    let mut pair = differential::Differential::start();
    let faults: Vec<_> = corpus().iter().filter_map(|bytes| pair.check(bytes).err()).collect();
    none(&faults);
    assert!(pair.passed > 100, "only {} requests passed", pair.passed);
}

/// `SEED=7 COUNT=100000` replays or widens it.
#[test]
fn what_passes_of_changed_requests_is_what_hyper_reads() {
    let (seed, count) = (number("SEED", 1), number("COUNT", 2000));
    let (corpus, mut random) = (corpus(), mutate::Random::new(seed));
    let mut pair = differential::Differential::start();
    let mut faults = Vec::new();
    for step in 0..count {
        let bytes = mutate::mutate(&mut random, &corpus);
        if let Err(why) = pair.check(&bytes) {
            faults.push(format!("seed {seed}, step {step}\n  {why}"));
        }
    }
    none(&faults);
    assert!(pair.passed as u64 > count / 20, "only {} requests passed", pair.passed);
}

/// `SEED=7 COUNT=100000` replays or widens it.
#[test]
fn changed_responses_reach_nobody_as_nonsense() {
    let (seed, count) = (number("SEED", 1), number("COUNT", 2000));
    let cases = RESPONSES.iter().flat_map(|(_, text)| case::parse(text));
    let corpus: Vec<_> = cases.map(|case| case.bytes).filter(|bytes| bytes.len() < 4000).collect();
    let mut random = mutate::Random::new(seed);
    let mut pair = responses::Changed::start();
    let mut faults = Vec::new();
    for step in 0..count {
        let bytes = mutate::mutate(&mut random, &corpus);
        let ask = responses::Ask::ALL[random.below(responses::Ask::ALL.len())];
        if let Err(why) = pair.check(&bytes, ask) {
            faults.push(format!("seed {seed}, step {step}\n  {why}"));
        }
    }
    none(&faults);
    assert!(pair.passed as u64 > count / 20, "only {} responses passed", pair.passed);
}

/// A number that the caller of the test may set.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Good requests arrive the same wherever the network cuts them in two.
#[test]
fn a_cut_at_any_byte_changes_nothing() {
    none(&requests::cut_everywhere(&[
        b"GET /cut HTTP/1.1\r\nHost: app.test\r\nX-One: two\r\n\r\n",
        b"GET /cut HTTP/1.3\r\nHost: app.test\r\n\r\n",
        b"POST /cut HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /cut HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n",
        b"\r\nPOST http://app.test/cut HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    ]));
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n\n{}", faults.len(), faults.join("\n\n"));
}
