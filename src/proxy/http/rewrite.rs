//! Heads as they are passed on: written anew from what was understood, never copied.

use std::{ops::Range, sync::LazyLock};

use ipnet::IpNet;
use memchr::memmem;

use crate::{
    control::{Cookie, crumbs},
    model::{Oidc, RouteSpec, Spot},
    proxy::{carry::Buf, worker::SessionKey},
    routing::behind_prefix,
};

use super::{
    field::{HOP_MARK, Known, is_hidden, is_set},
    forwarded::{self, Peer},
    middleware::Edits,
    relay::Emit,
    request_head::{Field, Framing, RequestHead},
    response_head::ResponseHead,
    variables::Message,
};

/// The field by which browsers are told to use nothing but TLS.
pub(super) const HSTS: &str = "Strict-Transport-Security";

fn push_number(out: &mut Buf, number: u64) {
    let mut digits = [0u8; 20];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        }
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(digits.get(at..).unwrap_or_default());
}

fn push_field(out: &mut Buf, name: &[u8], value: &[u8]) {
    out.push_field(name, value);
}

/// Fields that pass one behind the other. Those that already stand in the head as we would write them are copied in
/// one go, which saves a third of the instructions of writing them one by one.
struct Run<'a> {
    bytes: &'a [u8],
    /// From the first one's name to the last one's value.
    found: Range<usize>,
}

impl<'a> Run<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, found: 0..0 }
    }

    fn add(&mut self, field: &Field, out: &mut Buf) {
        let (name, value) = (&field.name, &field.value);
        // Of a name and a value with two bytes between them the first of these is the colon.
        let is_as_written = value.start.wrapping_sub(name.end) == 2 && self.bytes.get(name.end + 1) == Some(&b' ');
        // Two bytes between a value and the next name are the end of its line.
        if is_as_written && name.start.wrapping_sub(self.found.end) == 2 && !self.found.is_empty() {
            self.found.end = value.end;
            return;
        }
        self.end(out);
        if is_as_written {
            self.found = name.start..value.end;
        } else {
            let part = |at: &Range<usize>| self.bytes.get(at.clone()).unwrap_or_default();
            push_field(out, part(name), part(value));
        }
    }

    fn end(&mut self, out: &mut Buf) {
        if !self.found.is_empty() {
            out.push(self.bytes.get(self.found.clone()).unwrap_or_default());
            out.push(b"\r\n");
            self.found = 0..0;
        }
    }
}

/// The target without the route's prefix. Always begins with `/`, except for `*`.
pub(super) fn strip<'a>(target: &'a str, prefix: Option<&str>) -> (&'static str, &'a str) {
    let Some(prefix) = prefix.map(|prefix| prefix.trim_end_matches('/')).filter(|prefix| !prefix.is_empty()) else {
        return ("", target);
    };
    match behind_prefix(target, prefix) {
        Some(rest) if rest.starts_with('/') => ("", rest),
        Some(rest) if rest.is_empty() || rest.starts_with('?') => ("/", rest),
        Some(_) | None => ("", target),
    }
}

/// The name of the field of cookies.
const COOKIE: &[u8] = b"cookie";

/// Looks for our own ones. Made once: making it costs more than most searches.
static OURS: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(Oidc::COOKIES[0]));

/// Whether a `Cookie` field may hold cookies of our own.
pub(super) fn holds_ours(field: &[u8]) -> bool {
    OURS.find(field).is_some()
}

/// The cookies that are not ours; without a key none has been. Those of another Dormouse belong to the service.
pub(super) fn foreign_crumbs<'a>(field: &'a [u8], key: Option<&SessionKey>) -> impl Iterator<Item = &'a [u8]> {
    crumbs(field).filter(move |crumb| !key.is_some_and(|key| key.has_named(crumb)))
}

/// Writes a `Cookie` field of these, unless there are none.
fn push_crumbs<'a>(crumbs: impl Iterator<Item = &'a [u8]>, out: &mut Buf) {
    let mut any = false;
    for crumb in crumbs {
        out.push(if any { b"; " } else { b"Cookie: " });
        out.push(crumb);
        any = true;
    }
    out.push(if any { b"\r\n" } else { b"" });
}

/// Writes the request head for the upstream. `cookie` is ours, and not for the service; so are those of the key.
pub(super) fn request(
    head: &RequestHead,
    route: &RouteSpec,
    edits: Option<&Edits>,
    (peer, trusted): (&Peer, &[IpNet]),
    mark: &str,
    (upstream, cookie, key): (Spot, Option<&Cookie>, Option<&SessionKey>),
    out: &mut Buf,
) {
    let set = route.options.set_request_headers.as_slice();
    out.push(head.method().as_bytes());
    out.push(b" ");
    let (slash, target) = match edits.and_then(|edits| edits.target.as_deref()) {
        Some(changed) => ("", changed),
        None => strip(head.target(), route.matches.strip_prefix.as_deref()),
    };
    out.push(slash.as_bytes());
    out.push(target.as_bytes());
    out.push(b" HTTP/1.1\r\n");
    if !is_set(set, b"host") {
        if head.authority().is_empty() {
            push_field(out, b"Host", upstream.address().to_string().as_bytes());
        } else {
            push_field(out, b"Host", head.authority().as_bytes());
        }
    }
    let hide = route.options.hide_request_headers.as_slice();
    let all_pass = set.is_empty() && hide.is_empty() && cookie.is_none();
    let mut marks = false;
    let mut run = Run::new(head.bytes());
    for field in head.fields() {
        let name = || head.part(&field.name);
        let passes = match field.known {
            Known::Other => true,
            Known::Expect => head.expects_continue,
            Known::HopMark => {
                marks = true;
                false
            }
            known if forwarded::is_ours(known) => peer.keeps(head, name()),
            Known::Host
            | Known::ContentLength
            | Known::TransferEncoding
            | Known::Connection
            | Known::Te
            | Known::Upgrade
            | Known::Hop
            | Known::Forwarding => false,
        };
        if !passes || (!all_pass && (is_set(set, name()) || is_hidden(hide, name()))) {
            continue;
        }
        let is_cookie = field.name.len() == COOKIE.len() && name().eq_ignore_ascii_case(COOKIE);
        if !is_cookie || (cookie.is_none() && !holds_ours(head.part(&field.value))) {
            run.add(field, out);
            continue;
        }
        run.end(out);
        let passes = foreign_crumbs(head.part(&field.value), key);
        push_crumbs(passes.filter(|crumb| cookie.is_none_or(|cookie| !cookie.has_set(crumb))), out);
    }
    run.end(out);
    match head.framing {
        Framing::Length(length) => {
            out.push(b"Content-Length: ");
            push_number(out, length);
            out.push(b"\r\n");
        }
        Framing::Chunked => out.push(b"Transfer-Encoding: chunked\r\n"),
        Framing::Empty | Framing::UntilClose => {}
    }
    match (&head.upgrade, head.te_trailers) {
        (Some(protocol), _) => {
            push_field(out, b"Upgrade", head.part(protocol));
            out.push(b"Connection: Upgrade\r\n");
        }
        (None, true) => out.push(b"TE: trailers\r\nConnection: TE\r\n"),
        (None, false) => {}
    }
    peer.write(head, trusted, out);
    out.push(HOP_MARK.as_bytes());
    out.push(b": ");
    if marks {
        for value in head.all(HOP_MARK) {
            out.push(value.as_bytes());
            out.push(b", ");
        }
    }
    out.push(mark.as_bytes());
    out.push(b"\r\n");
    let added = route.options.middlewares.as_ref().map_or(&[][..], |all| &all.add_request_headers);
    let found = edits.map_or(&[][..], |edits| &edits.fields);
    for (name, value) in set.iter().chain(added).chain(found) {
        push_field(out, name.as_bytes(), value.as_bytes());
    }
    if let Some(all) = route.options.middlewares.as_deref().filter(|all| !all.vary_request_headers.is_empty()) {
        let message =
            Message { head, peer, trusted, route, edits, ours: (cookie, key), upstream: Some(upstream), answer: None };
        for (name, value) in message.of_request(all) {
            push_field(out, name.as_bytes(), &value);
        }
    }
    out.push(b"\r\n");
}

/// What happens to the client's connection after a response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending<'a> {
    /// The client speaks HTTP/1.1.
    pub(super) is_11: bool,
    /// The connection stays.
    pub(super) keep_alive: bool,
    /// The wake that the client waited for, in milliseconds.
    pub(super) wake: Option<u128>,
    /// The route's own fields.
    pub(super) set: &'a [(String, String)],
    /// Fields of the endpoint that the route hides.
    pub(super) hide: &'a [String],
    /// The route's own fields besides those of the endpoint.
    pub(super) add: &'a [(String, String)],
    /// The same, made for this answer.
    pub(super) varied: &'a [(String, Vec<u8>)],
    /// What middlewares say of its body.
    pub(super) remade: &'a [(&'static str, Vec<u8>)],
    /// Whose pages may read it.
    pub(super) origin: Option<&'a str>,
    /// By which the client stays with its member.
    pub(super) cookie: Option<&'a str>,
    /// What a browser is told to remember, unless the service or the route tells it something.
    pub(super) hsts: Option<&'a str>,
}

impl<'a> Ending<'a> {
    /// That of a response which ends nothing, and to which nothing is added.
    pub(super) fn none(hide: &'a [String]) -> Self {
        Self {
            is_11: true,
            keep_alive: true,
            wake: None,
            set: &[],
            hide,
            add: &[],
            varied: &[],
            remade: &[],
            origin: None,
            cookie: None,
            hsts: None,
        }
    }
}

/// How the body of a response goes to this client, and whether the connection can stay after it.
pub(super) fn emit(head: &ResponseHead, is_11: bool) -> (Emit, bool) {
    match head.framing {
        Framing::Empty | Framing::Length(_) => (Emit::AsIs, true),
        Framing::Chunked if is_11 => (Emit::AsIs, true),
        Framing::Chunked => (Emit::Data, false),
        Framing::UntilClose if is_11 => (Emit::Chunks, true),
        Framing::UntilClose => (Emit::AsIs, false),
    }
}

/// Writes the response head for the client. `bytes` is what the head was read from.
pub(super) fn response(head: &ResponseHead, bytes: &[u8], ending: Ending<'_>, out: &mut Buf) {
    let part = |at: &std::ops::Range<usize>| bytes.get(at.clone()).unwrap_or_default();
    out.push(b"HTTP/1.1 ");
    push_number(out, u64::from(head.status));
    out.push(b" ");
    out.push(part(&head.reason));
    out.push(b"\r\n");
    let mut hsts = ending.hsts.filter(|_| !is_set(ending.set, HSTS.as_bytes()));
    let all_pass = ending.set.is_empty() && ending.hide.is_empty() && hsts.is_none();
    let mut run = Run::new(bytes);
    for field in head.fields() {
        let name = || part(&field.name);
        let passes = match field.known {
            Known::Other | Known::Expect | Known::Host | Known::Te | Known::Forwarding => true,
            Known::Upgrade => head.status == 426,
            Known::ContentLength | Known::TransferEncoding | Known::Connection | Known::Hop | Known::HopMark => false,
        };
        if passes && (all_pass || !(is_set(ending.set, name()) || is_hidden(ending.hide, name()))) {
            if hsts.is_some() && name().eq_ignore_ascii_case(HSTS.as_bytes()) {
                hsts = None;
            }
            run.add(field, out);
        }
    }
    run.end(out);
    if head.status >= 200 {
        body_fields(head, ending, out);
        for (name, value) in ending.set.iter().chain(ending.add) {
            push_field(out, name.as_bytes(), value.as_bytes());
        }
        for (name, value) in ending.varied {
            push_field(out, name.as_bytes(), value);
        }
        // The route has the last word on what only describes the body.
        let is_ours = |name: &str| {
            let own = is_set(ending.set, name.as_bytes()) || is_hidden(ending.hide, name.as_bytes());
            !(own && matches!(name, "ETag" | "Content-Type"))
        };
        for (name, value) in ending.remade.iter().filter(|(name, _)| is_ours(name)) {
            push_field(out, name.as_bytes(), value);
        }
        if let Some(origin) = ending.origin {
            push_field(out, b"Access-Control-Allow-Origin", origin.as_bytes());
        }
        if let Some(hsts) = hsts {
            push_field(out, HSTS.as_bytes(), hsts.as_bytes());
        }
        if let Some(wake) = ending.wake {
            out.push(b"Server-Timing: wake;dur=");
            push_number(out, u64::try_from(wake).unwrap_or(u64::MAX));
            out.push(b"\r\n");
        }
    }
    if let Some(cookie) = ending.cookie.filter(|_| head.status == 101 || head.status >= 200) {
        push_field(out, b"Set-Cookie", cookie.as_bytes());
    }
    if head.status == 101 {
        push_field(out, b"Upgrade", head.upgrade.as_ref().map(part).unwrap_or_default());
        out.push(b"Connection: Upgrade\r\n");
    }
    out.push(b"\r\n");
}

fn body_fields(head: &ResponseHead, ending: Ending<'_>, out: &mut Buf) {
    let chunked = ending.is_11 && (head.told_chunked || (head.framing == Framing::UntilClose));
    if chunked && head.status != 204 {
        out.push(b"Transfer-Encoding: chunked\r\n");
    } else if let Some(length) = head.told_length.filter(|_| head.status != 204) {
        out.push(b"Content-Length: ");
        push_number(out, length);
        out.push(b"\r\n");
    }
    match (ending.is_11, ending.keep_alive, head.status) {
        (true, _, 426) => out.push(b"Connection: Upgrade\r\n"),
        (true, false, _) => out.push(b"Connection: close\r\n"),
        (false, true, _) => out.push(b"Connection: keep-alive\r\n"),
        (true, true, _) | (false, false, _) => {}
    }
}
