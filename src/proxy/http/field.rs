//! Field names and values: which names mean something to a proxy or its route, and how lists in values are read.

use crate::model::RouteOptions;

/// The field that marks a message as having passed through this very program.
pub(super) const HOP_MARK: &str = "Dormouse-Hop";

/// What a field name means to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Te,
    Upgrade,
    Expect,
    /// About this connection alone, or dangerous: never passed on.
    Hop,
    /// Says who asked: ours to write.
    Forwarding,
    HopMark,
    /// Anything else.
    Other,
}

/// Classifies a field name.
///
/// A name with `_` or `.` that reads like one that we set or that frames a message, once a backend has turned both into
/// `-` (as CGI and its heirs do), is dropped. Length and first letter tell nearly every other name apart at once.
pub(super) fn classify(name: &[u8]) -> Known {
    let Some(first) = name.first() else { return Known::Other };
    let (spelled, known): (&str, Known) = match (name.len(), first.to_ascii_lowercase()) {
        (2, b't') => ("te", Known::Te),
        (4, b'h') => ("host", Known::Host),
        (5, b'p') => ("proxy", Known::Hop),
        (6, b'e') => ("expect", Known::Expect),
        (7, b'u') => ("upgrade", Known::Upgrade),
        (9, b'f') => ("forwarded", Known::Forwarding),
        (9, b'x') => ("x-real-ip", Known::Forwarding),
        (10, b'c') => ("connection", Known::Connection),
        (10, b'k') => ("keep-alive", Known::Hop),
        (12, b'd') => (HOP_MARK, Known::HopMark),
        (14, b'c') => ("content-length", Known::ContentLength),
        (14, b'h') => ("http2-settings", Known::Hop),
        (16, b'p') => ("proxy-connection", Known::Hop),
        (17, b't') => ("transfer-encoding", Known::TransferEncoding),
        (19, b'p') => ("proxy-authorization", Known::Hop),
        (13.., b'x') => ("x-forwarded-", Known::Forwarding),
        _ => return Known::Other,
    };
    let start = name.get(..spelled.len()).unwrap_or_default();
    if start.eq_ignore_ascii_case(spelled.as_bytes()) {
        known
    } else if shadows(start, spelled.as_bytes()) {
        Known::Hop
    } else {
        Known::Other
    }
}

fn shadows(name: &[u8], spelled: &[u8]) -> bool {
    name.iter().zip(spelled).all(|(a, b)| a.eq_ignore_ascii_case(b) || (*b == b'-' && matches!(a, b'_' | b'.')))
}

/// Whether two names are one to a backend that turns `_` and `.` into `-`, as CGI and its heirs do.
pub(super) fn reads_like(one: &[u8], other: &[u8]) -> bool {
    let read = |b: &u8| if matches!(b, b'_' | b'.') { b'-' } else { b.to_ascii_lowercase() };
    one.len() == other.len() && one.iter().map(read).eq(other.iter().map(read))
}

/// Whether one of these fields that a route sets is this one.
pub(super) fn is_set(set: &[(String, String)], name: &[u8]) -> bool {
    set.iter().any(|(own, _)| reads_like(own.as_bytes(), name))
}

/// Whether one of these fields that a route hides is this one.
pub(super) fn is_hidden(hide: &[String], name: &[u8]) -> bool {
    hide.iter().any(|hidden| reads_like(hidden.as_bytes(), name))
}

/// Whether a route hides or sets this field of its requests: the client's own must not reach the service by any way.
pub(super) fn withholds(options: &RouteOptions, name: &[u8]) -> bool {
    is_set(&options.set_request_headers, name) || is_hidden(&options.hide_request_headers, name)
}

/// Whether a field is about a connection of HTTP/1.1, beside those that are known by names of their own, and makes a
/// message of HTTP/2 malformed.
pub(super) fn is_connections(name: &[u8]) -> bool {
    ["keep-alive", "proxy-connection"].iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
}

/// Whether a `Content-Type` is that of gRPC itself, not that of gRPC-web.
pub(super) fn is_grpc(value: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let Some((kind, rest)) = value.split_at_checked(GRPC.len()) else { return false };
    kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';'))
}

/// The members of a comma-separated list, without the white space around them and without empty ones.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(|member| member.trim_ascii()).filter(|member| !member.is_empty())
}

/// Whether a list has this member, in any case.
pub(super) fn list_has(value: &[u8], member: &str) -> bool {
    list(value).any(|item| item.eq_ignore_ascii_case(member.as_bytes()))
}

/// A `Content-Length`: digits alone, at most 18 of them.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0u64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u64::from(b - b'0')))
}

/// Whether a field may stand in a trailer section: nothing that frames, routes, authenticates or says who asked.
pub(super) fn may_trail(name: &[u8]) -> bool {
    const NEVER: &[&str] = &[
        "authorization",
        "cookie",
        "set-cookie",
        "content-encoding",
        "content-type",
        "content-range",
        "trailer",
        "range",
    ];
    classify(name) == Known::Other && !NEVER.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes()))
}

/// Whether each line ends in CR LF; a lone LF is read differently by different readers.
pub(super) fn lines_end_in_crlf(lines: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', lines).all(|at| at > 0 && lines.get(at - 1) == Some(&b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for (name, known) in [
            ("HOST", Known::Host),
            ("content-LENGTH", Known::ContentLength),
            ("Transfer-Encoding", Known::TransferEncoding),
            ("X-Forwarded-Anything", Known::Forwarding),
            ("x-real-ip", Known::Forwarding),
            ("Proxy", Known::Hop),
            ("Proxy-Authorization", Known::Hop),
            ("dormouse-hop", Known::HopMark),
            ("X-Forwarded", Known::Other),
            ("Accept", Known::Other),
        ] {
            assert_eq!(classify(name.as_bytes()), known, "{name}");
        }
    }

    #[test]
    fn names_that_shadow_ours_are_dropped() {
        for name in [
            "X_Forwarded_For",
            "x.real.ip",
            "Content_Length",
            "Transfer.encoding",
            "dormouse_hop",
            "X_Forwarded-For-With-A-Very-Long-Tail-Behind-It",
        ] {
            assert_eq!(classify(name.as_bytes()), Known::Hop, "{name}");
        }
        for name in ["my_header", "", "x_forwarded", "x-forwarde_-for", "content_lengts", "host_"] {
            assert_eq!(classify(name.as_bytes()), Known::Other, "{name}");
        }
    }

    #[test]
    fn names_that_a_backend_may_take_for_each_other_read_alike() {
        for name in ["Remote-User", "remote_user", "REMOTE.USER", "remote-user"] {
            assert!(
                reads_like(name.as_bytes(), b"Remote-User") && reads_like(b"remote_User", name.as_bytes()),
                "{name}"
            );
        }
        for name in ["Remote-Users", "Remote-Use", "RemoteUser-", "Remote~User", ""] {
            assert!(!reads_like(name.as_bytes(), b"Remote-User"), "{name}");
        }
    }

    #[test]
    fn lengths_are_digits_alone() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"999999999999999999"), Some(999_999_999_999_999_999));
        for bad in ["", "+1", "-1", "1 ", " 1", "1,1", "0x1", "1_0", "9999999999999999999"] {
            assert_eq!(content_length(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn grpc_is_told_from_grpc_web() {
        for (value, is) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web+proto", false),
            ("application/grp", false),
            ("text/plain", false),
        ] {
            assert_eq!(is_grpc(value.as_bytes()), is, "{value}");
        }
    }

    #[test]
    fn lists_ignore_empty_members() {
        assert_eq!(list(b" a, ,b ,").collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(list_has(b"keep-alive, Upgrade", "upgrade"));
    }
}
