//! Paths in one spelling: characters that never need an escape mean the same with one (RFC 3986, 6.2.2.2).

use std::borrow::Cow;

use crate::model::escaped_byte;

/// The path with the escapes of letters, digits, `-`, `.`, `_` and `~` undone; other escapes stay as they are.
pub fn plain_path(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let (mut plain, mut rest) = (String::with_capacity(path.len()), path);
    while let Some((before, _)) = rest.split_once('%') {
        plain.push_str(before);
        rest = rest.get(before.len()..).unwrap_or_default();
        let (read, length) = unit(rest.as_bytes()).unwrap_or((b'%', 1));
        plain.push(char::from(read));
        rest = rest.get(length..).unwrap_or_default();
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// The path with one slash in the place of several.
pub(super) fn single_slashes(path: &str) -> String {
    let mut single = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !single.ends_with('/') {
            single.push(character);
        }
    }
    single
}

/// What follows a prefix in a path, as it was written, whatever the spelling of the prefix in both.
pub fn behind_prefix<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    if let Some(rest) = path.strip_prefix(prefix) {
        return Some(rest);
    }
    if !path.contains('%') && !prefix.contains('%') && !path.contains("//") {
        return None;
    }
    let (mut rest, mut wanted) = (path.as_bytes(), prefix.as_bytes());
    while let Some((byte, length)) = unit(wanted) {
        let (found, taken) = unit(rest)?;
        if found != byte {
            return None;
        }
        (rest, wanted) = (rest.get(taken..)?, wanted.get(length..)?);
        // Several slashes are one, unless several are wanted.
        while byte == b'/' && rest.first() == Some(&b'/') && wanted.first() != Some(&b'/') && !wanted.is_empty() {
            rest = rest.get(1..)?;
        }
    }
    path.get(path.len() - rest.len()..)
}

/// What comes first, and how many bytes it is written with.
fn unit(text: &[u8]) -> Option<(u8, usize)> {
    let needs_none = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let plain = escaped_byte(text).filter(needs_none).map(|byte| (byte, 3));
    plain.or_else(|| text.first().map(|byte| (*byte, 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_no_escape_loses_it() {
        for (path, plain) in [
            ("/admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/%41%5A%7e%2D%5f%30", "/AZ~-_0"),
            ("/a%2Fb%20c%25", "/a%2Fb%20c%25"),
            ("/%2561dmin", "/%2561dmin"),
            ("/ä%6", "/ä%6"),
            ("/%zz%", "/%zz%"),
            ("%", "%"),
        ] {
            assert_eq!(plain_path(path), plain, "{path}");
        }
        assert!(matches!(plain_path("/plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn several_slashes_become_one() {
        for (path, single) in [("/", "/"), ("//", "/"), ("///a//b/", "/a/b/"), ("/a/", "/a/"), ("/a//?x", "/a/?x")] {
            assert_eq!(single_slashes(path), single, "{path}");
        }
    }

    #[test]
    fn a_prefix_is_found_in_any_spelling_and_the_rest_stays_as_written() {
        for (path, prefix, rest) in [
            ("/api/x", "/api", Some("/x")),
            ("/%61pi/%61?%62", "/api", Some("/%61?%62")),
            ("/api", "/%61p%69", Some("")),
            ("/a%20b/%7e", "/%61%20b", Some("/%7e")),
            ("/ä%61/x", "/äa", Some("/x")),
            ("//api//x", "/api", Some("//x")),
            ("/a//%62///c", "/a/b", Some("///c")),
            ("/a//b", "/a//b", Some("")),
            ("/a/b", "/a//b", None),
            ("//apix", "/api", Some("x")),
            ("/%61p", "/api", None),
            ("/api%2Fx", "/api/x", None),
            ("/%2561pi", "/api", None),
        ] {
            assert_eq!(behind_prefix(path, prefix), rest, "{path} {prefix}");
        }
    }
}
