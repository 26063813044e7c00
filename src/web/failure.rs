//! A wake that failed: why, in words that say nothing of names, and the page that shows it.

use std::time::Duration;

use super::{
    Language, Theme, WholePage,
    document::{MOUSE, SCRIPT, again, document_head, fields},
    escape::escape,
    words::fill,
};

/// Why a wake failed, as far as a stranger may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyFailed {
    /// It was not ready in time.
    TimedOut,
    /// The engine could not start it, or it ended at once, or it cools down after that.
    StartFailed,
    /// Too many are held already.
    TooMany,
    /// Its engine does not answer.
    EngineAway,
    /// A person put it to sleep meanwhile.
    PutToSleep,
    /// It was stopped by hand and is to stay so.
    StaysDown,
    /// Dormouse itself is ending.
    ShuttingDown,
}

/// A failed wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub why: WhyFailed,
    /// When the next try is allowed.
    pub retry_after: Option<Duration>,
}

/// Renders what a page load gets while a failed wake cools down, and what a browser without scripts comes to when
/// the wake it waited for has failed.
pub fn failed_page(title: &str, language: Language, failure: &Failure) -> WholePage {
    let words = language.words();
    let seconds = failure.retry_after.map_or(30, |wait| wait.as_secs_f64().ceil() as u64).max(1);
    let heading = escape(&fill(words.failed_heading, title));
    let head = document_head(language, Theme::Auto, &heading, "");
    let failed = failed_section(title, language, failure);
    WholePage {
        headers: fields(language, false, seconds),
        body: format!("{head}<body><main>{MOUSE}{failed}</main><script>{SCRIPT}</script>\n"),
    }
}

impl Failure {
    /// The plain reason, and when to come back.
    pub fn text(&self, language: Language) -> String {
        let words = language.words();
        let why = match self.why {
            WhyFailed::TimedOut => words.timed_out,
            WhyFailed::StartFailed => words.start_failed,
            WhyFailed::TooMany => words.too_many,
            WhyFailed::EngineAway => words.engine_away,
            WhyFailed::PutToSleep => words.put_to_sleep,
            WhyFailed::StaysDown => words.stays_down,
            WhyFailed::ShuttingDown => words.shutting_down,
        };
        match self.retry_after {
            None => why.to_owned(),
            Some(wait) => {
                let seconds = wait.as_secs_f64().ceil().max(1.0).to_string();
                format!("{why} {}", fill(words.retry_in, &seconds))
            }
        }
    }
}

/// The part of a page that tells it.
pub(super) fn failed_section(title: &str, language: Language, failure: &Failure) -> String {
    let words = language.words();
    format!(
        "<section id=\"failed\" role=\"alert\"><h1>{heading}</h1><p>{text}</p>{again}</section>",
        heading = escape(&fill(words.failed_heading, title)),
        text = escape(&failure.text(language)),
        again = again(words),
    )
}
