//! Frames of HTTP/2 that break the rules of RFC 9113, and clients that would wear the proxy out: what is ended for it is
//! theirs, and nobody else notices.

use std::time::Duration;

use dormouse::proxy::{Limits, ProxySettings};

use crate::{
    frames::*,
    http2_rules::{
        Case, Expected,
        Expected::{Ended, Error, Seen},
        check,
    },
    support::*,
};

/// A block that can not be decoded. RFC 9113, 4.3, has `COMPRESSION_ERROR` for it, and `h2` the general code alone. What
/// matters is the end of the connection: the two sides may remember different fields.
pub(crate) const UNREADABLE: Expected = Ended(&[COMPRESSION_ERROR, PROTOCOL_ERROR]);

/// Something for a stream that has ended on the client's side: `STREAM_CLOSED` by RFC 9113, 5.1, while 5.1.1 (a number that
/// is not new) and 6.10 (a continuation of nothing) have `PROTOCOL_ERROR`, which is what `h2` ends the connection with.
pub(crate) const BEHIND_THE_END: Expected = Ended(&[STREAM_CLOSED, PROTOCOL_ERROR]);

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
        ("header block of unfinished codes", one(HEADERS, 5, 1, &[0x40, 0x05, b'a']), UNREADABLE),
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
        (
            "rest of a head behind the end",
            [one(HEADERS, 5, 1, &get()), one(CONTINUATION, 4, 1, &[])].concat(),
            BEHIND_THE_END,
        ),
        ("data behind the end", [one(HEADERS, 5, 1, &get()), one(DATA, 1, 1, b"x")].concat(), BEHIND_THE_END),
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
        ("priority of a wrong size", one(PRIORITY, 0, 1, &[0; 4]), Ended(&[FRAME_SIZE_ERROR])),
        // 6.4: RST_STREAM.
        ("reset of the connection", one(RST_STREAM, 0, 0, &[0; 4]), Error(PROTOCOL_ERROR)),
        (
            "reset of a wrong size",
            [one(HEADERS, 4, 1, &post()), one(RST_STREAM, 0, 1, &[0; 3])].concat(),
            Ended(&[FRAME_SIZE_ERROR]),
        ),
        // 6.5: SETTINGS.
        ("settings of a stream", one(SETTINGS, 0, 1, &[]), Error(PROTOCOL_ERROR)),
        ("acknowledgement with content", one(SETTINGS, 1, 0, &setting(4, 1)), Ended(&[FRAME_SIZE_ERROR])),
        ("settings of a wrong size", one(SETTINGS, 0, 0, &[0; 5]), Ended(&[FRAME_SIZE_ERROR])),
        ("window that is too large", one(SETTINGS, 0, 0, &setting(4, 1 << 31)), Ended(&[FLOW_CONTROL_ERROR])),
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
        ("ping of a wrong size", one(PING, 0, 0, &[0; 7]), Ended(&[FRAME_SIZE_ERROR])),
        // 6.8: GOAWAY.
        ("goodbye of a wrong size", one(GOAWAY, 0, 0, &[0; 7]), Ended(&[FRAME_SIZE_ERROR])),
        ("goodbye of a stream", one(GOAWAY, 0, 1, &[0; 8]), Error(PROTOCOL_ERROR)),
        // 6.9: WINDOW_UPDATE.
        ("no more room for the connection", one(WINDOW_UPDATE, 0, 0, &[0; 4]), Error(PROTOCOL_ERROR)),
        (
            "no more room for a stream",
            [one(HEADERS, 4, 1, &post()), one(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
            Error(PROTOCOL_ERROR),
        ),
        ("room of a wrong size", one(WINDOW_UPDATE, 0, 0, &[0; 3]), Ended(&[FRAME_SIZE_ERROR])),
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
        ("index 0", one(HEADERS, 5, 1, &[0x80]), UNREADABLE),
        ("index that is not there", one(HEADERS, 5, 1, &[0xFF, 0x50]), UNREADABLE),
        ("name that is not there", one(HEADERS, 5, 1, &[0x7F, 0x50, 1, b'x']), UNREADABLE),
        ("table larger than allowed", one(HEADERS, 5, 1, &[&[0x3F, 0xE2, 0x1F][..], &get()].concat()), UNREADABLE),
        ("code with padding of zeros", one(HEADERS, 5, 1, &[0x00, 0x81, 0x1C, 0x81, 0x00]), UNREADABLE),
        (
            "code with its end within",
            one(HEADERS, 5, 1, &[0x00, 0x85, 0xF2, 0xB2, 0x4A, 0x84, 0xFF, 0x84, 0x49, 0x50, 0x9F, 0xFF]),
            UNREADABLE,
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
    let mut socket = connect(&proxy);
    let half = [&PREFACE[..16], b"XX\r\n\r\n\r\n\r\n"].concat();
    std::io::Write::write_all(&mut socket, &half).unwrap();
    let (all, _) = read_all(&mut socket);
    assert!(!all.starts_with(b"HTTP/1.1 2"), "half of the preface, then something else: {all:?}");
    // Our side begins with its settings, too (RFC 9113, 3.4).
    let first = H2::connect(&proxy).read().expect("settings");
    assert_eq!((first.kind, first.flags & ACK, first.stream), (SETTINGS, 0, 0));
    // And so must the client's (RFC 9113, 3.4).
    let get = request("GET", "/", &[]);
    for (name, first) in [
        ("a ping", frame(PING, 0, 0, &[0; 8])),
        ("a request", frame(HEADERS, END_HEADERS | END_STREAM, 1, &get)),
        ("an acknowledgement", frame(SETTINGS, ACK, 0, &[])),
        ("an unknown frame", frame(99, 0, 0, &[])),
    ] {
        let mut client = H2::silent(&proxy);
        client.raw(&[PREFACE, &first].concat());
        assert_eq!(client.outcome(1), Outcome::GoAway(PROTOCOL_ERROR), "{name} first");
        client.ending();
    }
    // A second time it is no preface, but a request of a version that is not spoken.
    let mut socket = connect(&proxy);
    let (head, _) = ask(&mut socket, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let (head, _) = ask(&mut socket, PREFACE);
    assert!(head.starts_with("HTTP/1.1 505 "), "{head}");
    assert_eq!(H2::connect(&proxy).get(1, "/").answer().status(), 200);
}

/// Frames that cost their sender nothing, very many of them.
pub(crate) fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let get = request("GET", "/", &[]);
    let rapid = |at: u32| {
        [frame(HEADERS, 5, 2 * at + 1, &get), frame(RST_STREAM, 0, 2 * at + 1, &CANCEL.to_be_bytes())].concat()
    };
    // More than was told: a mistake that ends the stream, on our side.
    let told = request("POST", "/", &[("content-length", "0")]);
    let made_to_reset = |at: u32| [frame(HEADERS, 4, 2 * at + 1, &told), frame(DATA, 1, 2 * at + 1, b"x")].concat();
    vec![
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
    ]
}

#[test]
fn floods_end_the_connection_and_nobody_else_notices() {
    let proxy = proxy(upstream(echo));
    for (name, bytes) in floods() {
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
