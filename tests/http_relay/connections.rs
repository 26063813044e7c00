//! Connections to upstreams: how many there are, when one is used again, and when it is not.

use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use crate::support::*;

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
fn what_was_answered_in_part_is_not_sent_again() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let proxy = proxy(upstream(move |_, stream| {
        loop {
            let head = read_head(stream);
            log.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
            if !head.starts_with("GET /warm") {
                let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    }));
    let mut client = connect(&proxy);
    ask(&mut client, "GET /warm HTTP/1.1\r\nHost: a\r\n\r\n");
    client.write_all(b"DELETE /once HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let statuses: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")).collect();
    assert_eq!(statuses, ["103 Early Hints", "502 Bad Gateway"]);
    assert_eq!(*seen.lock().unwrap(), ["GET /warm HTTP/1.1", "DELETE /once HTTP/1.1"]);
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
