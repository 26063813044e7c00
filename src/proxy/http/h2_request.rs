//! What a request of HTTP/2 says, as the head that the rest of the proxy knows: held to the same rules as one of
//! HTTP/1.1, and to those of RFC 9113, section 8, that `h2` leaves to its user.

use std::{
    hash::{BuildHasher, RandomState},
    ops::Range,
};

use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderValue, Method, Uri,
    header::{COOKIE, HOST},
    request::Parts,
    uri::PathAndQuery,
};

use crate::proxy::worker::HeadLimits;

use super::{
    bad_request::BadRequest,
    field::{self, Known},
    request_facts::Facts,
    request_head::{Field, Framing, Line, MAX_FIELDS, RequestHead, assemble},
    request_target::authority,
    shelf::Lent,
};

/// What each field counts beside its bytes (RFC 9113, 6.5.2).
pub(super) const FIELD_OVERHEAD: usize = 32;

/// Why a request is not worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It breaks the rules of HTTP/2: its stream is reset.
    Malformed,
    /// It is answered.
    Refused(BadRequest),
}

impl From<BadRequest> for Unfit {
    fn from(bad: BadRequest) -> Self {
        Self::Refused(bad)
    }
}

/// Reads a head into parts that were lent. `ended`: no body follows it.
pub(super) fn head(request: &Parts, ended: bool, limits: &HeadLimits, mut parts: Lent) -> Result<RequestHead, Unfit> {
    let websocket = match request.extensions.get::<Protocol>() {
        Some(protocol) if protocol.as_str().eq_ignore_ascii_case("websocket") => true,
        Some(_) => return Err(BadRequest::Protocol.into()),
        None => false,
    };
    let mut facts = Facts::default();
    if let Some(host) = host(request)? {
        facts.note(Known::Host, host)?;
    }
    fields(&request.headers, &mut facts, &mut parts, limits)?;
    let upgrade = websocket.then(|| handshake(&request.headers, &mut parts));
    let method = if websocket { "GET" } else { request.method.as_str() };
    let target = target(request, websocket)?;
    if method.len() + target.len() > limits.line {
        return Err(BadRequest::TargetTooLong.into());
    }
    let (target, host_end) = facts.authority(method, target, true, &mut parts.text)?;
    let framing = match facts.framing(method, true)? {
        Framing::Empty if websocket => Framing::Empty,
        _ if websocket => return Err(Unfit::Malformed),
        // A backend of HTTP/1.1 may want to be told that there is none.
        Framing::Empty if ended && matches!(method, "POST" | "PUT" | "PATCH") => Framing::Length(0),
        Framing::Empty if ended => Framing::Empty,
        Framing::Empty => Framing::Chunked,
        framing @ (Framing::Length(_) | Framing::Chunked | Framing::UntilClose) => framing,
    };
    Ok(assemble(parts, &facts, Line { method, target, host_end, is_11: true }, framing, upgrade))
}

/// The one host that a request names: a `Host` beside `:authority` may only repeat it.
fn host(request: &Parts) -> Result<Option<&[u8]>, Unfit> {
    let named = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = request.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    match (named, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => Err(Unfit::Malformed),
        (Some(named), Some(host), None) if !is_same_host(named, host) => Err(Unfit::Malformed),
        (named, host, None) => Ok(named.or(host)),
    }
}

/// What is asked for: a path, or `*`; nothing that could be read as a whole address, and not nothing at all (RFC 9113,
/// 8.3.1).
fn target(request: &Parts, websocket: bool) -> Result<&str, Unfit> {
    let connects = request.method == Method::CONNECT && !websocket;
    match request.uri.path_and_query().map(PathAndQuery::as_str) {
        _ if connects => Ok("/"),
        _ if has_no_path(&request.uri) => Err(Unfit::Malformed),
        Some(target) if target.starts_with('/') => Ok(target),
        Some("*") if request.method == Method::OPTIONS => Ok("*"),
        Some(_) | None => Err(Unfit::Malformed),
    }
}

/// Whether `:path` was not there: an address without an authority shows that as `/`. One with an authority is not made
/// without a path.
fn has_no_path(uri: &Uri) -> bool {
    uri.authority().is_none() && uri.clone().into_parts().path_and_query.is_none()
}

/// Adds a field.
fn push(parts: &mut Lent, name: &[u8], value: &[u8], known: Known) {
    let (name, value) = (add(parts, name), add(parts, value));
    parts.fields.push(Field { name, value, known });
}

fn add(parts: &mut Lent, part: &[u8]) -> Range<usize> {
    let start = parts.bytes.len();
    parts.bytes.extend_from_slice(part);
    start..parts.bytes.len()
}

/// Adds what a handshake of HTTP/1.1 has and one of HTTP/2 has not (RFC 8441, 5). Returns where the protocol stands.
fn handshake(headers: &HeaderMap, parts: &mut Lent) -> Range<usize> {
    if !headers.contains_key("sec-websocket-key") {
        push(parts, b"sec-websocket-key", &key(), Known::Other);
    }
    add(parts, b"websocket")
}

/// A key of a handshake: sixteen bytes in base64, other ones each time.
fn key() -> [u8; 24] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let halves = [RandomState::new().hash_one(1u8), RandomState::new().hash_one(2u8)];
    let mut bits = u128::from(halves[0]) << 64 | u128::from(halves[1]);
    let mut key = [b'='; 24];
    for (at, place) in key.iter_mut().take(22).enumerate() {
        // The last digit stands for two bits alone.
        let digit = if at == 21 { (bits & 0b11) << 4 } else { bits & 0b11_1111 };
        *place = DIGITS.get(usize::try_from(digit).unwrap_or(0)).copied().unwrap_or(b'A');
        bits >>= 6;
    }
    key
}

/// Notes and writes the fields.
fn fields<'a>(
    headers: &'a HeaderMap,
    facts: &mut Facts<'a>,
    parts: &mut Lent,
    limits: &HeadLimits,
) -> Result<(), Unfit> {
    if headers.len() > MAX_FIELDS {
        return Err(BadRequest::HeadTooLarge.into());
    }
    let size = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum::<usize>();
    if size > limits.head {
        return Err(BadRequest::HeadTooLarge.into());
    }
    parts.bytes.reserve(size);
    parts.fields.reserve(headers.len() + 1);
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        if [value.first(), value.last()].into_iter().flatten().any(is_blank) {
            return Err(Unfit::Malformed);
        }
        match field::classify(name) {
            Known::Host => {}
            // Nothing is about the connection alone (RFC 9113, 8.2.2).
            Known::Connection | Known::TransferEncoding | Known::Upgrade => return Err(Unfit::Malformed),
            Known::Other if name == COOKIE.as_str().as_bytes() => {}
            known @ (Known::ContentLength
            | Known::Te
            | Known::Expect
            | Known::Hop
            | Known::Forwarding
            | Known::HopMark
            | Known::Other) => {
                facts.note(known, value)?;
                push(parts, name, value, known);
            }
        }
    }
    // In crumbs it came, whole it goes on (RFC 9113, 8.2.3).
    let mut crumbs = headers.get_all(COOKIE).iter();
    if let Some(first) = crumbs.next() {
        push(parts, b"cookie", first.as_bytes(), Known::Other);
        for crumb in crumbs {
            add(parts, b"; ");
            let end = add(parts, crumb.as_bytes()).end;
            if let Some(cookie) = parts.fields.last_mut() {
                cookie.value.end = end;
            }
        }
    }
    Ok(())
}

fn is_blank(byte: &u8) -> bool {
    matches!(*byte, b' ' | b'\t')
}

fn is_same_host(one: &[u8], other: &[u8]) -> bool {
    let clean = |text| {
        let mut out = String::new();
        authority(text, &mut out).ok().map(|_| out)
    };
    one == other || (clean(one).is_some() && clean(one) == clean(other))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http::Request;

    use super::{super::shelf::Shelf, *};
    use crate::proxy::worker::Limits;

    fn read(request: http::request::Builder, ended: bool) -> Result<RequestHead, Unfit> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        head(&parts, ended, &Limits::default().for_heads(), Rc::new(Shelf::default()).lend())
    }

    #[test]
    fn a_head_is_that_of_a_request_of_http_1() {
        let request = Request::post("http://App.Test:81/a?b=c").header("cookie", "a=1").header("x", "y");
        let head = read(request.header("cookie", "b=2"), false).unwrap();
        assert_eq!((head.method(), head.target(), head.path()), ("POST", "/a?b=c", "/a"));
        assert_eq!((head.host(), head.port(), head.authority()), ("app.test", Some("81"), "app.test:81"));
        assert_eq!((head.get("cookie"), head.get("x")), (Some("a=1; b=2"), Some("y")));
        assert!(head.is_11 && head.keep_alive && head.framing == Framing::Chunked);
        assert_eq!(read(Request::post("http://a/"), true).unwrap().framing, Framing::Length(0));
        assert_eq!(read(Request::get("http://a/"), true).unwrap().framing, Framing::Empty);
    }

    #[test]
    fn what_is_no_request_is_told_from_what_is_refused() {
        let nowhere = Uri::from_parts(http::uri::Parts::default()).unwrap();
        for (request, expected) in [
            (Request::get("http://a/").header("host", "b"), Unfit::Malformed),
            (Request::get("http://a/").header("upgrade", "websocket"), Unfit::Malformed),
            (Request::get("http://a/").header("x", "y "), Unfit::Malformed),
            (Request::get("http://a/").header("x", "y".repeat(40_000)), Unfit::Refused(BadRequest::HeadTooLarge)),
            (Request::get(format!("http://a/{}", "x".repeat(9000))), Unfit::Refused(BadRequest::TargetTooLong)),
            (Request::connect("a:1"), Unfit::Refused(BadRequest::Method)),
            (Request::builder().uri(nowhere).header("host", "a"), Unfit::Malformed),
        ] {
            assert_eq!(read(request, true).err(), Some(expected));
        }
    }

    #[test]
    fn a_key_is_sixteen_bytes_and_another_one_each_time() {
        let (one, other) = (key(), key());
        assert_ne!(one, other);
        assert!(one.ends_with(b"==") && one[..22].iter().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(b)));
        assert!(b"AQgw".contains(&one[21]));
    }
}
