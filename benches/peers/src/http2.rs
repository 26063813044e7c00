//! HTTP/2 over TLS, by an outside client: `h2load` of nghttp2.

use std::{io, process::Command};

use crate::{
    contender::host,
    load::{Outcome, Until},
};

/// So many connections with so many requests under way on each, for a time or a count.
pub(crate) fn drive(port: u16, connections: usize, streams: usize, until: Until) -> io::Result<Outcome> {
    let mut command = Command::new("h2load");
    command.args(["--threads=1", "--tls13-ciphers=TLS_AES_128_GCM_SHA256", "--groups=X25519"]);
    command.arg(format!("--clients={connections}")).arg(format!("--max-concurrent-streams={streams}"));
    match until {
        Until::Elapsed(time) => command.arg(format!("--duration={}ms", time.as_millis())),
        Until::Requests(count) => command.arg(format!("--requests={count}")),
    };
    command.arg(format!("--connect-to=127.0.0.1:{port}")).arg(format!("https://{}:{port}/1k", host(0)));
    let output = command.output().map_err(|error| io::Error::other(format!("`h2load`: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        io::Error::other(format!("`h2load` said nothing of its requests:\n{text}{errors}"))
    })
}

/// The line `requests: 10 total, 10 started, 10 done, 10 succeeded, 0 failed, 0 errored, 0 timeout`.
fn parse(text: &str) -> Option<Outcome> {
    let line = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let count =
        |what: &str| -> Option<u64> { line.split(", ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok()) };
    Some(Outcome { done: count("succeeded")?, failed: count("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_read() {
        let text =
            "finished in 1.00s\nrequests: 12 total, 12 started, 11 done, 9 succeeded, 2 failed, 2 errored, 0 timeout\n";
        let outcome = parse(text).unwrap_or(Outcome { done: 0, failed: 0 });
        assert_eq!((outcome.done, outcome.failed), (9, 2));
        assert!(parse("nothing").is_none());
    }
}
