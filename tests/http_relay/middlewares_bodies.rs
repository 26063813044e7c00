//! Middlewares that look at answers: `custom_error_page`, `retry` and `compress`.

use std::{
    io::Write,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use compression_codecs::{BrotliDecoder, Decode, GzipDecoder, ZstdDecoder, core::util::PartialBuffer};
use dormouse::model::{
    ClientList, Coding, Compress, ErrorPages, Middleware, Middlewares, Retry, RouteOptions, RouteSpec,
};

use crate::{
    frames::H2,
    sleeper::Asleep,
    support::{
        Proxy, ask, connect, header, proxy_with, read_all, read_chunked, read_exactly, read_head, settings, spec, text,
        upstream,
    },
};

fn behind(steps: Vec<Middleware>, script: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> Proxy {
    let middlewares = Some(Arc::new(Middlewares { steps, ..Middlewares::default() }));
    let options = Arc::new(RouteOptions { middlewares, ..RouteOptions::default() });
    proxy_with(RouteSpec { options, ..spec(upstream(script)) }, None, settings())
}

/// Answers each request with what it asks for in a field, with `|` for the ends of lines.
fn as_asked(_: usize, stream: &mut TcpStream) {
    loop {
        let head = read_head(stream);
        let Some(answer) = header(&head, "x-answer") else { return };
        stream.write_all(answer.replace('|', "\r\n").as_bytes()).unwrap();
        if header(&head, "x-close").is_some() {
            return;
        }
    }
}

fn asking(method: &str, answer: &str, fields: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: app.test\r\nX-Answer: {answer}\r\n{fields}\r\n")
}

fn pages() -> Middleware {
    let page = |name: &str| (name.to_owned(), format!("<p>page of {name}</p>"));
    Middleware::ErrorPages(Arc::new(ErrorPages(["404", "503", "4xx"].map(page).into())))
}

#[test]
fn errors_of_a_service_are_shown_as_pages() {
    let proxy = behind(vec![pages()], as_asked);
    let mut client = connect(&proxy);
    let html = "Accept: text/html,*/*;q=0.8\r\n";
    for (answer, fields, page) in [
        ("404 No|Content-Type: text/html|Content-Length: 2||no", html, Some("404")),
        ("404 No|Content-Type: text/plain; charset=utf-8|Content-Length: 2||no", "", Some("404")),
        ("403 No|Content-Type: text/html|Content-Length: 2||no", html, Some("4xx")),
        // As GoDoxy has it.
        ("500 No|Content-Type: text/html|Content-Length: 2||no", html, Some("404")),
        ("503 No|Content-Type: text/html|Transfer-Encoding: chunked||2|no|0||", html, Some("503")),
        ("404 No|Content-Type: text/html|Content-Encoding: gzip|ETag: \"a\"|Content-Length: 2||no", html, Some("404")),
        ("200 OK|Content-Type: text/html|Content-Length: 2||no", html, None),
        ("302 No|Content-Type: text/html|Location: /|Content-Length: 2||no", html, None),
        ("404 No|Content-Type: application/json|Content-Length: 2||no", html, None),
        ("404 No|Content-Type: application/grpc|Content-Length: 2||no", html, None),
        ("404 No|Content-Length: 2||no", html, None),
        ("416 No|Content-Type: text/html|Content-Range: bytes */5|Content-Length: 2||no", html, None),
        ("206 OK|Content-Type: text/html|Content-Range: bytes 0-1/5|Content-Length: 2||no", html, None),
        ("404 No|Content-Type: text/html|Content-Length: 2||no", "Accept: application/json\r\n", None),
        ("404 No|Content-Type: text/html|Content-Length: 2||no", "Accept: text/html;q=0\r\n", None),
        ("404 No|Content-Type: text/html|Content-Length: 2||no", "Upgrade: x\r\nConnection: upgrade\r\n", None),
        ("404 No|Content-Type: text/html|Content-Length: 2||no", "Content-Type: application/gRPC-web\r\n", None),
    ] {
        let (head, body) = ask(&mut client, asking("GET", &format!("HTTP/1.1 {answer}"), fields));
        assert!(head.starts_with(&format!("HTTP/1.1 {} ", answer.get(..3).unwrap())), "{answer}: {head}");
        let expected = page.map_or("no".to_owned(), |page| format!("<p>page of {page}</p>"));
        assert_eq!(text(body), expected, "{answer}");
        if page.is_some() {
            assert_eq!(header(&head, "content-type"), Some("text/html; charset=utf-8"), "{answer}");
            assert!(header(&head, "content-encoding").is_none() && header(&head, "etag").is_none(), "{head}");
        }
    }
    let (head, _) = ask(
        &mut client,
        asking("GET", "HTTP/1.1 401 No|Content-Type: text/html|WWW-Authenticate: x|Content-Length: 0||", html),
    );
    assert_eq!((header(&head, "www-authenticate"), header(&head, "content-length")), (Some("x"), Some("18")), "{head}");
    client
        .write_all(asking("HEAD", "HTTP/1.1 404 No|Content-Type: text/html|Content-Length: 2||", html).as_bytes())
        .unwrap();
    let head = read_head(&mut client);
    assert_eq!(header(&head, "content-length"), Some("18"), "{head}");
    let (head, _) = ask(&mut client, asking("GET", "HTTP/1.1 200 OK|Content-Length: 2||ok", html));
    assert!(head.starts_with("HTTP/1.1 200 "), "HEAD got no body: {head}");
    // One that ends with its connection, and one that never ends.
    for answer in
        ["HTTP/1.1 404 No|Content-Type: text/html||no", "HTTP/1.1 404 No|Content-Type: text/html|Content-Length: 9||no"]
    {
        let (head, body) = ask(&mut client, asking("GET", answer, &format!("{html}X-Close: y\r\n")));
        assert!(head.starts_with("HTTP/1.1 404 ") && text(body) == "<p>page of 404</p>", "{head}");
    }
    let mut h2 = H2::connect(&proxy);
    let answer = [("x-answer", "HTTP/1.1 404 No|Content-Type: text/html|Content-Length: 2||no")];
    h2.send(crate::frames::HEADERS, 0x5, 1, crate::frames::request("GET", "/", &answer));
    let answer = h2.outcome(1).answer();
    assert_eq!((answer.status(), answer.text().as_str()), (404, "<p>page of 404</p>"));
}

#[test]
fn a_large_page_comes_whole() {
    let page = "<p>0123456789</p>".repeat(12_000);
    let all = ErrorPages([("404".to_owned(), page.clone())].into());
    let proxy = behind(vec![Middleware::ErrorPages(Arc::new(all))], as_asked);
    let mut client = connect(&proxy);
    for _ in 0..2 {
        let answer = "HTTP/1.1 404 No|Content-Type: text/html|Content-Length: 2||no";
        let (_, body) = ask(&mut client, asking("GET", answer, ""));
        assert!(text(body) == page);
    }
}

fn retry(attempts: u32) -> Middleware {
    Middleware::Retry(Retry {
        attempts,
        statuses: vec![503],
        pause: Duration::from_millis(1),
        timeout: Duration::from_secs(60),
    })
}

#[test]
fn what_failed_is_tried_again_where_that_is_safe() {
    /// So many failures, and then an answer; what is no whole head ends the connection.
    fn failing(so_often: usize, failure: &'static str) -> (impl Fn(usize, &mut TcpStream), Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let script = move |_: usize, stream: &mut TcpStream| {
            while !read_head(stream).is_empty() {
                let fails = counted.fetch_add(1, Ordering::SeqCst) < so_often;
                let answer = if fails { failure } else { "HTTP/1.1 200 OK|Content-Length: 2||ok" };
                stream.write_all(answer.replace('|', "\r\n").as_bytes()).unwrap();
                if !answer.contains("||") {
                    return;
                }
            }
        };
        (script, count)
    }
    const BUSY: &str = "HTTP/1.1 503 No|Content-Length: 2||no";
    const POST: &str = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n";
    const GET: &str = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";
    const PUT: &str = "PUT / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi";
    for (request, failures, failure, status, asked) in [
        (GET, 2, BUSY, "200", 3),
        (GET, 3, BUSY, "503", 3),
        (GET, 1, "HTTP/1.1 502 No|Content-Length: 2||no", "502", 1),
        (GET, 2, "", "200", 3),
        (GET, 9, "", "502", 3),
        (GET, 2, "HTTP/1.1 503 N", "200", 3),
        (POST, 1, BUSY, "503", 1),
        (POST, 1, "", "502", 1),
        (PUT, 1, BUSY, "503", 1),
    ] {
        let (script, count) = failing(failures, failure);
        let proxy = behind(vec![retry(2)], script);
        let (head, _) = ask(&mut connect(&proxy), request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request} {failures} {failure}: {head}");
        assert_eq!(count.load(Ordering::SeqCst), asked, "{request} {failures} {failure}");
    }
}

fn compress(codings: &[Coding]) -> Middleware {
    Middleware::Compress(Compress {
        codings: codings.to_vec(),
        types: ["text/*", "application/json", "+xml", "application/grpc"].map(str::to_owned).to_vec(),
        min_size: 20,
    })
}

/// What a body in a coding says.
fn plain(coding: Option<&str>, bytes: &[u8]) -> Vec<u8> {
    let mut input = PartialBuffer::new(bytes);
    let mut room = vec![0; 1 << 20];
    let mut out = PartialBuffer::new(&mut room[..]);
    match coding {
        Some("zstd") => drop(ZstdDecoder::new().decode(&mut input, &mut out).unwrap()),
        Some("br") => drop(BrotliDecoder::new().decode(&mut input, &mut out).unwrap()),
        Some("gzip") => drop(GzipDecoder::new().decode(&mut input, &mut out).unwrap()),
        None => return bytes.to_vec(),
        Some(other) => panic!("{other}"),
    }
    out.written().to_vec()
}

const LINE: &str = "the same and the same and the same again";

#[test]
fn answers_are_compressed_for_those_who_like_it() {
    let proxy = behind(vec![compress(&Coding::ALL)], as_asked);
    let mut client = connect(&proxy);
    let plain_text = format!("200 OK|Content-Type: text/plain|Content-Length: {}||{LINE}", LINE.len());
    let with = |fields: &str| format!("200 OK|{fields}|Content-Length: {}||{LINE}", LINE.len());
    let typed = |kind: &str| with(&format!("Content-Type: {kind}"));
    let all = "gzip, deflate, br, zstd";
    let chunked = format!(
        "200 OK|Content-Type: text/html|Transfer-Encoding: chunked||10|{}|18|{}|0|X-Trailer: 1||",
        &LINE[..16],
        &LINE[16..]
    );
    for (answer, accepted, coding, varies) in [
        (plain_text.clone(), all, Some("zstd"), true),
        (plain_text.clone(), "gzip, br", Some("br"), true),
        (plain_text.clone(), "gzip", Some("gzip"), true),
        (plain_text.clone(), "gzip, br;q=0.5, zstd;q=0", Some("gzip"), true),
        (plain_text.clone(), "*;q=0", None, true),
        (plain_text.clone(), "identity", None, true),
        (plain_text.clone(), "deflate", None, true),
        (chunked, all, Some("zstd"), true),
        (typed("application/atom+xml; charset=utf-8"), all, Some("zstd"), true),
        (typed("Application/JSON"), all, Some("zstd"), true),
        (typed("image/png"), all, None, false),
        (typed("text/event-stream"), all, None, false),
        (typed("application/grpc"), all, None, false),
        (with("X: y"), all, None, false),
        (with("Content-Type: text/css|Content-Encoding: gzip"), all, None, false),
        (with("Content-Type: text/css|Content-Encoding: identity"), all, Some("zstd"), true),
        (with("Content-Type: text/css|Cache-Control: public, No-Transform"), all, None, false),
        (plain_text.replace("200 OK", "206 OK|Content-Range: bytes 0-39/99"), all, None, false),
        (plain_text.replace("200 OK", "200 OK|Content-Range: bytes 0-39/99"), all, None, false),
        (plain_text.replace("200 OK", "404 No"), all, Some("zstd"), true),
        ("200 OK|Content-Type: text/plain|Content-Length: 19||0123456789012345678".to_owned(), all, None, false),
    ] {
        let (head, body) =
            ask(&mut client, asking("GET", &format!("HTTP/1.1 {answer}"), &format!("Accept-Encoding: {accepted}\r\n")));
        let found = header(&head, "content-encoding").filter(|found| *found != "identity");
        let is_coded = coding.is_some() || !answer.contains("Encoding: gzip");
        assert_eq!(if is_coded { found } else { None }, coding, "{answer} for {accepted}: {head}");
        assert_eq!(header(&head, "vary"), varies.then_some("Accept-Encoding"), "{answer} for {accepted}");
        let said = plain(coding, &body);
        assert!(said == LINE.as_bytes() || said.len() == 19, "{answer} for {accepted}");
        if coding.is_some() {
            assert!(header(&head, "content-length").is_none(), "{head}");
        }
    }
    let (head, _) = ask(&mut client, asking("GET", &format!("HTTP/1.1 {plain_text}"), ""));
    assert!(header(&head, "content-encoding").is_none() && header(&head, "vary").is_some(), "{head}");
    let no = "Accept-Encoding: gzip\r\nCache-Control: no-transform\r\n";
    let (head, _) = ask(&mut client, asking("GET", &format!("HTTP/1.1 {plain_text}"), no));
    assert!(header(&head, "content-encoding").is_none(), "{head}");
}

#[test]
fn a_head_says_what_a_get_would_and_tags_are_weak() {
    let proxy = behind(vec![compress(&[Coding::Gzip])], as_asked);
    let mut client = connect(&proxy);
    let gzip = "Accept-Encoding: gzip\r\n";
    let tagged = |tag: &str| {
        format!(
            "HTTP/1.1 200 OK|Content-Type: text/css|ETag: {tag}|Vary: Cookie|Accept-Ranges: bytes|Content-Length: 40||"
        )
    };
    for (tag, expected) in [("\"a\"", "W/\"a\""), ("W/\"a\"", "W/\"a\"")] {
        client.write_all(asking("HEAD", &tagged(tag), gzip).as_bytes()).unwrap();
        let head = read_head(&mut client);
        assert_eq!(
            (header(&head, "etag"), header(&head, "content-encoding")),
            (Some(expected), Some("gzip")),
            "{head}"
        );
        assert!(header(&head, "content-length").is_none() && header(&head, "accept-ranges").is_none(), "{head}");
        assert!(head.contains("\r\nVary: Cookie\r\n") && head.contains("\r\nVary: Accept-Encoding\r\n"), "{head}");
    }
    let (head, body) = ask(&mut client, asking("GET", &format!("{}{LINE}", tagged("\"a\"")), ""));
    assert_eq!((header(&head, "etag"), text(body).as_str()), (Some("\"a\""), LINE), "as it is: {head}");
    for status in ["204 No", "304 No"] {
        client
            .write_all(asking("GET", &format!("HTTP/1.1 {status}|Content-Type: text/css||"), gzip).as_bytes())
            .unwrap();
        let head = read_head(&mut client);
        assert!(header(&head, "transfer-encoding").is_none() && header(&head, "content-encoding").is_none(), "{head}");
    }
    // Who knows no chunks gets it as it is.
    let answer = format!("{}{LINE}", tagged("\"a\""));
    client.write_all(asking("GET", &answer, gzip).replace("HTTP/1.1\r\nHost", "HTTP/1.0\r\nHost").as_bytes()).unwrap();
    let all = text(read_all(&mut client).0);
    assert!(all.ends_with(LINE) && !all.contains("Content-Encoding"), "{all}");
}

#[test]
fn what_has_not_changed_keeps_the_tag_that_the_client_knows_it_by() {
    let proxy = behind(vec![compress(&[Coding::Gzip])], as_asked);
    let mut client = connect(&proxy);
    let gzip = "Accept-Encoding: gzip\r\n";
    let strong = "ETag: \"a\"|Content-Length: 40";
    for (said, asked, tag, length, varies) in [
        // It was compressed when it was sent.
        (strong, "If-None-Match: W/\"a\"\r\n", Some("W/\"a\""), None, true),
        (strong, "If-None-Match: \"b\", W/\"a\"\r\n", Some("W/\"a\""), None, true),
        ("ETag: \"a,b\"|Content-Length: 40", "If-None-Match: W/\"a,b\"\r\n", Some("W/\"a,b\""), None, true),
        // It was sent as it is: a picture, say.
        (strong, "If-None-Match: \"a\"\r\n", Some("\"a\""), Some("40"), false),
        ("ETag: \"a\"|Vary: Cookie", "If-None-Match: \"a\"\r\n", Some("\"a\""), None, false),
        // Nobody knows in what form the client has it.
        (strong, "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", Some("\"a\""), None, false),
        ("ETag: W/\"a\"|Content-Length: 40", "If-None-Match: W/\"a\"\r\n", Some("W/\"a\""), None, false),
    ] {
        let asked = asking("GET", &format!("HTTP/1.1 304 Not Modified|{said}||"), &format!("{gzip}{asked}"));
        client.write_all(asked.as_bytes()).unwrap();
        let head = read_head(&mut client);
        let found = (header(&head, "etag"), header(&head, "content-length"), head.contains("Vary: Accept-Encoding"));
        assert_eq!(found, (tag, length, varies), "{asked}{head}");
        assert!(header(&head, "content-encoding").is_none(), "{head}");
    }
    // Who likes no coding has it as it is.
    client.write_all(asking("GET", &format!("HTTP/1.1 304 No|{strong}||"), "").as_bytes()).unwrap();
    let head = read_head(&mut client);
    assert_eq!((header(&head, "etag"), header(&head, "content-length")), (Some("\"a\""), Some("40")), "{head}");
}

#[test]
fn a_tag_that_the_route_hides_stays_hidden() {
    let middlewares = Middlewares { steps: vec![compress(&[Coding::Gzip])], ..Middlewares::default() };
    let options = RouteOptions {
        middlewares: Some(Arc::new(middlewares)),
        hide_response_headers: ["ETag".to_owned()].into(),
        ..RouteOptions::default()
    };
    let route = RouteSpec { options: Arc::new(options), ..spec(upstream(as_asked)) };
    let proxy = proxy_with(route, None, settings());
    let answer = format!("HTTP/1.1 200 OK|Content-Type: text/css|ETag: \"a\"|Content-Length: 40||{LINE}");
    let (head, body) = ask(&mut connect(&proxy), asking("GET", &answer, "Accept-Encoding: gzip\r\n"));
    assert_eq!((header(&head, "etag"), header(&head, "content-encoding")), (None, Some("gzip")), "{head}");
    assert_eq!(plain(Some("gzip"), &body), LINE.as_bytes());
}

#[test]
fn large_bodies_stream_through_the_coding() {
    let body: Vec<u8> = (0..20_000u32).flat_map(|n| format!("{} is {}\n", n, n % 1013).into_bytes()).collect();
    let sent = body.clone();
    let proxy = behind(vec![compress(&Coding::ALL)], move |_, stream| {
        let head = read_head(stream);
        if head.is_empty() {
            return;
        }
        let framing = match header(&head, "x-framing") {
            Some("length") => format!("Content-Length: {}\r\n", sent.len()),
            Some("chunks") => "Transfer-Encoding: chunked\r\n".to_owned(),
            _ => String::new(),
        };
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n{framing}\r\n").unwrap();
        if framing.starts_with("Transfer") {
            for piece in sent.chunks(30_011) {
                write!(stream, "{:x}\r\n", piece.len()).unwrap();
                stream.write_all(piece).unwrap();
                stream.write_all(b"\r\n").unwrap();
            }
            stream.write_all(b"0\r\n\r\n").unwrap();
        } else {
            stream.write_all(&sent).unwrap();
        }
    });
    let mut client = connect(&proxy);
    for coding in ["zstd", "br", "gzip"] {
        for framing in ["length", "chunks", "close"] {
            let fields = format!("Accept-Encoding: {coding}\r\nX-Framing: {framing}\r\n");
            let (head, coded) = ask(&mut client, format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            assert_eq!(header(&head, "content-encoding"), Some(coding), "{head}");
            assert!(coded.len() < body.len() / 2, "{coding} {framing}: {}", coded.len());
            assert!(plain(Some(coding), &coded) == body, "{coding} {framing}");
        }
    }
    let mut h2 = H2::connect_with(&proxy, &[(4, 1 << 20)]);
    let asked = [("accept-encoding", "br"), ("x-framing", "close")];
    h2.send(crate::frames::HEADERS, 0x5, 1, crate::frames::request("GET", "/", &asked));
    let answer = h2.outcome(1).answer();
    assert!(plain(Some("br"), &answer.body) == body);
}

#[test]
fn what_has_come_is_sent_while_the_service_pauses() {
    let (go_on, told) = mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let proxy = behind(vec![compress(&Coding::ALL)], move |_, stream| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for piece in ["first ", "second ", "third"] {
            write!(stream, "{:x}\r\n{piece}\r\n", piece.len()).unwrap();
            told.lock().unwrap().recv().unwrap();
        }
        stream.write_all(b"0\r\nX-Sum: 7\r\n\r\n").unwrap();
    });
    for coding in ["zstd", "br", "gzip"] {
        let mut client = connect(&proxy);
        write!(client, "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n").unwrap();
        let head = read_head(&mut client);
        assert_eq!(header(&head, "content-encoding"), Some(coding), "{head}");
        let mut coded = Vec::new();
        for expected in ["first ", "first second ", "first second third"] {
            // Each of them comes while the service waits for us.
            while plain(Some(coding), &coded) != expected.as_bytes() {
                let mut line = Vec::new();
                while !line.ends_with(b"\r\n") {
                    line.extend(read_exactly(&mut client, 1));
                }
                let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
                coded.extend(read_exactly(&mut client, size));
                read_exactly(&mut client, 2);
            }
            go_on.send(()).unwrap();
        }
        let mut rest = Vec::new();
        while !rest.ends_with(b"X-Sum: 7\r\n\r\n") {
            rest.extend(read_exactly(&mut client, 1));
        }
        let end = rest.len() - b"0\r\nX-Sum: 7\r\n\r\n".len();
        coded.extend(read_chunked(&mut [&rest[..end], b"0\r\n\r\n"].concat().as_slice()));
        assert_eq!(plain(Some(coding), &coded), b"first second third");
    }
}

#[test]
fn what_is_cut_is_not_shown_as_whole() {
    let proxy = behind(vec![compress(&Coding::ALL)], |_, stream| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n\r\ncut").unwrap();
    });
    let mut client = connect(&proxy);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").unwrap();
    let head = read_head(&mut client);
    assert_eq!(header(&head, "content-encoding"), Some("gzip"), "{head}");
    let (rest, _) = read_all(&mut client);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
}

#[test]
fn a_sleeping_service_is_woken_for_those_who_are_let_in_alone() {
    let office = ClientList {
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        allows: false,
        status: 403,
        message: "IP not allowed".to_owned(),
    };
    let real_ip = dormouse::model::RealIp {
        header: "X-Real-IP".to_owned(),
        from: vec!["127.0.0.1/32".parse().unwrap()],
        recursive: false,
    };
    let steps =
        vec![Middleware::RealIp(real_ip), pages(), retry(2), compress(&[Coding::Gzip]), Middleware::Clients(office)];
    let middlewares = Some(Arc::new(Middlewares { steps, ..Middlewares::default() }));
    let options = RouteOptions { middlewares, ..RouteOptions::default() };
    let sleeper = Asleep { options, ..Asleep::default() }.with(|_, stream| {
        loop {
            let head = read_head(stream);
            let Some(answer) = header(&head, "x-answer") else { return };
            stream.write_all(answer.replace('|', "\r\n").as_bytes()).unwrap();
        }
    });
    let fields = "X-Real-IP: 192.0.2.7\r\nAccept: text/html\r\n";
    let (head, body) = sleeper.ask(&asking("GET", "HTTP/1.1 200 OK||", fields));
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(
        (text(body).as_str(), header(&head, "content-type")),
        ("<p>page of 4xx</p>", Some("text/html; charset=utf-8"))
    );
    // Who does not ask for HTML is told as before.
    let (head, body) = sleeper.ask(&asking("GET", "HTTP/1.1 200 OK||", "X-Real-IP: 192.0.2.7\r\n"));
    assert!(head.starts_with("HTTP/1.1 403 ") && text(body).contains("IP not allowed"), "{head}");
    assert_eq!(sleeper.starts(), 0);
    let answer = format!("HTTP/1.1 200 OK|Content-Type: text/plain|Content-Length: {}||{LINE}", LINE.len());
    let (head, body) = sleeper.ask(&asking("GET", &answer, "Accept-Encoding: gzip\r\n"));
    assert_eq!(header(&head, "content-encoding"), Some("gzip"), "{head}");
    assert!(header(&head, "server-timing").is_some(), "{head}");
    assert_eq!(plain(Some("gzip"), &body), LINE.as_bytes());
    let (head, body) = sleeper.ask(&asking("GET", "HTTP/1.1 404 No|Content-Type: text/html|Content-Length: 2||no", ""));
    assert_eq!(text(body), "<p>page of 404</p>", "{head}");
    assert_eq!(sleeper.starts(), 1);
}
