//! What can be read of a request that is refused as none: for its line in the access log, and for nothing else.
//!
//! It is read by looser rules than a head is: nothing is done by it.

use http::{HeaderValue, header::HOST, request::Parts, uri::PathAndQuery};
use memchr::memmem;

use super::{request_head::MAX_FIELDS, request_target::authority};
use crate::{model::is_token, telemetry::AccessHeaders};

/// What could be read; empty: not that.
#[derive(Debug, Default)]
pub(super) struct Unread {
    pub(super) method: String,
    /// As it came: of a line that was too long, its beginning.
    pub(super) target: String,
    /// Without its port. Of several none is the one.
    pub(super) host: String,
    pub(super) protocol: String,
    /// Bytes of it that came.
    pub(super) len: u64,
    fields: Vec<(String, Vec<u8>)>,
}

impl Unread {
    /// Of what came on a connection of HTTP/1: a head, perhaps not whole, and perhaps something behind it.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        let end = memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let head = bytes.get(..end).unwrap_or_default();
        let mut lines = head.split_inclusive(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default().trim_ascii_end();
        let fields = lines.filter(|line| line.ends_with(b"\n")).filter_map(field_of).take(MAX_FIELDS).collect();
        let mut unread = Self { len: head.len() as u64, fields, ..Self::default() };
        let Some((method, rest)) = halves(first).filter(|(method, _)| is_token(method)) else { return unread };
        let words = rest.rsplitn(2, |byte| *byte == b' ').collect::<Vec<_>>();
        let (target, protocol) = match words.as_slice() {
            [version, target] if is_version(version) => (*target, *version),
            _ => (halves(rest).map_or(rest, |(target, _)| target), &b""[..]),
        };
        (unread.method, unread.target, unread.protocol) = (text(method), text(target), text(protocol));
        unread.host = unread.host_of_target().or_else(|| unread.host_of_fields()).unwrap_or_default();
        unread
    }

    /// Of a stream of HTTP/2.
    pub(super) fn of_stream(request: &Parts) -> Self {
        let fields = request.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        let fields: Vec<_> = fields.take(MAX_FIELDS).collect();
        let named = request.uri.authority().map(|authority| authority.as_str());
        let target = request.uri.path_and_query().map(PathAndQuery::as_str).or(named).unwrap_or_default().to_owned();
        let sizes = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        let host = match (named, request.headers.get(HOST).map(HeaderValue::as_bytes)) {
            (Some(named), Some(other)) if other != named.as_bytes() => None,
            (named, other) => named.map(str::as_bytes).or(other).and_then(host),
        };
        Self {
            method: request.method.to_string(),
            len: (request.method.as_str().len() + target.len() + sizes.sum::<usize>()) as u64,
            target,
            host: host.unwrap_or_default(),
            protocol: "HTTP/2.0".to_owned(),
            fields,
        }
    }

    /// All values of a field, by its name in lower case.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    /// That of a target in absolute form, which wins over `Host`.
    fn host_of_target(&self) -> Option<String> {
        let (_, rest) = self.target.split_once("://").filter(|(scheme, _)| is_token(scheme.as_bytes()))?;
        host(rest.split(['/', '?']).next()?.as_bytes())
    }

    fn host_of_fields(&self) -> Option<String> {
        let mut named = self.values("host");
        named.next().filter(|_| named.next().is_none()).and_then(host)
    }
}

impl AccessHeaders for Unread {
    fn at(&self, place: usize) -> Option<(&str, &[u8])> {
        self.fields.get(place).map(|(name, value)| (name.as_str(), value.as_slice()))
    }
}

/// What stands before the first blank, and behind it.
fn halves(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = line.split_at_checked(memchr::memchr(b' ', line)?)?;
    Some((first, rest.get(1..)?))
}

fn field_of(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
    let value = value.get(1..)?.trim_ascii();
    is_token(name).then(|| (text(name), value.to_vec()))
}

fn is_version(word: &[u8]) -> bool {
    matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn host(named: &[u8]) -> Option<String> {
    let mut out = String::new();
    let end = authority(named, &mut out).ok()?;
    out.truncate(end);
    Some(out)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check(unread: &Unread, expected: [&str; 4]) {
        let Unread { method, target, host, protocol, .. } = unread;
        assert_eq!([method, target, host, protocol], expected);
    }

    #[test]
    fn of_what_is_no_head_is_known_what_could_be_read() {
        for (bytes, expected) in [
            ("TRACE /a?b HTTP/1.1\r\nHost: App.Test:81\r\n\r\nbody", ["TRACE", "/a?b", "app.test", "HTTP/1.1"]),
            ("CONNECT b.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", ["CONNECT", "b.test:443", "a.test", "HTTP/1.1"]),
            ("GET http://b.test/x HTTP/3.0\r\nHost: a\r\n\r\n", ["GET", "http://b.test/x", "b.test", "HTTP/3.0"]),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", ["GET", "/", "", "HTTP/1.1"]),
            ("GET /a b HTTP/1.1\r\nhost:a\r\n\r\n", ["GET", "/a b", "a", "HTTP/1.1"]),
            ("GET /a\n\n", ["GET", "/a", "", ""]),
            ("GET /aaaa", ["GET", "/aaaa", "", ""]),
            ("GET / HTTP/1.1\r\nHost: a.te", ["GET", "/", "", "HTTP/1.1"]),
            ("GE", ["", "", "", ""]),
            ("\x16\x03\x01 /a HTTP/1.1\r\nHost: a\r\n\r\n", ["", "", "", ""]),
            ("", ["", "", "", ""]),
        ] {
            check(&Unread::of_bytes(bytes.as_bytes()), expected);
        }
        let unread = Unread::of_bytes(b"TRACE / HTTP/1.1\r\nHost: a\r\nUser-Agent:  me \r\nX Y: z\r\n\r\nbody");
        assert_eq!(unread.len, 55);
        assert_eq!(unread.at(1), Some(("User-Agent", &b"me"[..])));
        assert_eq!(unread.at(2), None, "what is no field is none");
    }

    #[test]
    fn a_stream_tells_the_same() {
        let of = |request: http::request::Builder| Unread::of_stream(&request.body(()).unwrap().into_parts().0);
        let request = |method: &str, uri: &str| Request::builder().method(method).uri(uri);
        check(&of(request("TRACE", "http://App.test:81/a?b")), ["TRACE", "/a?b", "app.test", "HTTP/2.0"]);
        check(&of(request("CONNECT", "b.test:443")), ["CONNECT", "b.test:443", "b.test", "HTTP/2.0"]);
        check(&of(request("GET", "http://a/").header("host", "b")), ["GET", "/", "", "HTTP/2.0"]);
        check(&of(request("GET", "/x").header("host", "a")), ["GET", "/x", "a", "HTTP/2.0"]);
    }
}
