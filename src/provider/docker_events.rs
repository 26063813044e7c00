//! The events of a Docker-compatible engine as hints, for ever.
//!
//! An event is never more than a hint, so a line that is not understood is passed over, and a stream that breaks is
//! opened again from where it broke, followed by "look at all of them".

use std::{collections::VecDeque, error::Error, sync::Arc, time::Duration};

use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use hyper::{Method, body::Incoming};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Hint, ProviderError, deadlines,
    docker_client::{Client, escape},
    docker_translate::text,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// After so long without an event the engine is asked whether it lives.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// A line that is longer is no event.
const LONGEST_LINE: usize = 1 << 20;

/// Words of events that change nothing about a container; what the engine appends after a colon is cut off.
const IDLE_WORDS: [&str; 13] = [
    "archive-path",
    "attach",
    "commit",
    "copy",
    "detach",
    "exec_create",
    "exec_detach",
    "exec_die",
    "exec_start",
    "export",
    "extract-to-dir",
    "resize",
    "top",
];

/// Hints from the engine's events.
pub(super) fn listen(client: Arc<Client>) -> BoxStream<'static, Hint> {
    let listener = Listener {
        client,
        lines: None,
        waiting: VecDeque::new(),
        since: None,
        pause: Duration::ZERO,
        opened: Instant::now(),
        said_away: false,
    };
    stream::unfold(listener, |mut listener| async { Some((listener.next().await, listener)) }).boxed()
}

struct Listener {
    client: Arc<Client>,
    lines: Option<Lines>,
    waiting: VecDeque<Hint>,
    /// The time of the last event, in nanoseconds since the epoch of the engine's clock.
    since: Option<i64>,
    pause: Duration,
    opened: Instant,
    said_away: bool,
}

impl Listener {
    async fn next(&mut self) -> Hint {
        loop {
            if let Some(hint) = self.waiting.pop_front() {
                return hint;
            }
            match &mut self.lines {
                Some(lines) => match lines.next(&self.client).await {
                    Some(line) => self.read(&line),
                    None => self.broke_off(),
                },
                None => self.open().await,
            }
        }
    }

    async fn open(&mut self) {
        sleep(self.pause).await;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        match self.client.stream(&self.path(), deadlines::LOOK).await {
            Ok(body) => {
                self.lines = Some(Lines { body, begun: Vec::new() });
                self.opened = Instant::now();
                self.said_away = false;
                self.waiting.push_back(Hint::All);
            }
            Err(error) => {
                if !self.said_away {
                    self.said_away = true;
                    self.waiting.push_back(Hint::Away(reason(&error)));
                }
            }
        }
    }

    /// An engine that keeps breaking off at once is asked less and less often.
    fn broke_off(&mut self) {
        self.lines = None;
        if self.opened.elapsed() > LONGEST_PAUSE {
            self.pause = FIRST_PAUSE;
        }
    }

    fn path(&self) -> String {
        let filters = escape(r#"{"type":["container"]}"#);
        let since = self.since.map(|nanos| nanos + 1);
        let since = since.map(|nanos| format!("&since={}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000));
        format!("/events?filters={filters}{}", since.unwrap_or_default())
    }

    fn read(&mut self, line: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Value>(line) else {
            tracing::debug!(engine = self.client.engine(), "an event is no JSON; passed over");
            return;
        };
        self.since = event.get("timeNano").and_then(Value::as_i64).or(self.since);
        self.waiting.extend(translate(&event));
    }
}

/// What one event hints at.
fn translate(event: &Value) -> Vec<Hint> {
    let kind = text(event, "/Type");
    let word = Some(text(event, "/Action")).filter(|word| !word.is_empty()).unwrap_or(text(event, "/status"));
    let short = word.split(':').next().unwrap_or_default().trim();
    if !matches!(kind, "" | "container") || short.is_empty() || IDLE_WORDS.contains(&short) {
        return Vec::new();
    }
    // A rename concerns both names.
    let names = ["/Actor/Attributes/name", "/Actor/Attributes/oldName"].map(|place| text(event, place));
    let names = names.into_iter().map(|name| name.trim_start_matches('/')).filter(|name| !name.is_empty());
    let exit_code = text(event, "/Actor/Attributes/exitCode").parse().ok().filter(|_| word == "die");
    let hints = names.flat_map(|name| {
        let ended = exit_code.map(|exit_code| Hint::Ended { name: name.to_owned(), exit_code });
        ended.into_iter().chain([Hint::Unit { name: name.to_owned(), what: word.to_owned() }])
    });
    hints.collect()
}

/// The whole chain of causes, in one line.
fn reason(error: &ProviderError) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

struct Lines {
    body: Incoming,
    begun: Vec<u8>,
}

impl Lines {
    /// The next line; absent when the stream has ended or the engine does not answer any more.
    async fn next(&mut self, client: &Client) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.begun) {
                let line = self.begun.drain(..=end).collect();
                return Some(line);
            }
            if self.begun.len() > LONGEST_LINE {
                self.begun.clear();
            }
            match timeout(HEARTBEAT, self.body.frame()).await {
                Ok(Some(Ok(frame))) => self.begun.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Ok(_) => return None,
                Err(_) => {
                    client.call(Method::GET, "/_ping", deadlines::LOOK).await.ok()?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event: &str, expected: &[(&str, &str)]) {
        let found = translate(&serde_json::from_str(event).unwrap());
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, what)| Hint::Unit { name: (*name).to_owned(), what: (*what).to_owned() })
            .collect();
        assert_eq!(found, expected, "{event}");
    }

    #[test]
    fn events_become_hints() {
        let of = |word: &str| {
            format!(r#"{{"Type":"container","Action":"{word}","Actor":{{"Attributes":{{"name":"web"}}}}}}"#)
        };
        check(&of("die"), &[("web", "die")]);
        check(&of("kill"), &[("web", "kill")]);
        check(&of("health_status: healthy"), &[("web", "health_status: healthy")]);
        check(&of("something new"), &[("web", "something new")]);
        check(&of("exec_create: /bin/sh -c true: false"), &[]);
        check(&of("top"), &[]);
    }

    #[test]
    fn an_end_is_told_with_its_exit_code() {
        let event = r#"{"Type":"container","Action":"die","Actor":{"Attributes":{"name":"web","exitCode":"3"}}}"#;
        let found = translate(&serde_json::from_str(event).unwrap());
        let hint = Hint::Unit { name: "web".to_owned(), what: "die".to_owned() };
        assert_eq!(found, [Hint::Ended { name: "web".to_owned(), exit_code: 3 }, hint]);
    }

    #[test]
    fn a_rename_hints_at_both_names() {
        let event = r#"{"Type":"container","Action":"rename","Actor":{"Attributes":{"name":"new","oldName":"/old"}}}"#;
        check(event, &[("new", "rename"), ("old", "rename")]);
    }

    #[test]
    fn strange_events_are_passed_over() {
        check(r#"{"Type":"pod","Action":"die","Actor":{"Attributes":{"name":"web"}}}"#, &[]);
        check(r#"{"Type":"container","Action":"die"}"#, &[]);
        check(r#"[1,2]"#, &[]);
        check(r#"{"status":"die","Actor":{"Attributes":{"name":"old-engine"}}}"#, &[("old-engine", "die")]);
    }
}
