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

fn is_dot_segment(segment: &[u8]) -> bool {
    if !matches!(segment.first(), Some(b'.' | b'%')) || segment.len() > 6 {
        return false;
    }
    let text = String::from_utf8_lossy(segment).to_ascii_lowercase().replace("%2e", ".");
    text == "." || text == ".."
}

/// A host with an optional port: lower case, no trailing dot, no user, no empty port.
pub(super) fn authority(text: &[u8]) -> Result<String, BadRequest> {
    const BAD: BadRequest = BadRequest::Malformed("bad Host");
    let text = std::str::from_utf8(text).map_err(|_| BAD)?;
    let host_end =
        if text.starts_with('[') { text.find(']').ok_or(BAD)? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (host, port) = text.split_at(host_end);
    let mut clean = if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        inner.parse::<std::net::Ipv6Addr>().map_err(|_| BAD)?;
        host.to_ascii_lowercase()
    } else {
        let name = host.strip_suffix('.').unwrap_or(host);
        let sound = !name.is_empty()
            && name.len() <= 253
            && !name.starts_with('.')
            && !name.ends_with('.')
            && !name.contains("..")
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !sound {
            return Err(BAD);
        }
        name.to_ascii_lowercase()
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => {}
        None => return Err(BAD),
        Some("") => {}
        Some(digits) => {
            if digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) || digits.parse::<u16>().is_err() {
                return Err(BAD);
            }
            clean.push(':');
            clean.push_str(digits);
        }
    }
    Ok(clean)
}
