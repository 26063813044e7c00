//! Fixed addresses: what passes, and what is never shown as whole.

use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::Arc,
    thread,
    time::Duration,
};

use crate::support::*;

#[test]
fn gets_and_posts_share_one_connection_on_both_sides() {
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let proxy = proxy(upstream(move |index, stream| {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        echo(index, stream);
    }));
    let mut client = connect(&proxy);
    for round in 0..20 {
        let (head, body) = ask(&mut client, format!("GET /a/{round}?q=1 HTTP/1.1\r\nHost: App.Example:80\r\n\r\n"));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("X-Echo: yes\r\n"), "{head}");
        let seen = text(body);
        assert!(seen.starts_with(&format!("GET /a/{round}?q=1 HTTP/1.1\r\nHost: app.example:80\r\n")), "{seen}");
        let (_, body) = ask(&mut client, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert!(text(body).ends_with("\r\n\r\nhello"));
        let chunked =
            "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let (_, body) = ask(&mut client, chunked);
        assert!(text(body).ends_with("\r\n\r\nabcde"));
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(proxy.route.counters.class(2), 60);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let proxy = proxy(upstream(echo));
    let mut client = connect(&proxy);
    let one = |n: usize| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab{n}");
    client.write_all((0..5).map(one).collect::<String>().as_bytes()).unwrap();
    for n in 0..5 {
        let head = read_head(&mut client);
        let body = text(read_body(&head, &mut client));
        assert!(body.starts_with(&format!("POST /{n} ")) && body.ends_with(&format!("ab{n}")), "{body}");
    }
}

#[test]
fn large_bodies_stream_both_ways_at_once() {
    // The upstream sends back each piece as it comes, so neither side could hold the whole.
    let proxy = proxy(upstream(|_, stream| {
        let head = read_head(stream);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", header(&head, "content-length").unwrap())
            .unwrap();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            stream.write_all(&piece[..count]).unwrap();
        }
    }));
    let client = connect(&proxy);
    let body: Vec<u8> = (0..8u32 << 20).map(|n| (n % 251) as u8).collect();
    let (mut writer, sent) = (client.try_clone().unwrap(), body.clone());
    let sender = thread::spawn(move || {
        write!(writer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", sent.len()).unwrap();
        writer.write_all(&sent).unwrap();
    });
    let mut reader = client;
    let head = read_head(&mut reader);
    assert!(read_body(&head, &mut reader) == body, "the body came back changed");
    sender.join().unwrap();
}

#[test]
fn bodies_without_length_are_chunked_for_new_clients_and_closed_for_old_ones() {
    let proxy = proxy(upstream(|index, stream| {
        read_head(stream);
        let framed: &[u8] = if index < 2 {
            b"HTTP/1.1 200 OK\r\n\r\nall of it"
        } else {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9;x\r\nall of it\r\n0\r\nX-Sum: 1\r\n\r\n"
        };
        stream.write_all(framed).unwrap();
    }));
    let mut client = connect(&proxy);
    let (head, body) = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(text(body), "all of it");
    for _ in 0..2 {
        let mut old = connect(&proxy);
        old.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let (all, clean) = read_all(&mut old);
        let all = text(all);
        assert!(clean && all.ends_with("\r\n\r\nall of it"), "{all}");
        assert!(!all.to_ascii_lowercase().contains("chunked"), "{all}");
    }
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let all = text(read_all(&mut client).0);
    assert!(all.ends_with("9\r\nall of it\r\n0\r\nX-Sum: 1\r\n\r\n"), "{all}");
}

#[test]
fn what_was_cut_is_never_shown_as_whole() {
    for (answer, old) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxx", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true),
    ] {
        let proxy = proxy(upstream(move |_, stream| {
            read_head(stream);
            stream.write_all(answer.as_bytes()).unwrap();
        }));
        let mut client = connect(&proxy);
        let version = if old { "1.0" } else { "1.1" };
        write!(client, "GET / HTTP/{version}\r\nHost: a\r\n\r\n").unwrap();
        let (all, clean) = read_all(&mut client);
        let all = text(all);
        let whole = (all.starts_with("HTTP/1.1 200") && all.ends_with("0\r\n\r\n")) || (old && clean);
        assert!(!whole, "{answer:?} became {all:?}, clean end: {clean}");
    }
}

#[test]
fn informational_responses_and_expectations_pass() {
    let proxy = proxy(upstream(|_, stream| {
        let head = read_head(stream);
        assert_eq!(header(&head, "expect"), Some("100-continue"));
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let body = text(read_body(&head, stream));
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    }));
    let mut client = connect(&proxy);
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").unwrap();
    assert_eq!(read_head(&mut client), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_eq!(read_head(&mut client), "HTTP/1.1 100 Continue\r\n\r\n");
    let (head, body) = ask(&mut client, "hello");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, b"hello");
}

#[test]
fn an_answer_that_comes_before_the_body_reaches_the_client() {
    let proxy = proxy(upstream(|_, stream| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nmuch").unwrap();
        // Takes nothing of the body, and stays.
        thread::sleep(Duration::from_secs(1));
    }));
    let mut client = connect(&proxy);
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nbegun").unwrap();
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert_eq!(header(&head, "connection"), Some("close"));
    assert_eq!(text(read_all(&mut client).0), "much");
}

#[test]
fn a_websocket_is_a_tunnel_with_two_ends() {
    let proxy = proxy(upstream(|_, stream| {
        let head = read_head(stream);
        assert_eq!(header(&head, "upgrade"), Some("websocket"));
        let hello = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello";
        stream.write_all(hello).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.reverse();
        stream.write_all(&all).unwrap();
    }));
    let mut client = connect(&proxy);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nabc").unwrap();
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(read_exactly(&mut client, 5), b"hello");
    client.write_all(b"def").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(text(read_all(&mut client).0), "fedcba");
}

#[test]
fn a_client_that_half_closes_after_its_request_gets_the_answer() {
    let proxy = proxy(upstream(|index, stream| {
        thread::sleep(Duration::from_millis(50));
        echo(index, stream);
    }));
    let mut client = connect(&proxy);
    client.write_all(b"GET /half HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(text(read_all(&mut client).0).contains("GET /half HTTP/1.1\r\n"));
}

#[test]
fn head_and_304_have_a_length_and_no_body() {
    let proxy = proxy(upstream(|_, stream| {
        for status in ["200 OK", "304 Not Modified"] {
            read_head(stream);
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 1000\r\n\r\n").unwrap();
        }
        echo(0, stream);
    }));
    let mut client = connect(&proxy);
    for request in ["HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        client.write_all(request.as_bytes()).unwrap();
        assert_eq!(header(&read_head(&mut client), "content-length"), Some("1000"));
    }
    let (_, body) = ask(&mut client, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text(body).starts_with("GET /next "));
}
