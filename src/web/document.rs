//! What all pages of the waiting page's kind share: their look, the head of the document, the fields of the response.

use super::{Language, words::Words};

/// Light or dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Theme {
    /// As the browser prefers.
    #[default]
    Auto,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

/// Fields of a response: all but those of its framing.
pub type Headers = Vec<(&'static str, String)>;

/// A rendered page whose body is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholePage {
    /// The fields.
    pub headers: Headers,
    /// The body.
    pub body: String,
}

pub(super) const STYLE: &str = include_str!("assets/waiting.css");
pub(super) const MOUSE: &str = include_str!("assets/mouse.svg");
pub(super) const SCRIPT: &str = include_str!("assets/waiting.js");
pub(super) const HIDE: &str = "#waiting{display:none}";

// Hashes rather than nonces: the texts are constants. A test compares them with the texts.
pub(super) const STYLE_HASH: &str = "sha256-Cm+SfTeAtmDzKKnYIijMO5HYAT1CwJ7ICvhW6SH8H84=";
pub(super) const HIDE_HASH: &str = "sha256-kuXKjfIwnbwAa2JyMZOBUpERC/aOE40sOvJ25R7Pd7A=";
pub(super) const SCRIPT_HASH: &str = "sha256-6x5tb6PYjv4eR5jKM7C+x8eqzKFXnxZzwnkQfHyjCKM=";

/// An icon, so that the browser does not ask the sleeping app for one.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cg fill='%23c7935f'%3E%3Ccircle cx='8' cy='9.500' r='6'/%3E%3Ccircle cx='3.500' cy='4' r='3'/%3E%3Ccircle cx='12.500' cy='4' r='3'/%3E%3C/g%3E%3Cpath d='M4.500 9q1.200 1.200 2.500 0M9 9q1.200 1.200 2.500 0' stroke='%234a3526' fill='none'/%3E%3C/svg%3E";

/// The fields of a page, whose styles may be its own when it is an own template.
pub(super) fn fields(language: Language, own_template: bool, retry_after: u64) -> Headers {
    let (style, images) = if own_template {
        // An own page is the administrator's word: its styles may be inline. Scripts stay ours.
        ("'unsafe-inline'".to_owned(), "img-src data: https:; font-src data: https:")
    } else {
        (format!("'{STYLE_HASH}' '{HIDE_HASH}'"), "img-src data:")
    };
    // No `frame-ancestors`: dashboards show apps in frames, and there is nothing here to trick anyone into.
    let policy = format!(
        "default-src 'none'; style-src {style}; {images}; script-src '{SCRIPT_HASH}'; connect-src 'self'; \
         frame-src 'self'; base-uri 'none'; form-action 'none'"
    );
    vec![
        ("Content-Type", "text/html; charset=utf-8".to_owned()),
        ("Content-Language", language.tag().to_owned()),
        ("Cache-Control", "no-store".to_owned()),
        ("Retry-After", retry_after.to_string()),
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff".to_owned()),
        ("Referrer-Policy", "same-origin".to_owned()),
        ("X-Robots-Tag", "noindex".to_owned()),
        // Other proxies in front must not gather the page before they pass it on.
        ("X-Accel-Buffering", "no".to_owned()),
    ]
}

/// The document up to its body. `more` goes into the head.
pub(super) fn document_head(language: Language, theme: Theme, heading: &str, more: &str) -> String {
    let class = match theme {
        Theme::Auto => "",
        Theme::Light => " class=\"light\"",
        Theme::Dark => " class=\"dark\"",
    };
    format!(
        "<!doctype html><html lang=\"{lang}\"{class}><head><meta charset=\"utf-8\"><title>{heading}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"icon\" href=\"{ICON}\">{more}\
         <style>{STYLE}</style></head>",
        lang = language.tag(),
    )
}

/// The way to try again. The empty address is the page's own one.
pub(super) fn again(words: &Words) -> String {
    format!("<a class=\"again\" href=\"\">{}</a>", words.retry)
}

/// Base 64, for the tests of hashes in policies.
#[cfg(test)]
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[((bits >> (18 - 6 * place)) & 63) as usize] as char;
            out.push(if place <= chunk.len() { digit } else { '=' });
        }
    }
    out
}
