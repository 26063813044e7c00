//! What was tried for a request, and whether it is tried once more.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    proxy::dialling::{DIAL_PATIENCE, dial_pause},
    telemetry::UpstreamError,
};

use super::{
    answer::{Answer, MALFORMED, MALFORMED_BODY, TOO_LARGE},
    attempt::{Failure, Fault, Job, Way},
    bad_request::BadRequest,
};

/// A request that the service refuses unseen is sent once more so often.
const REFUSALS: u32 = 5;

/// What was tried so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// The next connection must be a fresh one.
    pub(super) fresh: bool,
    /// A dead pooled connection was met.
    stale: bool,
    /// A fresh connection ended without an answer.
    silent: bool,
    /// So often the service has refused it unseen.
    refused: u32,
    /// Since when no connection comes about.
    dialling: Option<Instant>,
    count: u32,
}

/// What becomes of a request after a try that failed.
pub(super) enum Verdict {
    /// It is tried again after this pause.
    Again(Duration),
    /// Its client is told.
    Say(Answer),
    /// Its client has left.
    Left,
}

impl Tries {
    /// Nothing was tried yet.
    pub(super) fn is_first(&self) -> bool {
        self.count == 0
    }

    /// Takes note of a failure, and says what follows from it.
    pub(super) fn after(&mut self, failure: &Failure, job: &Job<'_>, way: &Way) -> Verdict {
        let safe = failure.written == 0 || job.head.may_be_repeated();
        let settling =
            job.route.backend.as_ref().is_some_and(|backend| way.settles_at(backend.policy().settle).is_some());
        self.count += 1;
        let pause = dial_pause(self.count);
        if !failure.fault.is_of_client() {
            tracing::debug!(route = %job.route.spec.alias, fault = ?failure.fault, reused = failure.reused, "try failed");
        }
        let counted = |kind, answer| {
            job.route.counters.upstream_failed(kind);
            Verdict::Say(answer)
        };
        match &failure.fault {
            Fault::ClientLeft => Verdict::Left,
            Fault::ClientBad => Verdict::Say(Answer::new(400, MALFORMED_BODY)),
            Fault::ClientTooMuch => Verdict::Say(Answer::new(413, TOO_LARGE)),
            Fault::HeadTooLarge => Verdict::Say(BadRequest::HeadTooLarge.into()),
            Fault::ClientSlow => Verdict::Say(Answer::new(408, "The request's body did not come in time.")),
            Fault::Dial(error) => {
                let since = *self.dialling.get_or_insert_with(Instant::now);
                job.client.worker.pool.forget(way.at);
                if let Some(backend) = &job.route.backend {
                    backend.suspect();
                    if settling || since.elapsed() < DIAL_PATIENCE {
                        return Verdict::Again(pause);
                    }
                } else {
                    job.client.worker.names.forget();
                }
                let late = error.kind() == std::io::ErrorKind::TimedOut;
                counted(
                    UpstreamError::Connect,
                    Answer::new(if late { 504 } else { 502 }, "The service can not be reached."),
                )
            }
            Fault::Tls(error) => {
                tracing::warn!(
                    route = %job.route.spec.alias,
                    "no TLS to the service: {error} (hint: {})", error.hint()
                );
                counted(UpstreamError::Connect, Answer::new(502, "The service can not be reached safely."))
            }
            Fault::Silent if failure.reused && safe && !self.stale => {
                (self.stale, self.fresh) = (true, true);
                Verdict::Again(Duration::ZERO)
            }
            Fault::Silent if safe && settling => Verdict::Again(pause),
            Fault::Silent if safe && !self.silent && job.route.backend.is_some() => {
                if let Some(backend) = &job.route.backend {
                    backend.suspect();
                }
                (self.silent, self.fresh) = (true, true);
                Verdict::Again(pause)
            }
            Fault::Refused if safe && (settling || self.refused < REFUSALS) => {
                self.refused += 1;
                Verdict::Again(if self.refused == 1 { Duration::ZERO } else { pause })
            }
            Fault::Refused => counted(UpstreamError::Closed, Answer::new(502, "The service refused the request.")),
            Fault::NoUpgrade => counted(
                UpstreamError::Malformed,
                Answer::new(502, "The service speaks HTTP/2, and takes no such upgrade over it."),
            ),
            Fault::Crowded => {
                Verdict::Say(Answer::new(503, "The service is busy.").retry_after(Duration::from_secs(1)))
            }
            Fault::HalfStarted => Verdict::Again(pause),
            Fault::Unwanted(pause) => Verdict::Again(*pause),
            Fault::Silent => {
                counted(UpstreamError::Closed, Answer::new(502, "The service ended the connection without an answer."))
            }
            Fault::Late => counted(UpstreamError::Timeout, Answer::new(504, "The service did not answer in time.")),
            Fault::Cut => counted(UpstreamError::Closed, Answer::new(502, MALFORMED)),
            Fault::Bad(_) => counted(UpstreamError::Malformed, Answer::new(502, MALFORMED)),
        }
    }
}
