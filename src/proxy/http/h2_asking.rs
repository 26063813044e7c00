//! A request head as it is written to a connection of HTTP/1.1, as the request of HTTP/2 that it becomes.

use std::{borrow::Cow, io};

use h2::ext::Protocol;
use http::{Method, Request, Uri, uri::PathAndQuery};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    field::{self, Known},
    h2_body::Sending,
    h2_fields::{Written, bad},
    request_head::MAX_FIELDS,
};

/// Fields that a rewritten request may have beyond those that came.
const MORE_FIELDS: usize = 64;

/// A request that was read.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Request<()>,
    /// How its body is written.
    pub(super) sending: Sending,
    /// Its answer has no body, whatever it says.
    pub(super) to_head: bool,
    /// What proves to a client of HTTP/1.1 that its handshake of a WebSocket was understood.
    pub(super) accept: Option<String>,
}

/// Reads a head that we wrote. `secure`: it goes through TLS; `made`: the names of fields that were made for this request
/// alone.
pub(super) fn read(bytes: &[u8], secure: bool, made: &[String]) -> io::Result<Asked> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS + MORE_FIELDS];
    let mut parsed = httparse::Request::new(&mut slots);
    if !matches!(parsed.parse(bytes), Ok(httparse::Status::Complete(_))) {
        return Err(bad());
    }
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return Err(bad()) };
    let mut request = Request::new(());
    let websocket = parsed.headers.iter().any(|field| field::classify(field.name.as_bytes()) == Known::Upgrade);
    let (mut host, mut accept, mut sending) = (None, None, Sending::Ended);
    let written = Written::new(bytes);
    let fields = request.headers_mut();
    fields.reserve(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = field.name.as_bytes();
        match field::classify(name) {
            Known::Host => {
                host = Some(field.value);
                continue;
            }
            Known::TransferEncoding => {
                sending = Sending::chunks();
                continue;
            }
            Known::ContentLength => sending = Sending::length(field::content_length(field.value).ok_or_else(bad)?),
            Known::Connection | Known::Upgrade => continue,
            Known::Hop if field::is_connections(name) => continue,
            Known::Other if websocket && name.eq_ignore_ascii_case(b"sec-websocket-key") => {
                accept = Some(derive_accept_key(field.value));
                continue;
            }
            Known::Te | Known::Expect | Known::Hop | Known::Forwarding | Known::HopMark | Known::Other => {}
        }
        let (name, mut value) = written.field(field)?;
        // Not remembered in the table that all clients of this connection share. What was made of variables may be a
        // copy of such a field.
        let secret = name == http::header::AUTHORIZATION || name == http::header::COOKIE;
        value.set_sensitive(secret || made.iter().any(|made| made.eq_ignore_ascii_case(name.as_str())));
        fields.append(name, value);
    }
    *request.uri_mut() = uri(host.ok_or_else(bad)?, target, secure)?;
    *request.method_mut() = if websocket {
        sending = Sending::Tunnel;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        Method::CONNECT
    } else {
        Method::from_bytes(method.as_bytes()).map_err(|_| bad())?
    };
    let to_head = *request.method() == Method::HEAD;
    Ok(Asked { request, sending, to_head, accept: websocket.then(|| accept.unwrap_or_default()) })
}

fn uri(host: &[u8], target: &str, secure: bool) -> io::Result<Uri> {
    let target = PathAndQuery::try_from(spelled(target).as_ref()).map_err(|_| bad())?;
    let scheme = if secure { "https" } else { "http" };
    Uri::builder().scheme(scheme).authority(host).path_and_query(target).build().map_err(|_| bad())
}

/// What clients send as it is, and `http` does not take so, in the spelling that means the same.
fn spelled(target: &str) -> Cow<'_, str> {
    const RAW: [(char, &str); 4] = [('"', "%22"), ('<', "%3C"), ('>', "%3E"), ('`', "%60")];
    if !target.contains(RAW.map(|(raw, _)| raw)) {
        return Cow::Borrowed(target);
    }
    Cow::Owned(RAW.iter().fold(target.to_owned(), |text, (raw, other)| text.replace(*raw, other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Asked {
        read(text.as_bytes(), false, &[]).unwrap()
    }

    #[test]
    fn what_is_about_the_connection_stays_behind() {
        let asked = asked(
            "POST /a?b HTTP/1.1\r\nHost: app.test:81\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
             Connection: TE\r\nX: y\r\n\r\n",
        );
        let request = &asked.request;
        assert_eq!((request.method().as_str(), request.uri().to_string().as_str()), ("POST", "http://app.test:81/a?b"));
        assert_eq!(request.headers().len(), 2, "{request:?}");
        assert_eq!(request.headers()["te"], "trailers");
        assert!(matches!(asked.sending, Sending::Chunks(_)) && asked.accept.is_none());
    }

    #[test]
    fn secrets_and_what_was_made_for_one_request_are_not_remembered() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nX-Copy: a=1\r\nAccept: b\r\nAuthorization: c\r\n\r\n";
        let asked = read(text.as_bytes(), false, &["x-copy".to_owned()]).unwrap();
        let secret = |name: &str| asked.request.headers()[name].is_sensitive();
        assert_eq!(["cookie", "x-copy", "accept", "authorization"].map(secret), [true, true, false, true]);
    }

    #[test]
    fn bodies_end_where_they_ended() {
        assert!(asked("GET / HTTP/1.1\r\nHost: a\r\n\r\n").sending.is_ended());
        assert!(asked("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").sending.is_ended());
        let five = asked("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
        assert!(matches!(five.sending, Sending::Length(5)) && five.request.headers()["content-length"] == "5");
        assert_eq!(asked("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").request.uri().path(), "*");
    }

    #[test]
    fn what_is_sent_raw_is_asked_for_in_its_other_spelling() {
        let asked = asked("GET /a\"`?q={\"b\":1}<> HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(asked.request.uri().path_and_query().unwrap(), "/a%22%60?q={%22b%22:1}%3C%3E");
    }

    #[test]
    fn a_websocket_is_asked_for_as_rfc_8441_has_it() {
        let asked = asked(
            "GET /s HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        );
        assert_eq!((asked.request.method(), asked.request.headers().len()), (&Method::CONNECT, 1));
        assert_eq!(asked.accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(matches!(asked.sending, Sending::Tunnel));
    }

    #[test]
    fn what_can_not_be_asked_is_no_request() {
        for text in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "GET /\r\n\r\n"] {
            assert!(read(text.as_bytes(), true, &[]).is_err(), "{text:?}");
        }
    }
}
