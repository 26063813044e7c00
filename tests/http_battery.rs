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
#[path = "http/responses.rs"]
mod responses;
#[path = "http/script.rs"]
mod script;
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

mod raw_responses {
    use super::*;
    files!(responses::run, RESPONSES: framing, heads, interim);
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n\n{}", faults.len(), faults.join("\n\n"));
}
