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

/// Path and query, the parameters as the rules say; what stands for a user before a host is redacted.
pub(super) fn target(text: &str, rules: &AccessRules) -> String {
    let (text, fragment) = text.split_once('#').map_or((text, None), |(text, rest)| (text, Some(rest)));
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    let mut out = String::with_capacity(text.len());
    match user_of(path) {
        Some((before, behind)) => [before, REDACTED, behind].iter().for_each(|part| out.push_str(part)),
        None => out.push_str(path),
    }
    let mut mark = '?';
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
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

/// What stands before the user, perhaps with a password, that an absolute target names, and what behind.
fn user_of(target: &str) -> Option<(&str, &str)> {
    let start = target.find("://").map_or(0, |at| at + 3);
    let (before, rest) = target.split_at_checked(start).filter(|_| !target.starts_with('/'))?;
    let authority = rest.split('/').next()?;
    let (_, behind) = rest.split_at_checked(authority.rfind('@')?)?;
    Some((before, behind))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_a_target_is_told() {
        for (text, told) in [
            ("/cb#access_token=geheim", "/cb#"),
            ("/cb?a=1#access_token=geheim", "/cb?a=1#"),
            ("http://alice:geheim@app.test/x@y?a=1", "http://REDACTED@app.test/x@y?a=1"),
            ("http://alice:ge@heim@app.test", "http://REDACTED@app.test"),
            ("alice:geheim@app.test:443", "REDACTED@app.test:443"),
            ("https://app.test/a@b", "https://app.test/a@b"),
            ("/http://a@b?c@d", "/http://a@b?c@d"),
            ("app.test:443", "app.test:443"),
            ("*", "*"),
        ] {
            assert_eq!(target(text, &AccessRules { default: AccessFate::Keep, named: Vec::new() }), told);
        }
    }
}
