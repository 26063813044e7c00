//! What we say ourselves: refusals and errors, in the form that the client asks for. Never a path, a name or an
//! address of what is behind us.

use std::{borrow::Cow, fmt::Write, time::Duration};

use super::request_head::{BadRequest, RequestHead};

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) detail: Cow<'static, str>,
    pub(super) retry_after: Option<Duration>,
    /// A body that the configuration prescribes, instead of ours.
    pub(super) body: Option<String>,
}

impl Answer {
    pub(super) fn new(status: u16, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), retry_after: None, body: None }
    }

    pub(super) fn retry_after(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.retry_after = after.into();
        self
    }

    /// Writes it as a response. `head` is missing when the request could not be read.
    pub(super) fn write(&self, head: Option<&RequestHead>, keep_alive: bool) -> Vec<u8> {
        let (kind, body) = match &self.body {
            Some(body) => ("text/plain; charset=utf-8", body.clone()),
            None => self.body(head.and_then(|head| head.get("accept")).unwrap_or_default()),
        };
        let mut out = String::with_capacity(body.len() + 256);
        let _ = write!(out, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let _ = write!(out, "Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        out.push_str("Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
        if kind.starts_with("text/html") {
            out.push_str("Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n");
        }
        if let Some(after) = self.retry_after {
            // Rounded up: coming too early is in vain.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            let _ = write!(out, "Retry-After: {}\r\n", seconds.max(1));
        }
        if self.status == 405 {
            out.push_str("Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
        }
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

    fn body(&self, accept: &str) -> (&'static str, String) {
        let (status, title, detail) = (self.status, reason(self.status), escape(&self.detail));
        let accept = accept.to_ascii_lowercase();
        if accept.contains("text/html") {
            let page = format!(
                "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{status} {title}</title>\
                 <style>body{{font:16px system-ui;margin:15vh auto;max-width:32em;padding:0 1em}}</style>\
                 <h1>{status} {title}</h1><p>{detail}</p></html>\n"
            );
            ("text/html; charset=utf-8", page)
        } else if accept.contains("json") {
            let json =
                serde_json::json!({"type": "about:blank", "status": status, "title": title, "detail": self.detail});
            ("application/problem+json", format!("{json}\n"))
        } else {
            ("text/plain; charset=utf-8", format!("{status} {title}: {}\n", self.detail))
        }
    }
}

impl From<BadRequest> for Answer {
    fn from(bad: BadRequest) -> Self {
        Self::new(bad.status(), bad.to_string())
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The phrase of a status that we use or that a configuration may prescribe.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        200..=299 => "OK",
        300..=399 => "Redirect",
        400..=499 => "Client Error",
        _ => "Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_follows_accept() {
        let answer = Answer::new(503, "the <service> sleeps").retry_after(Duration::from_millis(4200));
        let plain = String::from_utf8(answer.write(None, false)).unwrap();
        assert!(plain.starts_with("HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain"), "{plain}");
        assert!(plain.contains("\r\nRetry-After: 5\r\n"), "{plain}");
        assert!(plain.contains("\r\nConnection: close\r\n"), "{plain}");
        assert!(plain.ends_with("503 Service Unavailable: the <service> sleeps\n"), "{plain}");
        assert!(answer.body("text/html,*/*").1.contains("the &lt;service&gt; sleeps"));
        let (kind, json) = answer.body("application/json");
        assert_eq!(kind, "application/problem+json");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["detail"], "the <service> sleeps");
    }
}
