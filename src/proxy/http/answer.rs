//! What we say ourselves: refusals and errors, in the form that the client asks for. Never a path, a name or an
//! address of what is behind us.

use std::{borrow::Cow, fmt::Write, time::Duration};

use crate::{
    model::ErrorPages,
    web::{self, ErrorBody},
};

use super::{bad_request::BadRequest, request_head::RequestHead, tell::add_wanted};

/// What is told of a backend whose answer can not be passed on.
pub(super) const MALFORMED: &str = "The service answered with a malformed response.";

/// What is told of a request's body that is larger than the route takes.
pub(super) const TOO_LARGE: &str = "The request's body is too large.";

/// What is said to a body that breaks the rules of its coding.
pub(super) const MALFORMED_BODY: &str = "The request's body is malformed.";

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) detail: Cow<'static, str>,
    pub(super) retry_after: Option<Duration>,
    /// Where to go instead.
    pub(super) location: Option<String>,
    /// A body that somebody prescribes, instead of ours.
    pub(super) body: Option<String>,
    /// More header fields.
    pub(super) fields: Vec<(String, String)>,
}

impl Answer {
    pub(super) fn new(status: u16, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), retry_after: None, location: None, body: None, fields: Vec::new() }
    }

    pub(super) fn retry_after(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.retry_after = after.into();
        self
    }

    /// The same as a page that there is for it, for those who like HTML best. What somebody prescribes stays.
    pub(super) fn as_page(&self, pages: &ErrorPages, head: &RequestHead) -> Option<Self> {
        let liked = self.body.is_none() && web::likes_html(head.get("accept").unwrap_or_default());
        let page = pages.of(self.status).filter(|_| liked)?;
        let mut answer = Self { body: Some(page.to_owned()), ..self.clone() };
        answer.fields.push(("Content-Type".to_owned(), "text/html; charset=utf-8".to_owned()));
        Some(answer)
    }

    /// Writes it as a response. `head` is missing when the request could not be read.
    pub(super) fn write(&self, head: Option<&RequestHead>, keep_alive: bool) -> Vec<u8> {
        self.write_with(head, keep_alive, &[])
    }

    /// The same, with header fields that its route wants, where nothing is said under their names.
    pub(super) fn write_with(
        &self,
        head: Option<&RequestHead>,
        keep_alive: bool,
        wanted: &[(String, String)],
    ) -> Vec<u8> {
        let accept = head.and_then(|head| head.get("accept")).unwrap_or_default();
        let ErrorBody { content_type, policy, body } = match &self.body {
            Some(body) => ErrorBody { content_type: "text/plain; charset=utf-8", policy: None, body: body.clone() },
            None => web::error_body(self.status, accept, Some(&self.detail)),
        };
        let mut out = String::with_capacity(body.len() + 256);
        let _ = write!(out, "HTTP/1.1 {} {}\r\n", self.status, web::status_phrase(self.status));
        // What has no body says nothing of one.
        let body = if self.status == 204 { String::new() } else { body };
        if self.status != 204 {
            let own = self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
            if !own {
                let _ = write!(out, "Content-Type: {content_type}\r\n");
            }
            let _ = write!(out, "Content-Length: {}\r\n", body.len());
        }
        out.push_str("Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
        if let Some(policy) = policy {
            let _ = write!(out, "Content-Security-Policy: {policy}\r\n");
        }
        if let Some(after) = self.retry_after {
            // Rounded up: coming too early is in vain.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            let _ = write!(out, "Retry-After: {}\r\n", seconds.max(1));
        }
        for (name, value) in &self.fields {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        if let Some(location) = &self.location {
            let _ = write!(out, "Location: {location}\r\n");
        }
        if self.status == 405 {
            out.push_str("Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
        }
        add_wanted(&mut out, wanted);
        match (keep_alive, head.is_some_and(|head| !head.is_11)) {
            (false, _) => out.push_str("Connection: close\r\n"),
            (true, true) => out.push_str("Connection: keep-alive\r\n"),
            (true, false) => {}
        }
        out.push_str("\r\n");
        if head.is_none_or(|head| head.method() != "HEAD") {
            out.push_str(&body);
        }
        out.into_bytes()
    }
}

impl From<BadRequest> for Answer {
    fn from(bad: BadRequest) -> Self {
        Self::new(bad.status(), bad.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_when_to_come_back_and_ends_the_connection() {
        let answer = Answer::new(503, "The service sleeps.").retry_after(Duration::from_millis(4200));
        let plain = String::from_utf8(answer.write(None, false)).unwrap();
        assert!(plain.starts_with("HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain"), "{plain}");
        assert!(plain.contains("\r\nRetry-After: 5\r\n"), "{plain}");
        assert!(plain.contains("\r\nConnection: close\r\n"), "{plain}");
        assert!(plain.ends_with("\r\n\r\n503 Service Unavailable: The service sleeps.\n"), "{plain}");
    }

    #[test]
    fn a_prescribed_body_is_sent_as_it_is() {
        let answer = Answer { body: Some("asleep".into()), ..Answer::new(200, "") };
        let text = String::from_utf8(answer.write(None, true)).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n")
                && text.ends_with(
                    "\r\nContent-Length: 6\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\nasleep"
                ),
            "{text}"
        );
    }
}
