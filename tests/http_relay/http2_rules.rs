//! What HTTP/2 forbids (RFC 9113, 7541), and what would be read in two ways once it is HTTP/1.1: refused, or seen by the
//! backend as exactly one request. Nothing of it disturbs the requests of others.

use std::{io::Write, net::TcpStream};

use crate::{frames::*, http2_frame_rules::frames, secure::proxy_through_tls, support::*};

/// What is expected of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The stream, or the connection, is ended with this code: one that ends the connection where only a stream is wrong
    /// may do so (RFC 9113, 5.4.1).
    Error(u32),
    /// The connection is ended, with one of these codes.
    Ended(&'static [u32]),
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
        (Outcome::GoAway(code), Ended(wanted)) => wanted.contains(code),
        (Outcome::Reset(_) | Outcome::GoAway(_), Refused) => true,
        (Outcome::Answer(answer), Refused) => (400..500).contains(&answer.status()) || answer.status() == 501,
        (Outcome::Answer(answer), Seen(part)) => {
            let text = answer.text();
            let one = text.matches(" HTTP/1.1\r\n").count() == 1;
            answer.status() == 200 && one && text.contains(part)
        }
        _ => false,
    };
    // Behind the last word the connection is closed, too (RFC 9113, 5.4.1); silence fails the test.
    if matches!(outcome, Outcome::GoAway(_)) {
        client.ending();
    }
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
    let alone = |host: &str| block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", host)]);
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
        ("method with a tab", request("GET\t/x", "/", &[]), Refused),
        ("method beyond ASCII", request("GÉT", "/", &[]), Refused),
        ("path with a DEL", request("GET", "/a\x7Fb", &[]), Refused),
        ("dot segments, half of them encoded", request("GET", "/a/.%2e/b", &[]), Refused),
        ("dot segments at the end", request("GET", "/a/..", &[]), Refused),
        ("star for POST", request("POST", "*", &[]), Refused),
        // Pseudo-header fields.
        ("no method", block(&[(":scheme", "http"), (":path", "/"), (":authority", "a")]), Refused),
        ("no scheme", block(&[(":method", "GET"), (":path", "/"), (":authority", "a")]), Refused),
        ("no path", block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")]), Refused),
        (
            "no path, and a Host",
            block(&[(":method", "GET"), (":scheme", "http"), ("host", "a")]),
            Error(PROTOCOL_ERROR),
        ),
        (
            "no path for OPTIONS, and a Host",
            block(&[(":method", "OPTIONS"), (":scheme", "http"), ("host", "a")]),
            Error(PROTOCOL_ERROR),
        ),
        ("two methods", [block(&[(":method", "POST")]), get(&[])].concat(), Refused),
        ("two paths", [block(&[(":path", "/x")]), get(&[])].concat(), Refused),
        ("two schemes", [block(&[(":scheme", "https")]), get(&[])].concat(), Refused),
        ("two authorities", [block(&[(":authority", "b")]), get(&[])].concat(), Refused),
        ("unknown pseudo-header field", [block(&[(":x", "y")]), get(&[])].concat(), Refused),
        ("pseudo-header field of a response", [block(&[(":status", "200")]), get(&[])].concat(), Refused),
        ("pseudo-header field behind a field", get(&[("a", "b"), (":path", "/x")]), Refused),
        ("protocol without CONNECT", [block(&[(":protocol", "websocket")]), get(&[])].concat(), Refused),
        ("pseudo-header field with an upper letter", [block(&[(":Path", "/x")]), get(&[])].concat(), Refused),
        ("empty pseudo-header field", [block(&[(":", "x")]), get(&[])].concat(), Refused),
        (
            "two protocols",
            [block(&[(":protocol", "websocket"), (":protocol", "websocket")]), request("CONNECT", "/", &[])].concat(),
            Refused,
        ),
        (
            "websocket without a path",
            block(&[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a")]),
            Refused,
        ),
        (
            "websocket without a scheme",
            block(&[(":method", "CONNECT"), (":protocol", "websocket"), (":path", "/"), (":authority", "a")]),
            Refused,
        ),
        ("scheme with a line end", pseudo("GET", "http\r\nX: y", "/", "a"), Refused),
        // The host.
        ("Host alone", alone("b.test"), Seen("\r\nHost: b.test\r\n")),
        ("no host at all", block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]), Refused),
        ("Host that differs", get(&[("host", "other.test")]), Refused),
        ("Host that repeats", get(&[("host", "App.Test")]), Seen("\r\nHost: app.test\r\n")),
        ("two Hosts", get(&[("host", "app.test"), ("host", "app.test")]), Refused),
        ("authority with a user", pseudo("GET", "http", "/", "u@app.test"), Refused),
        ("authority with a path", pseudo("GET", "http", "/", "app.test/x"), Refused),
        ("authority with a line end", pseudo("GET", "http", "/", "app.test\r\nX: y"), Refused),
        ("authority with a space", pseudo("GET", "http", "/", "app.test other"), Refused),
        ("authority with a query", pseudo("GET", "http", "/", "app.test?x"), Refused),
        ("authority with a fragment", pseudo("GET", "http", "/", "app.test#x"), Refused),
        ("authority with a backslash", pseudo("GET", "http", "/", "app.test\\x"), Refused),
        ("authority with a NUL", pseudo("GET", "http", "/", "app.test\0"), Refused),
        ("Host with a path", alone("b.test/x"), Refused),
        ("Host with a user", alone("u@b.test"), Refused),
        ("Host with a space", alone("b test"), Refused),
        ("empty Host", alone(""), Refused),
        ("authority with a bad port", pseudo("GET", "http", "/", "app.test:99999"), Refused),
        ("empty authority", pseudo("GET", "http", "/", ""), Refused),
        // Fields.
        ("name with an upper letter", get(&[("Accept", "x")]), Refused),
        ("empty name", get(&[("", "x")]), Refused),
        ("name with a space", get(&[("a b", "x")]), Refused),
        ("name with a colon", get(&[("a:b", "x")]), Refused),
        ("name with a line end", get(&[("a\r\nb", "x")]), Refused),
        ("name with a slash", get(&[("a/b", "x")]), Refused),
        ("name beyond ASCII", get(&[("ä", "x")]), Refused),
        ("value with a DEL", get(&[("a", "x\x7Fy")]), Refused),
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
        ("te trailers and more", get(&[("te", "trailers, gzip")]), Refused),
        ("te trailers", get(&[("te", "trailers")]), Seen("\r\nTE: trailers\r\nConnection: TE\r\n")),
        ("expectation of its own", get(&[("expect", "other")]), Refused),
        // Lengths.
        ("length without a body", get(&[("content-length", "5")]), Refused),
        ("length of nothing", get(&[("content-length", "0")]), Seen("\r\nContent-Length: 0\r\n")),
        ("negative length", get(&[("content-length", "-1")]), Refused),
        ("length with a sign", get(&[("content-length", "+0")]), Refused),
        ("length in hexadecimal", get(&[("content-length", "0x0")]), Refused),
        ("length beyond all numbers", get(&[("content-length", "99999999999999999999")]), Refused),
        ("length with a fraction", get(&[("content-length", "0.0")]), Refused),
        ("empty length", get(&[("content-length", "")]), Refused),
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

/// Sends each as the only request of its connection.
fn all_are_as_expected(proxy: &Proxy, heads: Vec<Case>) {
    let mut wrong = Vec::new();
    for (name, block, expected) in heads {
        wrong.extend(check(proxy, name, expected, |client| client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn requests_that_two_readers_would_read_differently() {
    let heads = ambiguous();
    assert!(heads.len() >= 100, "only {}", heads.len());
    all_are_as_expected(&proxy(upstream(echo)), heads);
}

#[test]
fn requests_that_two_readers_would_read_differently_through_tls() {
    let proxy = proxy_through_tls(upstream(echo));
    all_are_as_expected(&proxy, ambiguous());
    let mut wrong = Vec::new();
    for (name, bytes, expected) in frames() {
        wrong.extend(check(&proxy, name, expected, |client| client.raw(&bytes)));
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
        // Malformed, and yet harmless: `trailers_hold_no_second_head` says why.
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

/// Answers once, with all that came: the head, and the body with its framing and its trailers.
fn to_the_last_byte(_: usize, stream: &mut TcpStream) {
    let mut seen = read_head(stream).into_bytes();
    if seen.windows(9).any(|part| part == b": chunked") {
        let has_trailers = |seen: &[u8]| seen.windows(5).any(|part| part == b"x-sum");
        while !(seen.ends_with(b"0\r\n\r\n") || seen.ends_with(b"\r\n\r\n") && has_trailers(&seen)) {
            seen.extend(read_exactly(stream, 1));
        }
    }
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", seen.len()).unwrap();
    stream.write_all(&seen).unwrap();
}

#[test]
fn trailers_hold_no_second_head() {
    let proxy = proxy(upstream(to_the_last_byte));
    let mut client = H2::connect(&proxy);
    client.send(HEADERS, END_HEADERS, 1, request("POST", "/first", &[]));
    client.send(HEADERS, END_HEADERS, 3, request("POST", "/second", &[]));
    client.send(DATA, 0, 1, "abc");
    // A path by its name in the table, remembered; a method of the table; then a field as it may be.
    let trailers = [&[0x44, 7][..], b"/hidden", &[0x83], &field("x-sum", "1")].concat();
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, trailers);
    let seen = client.outcome(1).answer().text();
    assert!(seen.starts_with("POST /first HTTP/1.1\r\n") && seen.ends_with("\r\n0\r\nx-sum: 1\r\n\r\n"), "{seen}");
    assert!(!seen.contains("hidden") && seen.matches("POST").count() == 1, "{seen}");
    // The request beside it is what it was, and what was remembered is where both sides look for it.
    client.send(DATA, END_STREAM, 3, "def");
    let seen = client.outcome(3).answer().text();
    assert!(seen.starts_with("POST /second HTTP/1.1\r\n") && !seen.contains("hidden"), "{seen}");
    client.send(
        HEADERS,
        END_HEADERS | END_STREAM,
        5,
        [&[0x82, 0x86, 0xBE][..], &field(":authority", "app.test")].concat(),
    );
    let seen = client.outcome(5).answer().text();
    assert!(seen.starts_with("GET /hidden HTTP/1.1\r\n"), "{seen}");
}
