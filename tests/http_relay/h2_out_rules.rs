//! Services that break the rules of HTTP/2: what they send is refused, or its end is never shown as an end. And services
//! that take requests back: what they have not seen is asked again, and nothing else.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{frames::*, h2_service::*, sleeper::until, support::*};

/// What is expected of a case.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// A 502, and nothing of what the service sent.
    Refused,
    /// What came is not shown as whole; a 502 where nothing of it was.
    Cut,
    /// It is passed on, with this body.
    Passed(&'static str),
}
use Expected::{Cut, Passed, Refused};

type Frames = Vec<(u8, u8, Vec<u8>)>;

/// The answer to one request, by a client of HTTP/1.1.
fn asked(frames: &Frames, expected: Expected) -> Result<(), String> {
    let frames = frames.clone();
    let proxy = h2c_proxy(raw_service(move |_, raw| {
        while let Some(stream) = raw.whole_request() {
            for (kind, flags, payload) in &frames {
                raw.send(*kind, *flags, stream, payload);
            }
        }
    }));
    let mut client = connect(&proxy);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let (all, clean) = read_all(&mut client);
    let mut all = text(all);
    while all.starts_with("HTTP/1.1 103 ")
        && let Some((_, behind)) = all.split_once("\r\n\r\n")
    {
        all = behind.to_owned();
    }
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
    let chunked = head.contains("Transfer-Encoding: chunked");
    let length = header(head, "content-length").and_then(|length| length.parse::<usize>().ok());
    let whole = clean
        && if chunked { body.contains("\r\n0\r\n") && body.ends_with("\r\n\r\n") } else { length == Some(body.len()) };
    let holds = match expected {
        Refused => head.starts_with("HTTP/1.1 502 ") && whole && !all.contains("secret"),
        Cut => !whole || head.starts_with("HTTP/1.1 502 "),
        Passed(wanted) => head.starts_with("HTTP/1.1 200 ") && whole && body.contains(wanted),
    };
    if holds { Ok(()) } else { Err(format!("{expected:?}, but {all:?}, clean: {clean}")) }
}

/// A head with these fields behind a status of 200, and a body.
fn with(fields: &[(&str, &str)]) -> Frames {
    let mut all = vec![(":status", "200"), ("secret", "secret")];
    all.extend(fields);
    vec![(HEADERS, END_HEADERS, block(&all)), (DATA, END_STREAM, b"secret".to_vec())]
}

/// A good head, and what follows.
fn then(more: Frames) -> Frames {
    let mut frames = vec![(HEADERS, END_HEADERS, block(&[(":status", "200")]))];
    frames.extend(more);
    frames
}

fn status(status: &str) -> Frames {
    vec![(HEADERS, END_HEADERS | END_STREAM, block(&[(":status", status), ("x", "secret")]))]
}

#[test]
fn heads_that_are_none_are_refused() {
    let long = "x".repeat(40_000);
    let continued = || {
        let big = block(&[(":status", "200"), ("x", &long), ("y", &long)]);
        let mut pieces = big.chunks(16_000);
        let mut frames = vec![(HEADERS, 0, pieces.next().unwrap().to_vec())];
        frames.extend(pieces.map(|piece| (CONTINUATION, 0, piece.to_vec())));
        frames.push((CONTINUATION, END_HEADERS, Vec::new()));
        frames
    };
    let many: Vec<(String, String)> = (0..500).map(|at| (format!("x{at}"), "y".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let cases: Vec<(&str, Frames, Expected)> = vec![
        ("usual", with(&[]), Passed("secret")),
        ("no status", vec![(HEADERS, END_HEADERS | END_STREAM, block(&[("x", "secret")]))], Refused),
        ("two statuses", with(&[(":status", "204")]), Refused),
        ("status of letters", status("abc"), Refused),
        ("short status", status("20"), Refused),
        ("empty status", status(""), Refused),
        ("status 099", status("099"), Refused),
        ("status 600", status("600"), Refused),
        ("status 101", vec![(HEADERS, END_HEADERS, block(&[(":status", "101"), ("upgrade", "websocket")]))], Refused),
        ("informational end", status("103"), Refused),
        (
            "status behind a field",
            vec![(HEADERS, END_HEADERS | END_STREAM, block(&[("x", "secret"), (":status", "200")]))],
            Refused,
        ),
        ("unknown pseudo-header field", with(&[(":x", "y")]), Refused),
        ("connection", with(&[("connection", "close")]), Refused),
        ("keep-alive", with(&[("keep-alive", "timeout=5")]), Refused),
        ("proxy-connection", with(&[("proxy-connection", "close")]), Refused),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), Refused),
        ("upgrade", with(&[("upgrade", "h2c")]), Refused),
        ("upper case", with(&[("X-Upper", "y")]), Refused),
        ("name with a space", with(&[("x y", "z")]), Refused),
        ("name with a colon", with(&[("x:y", "z")]), Refused),
        ("name with a line end", with(&[("x\r\ny", "z")]), Refused),
        ("empty name", with(&[("", "z")]), Refused),
        ("value with a line end", with(&[("x", "y\r\nset-cookie: z")]), Refused),
        ("value with a LF", with(&[("x", "y\nz")]), Refused),
        ("value with a NUL", with(&[("x", "y\0z")]), Refused),
        ("value with a blank at its end", with(&[("x", "y ")]), Refused),
        ("value with a blank before it", with(&[("x", "\ty")]), Refused),
        ("lengths that differ", with(&[("content-length", "6"), ("content-length", "7")]), Refused),
        ("length twice", with(&[("content-length", "6"), ("content-length", "6")]), Refused),
        ("length with a sign", with(&[("content-length", "+6")]), Refused),
        ("list of lengths", with(&[("content-length", "6, 6")]), Refused),
        (
            "length without a body",
            vec![(HEADERS, END_HEADERS | END_STREAM, block(&[(":status", "200"), ("content-length", "5")]))],
            Refused,
        ),
        ("too many fields", with(&many), Refused),
        ("too large a head", continued(), Refused),
        (
            "endless continuations",
            (0..10_000).map(|at| (if at == 0 { HEADERS } else { CONTINUATION }, 0, Vec::new())).collect(),
            Refused,
        ),
        ("no code of fields", vec![(HEADERS, END_HEADERS | END_STREAM, vec![0xFF; 20])], Refused),
        ("data before a head", vec![(DATA, END_STREAM, b"secret".to_vec())], Refused),
        (
            "a push",
            vec![(PUSH_PROMISE, END_HEADERS, [&2u32.to_be_bytes()[..], &request("GET", "/", &[])].concat())],
            Refused,
        ),
        ("settings of a stream", vec![(SETTINGS, 0, Vec::new())], Refused),
        ("too large a frame", vec![(DATA, 0, vec![0; 20_000])], Refused),
        ("an internal error", vec![(RST_STREAM, 0, INTERNAL_ERROR.to_be_bytes().to_vec())], Refused),
        ("an end without an answer", vec![(RST_STREAM, 0, NO_ERROR.to_be_bytes().to_vec())], Refused),
        (
            "informational ones without end",
            (0..40).map(|_| (HEADERS, END_HEADERS, block(&[(":status", "103")]))).collect(),
            Refused,
        ),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(name, frames, expected)| asked(frames, *expected).err().map(|wrong| format!("{name}: {wrong}")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bodies_that_do_not_end_are_not_shown_as_whole() {
    let data = |text: &str| (DATA, 0, text.as_bytes().to_vec());
    let trailers = |fields: &[(&str, &str)]| (HEADERS, END_HEADERS | END_STREAM, block(fields));
    let reset = |code: u32| (RST_STREAM, 0, code.to_be_bytes().to_vec());
    let long = "x".repeat(9000);
    let length = |length: &str| vec![(HEADERS, END_HEADERS, block(&[(":status", "200"), ("content-length", length)]))];
    let cases: Vec<(&str, Frames, Expected)> = vec![
        ("trailers", then(vec![data("ok"), trailers(&[("x-sum", "1")])]), Passed("ok\r\n0\r\nx-sum: 1\r\n")),
        ("reset", then(vec![data("ok"), reset(INTERNAL_ERROR)]), Cut),
        ("reset without an error", then(vec![data("ok"), reset(NO_ERROR)]), Cut),
        ("reset behind the end", then(vec![data("ok"), (DATA, END_STREAM, Vec::new()), reset(NO_ERROR)]), Passed("ok")),
        (
            "reset behind trailers",
            then(vec![data("ok"), trailers(&[("x", "y")]), reset(CANCEL)]),
            Passed("ok\r\n0\r\nx: y"),
        ),
        ("too short", [length("5"), vec![(DATA, END_STREAM, b"ok".to_vec())]].concat(), Cut),
        ("too long", [length("1"), vec![(DATA, END_STREAM, b"ok".to_vec())]].concat(), Cut),
        ("connection in trailers", then(vec![data("ok"), trailers(&[("connection", "close")])]), Cut),
        ("transfer-encoding in trailers", then(vec![data("ok"), trailers(&[("transfer-encoding", "chunked")])]), Cut),
        ("line end in trailers", then(vec![data("ok"), trailers(&[("x", "y\r\n\r\nGET /")])]), Cut),
        ("upper case in trailers", then(vec![data("ok"), trailers(&[("X", "y")])]), Cut),
        ("trailers that do not end", then(vec![data("ok"), (HEADERS, END_HEADERS, block(&[("x", "y")]))]), Cut),
        ("large trailers", then(vec![data("ok"), trailers(&[("x", &long)])]), Cut),
        // Read by nobody, and so passed to nobody.
        (
            "pseudo-header field in trailers",
            then(vec![data("ok"), trailers(&[(":status", "404"), ("x", "y")])]),
            Passed("\r\n0\r\nx: y\r\n\r\n"),
        ),
        (
            "length in trailers",
            then(vec![data("ok"), trailers(&[("content-length", "9"), ("x", "y")])]),
            Passed("\r\n0\r\nx: y\r\n\r\n"),
        ),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(name, frames, expected)| asked(frames, *expected).err().map(|wrong| format!("{name}: {wrong}")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_speaks_something_else_is_told_so() {
    for first in [&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], b"\0", &[0; 9]] {
        let proxy = h2c_proxy(upstream(move |_, stream| {
            read_exactly(stream, 24);
            let _ = stream.write_all(first);
        }));
        let (head, _) = ask(&mut connect(&proxy), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    }
}

#[test]
fn floods_of_a_service_end_its_connection() {
    let proxy = h2c_proxy(raw_service(|index, raw| {
        while let Some(stream) = raw.whole_request() {
            if index > 0 {
                raw.answer(stream, "ok");
                continue;
            }
            // Until it is ended, since a slow machine takes a while to see so many in so short a time.
            let many = frame(0xEE, 0, 0, &[]).repeat(2000);
            while raw.0.write_all(&many).is_ok() {}
        }
    }));
    let mut client = connect(&proxy);
    // The first may have met the flood; it may be repeated.
    let (head, _) = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 502 ") || head.starts_with("HTTP/1.1 200 "), "{head}");
    let (head, body) = ask(&mut connect(&proxy), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && text(body) == "ok", "{head}");
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

/// Answers a request with the body that came with it.
fn echo_body(raw: &mut Raw<'_>) -> Option<()> {
    let mut body = Vec::new();
    loop {
        let frame = raw.read()?;
        if frame.kind == DATA {
            body.extend(&frame.payload);
            if frame.flags & END_STREAM != 0 {
                raw.answer(frame.stream, &text(body.split_off(0)));
            }
        }
    }
}

#[test]
fn what_a_service_has_not_seen_is_asked_again_with_its_body() {
    // Refused by itself.
    let proxy = h2c_proxy(raw_service(|index, raw| {
        if index == 0
            && let Some(stream) = raw.whole_request()
        {
            raw.send(RST_STREAM, 0, stream, REFUSED_STREAM.to_be_bytes());
        }
        echo_body(raw);
    }));
    let (head, body) = ask(&mut connect(&proxy), POST);
    assert!(head.starts_with("HTTP/1.1 200 ") && text(body) == "hello", "{head}");
    // Behind the last that the service will answer.
    let proxy = h2c_proxy(raw_service(|index, raw| {
        if index == 0 && raw.whole_request().is_some() {
            raw.send(GOAWAY, 0, 0, [0; 8]);
        }
        echo_body(raw);
    }));
    let (head, body) = ask(&mut connect(&proxy), POST);
    assert!(head.starts_with("HTTP/1.1 200 ") && text(body) == "hello", "{head}");
}

#[test]
fn what_a_service_may_have_seen_is_not_asked_again() {
    for code in [CANCEL, INTERNAL_ERROR, PROTOCOL_ERROR, ENHANCE_YOUR_CALM] {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        let proxy = h2c_proxy(raw_service(move |_, raw| {
            while let Some(stream) = raw.whole_request() {
                count.fetch_add(1, Ordering::SeqCst);
                raw.send(RST_STREAM, 0, stream, code.to_be_bytes());
            }
        }));
        let (head, _) = ask(&mut connect(&proxy), POST);
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert_eq!(seen.load(Ordering::SeqCst), 1, "reset with {code}");
    }
    // A GOAWAY that counts it among those that were seen, and an end.
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let proxy = h2c_proxy(raw_service(move |_, raw| {
        if let Some(stream) = raw.whole_request() {
            count.fetch_add(1, Ordering::SeqCst);
            raw.send(GOAWAY, 0, 0, [stream.to_be_bytes(), [0; 4]].concat());
        }
    }));
    let (head, _) = ask(&mut connect(&proxy), POST);
    assert!(head.starts_with("HTTP/1.1 502 ") && seen.load(Ordering::SeqCst) == 1, "{head}");
}

#[test]
fn a_service_that_refuses_everything_gets_no_endless_requests() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let proxy = h2c_proxy(raw_service(move |_, raw| {
        while let Some(stream) = raw.request() {
            count.fetch_add(1, Ordering::SeqCst);
            raw.send(RST_STREAM, 0, stream, REFUSED_STREAM.to_be_bytes());
        }
    }));
    let (head, _) = ask(&mut connect(&proxy), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert_eq!(seen.load(Ordering::SeqCst), 6);
}

#[test]
fn a_service_that_refused_one_for_a_moment_gets_as_many_again() {
    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const ALONE: usize = 40;
    let is_elsewhere = AtomicBool::new(false);
    let proxy = Arc::new(h2c_proxy(raw_service(move |index, raw| {
        if index > 0 {
            while let Some(stream) = raw.whole_request() {
                is_elsewhere.store(true, Ordering::SeqCst);
                raw.answer(stream, "elsewhere");
            }
            return;
        }
        let (Some(first), Some(second)) = (raw.whole_request(), raw.whole_request()) else { return };
        raw.send(RST_STREAM, 0, second, REFUSED_STREAM.to_be_bytes());
        // With this one under way there is no room for the other.
        until("it is asked elsewhere", || is_elsewhere.load(Ordering::SeqCst));
        raw.answer(first, "here");
        for _ in 0..ALONE {
            let Some(stream) = raw.whole_request() else { return };
            raw.answer(stream, "here");
        }
        let (Some(first), Some(second)) = (raw.whole_request(), raw.whole_request()) else { return };
        raw.answer(first, "here");
        raw.answer(second, "here");
        let _ = raw.read();
    })));
    let both = || {
        let asking = [(); 2].map(|()| {
            let proxy = Arc::clone(&proxy);
            thread::spawn(move || text(ask(&mut connect(&proxy), GET).1))
        });
        let mut told = asking.map(|asking| asking.join().unwrap());
        told.sort();
        told
    };
    assert_eq!(both(), ["elsewhere", "here"]);
    let mut alone = connect(&proxy);
    for _ in 0..ALONE {
        assert_eq!(text(ask(&mut alone, GET).1), "here");
    }
    assert_eq!(both(), ["here", "here"]);
}

#[test]
fn requests_under_way_end_behind_a_goaway_and_new_ones_go_elsewhere() {
    let proxy = Arc::new(h2c_proxy(raw_service(|index, raw| {
        let Some(first) = raw.whole_request() else { return };
        if index == 0 {
            raw.send(GOAWAY, 0, 0, [first.to_be_bytes(), [0; 4]].concat());
            raw.send(HEADERS, END_HEADERS, first, block(&[(":status", "200")]));
            raw.send(DATA, 0, first, "slow");
            thread::sleep(Duration::from_millis(300));
            raw.send(DATA, END_STREAM, first, "ly");
        } else {
            raw.answer(first, "elsewhere");
        }
        let _ = raw.read();
    })));
    let mut slow = connect(&proxy);
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = read_head(&mut slow);
    let (_, body) = ask(&mut connect(&proxy), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(text(body), "elsewhere");
    assert_eq!(text(read_body(&head, &mut slow)), "slowly");
}

#[test]
fn an_answer_before_the_request_has_ended_is_whole() {
    let proxy = h2c_proxy(raw_service(|_, raw| {
        let Some(stream) = raw.request() else { return };
        raw.answer(stream, "early");
        raw.send(RST_STREAM, 0, stream, NO_ERROR.to_be_bytes());
        let _ = raw.read();
    }));
    let mut client = H2::connect(&proxy);
    client.send(HEADERS, END_HEADERS, 1, request("POST", "/", &[]));
    client.send(DATA, 0, 1, "some");
    assert_eq!(client.outcome(1).answer().text(), "early");
}

#[test]
fn a_client_of_http_2_sees_a_reset_where_the_service_did() {
    let proxy = h2c_proxy(raw_service(|_, raw| {
        while let Some(stream) = raw.request() {
            raw.send(HEADERS, END_HEADERS, stream, block(&[(":status", "200")]));
            raw.send(DATA, 0, stream, "half");
            raw.send(RST_STREAM, 0, stream, INTERNAL_ERROR.to_be_bytes());
        }
    }));
    let mut client = H2::connect(&proxy);
    assert_eq!(client.get(1, "/"), Outcome::Reset(INTERNAL_ERROR));
    assert_eq!(client.get(3, "/"), Outcome::Reset(INTERNAL_ERROR));
}

#[test]
fn a_service_that_takes_nothing_holds_up_nobody_else() {
    // Its windows stay closed for the first request's body.
    let proxy = Arc::new(h2c_proxy(raw_service_with(&[(4, 10)], |_, raw| {
        while let Some(stream) = raw.request() {
            if stream > 1 {
                raw.answer(stream, "ok");
            }
        }
    })));
    let mut stuck = connect(&proxy);
    write!(stuck, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1000)).unwrap();
    for _ in 0..3 {
        let (head, body) = ask(&mut connect(&proxy), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 ") && text(body) == "ok", "{head}");
    }
}

#[test]
fn an_answer_that_is_late_is_a_504_and_connections_are_bounded() {
    let (asked, has_asked) = std::sync::mpsc::channel();
    let mut spec = h2c_spec(raw_service_with(&[(3, 1)], move |_, raw| {
        while raw.request().is_some() {
            asked.send(()).unwrap();
        }
    }));
    let upstream = &mut std::sync::Arc::make_mut(&mut spec.options).upstream;
    // The answer never comes; until that is told, the other client has long been turned away.
    upstream.response_header_timeout = Duration::from_secs(3);
    upstream.connect_timeout = Duration::from_millis(100);
    upstream.max_conns = Some(1);
    let proxy = proxy_with(spec, None, settings());
    let mut first = connect(&proxy);
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    has_asked.recv_timeout(Duration::from_secs(20)).unwrap();
    // One connection is all that there may be, and it takes one request.
    let (head, _) = ask(&mut connect(&proxy), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 ") && header(&head, "retry-after").is_some(), "{head}");
    assert!(read_head(&mut first).starts_with("HTTP/1.1 504 "));
}
