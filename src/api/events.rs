//! The journal as a stream that can be taken up again without a gap.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::{Api, Code, Connection, Failure, wire};
use crate::{
    model::BackendId,
    telemetry::{Entry, Journal},
};

/// A comment line is sent after so long without an event, so that a client that left is noticed.
const QUIET: Duration = Duration::from_secs(15);

/// What of the journal is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// `false`: the kept ones as JSON lines, and the end. Otherwise a stream of server-sent events.
    #[serde(default = "yes")]
    follow: bool,
    /// Only those after this id; `Last-Event-ID` goes before it.
    since: Option<String>,
    /// Only those of this backend.
    backend: Option<String>,
}

fn yes() -> bool {
    true
}

/// The kept events and then each new one. The id of an event is `<run>-<seq>`; after a break the stream goes on where
/// `Last-Event-ID` says. An id of another run means from the first kept one.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(Wanted),
    responses((status = 200, body = wire::Event, content_type = "text/event-stream"),
        (status = 400, body = wire::ProblemDetails), (status = 404, body = wire::ProblemDetails)))]
pub(super) async fn events(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
    connection: Option<Extension<Connection>>,
) -> Result<Response, Failure> {
    let Query(wanted) = wanted.map_err(|error| Failure::new(Code::BadRequest, error.body_text()))?;
    let run = api.run.as_millisecond();
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).or(wanted.since.as_deref());
    let after = last.map_or(0, |id| place_in_run(id, run));
    let backend = match &wanted.backend {
        Some(name) => Some(super::backends::find(&api.control, name)?.id().clone()),
        None => None,
    };
    let journal = api.control.journal().clone();
    if !wanted.follow {
        let (entries, _) = journal.since(after);
        let lines: String =
            entries.iter().filter(|entry| concerns(entry, backend.as_ref())).map(|entry| line(entry)).collect();
        return Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response());
    }
    let end = connection.map(|Extension(connection)| connection.end).unwrap_or_default();
    let tail = Tail::new(journal, after, backend, end);
    let chunks = stream::unfold(tail, move |mut tail| async move {
        let chunk = match tail.next().await? {
            Some(entry) => format!("id: {run}-{}\ndata: {}\n", entry.seq, line(&entry)),
            None => ":\n\n".to_owned(),
        };
        Some((Ok::<_, Infallible>(chunk), tail))
    });
    let head = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((head, Body::from_stream(chunks)).into_response())
}

/// The number after which to go on: that of the id when it is of this run, or a plain number.
fn place_in_run(id: &str, run: i64) -> u64 {
    match id.split_once('-') {
        Some((of, seq)) if of.parse() == Ok(run) => seq.parse().unwrap_or(0),
        Some(_) => 0,
        None => id.parse().unwrap_or(0),
    }
}

fn concerns(entry: &Entry, backend: Option<&BackendId>) -> bool {
    backend.is_none_or(|backend| entry.backend.as_ref() == Some(backend))
}

fn line(entry: &Entry) -> String {
    let mut line = serde_json::to_string(&wire::Event::from(entry)).unwrap_or_default();
    line.push('\n');
    line
}

/// The journal from a number on, without a gap for as long as it is kept.
struct Tail {
    journal: Journal,
    ready: VecDeque<Arc<Entry>>,
    coming: Receiver<Arc<Entry>>,
    last: u64,
    backend: Option<BackendId>,
    end: CancellationToken,
}

impl Tail {
    fn new(journal: Journal, after: u64, backend: Option<BackendId>, end: CancellationToken) -> Self {
        let (entries, coming) = journal.since(after);
        Self { journal, ready: entries.into(), coming, last: after, backend, end }
    }

    /// The next one, `Some(None)` after a while without any, `None` at the end.
    async fn next(&mut self) -> Option<Option<Arc<Entry>>> {
        loop {
            while let Some(entry) = self.ready.pop_front() {
                self.last = entry.seq;
                if concerns(&entry, self.backend.as_ref()) {
                    return Some(Some(entry));
                }
            }
            let come = tokio::select! {
                come = timeout(QUIET, self.coming.recv()) => come,
                () = self.end.cancelled() => return None,
            };
            match come {
                Ok(Ok(entry)) => self.ready.push_back(entry),
                // Too slow for the channel: what was missed is still in the journal.
                Ok(Err(RecvError::Lagged(_))) => {
                    let (entries, coming) = self.journal.since(self.last);
                    self.ready = entries.into();
                    self.coming = coming;
                }
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => return Some(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Cause, telemetry::Happening};

    fn note(journal: &Journal, text: &str) {
        journal.record(None, Happening::Note(text.to_owned()), Cause::Idle);
    }

    #[test]
    fn an_id_counts_in_its_own_run_only() {
        assert_eq!(place_in_run("17-5", 17), 5);
        assert_eq!(place_in_run("16-5", 17), 0);
        assert_eq!(place_in_run("5", 17), 5);
        assert_eq!(place_in_run("17-x", 17), 0);
        assert_eq!(place_in_run("", 17), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_misses_nothing_that_is_kept() {
        let journal = Journal::default();
        note(&journal, "first");
        let mut tail = Tail::new(journal.clone(), 0, None, CancellationToken::new());
        // More than the channel holds, fewer than the journal keeps.
        for _ in 0..3000 {
            note(&journal, "more");
        }
        for seq in 1..=3001 {
            assert_eq!(tail.next().await.unwrap().unwrap().seq, seq);
        }
        assert!(tail.next().await.unwrap().is_none(), "a sign of life");
        tail.end.cancel();
        assert!(tail.next().await.is_none());
    }
}
