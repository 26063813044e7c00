//! HTTP/2 towards services: what passes, and how.

use std::{
    io::Write,
    sync::{Arc, Mutex, atomic::Ordering, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use dormouse::model::{FieldValue, Middlewares, RouteOptions, RouteSpec};
use h2::server::Builder;
use http::{HeaderMap, HeaderValue, Response};

use crate::{frames::*, h2_service::*, support::*};

#[test]
fn a_request_of_http_1_arrives_as_one_of_http_2() {
    let service = service(&Builder::new(), tell);
    let proxy = h2c_proxy(service.address);
    let mut client = connect(&proxy);
    let (head, body) =
        ask(&mut client, "GET /a?b HTTP/1.1\r\nHost: App.Test:81\r\nX: y\r\nConnection: z\r\nZ: no\r\n\r\n");
    let seen = text(body);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && header(&head, "x-echo") == Some("yes"), "{head}");
    assert!(seen.starts_with("GET http://app.test:81/a?b HTTP/2.0\n"), "{seen}");
    assert!(seen.contains("\nx: y\n") && seen.contains("\nx-forwarded-for: 127.0.0.1\n"), "{seen}");
    assert!(!seen.contains("\nz:") && !seen.contains("connection") && !seen.contains("\nhost:"), "{seen}");
    let (head, body) = ask(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let seen = text(body);
    assert!(head.starts_with("HTTP/1.1 200 ") && seen.contains("\ncontent-length: 5\n"), "{seen}");
    assert!(seen.ends_with("\n\nhello"), "{seen}");
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n\
        2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n";
    let (_, body) = ask(&mut client, chunked);
    let seen = text(body);
    assert!(seen.ends_with("\n\nhello\nx-sum: 1") && seen.contains("\nte: trailers\n"), "{seen}");
    assert!(!seen.contains("transfer-encoding"), "{seen}");
    assert_eq!(service.connections(), 1, "all on one connection");
    assert_eq!(proxy.route.counters.class(2), 3);
}

#[test]
fn many_requests_share_few_connections() {
    let service = service(Builder::new().max_concurrent_streams(40), |request, respond| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tell(request, respond).await;
    });
    let proxy = Arc::new(h2c_proxy(service.address));
    let clients: Vec<_> = (0..100)
        .map(|index| {
            let proxy = Arc::clone(&proxy);
            thread::spawn(move || {
                let request = format!("POST /{index} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok");
                text(ask(&mut connect(&proxy), request).1)
            })
        })
        .collect();
    for (index, client) in clients.into_iter().enumerate() {
        let seen = client.join().unwrap();
        assert!(seen.contains(&format!("/{index} HTTP/2.0\n")) && seen.ends_with("ok"), "{seen}");
    }
    let count = service.connections();
    assert!((1..=6).contains(&count), "{count} connections for 100 requests, 40 on each");
}

#[test]
fn grpc_passes_with_its_trailers() {
    let service = service(&Builder::new(), |request, mut respond| async move {
        assert_eq!(request.headers()["te"], "trailers");
        let path = request.uri().path().to_owned();
        let mut body = request.into_body();
        let grpc = || Response::builder().header("content-type", "application/grpc+proto");
        if path == "/no" {
            // Trailers alone.
            let response = grpc().header("grpc-status", "5").header("grpc-message", "none").body(()).unwrap();
            respond.send_response(response, true).unwrap();
            return;
        }
        let mut answer = respond.send_response(grpc().body(()).unwrap(), false).unwrap();
        // Each message is answered as it comes.
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            let _ = body.flow_control().release_capacity(data.len());
            answer.send_data(data, false).unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        answer.send_trailers(trailers).unwrap();
    });
    let proxy = h2c_proxy(service.address);
    let mut client = H2::connect(&proxy);
    let fields = [("content-type", "application/grpc+proto"), ("te", "trailers")];
    client.send(HEADERS, END_HEADERS, 1, request("POST", "/yes", &fields));
    let mut seen = Vec::new();
    for message in ["first", "second"] {
        client.send(DATA, 0, 1, message);
        // Answered before the request has ended.
        loop {
            let frame = client.read().unwrap();
            match frame.kind {
                DATA => seen.extend(frame.payload),
                SETTINGS if frame.flags & ACK == 0 => client.send(SETTINGS, ACK, 0, []),
                _ => {}
            }
            if seen.ends_with(message.as_bytes()) {
                break;
            }
        }
    }
    client.send(DATA, END_STREAM, 1, "");
    let mut last = client.read().unwrap();
    while last.kind != HEADERS {
        last = client.read().unwrap();
    }
    assert!(last.flags & END_STREAM != 0 && text(seen) == "firstsecond");
    client.send(HEADERS, END_HEADERS, 3, request("POST", "/no", &fields));
    client.send(DATA, END_STREAM, 3, "x");
    let answer = client.outcome(3).answer();
    assert_eq!((answer.status(), answer.body.len(), answer.trailers), (200, 0, false));
}

#[test]
fn informational_answers_pass_and_a_body_waits_for_its_100() {
    let service = service(&Builder::new(), |request, mut respond| async move {
        assert_eq!(request.headers()["expect"], "100-continue");
        for status in [103, 100] {
            respond.send_informational(Response::builder().status(status).body(()).unwrap()).unwrap();
        }
        tell(request, respond).await;
    });
    let proxy = h2c_proxy(service.address);
    let mut client = connect(&proxy);
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 103 "));
    assert!(read_head(&mut client).starts_with("HTTP/1.1 100 "));
    let (head, body) = ask(&mut client, "hello");
    assert!(head.starts_with("HTTP/1.1 200 ") && text(body).ends_with("hello"), "{head}");
}

#[test]
fn large_bodies_stream_both_ways() {
    const SIZE: usize = 5 << 20;
    let service = service(&Builder::new(), |request, mut respond| async move {
        let (mut body, response) = (request.into_body(), Response::new(()));
        let mut answer = respond.send_response(response, false).unwrap();
        while let Some(data) = body.data().await {
            let mut data = data.unwrap();
            let _ = body.flow_control().release_capacity(data.len());
            while !data.is_empty() {
                answer.reserve_capacity(data.len());
                let room = std::future::poll_fn(|cx| answer.poll_capacity(cx)).await.unwrap().unwrap();
                answer.send_data(data.split_to(room.min(data.len())), false).unwrap();
            }
        }
        answer.send_data(Bytes::new(), true).unwrap();
    });
    let proxy = h2c_proxy(service.address);
    let body: Vec<u8> = (0..SIZE).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
    let mut client = connect(&proxy);
    let (mut writer, sent) = (client.try_clone().unwrap(), body.clone());
    let writing = thread::spawn(move || {
        write!(writer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n").unwrap();
        writer.write_all(&sent).unwrap();
    });
    let head = read_head(&mut client);
    let got = read_body(&head, &mut client);
    writing.join().unwrap();
    assert!(got == body, "{} bytes came back: {head}", got.len());
}

#[test]
fn heads_and_bodiless_answers_end_where_they_end() {
    let service = service(&Builder::new(), |request, mut respond| async move {
        let builder = Response::builder();
        let (response, body) = match request.uri().path() {
            "/none" => (builder.status(204), None),
            "/same" => (builder.status(304).header("content-length", "7"), None),
            "/empty" => (builder, None),
            "/length" => (builder.header("content-length", "2"), Some("ok")),
            _ => (builder, Some("ok")),
        };
        let to_head = request.method() == http::Method::HEAD;
        let body = body.filter(|_| !to_head);
        let mut answer = respond.send_response(response.body(()).unwrap(), body.is_none()).unwrap();
        if let Some(body) = body {
            answer.send_data(body.into(), true).unwrap();
        }
    });
    let proxy = h2c_proxy(service.address);
    let mut client = connect(&proxy);
    for (path, status, length, body) in [
        ("/none", "204", None, ""),
        ("/same", "304", None, ""),
        ("/empty", "200", Some("0"), ""),
        ("/length", "200", Some("2"), "ok"),
        ("/chunks", "200", None, "ok"),
    ] {
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        let head = read_head(&mut client);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
        if status == "200" {
            assert_eq!(header(&head, "content-length"), length, "{path}");
            assert_eq!(text(read_body(&head, &mut client)), body, "{path}");
        }
    }
    client.write_all(b"HEAD /length HTTP/1.1\r\nHost: a\r\n\r\nGET /length HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(header(&read_head(&mut client), "content-length"), Some("2"));
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    // One who knows no chunks.
    let mut old = connect(&proxy);
    old.write_all(b"GET /chunks HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    let (all, clean) = read_all(&mut old);
    assert!(clean && text(all).ends_with("\r\n\r\nok"));
}

/// All clients of a connection share the table in which fields are remembered: who could see that one is there would know
/// a secret of another.
#[test]
fn a_copy_of_a_secret_is_remembered_no_more_than_the_secret() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let address = raw_service(move |_, raw| {
        while let Some(frame) = raw.read() {
            if frame.kind == HEADERS {
                seen.lock().unwrap().push(frame.payload.len());
                raw.answer(frame.stream, "ok");
            }
        }
    });
    let copies = FieldValue::read("<$header(Authorization)>").unwrap();
    let vary_request_headers = vec![("X-Copy".to_owned(), copies)];
    let middlewares = Some(Arc::new(Middlewares { vary_request_headers, ..Middlewares::default() }));
    let options = Arc::new(RouteOptions { middlewares, ..RouteOptions::default() });
    let proxy = proxy_with(RouteSpec { options, ..h2c_spec(address) }, None, settings());
    let mut client = connect(&proxy);
    for _ in 0..3 {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n", "s".repeat(1000));
        assert!(ask(&mut client, request).0.starts_with("HTTP/1.1 200 "));
    }
    // An `s` has five bits there (RFC 7541, B): each time both are written.
    let sizes = sizes.lock().unwrap().clone();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size > 2 * 625), "{sizes:?}");
}

#[test]
fn a_request_taken_back_is_taken_back_from_the_service() {
    let (sender, seen) = mpsc::channel();
    let sender = Mutex::new(sender);
    let service = service(&Builder::new(), move |request, mut respond| {
        let sender = sender.lock().unwrap().clone();
        async move {
            if request.uri().path() != "/wait" {
                return tell(request, respond).await;
            }
            let _ = sender.send("came".to_owned());
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            let _ = sender.send(format!("{:?}", reset.unwrap()));
        }
    });
    let proxy = h2c_proxy(service.address);
    let mut client = H2::connect(&proxy);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, request("GET", "/wait", &[]));
    assert_eq!(seen.recv_timeout(Duration::from_secs(20)).unwrap(), "came");
    client.send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
    assert_eq!(seen.recv_timeout(Duration::from_secs(20)).unwrap(), "CANCEL");
    assert_eq!(client.get(3, "/").answer().status(), 200);
    // The same for a client of HTTP/1.1 that goes.
    let mut old = connect(&proxy);
    old.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(seen.recv_timeout(Duration::from_secs(20)).unwrap(), "came");
    socket2::SockRef::from(&old).set_linger(Some(Duration::ZERO)).unwrap();
    drop(old);
    assert_eq!(seen.recv_timeout(Duration::from_secs(20)).unwrap(), "CANCEL");
    assert_eq!(client.get(5, "/").answer().status(), 200);
    assert_eq!(service.connections.load(Ordering::SeqCst), 1, "the others on it were not disturbed");
}
