//! Where a request leads: the authority in one spelling, and paths that mean the same to every reader.

use super::bad_request::BadRequest;

/// A path with dot segments, also written with `%2e`, or with a NUL means different things to different readers.
pub(super) fn check_path(target: &str) -> Result<(), BadRequest> {
    let bytes = target.as_bytes();
    // Nearly every path has neither a `%` nor a `.`, and is not looked at further.
    if memchr::memchr2(b'%', b'.', bytes).is_none() {
        return Ok(());
    }
    let path = bytes.split(|b| *b == b'?').next().unwrap_or_default();
    if path.windows(3).any(|three| three == b"%00") {
        return Err(BadRequest::Malformed("NUL in the path"));
    }
    if path.split(|b| *b == b'/').any(is_dot_segment) {
        return Err(BadRequest::Malformed("dot segments in the path"));
    }
    Ok(())
}

/// Whether a path has a slash that some readers see and others do not.
pub(super) fn hides_slash(path: &str) -> bool {
    path.contains('\\') || path.as_bytes().windows(3).any(|w| matches!(w, b"%2f" | b"%2F" | b"%5c" | b"%5C"))
}

fn is_dot_segment(segment: &[u8]) -> bool {
    if !matches!(segment.first(), Some(b'.' | b'%')) || segment.len() > 6 {
        return false;
    }
    let text = String::from_utf8_lossy(segment).to_ascii_lowercase().replace("%2e", ".");
    text == "." || text == ".."
}

/// Adds a host with an optional port: lower case, no trailing dot, no user, no empty port. Returns where the host ends.
pub(super) fn authority(text: &[u8], out: &mut String) -> Result<usize, BadRequest> {
    const BAD: BadRequest = BadRequest::Malformed("bad Host");
    let text = std::str::from_utf8(text).map_err(|_| BAD)?;
    let host_end = if text.starts_with('[') { text.find(']').ok_or(BAD)? + 1 } else { before_port(text.as_bytes()) };
    let (host, port) = text.split_at(host_end);
    let start = out.len();
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        inner.parse::<std::net::Ipv6Addr>().map_err(|_| BAD)?;
        out.push_str(host);
    } else {
        let name = host.strip_suffix('.').unwrap_or(host);
        if name.len() > 253 || !is_name(name) {
            return Err(BAD);
        }
        out.push_str(name);
    }
    if let Some(host) = out.get_mut(start..) {
        host.make_ascii_lowercase();
    }
    let host_end = out.len();
    match port.strip_prefix(':') {
        None if port.is_empty() => {}
        None => return Err(BAD),
        Some("") => {}
        Some(digits) => {
            if digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) || digits.parse::<u16>().is_err() {
                return Err(BAD);
            }
            out.push_str(port);
        }
    }
    Ok(host_end)
}

/// Hosts are short: searching byte by byte is quicker than preparing for a quick search.
fn before_port(text: &[u8]) -> usize {
    text.iter().position(|b| *b == b':').unwrap_or(text.len())
}

/// Labels of letters, digits, `-` and `_`, none of them empty, with dots between them.
fn is_name(name: &str) -> bool {
    let mut before = b'.';
    for b in name.bytes() {
        let sound = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_') || (b == b'.' && before != b'.');
        if !sound {
            return false;
        }
        before = b;
    }
    before != b'.'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        let mut out = String::new();
        let host_end = authority(text.as_bytes(), &mut out).ok()?;
        assert!(matches!(out.as_bytes().get(host_end), None | Some(b':')), "{text}");
        Some(out)
    }

    #[test]
    fn an_authority_has_one_spelling() {
        for (text, clean) in [
            ("A.Example", "a.example"),
            ("a.example.", "a.example"),
            ("a.example.:80", "a.example:80"),
            ("a:", "a"),
            ("[FE80::A]:8080", "[fe80::a]:8080"),
            ("_a-b.1", "_a-b.1"),
        ] {
            assert_eq!(read(text).as_deref(), Some(clean), "{text}");
        }
        for bad in
            ["", ".", ".a", "a..b", "a..", "a b", "a@b", "a:65536", "a:+1", "a:1:2", "[::1", "[a]", "ä", "[::1]x"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read(&"a".repeat(254)), None);
    }
}
