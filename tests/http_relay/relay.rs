//! Fixed addresses: what passes, what is refused, what is never shown as whole.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use dormouse::proxy::{Limits, ProxySettings};

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
fn a_pooled_connection_that_died_is_replaced_unseen() {
    let proxy = proxy(upstream(|_, stream| {
        let head = read_head(stream);
        let body = read_body(&head, stream);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        stream.write_all(&body).unwrap();
        // Closed without a word, though it was to be kept.
        let _ = stream.shutdown(Shutdown::Both);
    }));
    let mut client = connect(&proxy);
    for _ in 0..50 {
        let (head, _) = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
}

#[test]
fn stray_bytes_end_the_use_of_a_connection() {
    const STRAY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for together in [true, false] {
        let (sent, all_sent) = mpsc::channel();
        let sent = Mutex::new(sent);
        let proxy = proxy(upstream(move |index, stream| {
            read_head(stream);
            let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{index}").into_bytes();
            if together {
                answer.extend_from_slice(STRAY);
                stream.write_all(&answer).unwrap();
            } else {
                stream.write_all(&answer).unwrap();
                stream.write_all(STRAY).unwrap();
            }
            sent.lock().unwrap().send(()).unwrap();
            let _ = read_head(stream);
        }));
        let mut client = connect(&proxy);
        for index in 0..3 {
            let (_, body) = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(text(body), index.to_string(), "in one write: {together}");
            // What comes after the next request can not be told from its answer; what came before it must be.
            all_sent.recv().unwrap();
        }
    }
}

#[test]
fn an_upstream_that_is_not_there_is_a_502() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = proxy(nobody);
    let mut client = connect(&proxy);
    let (head, body) = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert!(!text(body).contains(&nobody.port().to_string()));
    let (head, _) = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 502 "), "the connection stays: {head}");
}

#[test]
fn doubtful_requests_are_refused_and_the_connection_closed() {
    let proxy = proxy(upstream(|_, _| panic!("no byte may reach the upstream")));
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\0\r\n\r\n",
        "GET /../x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = connect(&proxy);
        client.write_all(request.as_bytes()).unwrap();
        let answer = text(read_all(&mut client).0);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?} became {answer:?}");
    }
}

#[test]
fn fields_of_the_connection_and_claims_of_the_client_stay_here() {
    let mut spec = spec(upstream(echo));
    spec.matches.strip_prefix = Some("/app".into());
    Arc::make_mut(&mut spec.options).set_request_headers = vec![("X-Own".into(), "1".into())];
    Arc::make_mut(&mut spec.options).set_response_headers = vec![("X-Echo".into(), "ours".into())];
    Arc::make_mut(&mut spec.options).hide_request_headers = vec!["X-Secret".into()];
    let proxy = proxy_with(spec, None, settings());
    let mut client = connect(&proxy);
    let request = "GET http://Other.Example/app/x?y=/app HTTP/1.1\r\nHost: a\r\nConnection: X-Gone, X-Forwarded-For\r\n\
        X-Gone: 1\r\nX-Kept: 1\r\nx-secret: 1\r\nKeep-Alive: 5\r\nTE: trailers, gzip\r\nProxy: evil\r\nProxy-Authorization: x\r\n\
        X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-User: root\r\nForwarded: for=9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\n\
        X_Forwarded_For: 9.9.9.9\r\nx-own: evil\r\nUpgrade: h2c\r\n\r\n";
    let (head, body) = ask(&mut client, request);
    assert_eq!(header(&head, "x-echo"), Some("ours"));
    let port = proxy.address.port();
    let expected = format!(
        "GET /x?y=/app HTTP/1.1\r\nHost: other.example\r\nX-Kept: 1\r\nTE: trailers\r\nConnection: TE\r\n\
         X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: other.example\r\nX-Forwarded-Port: {port}\r\n\
         Forwarded: for=127.0.0.1;host=\"other.example\";proto=http\r\n"
    );
    let seen = text(body);
    let rest = seen.strip_prefix(&expected).unwrap_or_else(|| panic!("{seen}"));
    let lines: Vec<&str> = rest.lines().collect();
    assert!(lines[0].starts_with("Dormouse-Hop: ") && lines[1..] == ["X-Own: 1", ""], "{seen}");
}

#[test]
fn fields_that_the_route_hides_are_not_passed_back() {
    let mut spec = spec(upstream(echo));
    Arc::make_mut(&mut spec.options).hide_response_headers = vec!["x-echo".into()];
    let proxy = proxy_with(spec, None, settings());
    let (head, _) = ask(&mut connect(&proxy), "GET / HTTP/1.1\r\nHost: a\r\nX-Echo: 1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(header(&head, "x-echo"), None);
}

#[test]
fn the_word_of_a_trusted_proxy_is_kept_and_extended() {
    let trusting = ProxySettings { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..settings() };
    let proxy = proxy_with(spec(upstream(echo)), None, trusting);
    let mut client = connect(&proxy);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: outer\r\nForwarded: for=9.9.9.9\r\n\r\n";
    let seen = text(ask(&mut client, request).1);
    for line in [
        "X-Forwarded-For: 9.9.9.9, 127.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: outer",
        "X-Real-IP: 9.9.9.9",
        "Forwarded: for=9.9.9.9, for=127.0.0.1;host=\"a\";proto=http",
    ] {
        assert_eq!(seen.lines().filter(|seen| *seen == line).count(), 1, "{line}: {seen}");
    }
    assert_eq!(seen.to_ascii_lowercase().matches("x-forwarded-proto").count(), 1);
    // What stands before the last stranger was written by that stranger.
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1, 8.8.8.8, 127.0.0.9\r\n\r\n";
    let seen = text(ask(&mut client, request).1);
    assert!(seen.contains("\nX-Real-IP: 8.8.8.8\r\n") || seen.contains("\nX-Real-IP: 8.8.8.8\n"), "{seen}");
}

#[test]
fn a_request_that_comes_back_to_us_is_a_loop() {
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = proxy(front.local_addr().unwrap());
    let back = proxy.address;
    // The route leads to a wire that leads back to the proxy.
    thread::spawn(move || {
        let (mut from, _) = front.accept().unwrap();
        let mut to = TcpStream::connect(back).unwrap();
        let (mut from2, mut to2) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut to2, &mut from2));
        let _ = std::io::copy(&mut from, &mut to);
    });
    let (head, _) = ask(&mut connect(&proxy), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 508 "), "{head}");
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
fn a_switch_that_nobody_asked_for_is_no_answer() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\nhello";
    let proxy = proxy(upstream(move |_, stream| {
        read_head(stream);
        stream.write_all(switch.as_bytes()).unwrap();
    }));
    for ask_for in ["", "Connection: Upgrade\r\nUpgrade: websocket\r\n"] {
        let (head, _) = ask(&mut connect(&proxy), format!("GET / HTTP/1.1\r\nHost: a\r\n{ask_for}\r\n"));
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    }
}

#[test]
fn answers_that_can_be_read_in_two_ways_are_a_502() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "junk\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "",
    ] {
        let proxy = proxy(upstream(move |_, stream| {
            read_head(stream);
            stream.write_all(answer.as_bytes()).unwrap();
        }));
        let (head, _) = ask(&mut connect(&proxy), "POST / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 502 "), "{answer:?} became {head:?}");
    }
}

#[test]
fn what_must_not_be_repeated_is_sent_once() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let proxy = proxy(upstream(move |_, stream| {
        let head = read_head(stream);
        log.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
        if head.starts_with("GET /warm") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            // The next request is read, and answered by nothing.
            let head = read_head(stream);
            log.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
        }
    }));
    let mut client = connect(&proxy);
    ask(&mut client, "GET /warm HTTP/1.1\r\nHost: a\r\n\r\n");
    let (head, _) = ask(&mut client, "POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert_eq!(*seen.lock().unwrap(), ["GET /warm HTTP/1.1", "POST /once HTTP/1.1"]);
}

#[test]
fn limits_have_their_own_statuses() {
    let proxy = proxy(upstream(|_, _| panic!("no byte may reach the upstream")));
    let many: String = (0..200).map(|n| format!("A{n}: b\r\n")).collect();
    for (request, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000)), "414"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(40_000)), "431"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n".into(), "405"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), "505"),
        ("POST / HTTP/1.0\r\n\r\n".into(), "411"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n".into(), "417"),
    ] {
        let mut client = connect(&proxy);
        // What is too long may be refused before all of it is written.
        let _ = client.write_all(request.as_bytes());
        let answer = text(read_all(&mut client).0);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{:.60} became {answer:?}", request);
    }
}

#[test]
fn a_malformed_body_of_the_client_is_its_own_fault() {
    let proxy = proxy(upstream(echo));
    for body in ["zz\r\n", "5\r\nhelloX"] {
        let mut client = connect(&proxy);
        write!(client, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        client.write_all(body.as_bytes()).unwrap();
        let answer = text(read_all(&mut client).0);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?} became {answer:?}");
    }
}

#[test]
fn slow_clients_are_let_go() {
    let limits = Limits {
        header_timeout: Duration::from_millis(150),
        keep_alive_timeout: Duration::from_millis(300),
        body_window: Duration::from_millis(150),
        ..Limits::default()
    };
    let proxy = proxy_with(spec(upstream(echo)), None, ProxySettings { limits, ..settings() });
    let begun = Instant::now();
    for (sent, expected) in [
        ("", ""),
        ("GET / HTTP/1.1\r\nHo", "HTTP/1.1 408 "),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab", "HTTP/1.1 408 "),
    ] {
        let mut client = connect(&proxy);
        client.write_all(sent.as_bytes()).unwrap();
        let answer = text(read_all(&mut client).0);
        assert!(answer.starts_with(expected) && answer.is_empty() == expected.is_empty(), "{sent:?} became {answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_client_that_never_reads_is_let_go_and_its_upstream_with_it() {
    let limits = Limits { body_window: Duration::from_millis(150), ..Limits::default() };
    let (sender, ended) = std::sync::mpsc::channel();
    let sender = Mutex::new(sender);
    let endless = upstream(move |_, stream| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n").unwrap();
        while stream.write_all(&[0; 65536]).is_ok() {}
        sender.lock().unwrap().send(()).unwrap();
    });
    let proxy = proxy_with(spec(endless), None, ProxySettings { limits, ..settings() });
    let mut client = connect(&proxy);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    ended.recv_timeout(Duration::from_secs(20)).expect("the upstream is let go");
    drop(client);
}

#[test]
fn an_upstream_that_does_not_answer_is_a_504() {
    let mut spec = spec(upstream(|_, stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    }));
    Arc::make_mut(&mut spec.options).upstream.response_header_timeout = Duration::from_millis(100);
    let proxy = proxy_with(spec, None, settings());
    let (head, _) = ask(&mut connect(&proxy), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
}

#[test]
fn a_slow_upload_is_not_taken_for_a_service_that_does_not_answer() {
    let patience = Duration::from_secs(3);
    let mut spec = spec(upstream(|_, stream| {
        read_head(stream);
        let mut body = [0; 8];
        stream.read_exact(&mut body).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{}", String::from_utf8_lossy(&body)).unwrap();
    }));
    Arc::make_mut(&mut spec.options).upstream.response_header_timeout = patience;
    let proxy = proxy_with(spec, None, settings());
    let mut client = connect(&proxy);
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n").unwrap();
    // Longer in all than it waits for an answer, which it does from the last byte on.
    for byte in b"uploaded" {
        thread::sleep(patience / 6);
        client.write_all(&[*byte]).unwrap();
    }
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut body = [0; 8];
    client.read_exact(&mut body).unwrap();
    assert_eq!(&body, b"uploaded");
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

#[test]
fn no_more_connections_are_opened_than_the_route_allows() {
    let now = Arc::new(Mutex::new((0usize, 0usize)));
    let count = Arc::clone(&now);
    let mut spec = spec(upstream(move |_, stream| {
        while !read_head(stream).is_empty() {
            {
                let mut now = count.lock().unwrap();
                now.0 += 1;
                now.1 = now.1.max(now.0);
            }
            thread::sleep(Duration::from_millis(20));
            // Before the answer, so that nobody who comes after it is counted together with it.
            count.lock().unwrap().0 -= 1;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    }));
    Arc::make_mut(&mut spec.options).upstream.max_conns = Some(2);
    let proxy = proxy_with(spec, None, settings());
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let mut client = connect(&proxy);
            thread::spawn(move || ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").0)
        })
        .collect();
    for asked in asking {
        assert!(asked.join().unwrap().starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(now.lock().unwrap().1, 2);
}

#[test]
fn errors_of_the_upstream_are_counted_by_kind() {
    for (answer, kind) in [
        ("", "closed"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "closed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "closed"),
        ("junk\r\n\r\n", "malformed"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed"),
    ] {
        let proxy = proxy(upstream(move |_, stream| {
            read_head(stream);
            stream.write_all(answer.as_bytes()).unwrap();
        }));
        let mut client = connect(&proxy);
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        // Counted before the connection ends, whichever way it does.
        let _ = client.read_to_end(&mut Vec::new());
        let counted: Vec<_> = proxy.route.counters.errors().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(kind, 1)], "{answer:?}");
    }
}
