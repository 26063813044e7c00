//! Raw requests and responses through the HTTP relay: what is refused, what passes, and what the other side sees.
//!
//! The cases are files under `tests/http`; `tests/http/case.rs` tells how to read them.
#![allow(clippy::expect_used, clippy::panic)] // a test fails by panicking, its helpers too

#[path = "http/case.rs"]
mod case;
#[path = "http/client.rs"]
mod client;
#[path = "http/echo.rs"]
mod echo;
#[path = "http/relay.rs"]
mod relay;
#[path = "http/requests.rs"]
mod requests;
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

#[test]
fn the_battery_is_as_large_as_it_claims() {
    let requests: usize = REQUESTS.iter().map(|(_, text)| case::parse(text).len()).sum();
    assert!(requests >= 400, "{requests} raw requests");
}

macro_rules! requests {
    ($($name:ident),*) => { $(
        #[test]
        fn $name() {
            let (_, text) = REQUESTS.iter().find(|(name, _)| *name == stringify!($name)).expect("a file of this name");
            none(&requests::run(text));
        }
    )* };
}

mod raw_requests {
    use super::*;
    requests!(chunks, framing, heads, hop, hosts, lines, talk, upgrade);
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n\n{}", faults.len(), faults.join("\n\n"));
}
