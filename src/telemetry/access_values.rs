//! Values of the access log as they are written: cut where they are long, escaped, and as far as the rules keep them.

use std::{borrow::Cow, fmt::Write, time::Duration};

use crate::model::{AccessFate, AccessRules, without_escapes};

/// Of a text that a client chose, so many bytes are written down.
pub(super) const LONGEST: usize = 4096;

/// What stands where a value was.
pub(super) const REDACTED: &str = "REDACTED";

/// Fields of one kind, when any is written down.
pub(super) fn object<'a>(
    out: &mut String,
    key: &str,
    fields: impl Iterator<Item = (&'a str, Cow<'a, str>)>,
    rules: &AccessRules,
) {
    if rules.default == AccessFate::Drop && rules.named.iter().all(|(_, fate)| *fate == AccessFate::Drop) {
        return;
    }
    let _ = write!(out, ",\"{key}\":{{");
    let mut seen: Vec<&str> = Vec::new();
    for (name, value) in fields {
        let fate = rules.fate(name);
        // A key of an object is there once: the first of several counts.
        if fate == AccessFate::Drop || seen.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            continue;
        }
        if !seen.is_empty() {
            out.push(',');
        }
        seen.push(name);
        string(out, &name.to_ascii_lowercase());
        out.push(':');
        string(out, if fate == AccessFate::Redact { REDACTED } else { &value });
    }
    out.push('}');
}

/// Path and query, the parameters as the rules say.
pub(super) fn target(text: &str, rules: &AccessRules) -> String {
    let Some((path, query)) = text.split_once('?') else { return text.to_owned() };
    let (query, fragment) = query.split_once('#').map_or((query, None), |(query, rest)| (query, Some(rest)));
    let mut out = String::with_capacity(text.len());
    out.push_str(path);
    let mut mark = '?';
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value)));
        // As its reader sees it: `%74oken` is `token`.
        let fate = rules.fate(&String::from_utf8_lossy(&without_escapes(name)));
        if fate == AccessFate::Drop {
            continue;
        }
        out.push(mark);
        mark = '&';
        out.push_str(name);
        if let Some(value) = value {
            out.push('=');
            out.push_str(if fate == AccessFate::Redact { REDACTED } else { value });
        }
    }
    // What stands behind a `#` may hold tokens, and tells nothing of the request.
    if fragment.is_some() {
        out.push('#');
    }
    out
}

pub(super) fn millis(time: Duration) -> String {
    let micros = time.as_micros();
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

/// Inside quotes: what is not plain ASCII is written as `\xHH`.
pub(super) fn quoted(out: &mut String, text: &[u8]) {
    for byte in text.iter().take(LONGEST) {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f..=0xff => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            plain => out.push(char::from(*plain)),
        }
    }
    if text.len() > LONGEST {
        out.push_str("...");
    }
}

/// A value without quotes; `-` for nothing.
pub(super) fn word(out: &mut String, text: &str) {
    if text.is_empty() {
        out.push('-');
    }
    for byte in text.bytes().take(LONGEST) {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "\\x{byte:02X}");
        }
    }
}

/// A string of JSON in plain ASCII, so that nothing in it acts on a terminal either.
pub(super) fn string(out: &mut String, text: &str) {
    out.push('"');
    let mut units = [0; 2];
    for (at, character) in text.char_indices() {
        if at >= LONGEST {
            out.push_str("...");
            break;
        }
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(character),
            other => {
                for unit in other.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}
