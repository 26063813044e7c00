//! The waiting page's stream of server-sent events.

use std::time::Duration;

use serde_json::json;

use super::{DependencyView, Failure, Language, words::fill};

/// How far a wake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It waits for its turn.
    Queued,
    /// Its owner has paused it, which is respected for a while.
    Paused,
    /// What it needs is being woken.
    Dependencies,
    /// The engine was asked to start it.
    Starting,
    /// It runs and is not ready yet.
    Checking,
}

/// What the page tells of a wake.
#[derive(Debug, Clone)]
pub struct Progress<'a> {
    /// How far it is.
    pub phase: Phase,
    /// How long it has been waking.
    pub elapsed: Duration,
    /// How long it usually takes.
    pub expected: Option<Duration>,
    /// What is being woken before it.
    pub dependencies: &'a [DependencyView],
}

impl Progress<'_> {
    /// The one line that says it.
    pub(super) fn status(&self, language: Language) -> String {
        let words = language.words();
        if self.expected.is_some_and(|expected| self.elapsed > expected + expected / 2) {
            return words.longer.to_owned();
        }
        match self.phase {
            Phase::Queued => words.queued.to_owned(),
            Phase::Paused => words.paused.to_owned(),
            Phase::Dependencies => words.needs.to_owned(),
            Phase::Starting => format!("{} {}", words.starting, language.usual(self.expected)),
            Phase::Checking if self.expected.is_some_and(|expected| self.elapsed < expected / 2) => {
                format!("{} {}", words.starting, language.usual(self.expected))
            }
            Phase::Checking => words.checking.to_owned(),
        }
    }
}

impl DependencyView {
    /// The line that says it.
    pub(super) fn line(&self, language: Language) -> String {
        let words = language.words();
        fill(if self.ready { words.dependency_ready } else { words.dependency_waking }, &self.title)
    }
}

/// The event that tells of progress. Sent at the start of the stream and after each change.
pub fn progress_event(progress: &Progress<'_>, language: Language) -> String {
    let dependencies: Vec<String> = progress.dependencies.iter().map(|one| one.line(language)).collect();
    let data = json!({ "status": progress.status(language), "dependencies": dependencies });
    format!("retry: 1000\nevent: progress\ndata: {data}\n\n")
}

/// The event that sends the page to the app. Nothing follows it.
pub fn ready_event() -> &'static str {
    "event: ready\ndata: {}\n\n"
}

/// The event that tells of a failure. Nothing follows it.
pub fn failed_event(failure: &Failure, language: Language) -> String {
    format!("event: failed\ndata: {}\n\n", json!({ "status": failure.text(language) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::WhyFailed;

    fn status(phase: Phase, elapsed: u64, expected: Option<u64>) -> String {
        let expected = expected.map(Duration::from_secs);
        Progress { phase, elapsed: Duration::from_secs(elapsed), expected, dependencies: &[] }.status(Language::English)
    }

    #[test]
    fn the_status_follows_phase_and_time() {
        assert_eq!(status(Phase::Starting, 0, Some(4)), "Starting. Usually ready in about 4 s.");
        assert_eq!(status(Phase::Checking, 1, Some(4)), "Starting. Usually ready in about 4 s.");
        assert_eq!(status(Phase::Checking, 3, Some(4)), "Almost there.");
        assert_eq!(status(Phase::Checking, 7, Some(4)), "It takes a little longer than usual.");
        assert_eq!(status(Phase::Paused, 0, Some(4)), "It was paused by its owner, and goes on within half a minute.");
        assert_eq!(status(Phase::Queued, 0, None), "Waiting for others that are waking up first.");
    }

    #[test]
    fn an_event_is_one_line_of_json_whatever_the_titles_hold() {
        let dependencies = [
            DependencyView { title: "Data\nbase \"x\"".into(), ready: true },
            DependencyView { title: "Cache".into(), ready: false },
        ];
        let progress = Progress {
            phase: Phase::Dependencies,
            elapsed: Duration::ZERO,
            expected: None,
            dependencies: &dependencies,
        };
        let event = progress_event(&progress, Language::German);
        let lines: Vec<&str> = event.lines().collect();
        assert_eq!(lines[1], "event: progress");
        let data: serde_json::Value = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["dependencies"][0], "Data\nbase \"x\" ist wach");
        assert_eq!(data["dependencies"][1], "Cache wacht auf");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_failure_says_why_and_when_to_come_back() {
        let failure = Failure { why: WhyFailed::StartFailed, retry_after: Some(Duration::from_millis(4100)) };
        assert_eq!(
            failed_event(&failure, Language::English),
            "event: failed\ndata: {\"status\":\"It could not be started. The next try is possible in 5 s.\"}\n\n"
        );
    }
}
