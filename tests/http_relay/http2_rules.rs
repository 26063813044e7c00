//! What HTTP/2 forbids (RFC 9113, 7541), and what would be read in two ways once it is HTTP/1.1: refused, or seen by the
//! backend as exactly one request. Nothing of it disturbs the requests of others.

use std::time::Duration;

use dormouse::proxy::{Limits, ProxySettings};

use crate::{frames::*, support::*};

/// What is expected of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The stream, or the connection, is ended with this code.
    Error(u32),
    /// The connection is ended, with a code of its own or the general one.
    Ended,
    /// Some answer of the 400 class, or an end of the stream.
    Refused,
    /// The backend sees it, with this in what it saw.
    Seen(&'static str),
}
use Expected::{Ended, Error, Refused, Seen};

/// A name, what is sent, and what is expected.
pub(crate) type Case = (&'static str, Vec<u8>, Expected);

/// A name, a head, the frames behind it, and what is expected.
type Body<'a> = (&'a str, Vec<u8>, Vec<(u8, u8, Vec<u8>)>, Expected);

/// What is wrong with a case, if anything.
pub(crate) fn check(proxy: &Proxy, name: &str, expected: Expected, write: impl Fn(&mut H2)) -> Option<String> {
    let mut client = H2::connect(proxy);
    write(&mut client);
    let outcome = client.outcome(1);
    let holds = match (&outcome, expected) {
        (Outcome::Reset(code) | Outcome::GoAway(code), Error(wanted)) => *code == wanted,
        (Outcome::Reset(_) | Outcome::GoAway(_), Refused) | (Outcome::GoAway(_) | Outcome::Closed, Ended) => true,
        (Outcome::Answer(answer), Refused) => (400..500).contains(&answer.status()) || answer.status() == 501,
        (Outcome::Answer(answer), Seen(part)) => {
            let text = answer.text();
            let one = text.matches(" HTTP/1.1\r\n").count() == 1;
            answer.status() == 200 && one && text.contains(part)
        }
        _ => false,
    };
    // Others find the way as before.
    let next = H2::connect(proxy).get(1, "/next").answer();
    let text = next.text();
    assert!(next.status() == 200 && text.starts_with("GET /next HTTP/1.1\r\n"), "after {name}: {text}");
    assert!(text.ends_with("\r\n\r\n"), "after {name}: {text}");
    (!holds).then(|| match &outcome {
        Outcome::Answer(answer) => format!("{name}: {expected:?}, but {} {}", answer.status(), answer.text()),
        Outcome::Reset(_) | Outcome::GoAway(_) | Outcome::Closed => format!("{name}: {expected:?}, but {outcome:?}"),
    })
}

fn pseudo(method: &str, scheme: &str, path: &str, authority: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)])
}

/// Heads that two readers would read differently, each the block of one request.
pub(crate) fn ambiguous() -> Vec<Case> {
    let get = |more: &[(&str, &str)]| request("GET", "/", more);
    vec![
        // The request line.
        ("usual", get(&[]), Seen("GET / HTTP/1.1\r\nHost: app.test\r\n")),
        ("method with a space", request("GET /x", "/", &[]), Refused),
        ("method with a line end", request("GET\r\nX: y", "/", &[]), Refused),
        ("empty method", request("", "/", &[]), Refused),
        ("method of its own", request("PURGE", "/", &[]), Seen("PURGE / HTTP/1.1\r\n")),
        ("TRACE", request("TRACE", "/", &[]), Refused),
        ("CONNECT with a path", request("CONNECT", "/", &[]), Refused),
        ("CONNECT", block(&[(":method", "CONNECT"), (":authority", "app.test:443")]), Refused),
        ("path with a space", request("GET", "/a b", &[]), Refused),
        ("path with a version", request("GET", "/ HTTP/1.1\r\nHost: other\r\n\r\nGET /x", &[]), Refused),
        ("path with a CR", request("GET", "/a\rb", &[]), Refused),
        ("path with a LF", request("GET", "/a\nb", &[]), Refused),
        ("path with a NUL", request("GET", "/a\0b", &[]), Refused),
        ("path with an encoded NUL", request("GET", "/a%00b", &[]), Refused),
        ("path with a tab", request("GET", "/a\tb", &[]), Refused),
        ("empty path", request("GET", "", &[]), Refused),
        ("path without a slash", request("GET", "a", &[]), Refused),
        ("path that is a query", request("GET", "?a", &[]), Refused),
        ("path that is an address", request("GET", "http://other.test/", &[]), Refused),
        (
            "path that begins with two slashes",
            request("GET", "//other.test/", &[]),
            Seen("GET //other.test/ HTTP/1.1\r\nHost: app.test\r\n"),
        ),
        ("dot segments", request("GET", "/a/../b", &[]), Refused),
        ("encoded dot segments", request("GET", "/a/%2e%2E/b", &[]), Refused),
        ("star for GET", request("GET", "*", &[]), Refused),
        ("star for OPTIONS", request("OPTIONS", "*", &[]), Seen("OPTIONS * HTTP/1.1\r\n")),
        ("path beyond ASCII", request("GET", "/ä", &[]), Refused),
        ("long path", request("GET", &format!("/{}", "a".repeat(9000)), &[]), Refused),
        // Pseudo-header fields.
        ("no method", block(&[(":scheme", "http"), (":path", "/"), (":authority", "a")]), Refused),
        ("no scheme", block(&[(":method", "GET"), (":path", "/"), (":authority", "a")]), Refused),
        ("no path", block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")]), Refused),
        // Read in one way, though it should not be read at all.
        (
            "no path, and a Host",
            block(&[(":method", "GET"), (":scheme", "http"), ("host", "a")]),
            Seen("GET / HTTP/1.1\r\nHost: a\r\n"),
        ),
        ("two methods", [block(&[(":method", "POST")]), get(&[])].concat(), Refused),
        ("two paths", [block(&[(":path", "/x")]), get(&[])].concat(), Refused),
        ("two schemes", [block(&[(":scheme", "https")]), get(&[])].concat(), Refused),
        ("two authorities", [block(&[(":authority", "b")]), get(&[])].concat(), Refused),
        ("unknown pseudo-header field", [block(&[(":x", "y")]), get(&[])].concat(), Refused),
        ("pseudo-header field of a response", [block(&[(":status", "200")]), get(&[])].concat(), Refused),
        ("pseudo-header field behind a field", get(&[("a", "b"), (":path", "/x")]), Refused),
        ("protocol without CONNECT", [block(&[(":protocol", "websocket")]), get(&[])].concat(), Refused),
        ("scheme with a line end", pseudo("GET", "http\r\nX: y", "/", "a"), Refused),
        // The host.
        (
            "Host alone",
            block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "b.test")]),
            Seen("\r\nHost: b.test\r\n"),
        ),
        ("no host at all", block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]), Refused),
        ("Host that differs", get(&[("host", "other.test")]), Refused),
        ("Host that repeats", get(&[("host", "App.Test")]), Seen("\r\nHost: app.test\r\n")),
        ("two Hosts", get(&[("host", "app.test"), ("host", "app.test")]), Refused),
        ("authority with a user", pseudo("GET", "http", "/", "u@app.test"), Refused),
        ("authority with a path", pseudo("GET", "http", "/", "app.test/x"), Refused),
        ("authority with a line end", pseudo("GET", "http", "/", "app.test\r\nX: y"), Refused),
        ("authority with a space", pseudo("GET", "http", "/", "app.test other"), Refused),
        ("authority with a bad port", pseudo("GET", "http", "/", "app.test:99999"), Refused),
        ("empty authority", pseudo("GET", "http", "/", ""), Refused),
        // Fields.
        ("name with an upper letter", get(&[("Accept", "x")]), Refused),
        ("empty name", get(&[("", "x")]), Refused),
        ("name with a space", get(&[("a b", "x")]), Refused),
        ("name with a colon", get(&[("a:b", "x")]), Refused),
        ("name with a line end", get(&[("a\r\nb", "x")]), Refused),
        ("name with a NUL", get(&[("a\0", "x")]), Refused),
        ("value with a CR", get(&[("a", "x\ry")]), Refused),
        ("value with a LF", get(&[("a", "x\ny")]), Refused),
        ("value with a NUL", get(&[("a", "x\0y")]), Refused),
        ("value with a request", get(&[("a", "x\r\n\r\nGET /x HTTP/1.1\r\nHost: b\r\n\r\n")]), Refused),
        ("value that begins with a space", get(&[("a", " x")]), Refused),
        ("value that ends with a tab", get(&[("a", "x\t")]), Refused),
        ("empty value", get(&[("a", "")]), Seen("\r\na: \r\n")),
        (
            "crumbs of a cookie",
            get(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]),
            Seen("\r\ncookie: a=1; b=2\r\n"),
        ),
        // What is about a connection of HTTP/1.1.
        ("connection", get(&[("connection", "close")]), Refused),
        ("keep-alive", get(&[("keep-alive", "timeout=5")]), Refused),
        ("proxy-connection", get(&[("proxy-connection", "keep-alive")]), Refused),
        ("upgrade", get(&[("upgrade", "websocket")]), Refused),
        ("transfer-encoding", get(&[("transfer-encoding", "chunked")]), Refused),
        ("transfer-encoding, identity", get(&[("transfer-encoding", "identity")]), Refused),
        ("te other than trailers", get(&[("te", "gzip")]), Refused),
        ("te trailers", get(&[("te", "trailers")]), Seen("\r\nTE: trailers\r\nConnection: TE\r\n")),
        ("expectation of its own", get(&[("expect", "other")]), Refused),
        // Lengths.
        ("length without a body", get(&[("content-length", "5")]), Refused),
        ("length of nothing", get(&[("content-length", "0")]), Seen("\r\nContent-Length: 0\r\n")),
        ("negative length", get(&[("content-length", "-1")]), Refused),
        ("length with a sign", get(&[("content-length", "+0")]), Refused),
        ("length in hexadecimal", get(&[("content-length", "0x0")]), Refused),
        ("list of lengths", get(&[("content-length", "0, 0")]), Refused),
        ("two lengths", get(&[("content-length", "0"), ("content-length", "0")]), Refused),
        ("two different lengths", get(&[("content-length", "0"), ("content-length", "1")]), Refused),
        // Who asks is ours to say.
        (
            "forwarded by oneself",
            get(&[("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4")]),
            Seen("\r\nX-Forwarded-For: 127.0.0.1\r\n"),
        ),
        (
            "another protocol",
            [block(&[
                (":method", "CONNECT"),
                (":protocol", "connect-udp"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "a"),
            ])]
            .concat(),
            Refused,
        ),
        (
            "websocket with a length",
            block(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "a"),
                ("content-length", "0"),
            ]),
            Refused,
        ),
    ]
}

#[test]
fn requests_that_two_readers_would_read_differently() {
    let proxy = proxy(upstream(echo));
    let cases = ambiguous();
    assert!(cases.len() >= 80);
    let mut wrong = Vec::new();
    for (name, block, expected) in cases {
        wrong.extend(check(&proxy, name, expected, |client| client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bodies_that_are_not_what_was_told() {
    let proxy = proxy(upstream(echo));
    let post = |more: &[(&str, &str)]| request("POST", "/", more);
    let cases: Vec<Body<'_>> = vec![
        (
            "too short",
            post(&[("content-length", "5")]),
            vec![(DATA, END_STREAM, b"abc".to_vec())],
            Error(PROTOCOL_ERROR),
        ),
        (
            "too long",
            post(&[("content-length", "2")]),
            vec![(DATA, END_STREAM, b"abc".to_vec())],
            Error(PROTOCOL_ERROR),
        ),
        (
            "too long, in pieces",
            post(&[("content-length", "3")]),
            vec![(DATA, 0, b"abc".to_vec()), (DATA, END_STREAM, b"GET /x HTTP/1.1\r\nHost: b\r\n\r\n".to_vec())],
            Error(PROTOCOL_ERROR),
        ),
        (
            "nothing told of something",
            post(&[("content-length", "0")]),
            vec![(DATA, END_STREAM, b"abc".to_vec())],
            Error(PROTOCOL_ERROR),
        ),
        (
            "trailers",
            post(&[]),
            vec![(DATA, 0, b"abc".to_vec()), (HEADERS, END_HEADERS | END_STREAM, field("x-sum", "1"))],
            Seen("\r\n\r\nabc"),
        ),
        (
            "trailers that frame",
            post(&[]),
            vec![(DATA, 0, b"abc".to_vec()), (HEADERS, END_HEADERS | END_STREAM, field("content-length", "9"))],
            Seen("\r\n\r\nabc"),
        ),
        (
            "trailers with a pseudo-header field",
            post(&[]),
            vec![(DATA, 0, b"abc".to_vec()), (HEADERS, END_HEADERS | END_STREAM, field(":path", "/x"))],
            Seen("\r\n\r\nabc"),
        ),
        (
            "trailers with a line end",
            post(&[]),
            vec![(DATA, 0, b"abc".to_vec()), (HEADERS, END_HEADERS | END_STREAM, field("x", "1\r\ny: 2"))],
            Refused,
        ),
        (
            "trailers that do not end it",
            post(&[]),
            vec![(DATA, 0, b"abc".to_vec()), (HEADERS, END_HEADERS, field("x-sum", "1"))],
            Error(PROTOCOL_ERROR),
        ),
        (
            "trailers with `connection`",
            post(&[]),
            vec![(DATA, 0, b"abc".to_vec()), (HEADERS, END_HEADERS | END_STREAM, field("connection", "x"))],
            Error(PROTOCOL_ERROR),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, head, frames, expected) in cases {
        wrong.extend(check(&proxy, name, expected, |client| {
            client.send(HEADERS, END_HEADERS, 1, &head);
            frames.iter().for_each(|(kind, flags, payload)| client.send(*kind, *flags, 1, payload));
        }));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What looks like framing is the body, and nothing else.
    let body = "0\r\n\r\nGET /x HTTP/1.1\r\nHost: b\r\n\r\n";
    for more in [vec![], vec![("content-length", "33")]] {
        let mut client = H2::connect(&proxy);
        client.send(HEADERS, END_HEADERS, 1, post(&more));
        client.send(DATA, END_STREAM, 1, body);
        let text = client.outcome(1).answer().text();
        assert!(text.starts_with("POST / HTTP/1.1\r\n") && text.ends_with(&format!("\r\n\r\n{body}")), "{text}");
        assert_eq!(client.get(3, "/next").answer().text().matches("HTTP/1.1").count(), 1);
    }
}

/// Frames that break the rules, or keep them.
pub(crate) fn frames() -> Vec<Case> {
    let get = || request("GET", "/", &[]);
    let post = || request("POST", "/", &[]);
    let one = |kind, flags, stream, payload: &[u8]| frame(kind, flags, stream, payload);
    vec![
        // 4.1, 4.2: frames.
        ("unknown frame", [one(99, 0xFF, 0, b"x"), one(HEADERS, 5, 1, &get())].concat(), Seen("GET / ")),
        (
            "frame that is too large",
            [one(HEADERS, 4, 1, &post()), one(DATA, 1, 1, &[0; 16_385])].concat(),
            Error(FRAME_SIZE_ERROR),
        ),
        ("header block of unfinished codes", one(HEADERS, 5, 1, &[0x40, 0x05, b'a']), Ended),
        // 4.3, 6.10: header blocks in one piece.
        (
            "continuation",
            [one(HEADERS, 1, 1, &get()[..9]), one(CONTINUATION, 4, 1, &get()[9..])].concat(),
            Seen("GET / "),
        ),
        (
            "continuation of another stream",
            [one(HEADERS, 1, 1, &get()[..9]), one(CONTINUATION, 4, 3, &get()[9..])].concat(),
            Error(PROTOCOL_ERROR),
        ),
        (
            "something within a header block",
            [one(HEADERS, 1, 1, &get()[..9]), one(PING, 0, 0, &[0; 8])].concat(),
            Error(PROTOCOL_ERROR),
        ),
        ("continuation of nothing", one(CONTINUATION, 4, 1, &get()), Error(PROTOCOL_ERROR)),
        (
            "continuation behind the end",
            [one(HEADERS, 4, 1, &post()), one(CONTINUATION, 4, 1, &get())].concat(),
            Error(PROTOCOL_ERROR),
        ),
        // 5.1, 5.1.1: the states of a stream.
        ("data for no stream", one(DATA, 1, 1, b"x"), Error(PROTOCOL_ERROR)),
        ("reset of no stream", one(RST_STREAM, 0, 1, &[0; 4]), Error(PROTOCOL_ERROR)),
        ("room for no stream", one(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes()), Error(PROTOCOL_ERROR)),
        ("even stream", one(HEADERS, 5, 2, &get()), Error(PROTOCOL_ERROR)),
        (
            "stream that goes back",
            [one(HEADERS, 4, 5, &post()), one(HEADERS, 5, 3, &get())].concat(),
            Error(PROTOCOL_ERROR),
        ),
        ("data behind the end", [one(HEADERS, 5, 1, &get()), one(DATA, 1, 1, b"x")].concat(), Ended),
        // 6.1: DATA.
        ("data on the connection", one(DATA, 0, 0, b"x"), Error(PROTOCOL_ERROR)),
        (
            "padding as long as the data",
            [one(HEADERS, 4, 1, &post()), one(DATA, 9, 1, &[3, 0, 0])].concat(),
            Error(PROTOCOL_ERROR),
        ),
        // 6.2: HEADERS.
        ("headers on the connection", one(HEADERS, 5, 0, &get()), Error(PROTOCOL_ERROR)),
        ("padding as long as the headers", one(HEADERS, 13, 1, &[9, 0x82]), Error(PROTOCOL_ERROR)),
        ("padded headers", one(HEADERS, 13, 1, &[&[2][..], &get(), &[0, 0]].concat()), Seen("GET / ")),
        (
            "headers with a priority",
            one(HEADERS, 5 | PRIORITIZED, 1, &[&[0, 0, 0, 0, 9][..], &get()].concat()),
            Seen("GET / "),
        ),
        (
            "headers that depend on themselves",
            one(HEADERS, 5 | PRIORITIZED, 1, &[&[0, 0, 0, 1, 9][..], &get()].concat()),
            Error(PROTOCOL_ERROR),
        ),
        // 6.3: PRIORITY.
        ("priority", [one(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), one(HEADERS, 5, 1, &get())].concat(), Seen("GET / ")),
        ("priority on the connection", one(PRIORITY, 0, 0, &[0, 0, 0, 1, 1]), Error(PROTOCOL_ERROR)),
        ("priority of a wrong size", one(PRIORITY, 0, 1, &[0; 4]), Ended),
        // 6.4: RST_STREAM.
        ("reset of the connection", one(RST_STREAM, 0, 0, &[0; 4]), Error(PROTOCOL_ERROR)),
        ("reset of a wrong size", [one(HEADERS, 4, 1, &post()), one(RST_STREAM, 0, 1, &[0; 3])].concat(), Ended),
        // 6.5: SETTINGS.
        ("settings of a stream", one(SETTINGS, 0, 1, &[]), Error(PROTOCOL_ERROR)),
        ("acknowledgement with content", one(SETTINGS, 1, 0, &setting(4, 1)), Ended),
        ("settings of a wrong size", one(SETTINGS, 0, 0, &[0; 5]), Ended),
        ("window that is too large", one(SETTINGS, 0, 0, &setting(4, 1 << 31)), Ended),
        ("frame size that is too small", one(SETTINGS, 0, 0, &setting(5, 16_383)), Error(PROTOCOL_ERROR)),
        ("frame size that is too large", one(SETTINGS, 0, 0, &setting(5, 1 << 24)), Error(PROTOCOL_ERROR)),
        ("push that is neither on nor off", one(SETTINGS, 0, 0, &setting(2, 2)), Error(PROTOCOL_ERROR)),
        (
            "unknown setting",
            [one(SETTINGS, 0, 0, &setting(0xFF, 1)), one(HEADERS, 5, 1, &get())].concat(),
            Seen("GET / "),
        ),
        // 6.6: PUSH_PROMISE.
        ("promise of a client", one(PUSH_PROMISE, 4, 1, &[&[0, 0, 0, 2][..], &get()].concat()), Error(PROTOCOL_ERROR)),
        // 6.7: PING.
        ("ping of a stream", one(PING, 0, 1, &[0; 8]), Error(PROTOCOL_ERROR)),
        ("ping of a wrong size", one(PING, 0, 0, &[0; 7]), Ended),
        // 6.8: GOAWAY.
        ("goodbye of a stream", one(GOAWAY, 0, 1, &[0; 8]), Error(PROTOCOL_ERROR)),
        // 6.9: WINDOW_UPDATE.
        ("no more room for the connection", one(WINDOW_UPDATE, 0, 0, &[0; 4]), Error(PROTOCOL_ERROR)),
        (
            "no more room for a stream",
            [one(HEADERS, 4, 1, &post()), one(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
            Error(PROTOCOL_ERROR),
        ),
        ("room of a wrong size", one(WINDOW_UPDATE, 0, 0, &[0; 3]), Ended),
        (
            "too much room for the connection",
            one(WINDOW_UPDATE, 0, 0, &0x7FFF_FFFFu32.to_be_bytes()),
            Error(FLOW_CONTROL_ERROR),
        ),
        (
            "too much room for a stream",
            [one(HEADERS, 4, 1, &post()), one(WINDOW_UPDATE, 0, 1, &0x7FFF_FFFFu32.to_be_bytes())].concat(),
            Error(FLOW_CONTROL_ERROR),
        ),
        // RFC 7541.
        ("index 0", one(HEADERS, 5, 1, &[0x80]), Ended),
        ("index that is not there", one(HEADERS, 5, 1, &[0xFF, 0x50]), Ended),
        ("name that is not there", one(HEADERS, 5, 1, &[0x7F, 0x50, 1, b'x']), Ended),
        ("table larger than allowed", one(HEADERS, 5, 1, &[&[0x3F, 0xE2, 0x1F][..], &get()].concat()), Ended),
        ("code with padding of zeros", one(HEADERS, 5, 1, &[0x00, 0x81, 0x1C, 0x81, 0x00]), Ended),
        (
            "code with its end within",
            one(HEADERS, 5, 1, &[0x00, 0x85, 0xF2, 0xB2, 0x4A, 0x84, 0xFF, 0x84, 0x49, 0x50, 0x9F, 0xFF]),
            Refused,
        ),
    ]
}

#[test]
fn frames_that_break_the_rules_end_the_stream_or_the_connection() {
    let proxy = proxy(upstream(echo));
    let mut wrong = Vec::new();
    for (name, bytes, expected) in frames() {
        wrong.extend(check(&proxy, name, expected, |client| client.raw(&bytes)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_connection_begins_as_it_must() {
    let proxy = proxy(upstream(echo));
    for (name, bytes) in [
        ("half of the preface, then something else", [&PREFACE[..16], b"XX\r\n\r\n\r\n\r\n"].concat()),
        ("no settings first", [PREFACE, &frame(PING, 0, 0, &[0; 8])].concat()),
    ] {
        let mut socket = connect(&proxy);
        std::io::Write::write_all(&mut socket, &bytes).unwrap();
        let (all, _) = read_all(&mut socket);
        assert!(!all.starts_with(b"HTTP/1.1 2"), "{name}: {all:?}");
    }
    // A second time it is no preface, but a request of a version that is not spoken.
    let mut socket = connect(&proxy);
    let (head, _) = ask(&mut socket, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let (head, _) = ask(&mut socket, PREFACE);
    assert!(head.starts_with("HTTP/1.1 505 "), "{head}");
    assert_eq!(H2::connect(&proxy).get(1, "/").answer().status(), 200);
}

#[test]
fn floods_end_the_connection_and_nobody_else_notices() {
    let proxy = proxy(upstream(echo));
    let get = request("GET", "/", &[]);
    let rapid = |at: u32| {
        [frame(HEADERS, 5, 2 * at + 1, &get), frame(RST_STREAM, 0, 2 * at + 1, &CANCEL.to_be_bytes())].concat()
    };
    // More than was told: a mistake that ends the stream, on our side.
    let told = request("POST", "/", &[("content-length", "0")]);
    let made_to_reset = |at: u32| [frame(HEADERS, 4, 2 * at + 1, &told), frame(DATA, 1, 2 * at + 1, b"x")].concat();
    let floods: Vec<(&str, Vec<u8>)> = vec![
        ("pings", frame(PING, 0, 0, &[0; 8]).repeat(20_000)),
        ("settings", frame(SETTINGS, 0, 0, &setting(4, 65_535)).repeat(20_000)),
        ("empty settings", frame(SETTINGS, 0, 0, &[]).repeat(20_000)),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(20_000)),
        ("unknown frames", frame(99, 0, 0, &[]).repeat(20_000)),
        (
            "empty data",
            [frame(HEADERS, 4, 1, &request("POST", "/", &[])), frame(DATA, 0, 1, &[]).repeat(20_000)].concat(),
        ),
        ("resets that we must do", (0..2_000).flat_map(made_to_reset).collect()),
        ("resets", (0..2_000).flat_map(rapid).collect()),
        ("continuations", [frame(HEADERS, 1, 1, &get), frame(CONTINUATION, 0, 1, &[]).repeat(20_000)].concat()),
    ];
    for (name, bytes) in floods {
        let mut client = H2::connect(&proxy);
        client.raw(&bytes);
        let ending = client.ending();
        // Whoever still writes when the connection is closed may not get to see why.
        assert!(matches!(ending, Outcome::GoAway(ENHANCE_YOUR_CALM) | Outcome::Closed), "{name}: {ending:?}");
        assert_eq!(H2::connect(&proxy).get(1, "/").answer().status(), 200, "after {name}");
    }
}

#[test]
fn heads_are_bounded_however_small_they_were_written() {
    let proxy = proxy(upstream(echo));
    let mut client = H2::connect(&proxy);
    // A field of 4,000 bytes, remembered, and then named by one byte each.
    let mut bomb = request("GET", "/", &[]);
    bomb.extend([0x40, 1, b'x', 0x7F, 0xA1, 0x1E]);
    bomb.extend([b'y'; 4000]);
    bomb.extend([0xBE; 8000]);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &bomb);
    let outcome = client.outcome(1);
    let refused = match &outcome {
        Outcome::Answer(answer) => answer.status() == 431,
        Outcome::Reset(_) | Outcome::GoAway(_) | Outcome::Closed => true,
    };
    assert!(refused, "{outcome:?}");
    // Many crumbs, each of them tiny.
    let crumbs = request("GET", "/", &vec![("cookie", "a"); 200]);
    let answer = {
        let mut client = H2::connect(&proxy);
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &crumbs);
        client.outcome(1).answer()
    };
    assert_eq!(answer.status(), 431);
}

#[test]
fn no_more_requests_at_once_than_were_allowed() {
    let proxy = proxy(upstream(|_, stream| {
        read_head(stream);
        let _ = std::io::Read::read(stream, &mut [0]);
    }));
    let mut client = H2::connect(&proxy);
    for at in 0..129 {
        client.send(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, request("GET", "/", &[]));
    }
    assert_eq!(client.outcome(257), Outcome::Reset(REFUSED_STREAM));
}

fn impatient() -> ProxySettings {
    let short = Duration::from_millis(300);
    let limits = Limits {
        header_timeout: short,
        keep_alive_timeout: short,
        body_window: short,
        linger: (Duration::from_millis(100), 1024),
        ..Limits::default()
    };
    ProxySettings { limits, ..settings() }
}

#[test]
fn who_does_not_go_on_is_let_go() {
    let proxy = proxy_with(spec(upstream(echo)), None, impatient());
    // Half a preface, half a header block, nothing at all: the connection ends.
    let mut socket = connect(&proxy);
    std::io::Write::write_all(&mut socket, &PREFACE[..18]).unwrap();
    let (all, _) = read_all(&mut socket);
    assert!(!all.starts_with(b"HTTP/1.1 2"));
    // An idle connection stays for much longer, so that this is not the end of one.
    let patient = impatient();
    let limits = Limits { keep_alive_timeout: Duration::from_secs(60), ..patient.limits.clone() };
    let patient = proxy_with(spec(upstream(echo)), None, ProxySettings { limits, ..patient });
    let mut client = H2::connect(&patient);
    client.send(HEADERS, END_STREAM, 1, request("GET", "/", &[]));
    // An idle one would have been told goodbye first.
    assert_eq!(client.ending(), Outcome::Closed);
    let end = std::io::Read::read(&mut client.socket, &mut [0]);
    assert!(!matches!(&end, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "it is still there");
    let mut client = H2::connect(&proxy);
    assert_eq!(client.get(1, "/").answer().status(), 200);
    assert_eq!(client.ending(), Outcome::GoAway(NO_ERROR));
    // A body that does not come, and an answer that is not taken: the request ends.
    let mut client = H2::connect(&proxy);
    client.send(HEADERS, END_HEADERS, 1, request("POST", "/", &[("content-length", "5")]));
    assert_eq!(client.outcome(1).answer().status(), 408);
    let mut client = H2::connect_with(&proxy, &[(4, 0)]);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, request("GET", "/", &[]));
    assert_eq!(client.outcome(1), Outcome::Reset(INTERNAL_ERROR));
}
