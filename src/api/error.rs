//! Errors as they are answered: problem details with a stable code.

use axum::{
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use super::wire;
use crate::model::Problems;

/// What went wrong, as a word that does not change. Clients branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The `Host` is no loopback name.
    HostNotAllowed,
    /// A web page of another origin asks.
    OriginNotAllowed,
    /// There is nothing at this path.
    NoSuchPath,
    /// The path is not asked with this method.
    MethodNotAllowed,
    /// No backend is meant by this name, or more than one.
    NoSuchBackend,
    /// No listed container has this name.
    NoSuchContainer,
    /// The body or a parameter is not understood.
    BadRequest,
    /// The body is longer than is read.
    BodyTooLarge,
    /// The order was not carried out, for the reason in `detail`.
    Denied,
    /// The configuration has errors; they are in `problems`. What runs is as before.
    ConfigurationRefused,
    /// The order holds, and could not be written down: it is lost when Dormouse ends.
    NotKept,
    /// Dormouse is ending.
    Ending,
    /// A fault in Dormouse ended what was asked for.
    Fault,
}

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct Failure {
    code: Code,
    detail: String,
    hint: Option<String>,
    problems: Vec<wire::Problem>,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 13] = [
        Self::HostNotAllowed,
        Self::OriginNotAllowed,
        Self::NoSuchPath,
        Self::MethodNotAllowed,
        Self::NoSuchBackend,
        Self::NoSuchContainer,
        Self::BadRequest,
        Self::BodyTooLarge,
        Self::Denied,
        Self::ConfigurationRefused,
        Self::NotKept,
        Self::Ending,
        Self::Fault,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HostNotAllowed => "host_not_allowed",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::NoSuchPath => "no_such_path",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NoSuchBackend => "no_such_backend",
            Self::NoSuchContainer => "no_such_container",
            Self::BadRequest => "bad_request",
            Self::BodyTooLarge => "body_too_large",
            Self::Denied => "denied",
            Self::ConfigurationRefused => "configuration_refused",
            Self::NotKept => "not_kept",
            Self::Ending => "ending",
            Self::Fault => "fault",
        }
    }

    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::HostNotAllowed | Self::OriginNotAllowed => StatusCode::FORBIDDEN,
            Self::NoSuchPath | Self::NoSuchBackend | Self::NoSuchContainer => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Denied => StatusCode::CONFLICT,
            Self::ConfigurationRefused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotKept => StatusCode::INSUFFICIENT_STORAGE,
            Self::Ending => StatusCode::SERVICE_UNAVAILABLE,
            Self::Fault => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::HostNotAllowed => "host not allowed",
            Self::OriginNotAllowed => "origin not allowed",
            Self::NoSuchPath => "no such path",
            Self::MethodNotAllowed => "method not allowed",
            Self::NoSuchBackend => "no such backend",
            Self::NoSuchContainer => "no such container",
            Self::BadRequest => "request not understood",
            Self::BodyTooLarge => "body too large",
            Self::Denied => "order denied",
            Self::ConfigurationRefused => "configuration refused",
            Self::NotKept => "order not written down",
            Self::Ending => "Dormouse is ending",
            Self::Fault => "fault in Dormouse",
        }
    }
}

impl Failure {
    /// An error with its particulars.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), hint: None, problems: Vec::new() }
    }

    /// The same error with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The errors of a configuration.
    pub fn refused(problems: &Problems) -> Self {
        let mut failure = Self::new(Code::ConfigurationRefused, "the configuration has errors; what runs is as before");
        failure.problems = problems.0.iter().map(wire::Problem::from).collect();
        failure
    }
}

/// Adds the known `node/name`s that look most like what was asked for, at most three.
pub(super) fn suggest(failure: Failure, asked: &str, known: &[String]) -> Failure {
    // By the name alone: a node is seldom misspelt, and its likeness would hide that of the name.
    let name = |id: &str| id.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let asked = name(asked);
    let likeness = |id: &String| strsim::jaro_winkler(&asked, &name(id));
    let mut ranked: Vec<(f64, &String)> = known.iter().map(|id| (likeness(id), id)).collect();
    ranked.retain(|(likeness, _)| *likeness > 0.75);
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<String> = ranked.into_iter().take(3).map(|(_, id)| format!("`{id}`")).collect();
    if near.is_empty() { failure } else { failure.with_hint(format!("did you mean {}?", near.join(" or "))) }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let details = wire::ProblemDetails {
            kind: "about:blank".to_owned(),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            code: self.code.as_str().to_owned(),
            detail: self.detail,
            hint: self.hint,
            problems: self.problems,
        };
        let body = serde_json::to_vec(&details).unwrap_or_default();
        (self.code.status(), [(CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_words() {
        let mut words: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| code.status().as_u16() >= 400));
    }
}
