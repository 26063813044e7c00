//! What is refused and what does not come about: each with its own status, told by whose fault it is.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use dormouse::proxy::{Limits, ProxySettings};

use crate::support::*;

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
        std::thread::sleep(patience / 6);
        client.write_all(&[*byte]).unwrap();
    }
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut body = [0; 8];
    client.read_exact(&mut body).unwrap();
    assert_eq!(&body, b"uploaded");
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
fn the_head_of_an_answer_has_one_time_for_all_of_it() {
    const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    // What comes now and then, for much longer than the time.
    for (begin, piece) in [("HTTP/1.1 200 OK\r\nX: ", "x"), ("", INTERIM)] {
        let mut spec = spec(upstream(move |_, stream| {
            read_head(stream);
            stream.write_all(begin.as_bytes()).unwrap();
            for _ in 0..30 {
                thread::sleep(Duration::from_millis(100));
                if stream.write_all(piece.as_bytes()).is_err() {
                    return;
                }
            }
            let _ = stream.write_all(if begin.is_empty() { b"HTTP/1.1 200 OK\r\n\r\n" } else { b"\r\n\r\n" });
        }));
        Arc::make_mut(&mut spec.options).upstream.response_header_timeout = Duration::from_millis(300);
        let proxy = proxy_with(spec, None, settings());
        let mut client = connect(&proxy);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let answer = answer.replace(INTERIM, "");
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    }
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
