//! Error answers: plain text, `application/problem+json` or HTML, as the client likes it.

use serde_json::json;

use super::{accept::weighted, escape::escape};

/// A rendered answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// The `Content-Security-Policy`, for HTML.
    pub policy: Option<String>,
    /// The body.
    pub body: String,
}

const STYLE: &str = ":root{color-scheme:light dark;--paper:#f6f1e7;--ink:#3b3028;--soft:#6f6257}@media(prefers-color-scheme:dark){:root{--paper:#1d1a20;--ink:#ece3d8;--soft:#a3968b}}body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--paper);color:var(--ink);font:1rem/1.55 system-ui,sans-serif;text-align:center}h1{font-size:1.4rem;font-weight:600;margin:0 1.5rem .35rem}p{color:var(--soft);margin:0 1.5rem}";
const STYLE_HASH: &str = "sha256-6jsyq0wOsMyj9GVxA72mhoLl9ddTTTx+1J/rCPbaNqY=";

/// Renders an error. `accept` is the client's header, empty when there is none; `reason` is a short public text
/// without names, paths or addresses.
pub fn error_body(status: u16, accept: &str, reason: Option<&str>) -> ErrorBody {
    let title = status_phrase(status);
    match Kind::choose(accept) {
        Kind::Plain => ErrorBody {
            content_type: "text/plain; charset=utf-8",
            policy: None,
            body: match reason {
                Some(reason) => format!("{status} {title}: {reason}\n"),
                None => format!("{status} {title}\n"),
            },
        },
        Kind::Json => {
            let mut problem = json!({ "type": "about:blank", "title": title, "status": status });
            if let (Some(reason), Some(fields)) = (reason, problem.as_object_mut()) {
                fields.insert("detail".to_owned(), json!(reason));
            }
            ErrorBody { content_type: "application/problem+json", policy: None, body: format!("{problem}\n") }
        }
        Kind::Html => ErrorBody {
            content_type: "text/html; charset=utf-8",
            policy: Some(format!("default-src 'none'; style-src '{STYLE_HASH}'; base-uri 'none'; form-action 'none'")),
            body: format!(
                "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status} {title}</title>\
                 <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\
                 <body><main><h1>{status} {title}</h1><p>{}</p></main></body></html>\n",
                escape(reason.unwrap_or_default())
            ),
        },
    }
}

/// Whether a client would be shown an error as HTML.
pub fn likes_html(accept: &str) -> bool {
    Kind::choose(accept) == Kind::Html
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Json,
    Html,
}

impl Kind {
    /// Plain text unless the client names another type and does not like plain text better.
    fn choose(accept: &str) -> Self {
        let (mut html, mut json, mut plain) = (0, 0, 0);
        for (name, weight) in weighted(accept) {
            let best = match name.to_ascii_lowercase().as_str() {
                "text/html" | "application/xhtml+xml" => &mut html,
                "application/problem+json" | "application/json" => &mut json,
                "text/plain" => &mut plain,
                _ => continue,
            };
            *best = weight.max(*best);
        }
        if html > 0 && html >= json.max(plain) {
            Self::Html
        } else if json > 0 && json >= plain {
            Self::Json
        } else {
            Self::Plain
        }
    }
}

/// The phrase of a status that we use or that a configuration may prescribe (RFC 9110 section 15; RFC 6585; RFC 5842).
pub fn status_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        200..=299 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        300..=399 => "Redirect",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_kind_follows_accept() {
        for (accept, expected) in [
            ("", Kind::Plain),
            ("*/*", Kind::Plain),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Kind::Html),
            ("application/json, text/plain, */*", Kind::Json),
            ("text/html;q=0.2, application/problem+json", Kind::Json),
            ("text/plain, application/json;q=0.5", Kind::Plain),
            ("TEXT/HTML", Kind::Html),
            ("text/html;q=0", Kind::Plain),
            ("image/avif,image/*", Kind::Plain),
        ] {
            assert_eq!(Kind::choose(accept), expected, "{accept}");
        }
    }

    #[test]
    fn redirects_have_the_phrases_of_the_standard() {
        let told = [301, 302, 303, 304, 307, 308].map(status_phrase);
        let standard = ["Moved Permanently", "Found", "See Other", "Not Modified"];
        assert_eq!(told[..4], standard);
        assert_eq!(told[4..], ["Temporary Redirect", "Permanent Redirect"]);
    }

    #[test]
    fn each_kind_holds_status_and_reason() {
        let plain = error_body(503, "*/*", Some("it could not be started"));
        assert_eq!(plain.body, "503 Service Unavailable: it could not be started\n");
        assert_eq!(error_body(404, "", None).body, "404 Not Found\n");
        let json = error_body(504, "application/json", Some("not \"ready\""));
        assert_eq!(
            json.body,
            "{\"type\":\"about:blank\",\"title\":\"Gateway Timeout\",\"status\":504,\"detail\":\"not \\\"ready\\\"\"}\n"
        );
        assert_eq!(json.content_type, "application/problem+json");
        let html = error_body(502, "text/html", Some("<script>"));
        assert!(html.body.contains("<h1>502 Bad Gateway</h1><p>&lt;script&gt;</p>"), "{}", html.body);
    }

    #[test]
    fn the_policy_of_the_page_allows_its_own_style() {
        let digest = Sha256::digest(STYLE.as_bytes());
        let expected = STYLE_HASH.strip_prefix("sha256-").unwrap();
        assert_eq!(crate::web::document::base64(&digest), expected);
        let page = error_body(502, "text/html", None);
        assert!(page.policy.unwrap().contains(STYLE_HASH) && page.body.contains(&format!("<style>{STYLE}</style>")));
    }
}
