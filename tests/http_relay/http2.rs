//! HTTP/2 in, HTTP/1.1 out: what passes, and how.

use std::{
    io::{Read, Write},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{frames::*, support::*};

#[test]
fn requests_share_one_connection_and_are_answered_as_they_are_done() {
    let proxy = proxy(upstream(|index, stream| {
        let head = read_head(stream);
        if head.starts_with("GET /slow ") {
            thread::sleep(Duration::from_millis(300));
        }
        let body = format!("{index} {head}");
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    }));
    let mut client = H2::connect(&proxy);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, request("GET", "/slow", &[]));
    let quick = client.get(3, "/quick").answer();
    assert!(quick.text().contains("GET /quick HTTP/1.1\r\nHost: app.test\r\n"), "{}", quick.text());
    let slow = client.outcome(1).answer();
    assert!(slow.text().contains("GET /slow HTTP/1.1\r\nHost: app.test\r\n"), "{}", slow.text());
    assert_eq!((quick.status(), slow.status(), proxy.route.counters.class(2)), (200, 200, 2));
}

#[test]
fn bodies_pass_with_their_length_or_in_chunks() {
    let proxy = proxy(upstream(echo));
    let mut client = H2::connect(&proxy);
    client.send(HEADERS, END_HEADERS, 1, request("POST", "/", &[("content-length", "5")]));
    client.send(DATA, 0, 1, "he");
    client.send(DATA, END_STREAM, 1, "llo");
    let seen = client.outcome(1).answer().text();
    assert!(seen.contains("\r\nContent-Length: 5\r\n") && seen.ends_with("\r\n\r\nhello"), "{seen}");
    client.send(HEADERS, END_HEADERS, 3, request("POST", "/", &[]));
    client.send(DATA, 0, 3, "abc");
    client.send(DATA, 0, 3, "de");
    client.send(DATA, END_STREAM, 3, "");
    let seen = client.outcome(3).answer().text();
    assert!(seen.contains("\r\nTransfer-Encoding: chunked\r\n") && seen.ends_with("\r\n\r\nabcde"), "{seen}");
    client.send(HEADERS, END_HEADERS | END_STREAM, 5, request("POST", "/", &[]));
    let seen = client.outcome(5).answer().text();
    assert!(seen.contains("\r\nContent-Length: 0\r\n") && seen.ends_with("\r\n\r\n"), "{seen}");
    // Padding is no body.
    client.send(HEADERS, END_HEADERS, 7, request("POST", "/", &[("content-length", "2")]));
    client.send(DATA, PADDED | END_STREAM, 7, [3, b'o', b'k', 0, 0, 0]);
    let seen = client.outcome(7).answer().text();
    assert!(seen.ends_with("\r\n\r\nok"), "{seen}");
}

#[test]
fn an_answer_ends_where_it_ends() {
    let proxy = proxy(upstream(|_, stream| {
        loop {
            let head = read_head(stream);
            let answer = match head.split(' ').nth(1) {
                Some("/length") => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                Some("/empty") => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                Some("/none") => "HTTP/1.1 204 No Content\r\n\r\n",
                Some("/same") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
                Some("/chunks") => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x\r\nk\r\n0\r\n\r\n"
                }
                Some("/trailers") => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 0\r\n\r\n"
                }
                Some("/close") => "HTTP/1.1 200 OK\r\n\r\nok",
                _ => return,
            };
            stream.write_all(answer.as_bytes()).unwrap();
            if head.contains("/close") {
                return;
            }
        }
    }));
    let mut client = H2::connect(&proxy);
    for (at, (path, status, body, trailers)) in [
        ("/length", 200, "ok", false),
        ("/empty", 200, "", false),
        ("/none", 204, "", false),
        ("/same", 304, "", false),
        ("/chunks", 200, "ok", false),
        ("/trailers", 200, "ok", true),
        ("/close", 200, "ok", false),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = client.get(u32::try_from(2 * at + 1).unwrap(), path).answer();
        assert_eq!((answer.status(), answer.text().as_str(), answer.trailers), (status, body, trailers), "{path}");
    }
    client.send(HEADERS, END_HEADERS | END_STREAM, 21, request("HEAD", "/length", &[]));
    let answer = client.outcome(21).answer();
    assert_eq!((answer.status(), answer.body.len()), (200, 0));
}

#[test]
fn what_was_cut_is_never_shown_as_whole() {
    let proxy = proxy(upstream(|_, stream| {
        let head = read_head(stream);
        let nonsense = head.starts_with("GET /nonsense ");
        let answer = match head.split(' ').nth(1) {
            Some("/length") => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            Some("/chunks") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        };
        stream.write_all(answer.as_bytes()).unwrap();
        // Behind what was sent on already.
        if nonsense {
            thread::sleep(Duration::from_millis(100));
            let _ = stream.write_all(b"nonsense");
        }
    }));
    let mut client = H2::connect(&proxy);
    for (stream, path) in [(1, "/length"), (3, "/chunks"), (5, "/nonsense")] {
        assert_eq!(client.get(stream, path), Outcome::Reset(INTERNAL_ERROR), "{path}");
    }
}

#[test]
fn informational_answers_pass_and_a_body_waits_for_its_100() {
    let proxy = proxy(upstream(|_, stream| {
        let head = read_head(stream);
        assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let body = read_exactly(stream, 5);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", text(body)).unwrap();
    }));
    let mut client = H2::connect(&proxy);
    let fields = [("content-length", "5"), ("expect", "100-continue")];
    client.send(HEADERS, END_HEADERS, 1, request("POST", "/", &fields));
    let mut informational = 0;
    while informational < 2 {
        informational += usize::from(client.read().unwrap().kind == HEADERS);
    }
    client.send(DATA, END_STREAM, 1, "hello");
    assert_eq!(client.outcome(1).answer().text(), "hello");
}

#[test]
fn large_bodies_stream_both_ways_within_the_windows() {
    const SIZE: usize = 3 << 20;
    let proxy = proxy(upstream(|_, stream| {
        let head = read_head(stream);
        let length: usize = header(&head, "content-length").unwrap().parse().unwrap();
        let body = read_exactly(stream, length);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").unwrap();
        stream.write_all(&body).unwrap();
    }));
    let mut client = H2::connect(&proxy);
    client.send(HEADERS, END_HEADERS, 1, request("POST", "/", &[("content-length", &SIZE.to_string())]));
    let body: Vec<u8> = (0..SIZE).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
    // The windows that every connection begins with; more when it is given.
    let (mut room, mut stream_room, mut rest) = (65_535usize, 65_535usize, &body[..]);
    while !rest.is_empty() {
        let count = rest.len().min(room).min(stream_room).min(16_384);
        if count > 0 {
            let (now, later) = rest.split_at(count);
            client.send(DATA, u8::from(later.is_empty()), 1, now);
            (rest, room, stream_room) = (later, room - count, stream_room - count);
            continue;
        }
        let frame = client.read().expect("more room");
        match frame.kind {
            WINDOW_UPDATE => {
                let more = u32::from_be_bytes(frame.payload.try_into().unwrap()) as usize;
                *(if frame.stream == 0 { &mut room } else { &mut stream_room }) += more;
            }
            SETTINGS if frame.flags & ACK == 0 => {
                for item in frame.payload.chunks(6) {
                    if item[..2] == [0, 4] {
                        stream_room += u32::from_be_bytes(item[2..].try_into().unwrap()) as usize - 65_535;
                    }
                }
                client.send(SETTINGS, ACK, 0, []);
            }
            _ => {}
        }
    }
    let answer = client.outcome(1).answer();
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
}

#[test]
fn the_end_of_a_body_needs_no_room() {
    let proxy = proxy(upstream(|_, stream| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0]);
    }));
    // Room for the five bytes and not for one more.
    let mut client = H2::connect_with(&proxy, &[(4, 5)]);
    client.stingy = true;
    assert_eq!(client.get(1, "/").answer().text(), "hello");
}

#[test]
fn a_client_that_takes_its_request_back_is_not_answered_and_its_upstream_is_let_go() {
    let (sender, gone) = mpsc::channel();
    let proxy = proxy(upstream(move |_, stream| {
        if read_head(stream).starts_with("GET /wait ") {
            let _ = sender.send("came");
            let ended = matches!(stream.read(&mut [0]), Ok(0) | Err(_));
            let _ = sender.send(if ended { "gone" } else { "more" });
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    }));
    let mut client = H2::connect(&proxy);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, request("GET", "/wait", &[]));
    assert_eq!(gone.recv_timeout(Duration::from_secs(20)), Ok("came"));
    client.send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
    assert_eq!(gone.recv_timeout(Duration::from_secs(20)), Ok("gone"));
    assert_eq!(client.get(3, "/").answer().text(), "ok");
    // The same when the whole connection goes.
    client.send(HEADERS, END_HEADERS | END_STREAM, 5, request("GET", "/wait", &[]));
    assert_eq!(gone.recv_timeout(Duration::from_secs(20)), Ok("came"));
    drop(client);
    assert_eq!(gone.recv_timeout(Duration::from_secs(20)), Ok("gone"));
}

#[test]
fn a_websocket_passes_as_rfc_8441_has_it() {
    let proxy = proxy(upstream(|_, stream| {
        let head = read_head(stream);
        assert!(head.starts_with("GET /socket HTTP/1.1\r\n") && head.contains("\r\nUpgrade: websocket\r\n"), "{head}");
        assert!(head.contains("\r\nConnection: Upgrade\r\n") && header(&head, "sec-websocket-key").is_some(), "{head}");
        assert_eq!(header(&head, "sec-websocket-version"), Some("13"));
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: x\r\n\r\nfirst";
        stream.write_all(answer.as_bytes()).unwrap();
        let got = read_exactly(stream, 4);
        stream.write_all(&got).unwrap();
    }));
    let mut client = H2::connect(&proxy);
    let asking = request("CONNECT", "/socket", &[(":protocol", "websocket"), ("sec-websocket-version", "13")]);
    client.send(HEADERS, END_HEADERS, 1, asking);
    client.send(DATA, 0, 1, "ping");
    let answer = client.outcome(1).answer();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "firstping"));
}

#[test]
fn a_shutdown_lets_what_was_begun_end() {
    let (sender, begun) = mpsc::channel();
    let proxy = proxy_with(
        spec(upstream(move |_, stream| {
            read_head(stream);
            sender.send(()).unwrap();
            thread::sleep(Duration::from_millis(300));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        })),
        None,
        dormouse::proxy::ProxySettings::default(),
    );
    let mut client = H2::connect(&proxy);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, request("GET", "/", &[]));
    begun.recv().unwrap();
    let stopping = thread::spawn(move || drop(proxy));
    assert_eq!(client.outcome(1).answer().text(), "ok");
    assert_eq!(client.ending(), Outcome::GoAway(NO_ERROR));
    stopping.join().unwrap();
}
