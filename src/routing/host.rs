//! Host names as requests write them, brought to the one spelling that the table knows.

use std::fmt;

/// The longest host that is looked at; DNS allows 253 characters.
const LONGEST: usize = 255;

/// A host in canonical spelling: lower case, without port, brackets and trailing dot. Never on the heap.
#[derive(Clone, Copy)]
pub struct Host<'a>(Spelling<'a>);

// Boxing the copy would allocate for each request that writes capitals or a port.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy)]
enum Spelling<'a> {
    /// A part of what the request wrote was canonical already; nearly always so.
    Written(&'a str),
    /// A copy in lower case.
    Lowered { bytes: [u8; LONGEST], length: u8 },
}

impl<'a> Host<'a> {
    /// Reads a `Host` field or an authority without user info: `App.Example.com.:8080`, `[::1]:80`, or nothing at
    /// all. Absent when it is too long, when a bracket is left open, or when what follows the colon is no port.
    #[inline]
    pub fn read(text: &'a str) -> Option<Self> {
        // One pass without early exit: the compiler takes many bytes at a time.
        let plain = text.bytes().fold(true, |plain, b| plain & !(b.is_ascii_uppercase() | (b == b':') | (b == b'[')));
        let name = if plain { text } else { without_port(text)? };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.len() > LONGEST {
            None
        } else if plain {
            Some(Self(Spelling::Written(name)))
        } else {
            Spelling::lowered(name).map(Self)
        }
    }

    /// The host as text; empty when the request named none.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Spelling::Written(text) => text,
            // Lower-casing ASCII letters keeps UTF-8 what it is.
            Spelling::Lowered { bytes, length } => str::from_utf8(&bytes[..usize::from(*length)]).unwrap_or_default(),
        }
    }
}

impl Spelling<'_> {
    fn lowered(name: &str) -> Option<Self> {
        let mut bytes = [0; LONGEST];
        let place = bytes.get_mut(..name.len())?;
        place.copy_from_slice(name.as_bytes());
        place.make_ascii_lowercase();
        Some(Self::Lowered { bytes, length: u8::try_from(name.len()).ok()? })
    }
}

/// The host without port and brackets. An address of IPv6 may stand without brackets when no port follows.
fn without_port(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        return (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)).then_some(address);
    }
    match text.split_once(':') {
        None => Some(text),
        Some((_, rest)) if rest.contains(':') => text.parse::<std::net::Ipv6Addr>().is_ok().then_some(text),
        Some((name, port)) => is_port(port).then_some(name),
    }
}

/// The grammar allows a colon with no digits after it.
fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

impl fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host").field(&self.as_str()).finish()
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(Host::read(text).as_ref().map(Host::as_str), expected, "{text}");
    }

    #[test]
    fn case_port_and_trailing_dot_are_taken_off() {
        check("App.Example.COM", Some("app.example.com"));
        check("app.example.com:8080", Some("app.example.com"));
        check("app.example.com.:80", Some("app.example.com"));
        check("app.example.com:", Some("app.example.com"));
        check("10.0.0.9:80", Some("10.0.0.9"));
        check("", Some(""));
    }

    #[test]
    fn addresses_of_ipv6_stand_in_brackets() {
        check("[::1]", Some("::1"));
        check("[FE80::A]:8080", Some("fe80::a"));
        check("::1", Some("::1"));
        check("[::1", None);
        check("[::1]x", None);
        check("[::1]:x", None);
    }

    #[test]
    fn what_is_no_host_is_none() {
        check("app:eighty", None);
        check("app:99999", None);
        check("a:1:2", None);
        check(&"a".repeat(255), Some(&"a".repeat(255)));
        check(&"a".repeat(256), None);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_none_is_read_in_two_ways(text in ".{0,300}") {
            if let Some(host) = Host::read(&text) {
                prop_assert_eq!(host.as_str(), host.as_str().to_ascii_lowercase());
            }
        }
    }
}
