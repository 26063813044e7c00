//! What a request of HTTP/2 says, as the head that the rest of the proxy knows: held to the same rules as one of
//! HTTP/1.1, and to those of RFC 9113, section 8, that `h2` leaves to its user.

use std::{
    hash::{BuildHasher, RandomState},
    ops::Range,
};

use h2::ext::Protocol;
use http::{HeaderMap, Method, header::COOKIE, request::Parts};

use super::{
    bad_request::BadRequest,
    field::{self, Known},
    limits::HeadLimits,
    request_facts::Facts,
    request_head::{Field, Framing, Line, MAX_FIELDS, RequestHead, assemble},
    request_target::authority,
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

/// Reads a head. `ended`: no body follows it.
pub(super) fn head(parts: &Parts, ended: bool, limits: &HeadLimits) -> Result<RequestHead, Unfit> {
    let websocket = match parts.extensions.get::<Protocol>() {
        Some(protocol) if protocol.as_str().eq_ignore_ascii_case("websocket") => true,
        Some(_) => return Err(BadRequest::Protocol.into()),
        None => false,
    };
    let mut text = Text::default();
    let mut facts = Facts::default();
    let host = parts.headers.get(http::header::HOST).map(http::HeaderValue::as_bytes);
    let named = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let (Some(named), Some(host)) = (named, host)
        && !is_same_host(named, host)
    {
        return Err(Unfit::Malformed);
    }
    if parts.headers.get_all(http::header::HOST).iter().count() > 1 {
        return Err(Unfit::Malformed);
    }
    if let Some(host) = named.or(host) {
        facts.note(Known::Host, host)?;
    }
    fields(&parts.headers, &mut facts, &mut text, limits)?;
    let upgrade = websocket.then(|| text.websocket(&parts.headers));
    let method = if websocket { "GET" } else { parts.method.as_str() };
    let target = match parts.uri.path_and_query() {
        Some(target) if parts.method != Method::CONNECT || websocket => target.as_str(),
        None if parts.method == Method::CONNECT => "/",
        Some(_) | None => return Err(Unfit::Malformed),
    };
    if !(target.starts_with('/') || target == "*" && parts.method == Method::OPTIONS) {
        return Err(Unfit::Malformed);
    }
    if method.len() + target.len() > limits.line {
        return Err(BadRequest::TargetTooLong.into());
    }
    let framing = match facts.framing(method, true)? {
        Framing::Empty if websocket => Framing::Empty,
        _ if websocket => return Err(Unfit::Malformed),
        // A backend of HTTP/1.1 may want to be told that there is none.
        Framing::Empty if ended && matches!(method, "POST" | "PUT" | "PATCH") => Framing::Length(0),
        Framing::Empty if ended => Framing::Empty,
        Framing::Empty => Framing::Chunked,
        framing @ (Framing::Length(_) | Framing::Chunked | Framing::UntilClose) => framing,
    };
    let line = Line { method, target, is_11: true };
    Ok(assemble(text.bytes.into_boxed_slice(), text.fields, &facts, line, framing, upgrade)?)
}

/// The fields as text, with what is known of each.
#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

impl Text {
    fn push(&mut self, name: &[u8], value: &[u8], known: Known) {
        let (name, value) = (self.add(name), self.add(value));
        self.fields.push(Field { name, value, known });
    }

    fn add(&mut self, part: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(part);
        start..self.bytes.len()
    }

    /// What a handshake of HTTP/1.1 has and one of HTTP/2 has not (RFC 8441, 5). Returns where the protocol stands.
    fn websocket(&mut self, headers: &HeaderMap) -> Range<usize> {
        if !headers.contains_key("sec-websocket-key") {
            self.push(b"sec-websocket-key", &key(), Known::Other);
        }
        self.add(b"websocket")
    }
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
    text: &mut Text,
    limits: &HeadLimits,
) -> Result<(), Unfit> {
    if headers.len() > MAX_FIELDS {
        return Err(BadRequest::HeadTooLarge.into());
    }
    let size = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum::<usize>();
    if size > limits.head {
        return Err(BadRequest::HeadTooLarge.into());
    }
    text.bytes.reserve(size);
    text.fields.reserve(headers.len() + 1);
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        if value.first().or(value.last()).is_some_and(is_blank) || value.last().is_some_and(is_blank) {
            return Err(Unfit::Malformed);
        }
        match field::classify(name) {
            Known::Host => {}
            // Nothing is about the connection alone (RFC 9113, 8.2.2).
            Known::Connection | Known::TransferEncoding | Known::Upgrade => return Err(Unfit::Malformed),
            Known::Other if name == COOKIE.as_str().as_bytes() => {}
            known => {
                facts.note(known, value)?;
                text.push(name, value, known);
            }
        }
    }
    // In crumbs it came, whole it goes on (RFC 9113, 8.2.3).
    let mut crumbs = headers.get_all(COOKIE).iter();
    if let Some(first) = crumbs.next() {
        text.push(b"cookie", first.as_bytes(), Known::Other);
        for crumb in crumbs {
            text.add(b"; ");
            let end = text.add(crumb.as_bytes()).end;
            if let Some(cookie) = text.fields.last_mut() {
                cookie.value.end = end;
            }
        }
    }
    Ok(())
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_same_host(one: &[u8], other: &[u8]) -> bool {
    let clean = |text| {
        let mut out = String::new();
        authority(text, &mut out).ok().map(|()| out)
    };
    one == other || (clean(one).is_some() && clean(one) == clean(other))
}
