//! Middlewares on one connection: what they refuse is counted, and what they change for one request holds for no other.

use std::{io::Write, sync::Arc, time::Duration};

use dormouse::{
    model::{
        AuthServer, ClientList, ForwardAuth, InFlightLimit, Middleware, Middlewares, PathPattern, RateLimit, RealIp,
        Replacement, RouteOptions, RouteSpec,
    },
    proxy::ProxySettings,
};

use crate::support::{
    Proxy, ask, connect, echo, header, proxy_of, proxy_with, read_body, read_exactly, read_head, settings, spec, text,
    upstream,
};

/// A proxy whose route has these.
fn behind(steps: Vec<Middleware>) -> Proxy {
    let middlewares = Some(Arc::new(Middlewares { steps, ..Middlewares::default() }));
    let options = Arc::new(RouteOptions { middlewares, ..RouteOptions::default() });
    proxy_with(RouteSpec { options, ..spec(upstream(echo)) }, None, settings())
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n")
}

fn real_ip() -> Middleware {
    Middleware::RealIp(RealIp {
        header: "X-Real-IP".to_owned(),
        from: vec!["127.0.0.1/32".parse().unwrap()],
        recursive: false,
    })
}

#[test]
fn a_refusal_is_counted_and_the_connection_goes_on() {
    let list = ClientList {
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        allows: false,
        status: 403,
        message: "IP not allowed".to_owned(),
    };
    let proxy = behind(vec![real_ip(), Middleware::Clients(list)]);
    let mut client = connect(&proxy);
    for (address, status) in [("192.0.2.7", "403"), ("10.0.0.1", "200"), ("192.0.2.8", "403"), ("nobody", "200")] {
        let (head, body) = ask(&mut client, get("/", &format!("X-Real-IP: {address}\r\n")));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{address}: {head}");
        if status == "200" {
            let seen = text(body);
            let own = if address == "nobody" { "127.0.0.1" } else { address };
            assert!(seen.contains(&format!("X-Forwarded-For: {own}\r\n")), "{seen}");
            assert!(seen.contains(&format!("Forwarded: for={own};")), "{seen}");
            assert_eq!(seen.matches("X-Real-IP").count(), 1, "{seen}");
        }
    }
    // The last one named nobody: it came from where it came.
    let counters = &proxy.route.counters;
    assert_eq!((counters.class(4), counters.class(2)), (2, 2));
}

#[test]
fn a_changed_path_is_that_of_one_request() {
    let rewrite = Replacement { from: "^/old/(.*)$".parse().unwrap(), to: "/new/$1".to_owned() };
    let proxy = behind(vec![Middleware::StripPrefix(vec!["/v1".to_owned()]), Middleware::Rewrite(rewrite)]);
    let mut client = connect(&proxy);
    for (path, expected) in [("/v1/old/a?b=1", "/new/a?b=1"), ("/a", "/a"), ("/v1?x", "/?x"), ("/old/b", "/new/b")] {
        let (head, body) = ask(&mut client, get(path, ""));
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let seen = text(body);
        assert!(seen.starts_with(&format!("GET {expected} HTTP/1.1\r\n")), "{path}: {seen}");
    }
    for path in ["/v1/old/%2f", "/v1/a%5cb"] {
        let (head, _) = ask(&mut client, get(path, ""));
        assert!(head.starts_with("HTTP/1.1 400 "), "{path}: {head}");
    }
}

#[test]
fn a_rate_is_that_of_a_client_whatever_its_connections() {
    let proxy = behind(vec![real_ip(), Middleware::RateLimit(RateLimit { each: Duration::from_secs(3600), burst: 2 })]);
    let mut statuses = Vec::new();
    for address in ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2", "192.0.2.2"] {
        let (head, _) = ask(&mut connect(&proxy), get("/", &format!("X-Real-IP: {address}\r\n")));
        statuses.push(head.get(9..12).unwrap_or_default().to_owned());
    }
    assert_eq!(statuses, ["200", "200", "200", "429", "200", "429"]);
}

#[test]
fn a_place_is_given_back_when_the_client_leaves() {
    let proxy = behind(vec![Middleware::InFlightLimit(InFlightLimit { amount: 1, per_client: false })]);
    let mut first = connect(&proxy);
    // Its body is still to come: it stays in flight.
    first.write_all(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nab").unwrap();
    let refused = |proxy: &Proxy| {
        let (head, _) = ask(&mut connect(proxy), get("/", ""));
        (head.starts_with("HTTP/1.1 503 "), header(&head, "retry-after").is_some())
    };
    let until = |wanted: bool| {
        let since = std::time::Instant::now();
        while refused(&proxy).0 != wanted {
            assert!(since.elapsed() < Duration::from_secs(30), "it is never {wanted}");
        }
    };
    until(true);
    assert_eq!(refused(&proxy), (true, true));
    first.write_all(b"cde").unwrap();
    let head = read_head(&mut first);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    read_body(&head, &mut first);
    until(false);
    let mut second = connect(&proxy);
    second.write_all(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nab").unwrap();
    until(true);
    drop(second);
    until(false);
}

#[test]
fn a_service_is_asked_without_the_body_and_its_words_go_on() {
    let (told, asked) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let server = upstream(move |_, stream| {
        let head = read_head(stream);
        let answer = if head.to_ascii_lowercase().contains("cookie: in=1\r\n") {
            "HTTP/1.1 200 OK\r\nX-User: mia\r\nX-Other: no\r\nContent-Length: 0\r\n\r\n"
        } else {
            "HTTP/1.1 401 No\r\nWWW-Authenticate: Form\r\nSet-Cookie: a=1\r\nX-Other: no\r\nContent-Length: 6\r\n\r\nlog in"
        };
        stream.write_all(answer.as_bytes()).unwrap();
        told.lock().unwrap().send(head).unwrap();
    });
    let proxy = behind(vec![Middleware::ForwardAuth(ForwardAuth {
        at: AuthServer::Address { host: server.ip().to_string(), port: server.port() },
        path: "/verify?x=1".to_owned(),
        headers: vec!["X-User".to_owned()],
        timeout: Duration::from_secs(20),
    })]);
    let post =
        |fields: &str| format!("POST /a?b=1 HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n{fields}\r\nhello");
    let (head, body) = ask(
        &mut connect(&proxy),
        post(
            "Cookie: in=1\r\nX-User: forged\r\nX_User: forged\r\nX-Forwarded-Uri: /forged\r\n\
        X-Original-URL: /forged\r\nX_Original_URI: /forged\r\nX-Original-Method: forged\r\nX-Rewrite-URL: /forged\r\n\
        X-HTTP-Method-Override: forged\r\nX-Auth-Request-Redirect: /forged\r\n",
        ),
    );
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let seen = text(body);
    assert!(seen.contains("X-User: mia\r\n") && !seen.contains("X-Other") && seen.ends_with("hello"), "{seen}");
    let question = asked.recv_timeout(Duration::from_secs(20)).unwrap().to_ascii_lowercase();
    assert!(question.starts_with("get /verify?x=1 http/1.1\r\n"), "{question}");
    for line in ["x-forwarded-method: post", "x-forwarded-uri: /a?b=1", "x-forwarded-host: app.test", "cookie: in=1"] {
        assert_eq!(question.matches(&format!("{line}\r\n")).count(), 1, "{line} in {question}");
    }
    assert!(!question.contains("forged") && !question.contains("content-length"), "{question}");

    let (head, body) = ask(&mut connect(&proxy), get("/", ""));
    assert!(head.starts_with("HTTP/1.1 401 ") && text(body) == "log in", "{head}");
    assert_eq!((header(&head, "www-authenticate"), header(&head, "set-cookie")), (Some("Form"), Some("a=1")));
    assert!(header(&head, "x-other").is_none(), "{head}");
}

/// A route for every host that asks itself who is let in.
#[test]
fn who_asks_itself_is_told_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to_be = listener.local_addr().unwrap();
    let auth = |port| {
        Middleware::ForwardAuth(ForwardAuth {
            at: AuthServer::Address { host: "127.0.0.1".to_owned(), port },
            path: "/".to_owned(),
            headers: Vec::new(),
            timeout: Duration::from_secs(20),
        })
    };
    let proxy = behind(vec![auth(to_be.port())]);
    // What comes there is sent to the proxy's own door, as if it listened there.
    let door = proxy.address;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut own) = (stream.unwrap(), std::net::TcpStream::connect(door).unwrap());
            own.write_all(read_head(&mut stream).as_bytes()).unwrap();
            let head = read_head(&mut own);
            let body = read_body(&head, &mut own);
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    let (head, _) = ask(&mut connect(&proxy), get("/", ""));
    assert!(head.starts_with("HTTP/1.1 508 "), "{head}");
}

/// Backends of CGI's kin read `Remote_User` and `Remote.User` as `Remote-User`.
#[test]
fn what_a_route_hides_or_sets_comes_in_by_no_other_spelling_and_no_trailer() {
    let server = upstream(|_, stream| {
        let mut seen = read_head(stream);
        while !seen.ends_with("\r\n\r\n") || seen.matches("\r\n\r\n").count() < 2 {
            seen.push(char::from(read_exactly(stream, 1)[0]));
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{seen}", seen.len()).unwrap();
    });
    let options = Arc::new(RouteOptions {
        set_request_headers: vec![("X-Own".to_owned(), "1".to_owned())],
        hide_request_headers: vec!["Remote-User".to_owned()],
        ..RouteOptions::default()
    });
    let proxy = proxy_with(RouteSpec { options, ..spec(server) }, None, settings());
    let forged = "Remote_User: evil\r\nremote.user: evil\r\nRemote-User: evil\r\nX_Own: evil\r\nx-own: evil\r\n";
    let request = format!(
        "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n{forged}\r\n1\r\na\r\n0\r\n{forged}X-Sum: 7\r\n\r\n"
    );
    let (head, body) = ask(&mut connect(&proxy), request);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let seen = text(body);
    assert!(seen.contains("X-Own: 1\r\n") && seen.ends_with("\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n"), "{seen}");
    assert!(!seen.contains("evil"), "{seen}");
}

#[test]
fn an_address_that_is_no_text_hides_no_other_from_an_allow_list() {
    let networks = vec!["127.0.0.0/8".parse().unwrap()];
    let list = ClientList { networks, allows: true, status: 403, message: "IP not allowed".to_owned() };
    let middlewares = Some(Arc::new(Middlewares { steps: vec![Middleware::Clients(list)], ..Middlewares::default() }));
    let options = Arc::new(RouteOptions { middlewares, ..RouteOptions::default() });
    let trusting = ProxySettings { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..settings() };
    let proxy = proxy_with(RouteSpec { options, ..spec(upstream(echo)) }, None, trusting);
    for (claimed, status) in [
        (&b"127.0.0.9"[..], "200"),
        (b"203.0.113.9", "403"),
        (b"\xff, 203.0.113.9", "403"),
        (b"\xff, 203.0.113.9, 127.0.0.9", "403"),
        (b"203.0.113.9:4711", "403"),
        (b"[2001:db8::9]:4711", "403"),
    ] {
        let request = [b"GET / HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: ", claimed, b"\r\n\r\n"].concat();
        let (head, _) = ask(&mut connect(&proxy), request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{}: {head}", claimed.escape_ascii());
    }
}

/// A catch-all beside a route that lets nobody in: no spelling of the path leads by the second to what is behind the first.
#[test]
fn a_path_that_is_guarded_is_so_in_every_spelling() {
    let guarded = |pattern: &str| {
        let nobody =
            ClientList { networks: Vec::new(), allows: true, status: 403, message: "IP not allowed".to_owned() };
        let steps = vec![Middleware::Clients(nobody)];
        let middlewares = Some(Arc::new(Middlewares { steps, ..Middlewares::default() }));
        let options = Arc::new(RouteOptions { middlewares, ..RouteOptions::default() });
        let mut spec = RouteSpec { options, ..spec(upstream(echo)) };
        spec.matches.paths = [PathPattern::Prefix(pattern.to_owned())].into_iter().collect();
        spec
    };
    let mut stripped = spec(upstream(echo));
    stripped.matches.paths = [PathPattern::Prefix("/api".to_owned())].into_iter().collect();
    stripped.matches.strip_prefix = Some("/api".into());
    let routes = [guarded("/admin"), guarded("/oth%65r"), guarded("/deep/in"), stripped, spec(upstream(echo))];
    let proxy = proxy_of(routes.map(|spec| (spec, None)).into(), settings());
    let mut client = connect(&proxy);
    for (path, expected) in [
        ("/admin/x", Err("403")),
        ("/%61dmin/x", Err("403")),
        ("/adm%69%6E", Err("403")),
        ("/other", Err("403")),
        ("/%6Fther/x", Err("403")),
        ("/admin%2Fx", Err("400")),
        ("/x%2fadmin", Err("400")),
        ("/admin%5Cx", Err("400")),
        ("//admin/x", Err("400")),
        ("//other.test/x", Err("400")),
        ("/deep//in", Err("403")),
        ("/deep///in//x", Err("403")),
        ("/deep//out", Ok("/deep//out")),
        ("/api//b", Ok("//b")),
        ("/%2561dmin", Ok("/%2561dmin")),
        ("/adm%20in?%2F", Ok("/adm%20in?%2F")),
        ("/%61dmins", Ok("/%61dmins")),
        ("/%61pi/%61b?%63", Ok("/%61b?%63")),
        ("/a%70i?x", Ok("/?x")),
    ] {
        let (head, body) = ask(&mut client, get(path, ""));
        match expected {
            Err(status) => assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}"),
            Ok(seen) => {
                let body = text(body);
                assert!(body.starts_with(&format!("GET {seen} HTTP/1.1\r\n")), "{path}: {head}{body}");
            }
        }
    }
    // Where no route has a path, nothing is behind a slash that is hidden.
    for path in ["/a%2Fb", "//b"] {
        let (head, body) = ask(&mut connect(&behind(Vec::new())), get(path, ""));
        assert!(head.starts_with("HTTP/1.1 200 ") && text(body).starts_with(&format!("GET {path} ")), "{head}");
    }
}
