//! The rest of what RFC 9113 and 7541 ask of a server: streams that have ended, windows, settings, the ways to write a
//! field; and what all the refused input does to a backend that sleeps: nothing.

use crate::{
    frames::*,
    http2_frame_rules::{BEHIND_THE_END, UNREADABLE, frames},
    http2_rules::{
        Case, Expected,
        Expected::{Ended, Error, Refused, Seen},
        ambiguous, check,
    },
    sleeper::Asleep,
    support::*,
};

fn get() -> Vec<u8> {
    request("GET", "/", &[])
}

fn post() -> Vec<u8> {
    request("POST", "/", &[])
}

#[test]
fn frames_in_every_order() {
    let proxy = proxy(upstream(echo));
    let one = |kind, flags, stream, payload: &[u8]| frame(kind, flags, stream, payload);
    let room = 100u32.to_be_bytes();
    let cases: Vec<Case> = vec![
        (
            "headers and many continuations",
            {
                let pieces: Vec<_> = get().chunks(15).map(<[u8]>::to_vec).collect();
                let last = pieces.len() - 1;
                let write = |(at, piece): (usize, &Vec<u8>)| {
                    let kind = if at == 0 { HEADERS } else { CONTINUATION };
                    let end = if at == last { END_HEADERS } else { 0 };
                    frame(kind, end | u8::from(at == 0), 1, piece)
                };
                pieces.iter().enumerate().flat_map(write).collect()
            },
            Seen("GET / "),
        ),
        // Who cuts a small head into many pieces is not asked why.
        (
            "more continuations than a head needs",
            [
                one(HEADERS, 1, 1, &get()[..9]),
                one(CONTINUATION, 0, 1, &[]).repeat(9),
                one(CONTINUATION, 4, 1, &get()[9..]),
            ]
            .concat(),
            Error(ENHANCE_YOUR_CALM),
        ),
        ("largest frame", [one(HEADERS, 4, 1, &post()), one(DATA, 1, 1, &[b'x'; 16_384])].concat(), Seen("POST / ")),
        (
            "padded data",
            [one(HEADERS, 4, 1, &post()), one(DATA, 9, 1, b"\x02hello\0\0")].concat(),
            Seen("\r\n\r\nhello"),
        ),
        (
            "data in pieces",
            [one(HEADERS, 4, 1, &post()), one(DATA, 0, 1, b"he"), one(DATA, 0, 1, b"llo"), one(DATA, 1, 1, b"")]
                .concat(),
            Seen("\r\n\r\nhello"),
        ),
        ("flags that mean nothing", [one(PING, 0xFE, 0, &[0; 8]), one(HEADERS, 5, 1, &get())].concat(), Seen("GET / ")),
        ("reserved bit", [one(PING, 0, 1 << 31, &[0; 8]), one(HEADERS, 5, 1, &get())].concat(), Seen("GET / ")),
        ("acknowledged ping", [one(PING, 1, 0, &[0; 8]), one(HEADERS, 5, 1, &get())].concat(), Seen("GET / ")),
        (
            "priority of 256",
            [one(PRIORITY, 0, 1, &[0, 0, 0, 0, 255]), one(HEADERS, 5, 1, &get())].concat(),
            Seen("GET / "),
        ),
        (
            "lowest priority, of a stream that depends on another",
            [one(PRIORITY, 0, 1, &[0, 0, 0, 7, 0]), one(HEADERS, 5, 1, &get())].concat(),
            Seen("GET / "),
        ),
        (
            "exclusive priority",
            [one(PRIORITY, 0, 1, &[128, 0, 0, 7, 1]), one(HEADERS, 5, 1, &get())].concat(),
            Seen("GET / "),
        ),
        (
            "priority of a later stream",
            [one(PRIORITY, 0, 9, &[0, 0, 0, 0, 1]), one(HEADERS, 5, 1, &get())].concat(),
            Seen("GET / "),
        ),
        (
            "room for a stream that has ended on our side",
            [one(HEADERS, 5, 1, &get()), one(WINDOW_UPDATE, 0, 1, &room)].concat(),
            Seen("GET / "),
        ),
        (
            "priority of a stream that has ended on our side",
            [one(HEADERS, 5, 1, &get()), one(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])].concat(),
            Seen("GET / "),
        ),
        (
            "room for the connection",
            [one(WINDOW_UPDATE, 0, 0, &room), one(HEADERS, 5, 1, &get())].concat(),
            Seen("GET / "),
        ),
        (
            "two sizes of a window",
            [one(SETTINGS, 0, 0, &[setting(4, 0), setting(4, 70_000)].concat()), one(HEADERS, 5, 1, &get())].concat(),
            Seen("GET / "),
        ),
        (
            "headers that are too large for a frame",
            one(HEADERS, 5, 1, &[&get()[..], &[0; 16_384]].concat()),
            Error(FRAME_SIZE_ERROR),
        ),
        (
            "priority within a header block",
            [one(HEADERS, 1, 1, &get()[..9]), one(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])].concat(),
            Error(PROTOCOL_ERROR),
        ),
        (
            "unknown frame within a header block",
            [one(HEADERS, 1, 1, &get()[..9]), one(99, 0, 1, b"x")].concat(),
            Error(PROTOCOL_ERROR),
        ),
        (
            "other headers within a header block",
            [one(HEADERS, 1, 1, &get()[..9]), one(HEADERS, 5, 3, &get())].concat(),
            Error(PROTOCOL_ERROR),
        ),
        (
            "the same headers within a header block",
            [one(HEADERS, 1, 1, &get()[..9]), one(HEADERS, 5, 1, &get())].concat(),
            Error(PROTOCOL_ERROR),
        ),
        (
            "continuation on the connection",
            [one(HEADERS, 1, 1, &get()[..9]), one(CONTINUATION, 4, 0, &get()[9..])].concat(),
            Error(PROTOCOL_ERROR),
        ),
        (
            "continuation behind data",
            [one(HEADERS, 4, 1, &post()), one(DATA, 0, 1, b"x"), one(CONTINUATION, 4, 1, &get())].concat(),
            Error(PROTOCOL_ERROR),
        ),
        (
            "continuation behind the last",
            [one(HEADERS, 0, 1, &post()[..9]), one(CONTINUATION, 4, 1, &post()[9..]), one(CONTINUATION, 4, 1, &get())]
                .concat(),
            Error(PROTOCOL_ERROR),
        ),
        ("headers behind the end", [one(HEADERS, 5, 1, &get()), one(HEADERS, 5, 1, &get())].concat(), BEHIND_THE_END),
        ("priority that depends on itself", one(PRIORITY, 0, 1, &[0, 0, 0, 1, 1]), Error(PROTOCOL_ERROR)),
        (
            "window beyond all bounds by settings",
            [
                one(HEADERS, 4, 1, &post()),
                one(WINDOW_UPDATE, 0, 1, &0x7000_0000u32.to_be_bytes()),
                one(SETTINGS, 0, 0, &setting(4, 0x7FFF_FFFF)),
            ]
            .concat(),
            Error(FLOW_CONTROL_ERROR),
        ),
        ("size of the table at the end of a block", one(HEADERS, 5, 1, &[&get()[..], &[0x20]].concat()), UNREADABLE),
        (
            "code with padding of eight ones",
            one(HEADERS, 5, 1, &[&get()[..], &[0, 1, b'x', 0x81, 0xFF]].concat()),
            UNREADABLE,
        ),
    ];
    let mut wrong = Vec::new();
    for (name, bytes, expected) in cases {
        wrong.extend(check(&proxy, name, expected, |client| client.raw(&bytes)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `custom-key` and `custom-value` in the code of RFC 7541, as its appendix C.4 writes them.
const KEY: &[u8] = &[0x25, 0xA8, 0x49, 0xE9, 0x5B, 0xA9, 0x7D, 0x7F];
const VALUE: &[u8] = &[0x25, 0xA8, 0x49, 0xE9, 0x5B, 0xB8, 0xE8, 0xB4, 0xBF];
/// `www.example.com`.
const HOST: &[u8] = &[0xF1, 0xE3, 0xC2, 0xE5, 0xF2, 0x3A, 0x6B, 0xA0, 0xAB, 0x90, 0xF4, 0xFF];

#[test]
fn a_field_may_be_written_in_many_ways() {
    let proxy = proxy(upstream(echo));
    let host = Seen("\r\nHost: www.example.com\r\n");
    let key = Seen("\r\ncustom-key: custom-value\r\n");
    // By method, scheme and path of the table; then an authority whose name is in the table, in six ways.
    let named = |first: u8, coded: bool| {
        let text: &[u8] = if coded { HOST } else { b"www.example.com" };
        let length = u8::try_from(text.len()).unwrap() | if coded { 128 } else { 0 };
        [&[0x82, 0x86, 0x84, first, length][..], text].concat()
    };
    let new = |first: u8, coded: bool| {
        let (name, value): (&[u8], &[u8]) = if coded { (KEY, VALUE) } else { (b"custom-key", b"custom-value") };
        let length = |text: &[u8]| u8::try_from(text.len()).unwrap() | if coded { 128 } else { 0 };
        [&get()[..], &[first, length(name)], name, &[length(value)], value].concat()
    };
    let cases: Vec<Case> = vec![
        ("remembered, known name", named(0x41, false), host),
        ("remembered, known name, coded", named(0x41, true), host),
        ("not remembered, known name", named(0x01, false), host),
        ("not remembered, known name, coded", named(0x01, true), host),
        ("never remembered, known name", named(0x11, false), host),
        ("never remembered, known name, coded", named(0x11, true), host),
        ("remembered, new name", new(0x40, false), key),
        ("remembered, new name, coded", new(0x40, true), key),
        ("not remembered, new name", new(0x00, false), key),
        ("not remembered, new name, coded", new(0x00, true), key),
        ("never remembered, new name", new(0x10, false), key),
        ("never remembered, new name, coded", new(0x10, true), key),
        ("a table of no size", [&[0x20][..], &get()].concat(), Seen("GET / ")),
        ("a table of two sizes", [&[0x20, 0x3F, 0xE1, 0x1F][..], &named(0x41, true)].concat(), host),
        ("a field remembered by a table without room", [&[0x20][..], &named(0x41, true), &[0xBE]].concat(), Refused),
    ];
    let mut wrong = Vec::new();
    for (name, block, expected) in cases {
        wrong.extend(check(&proxy, name, expected, |client| client.send(HEADERS, 5, 1, &block)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What was remembered is there for the next request.
    let mut client = H2::connect(&proxy);
    client.send(HEADERS, 5, 1, named(0x41, true));
    assert!(client.outcome(1).answer().text().contains("\r\nHost: www.example.com\r\n"));
    client.send(HEADERS, 5, 3, [0x82, 0x86, 0x84, 0xBE]);
    assert!(client.outcome(3).answer().text().contains("\r\nHost: www.example.com\r\n"));
}

#[test]
fn a_stream_that_has_ended_takes_nothing_more() {
    let proxy = proxy(upstream(echo));
    let last = |kind: u8, payload: &[u8]| frame(kind, if kind == DATA { 1 } else { 5 }, 1, payload);
    let more = [("data", last(DATA, b"x")), ("headers", last(HEADERS, &get())), ("rest", last(CONTINUATION, &get()))];
    // By RFC 9113, 5.1, 5.1.1 and 6.10; for the stream or for the connection (5.4.1).
    let refused = |outcome: &Outcome| match outcome {
        Outcome::Reset(code) | Outcome::GoAway(code) => [STREAM_CLOSED, PROTOCOL_ERROR].contains(code),
        Outcome::Closed | Outcome::Answer(_) => false,
    };
    for (name, bytes) in &more {
        // One that was answered.
        let mut client = H2::connect(&proxy);
        assert_eq!(client.get(1, "/").answer().status(), 200);
        client.raw(bytes);
        let outcome = client.outcome(1);
        assert!(refused(&outcome), "{name} after the answer: {outcome:?}");
        // One that the client has given up.
        let mut client = H2::connect(&proxy);
        client.send(HEADERS, END_HEADERS, 1, post());
        client.send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
        client.raw(bytes);
        let outcome = client.outcome(1);
        assert!(refused(&outcome), "{name} after a reset: {outcome:?}");
        assert_eq!(H2::connect(&proxy).get(1, "/").answer().status(), 200);
    }
    // What does no harm: the connection goes on.
    let harmless = [
        ("priority", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("room", frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes())),
        ("reset", frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())),
        ("reset with a code of its own", frame(RST_STREAM, 0, 1, &0xFFu32.to_be_bytes())),
    ];
    for (name, bytes) in &harmless {
        let mut client = H2::connect(&proxy);
        assert_eq!(client.get(1, "/").answer().status(), 200);
        client.raw(bytes);
        assert_eq!(client.get(3, "/").answer().status(), 200, "after {name}");
    }
}

#[test]
fn what_asks_for_an_answer_gets_it() {
    let proxy = proxy(upstream(echo));
    let mut client = H2::connect(&proxy);
    // An answer is not answered.
    client.send(PING, ACK, 0, *b"an answr");
    client.send(PING, 0, 0, *b"question");
    client.send(SETTINGS, 0, 0, setting(3, 100));
    let (mut pinged, mut settled) = (false, 0);
    while !pinged || settled < 2 {
        let frame = client.read().expect("an answer");
        assert!(frame.kind != PING || frame.payload == b"question", "{frame:?}");
        pinged |= frame.kind == PING && frame.flags & ACK != 0 && frame.payload == b"question";
        settled += usize::from(frame.kind == SETTINGS && frame.flags & ACK != 0);
    }
    assert_eq!(client.get(1, "/").answer().status(), 200);
    // A client that leaves, for a reason that nobody knows.
    client.send(GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0xFF]);
    assert!(matches!(client.ending(), Outcome::GoAway(_) | Outcome::Closed));
    assert_eq!(H2::connect(&proxy).get(1, "/").answer().status(), 200);
}

/// Reads data of this stream until so many bytes have come, none of them in a frame of more than `most`.
fn data(client: &mut H2, stream: u32, wanted: usize, most: usize) -> usize {
    let mut count = 0;
    while count < wanted {
        let frame = client.read().expect("more data");
        if frame.kind == DATA && frame.stream == stream {
            assert!(frame.payload.len() <= most, "{} bytes where {most} were allowed", frame.payload.len());
            count += frame.payload.len();
        }
    }
    count
}

#[test]
fn windows_are_kept_to_the_byte() {
    let proxy = proxy(upstream(echo));
    // One byte at a time.
    let mut client = H2::connect_with(&proxy, &[(4, 1)]);
    client.send(HEADERS, 5, 1, get());
    for _ in 0..3 {
        assert_eq!(data(&mut client, 1, 1, 1), 1);
        client.send(WINDOW_UPDATE, 0, 1, 1u32.to_be_bytes());
    }
    // Room that settings give to a stream that waits for it.
    let mut client = H2::connect_with(&proxy, &[(4, 0)]);
    client.send(HEADERS, 5, 1, get());
    client.send(SETTINGS, 0, 0, setting(4, 3));
    assert_eq!(data(&mut client, 1, 3, 3), 3);
    // Below nothing: what room comes is used up by the debt first.
    client.send(SETTINGS, 0, 0, setting(4, 1));
    client.send(WINDOW_UPDATE, 0, 1, 4u32.to_be_bytes());
    assert_eq!(data(&mut client, 1, 2, 2), 2);
    client.send(PING, 0, 0, [7; 8]);
    loop {
        let frame = client.read().expect("the connection goes on");
        assert_ne!((frame.kind, frame.stream), (DATA, 1), "more than there was room for");
        if frame.kind == PING {
            break;
        }
    }
}

#[test]
fn what_is_refused_wakes_nobody() {
    let sleeper = Asleep::default().with(echo);
    let refused = |expected: Expected| matches!(expected, Refused | Error(_) | Ended(_));
    let heads = ambiguous().into_iter().map(|(name, block, expected)| (name, frame(HEADERS, 5, 1, &block), expected));
    // What comes behind a good head is too late: the head has woken already.
    let good = [frame(HEADERS, 5, 1, &get()), frame(HEADERS, 4, 1, &post()), frame(HEADERS, 4, 5, &post())];
    let bad = frames().into_iter().filter(|(_, bytes, _)| !good.iter().any(|good| bytes.starts_with(good)));
    let mut count = 0;
    for (name, bytes, _) in heads.chain(bad).filter(|(.., expected)| refused(*expected)) {
        let mut client = H2::connect(&sleeper.proxy);
        client.raw(&bytes);
        let outcome = client.outcome(1);
        let passed = matches!(&outcome, Outcome::Answer(answer) if answer.status() < 400);
        assert!(!passed && sleeper.starts() == 0, "{name}: {outcome:?}, {} starts", sleeper.starts());
        count += 1;
    }
    assert!(count >= 100, "only {count} cases");
    assert_eq!(H2::connect(&sleeper.proxy).get(1, "/").answer().status(), 200);
    assert_eq!(sleeper.starts(), 1);
}
