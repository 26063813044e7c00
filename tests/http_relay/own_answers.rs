//! What the proxy says itself to requests of a route, which has a word in how that is told.

use std::{io::Write, sync::Arc};

use dormouse::{
    model::{ClientList, Cors, ErrorPages, Middleware, Middlewares, RouteOptions, RouteSpec},
    provider::Script,
};

use crate::{
    sleeper::{Asleep, Sleeper, slow_start},
    support::{Proxy, ask, connect, echo, header, proxy_with, read_chunked, read_head, settings, spec, text, upstream},
};

fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn denied() -> Middleware {
    let networks = vec!["127.0.0.0/8".parse().unwrap()];
    Middleware::Clients(ClientList { networks, allows: false, status: 403, message: "IP not allowed".to_owned() })
}

/// A route as its owner would have it: for pages of another origin, and careful ones.
fn options(mut steps: Vec<Middleware>) -> RouteOptions {
    steps.insert(
        0,
        Middleware::Cors(Cors {
            origins: vec!["https://app.example".to_owned()],
            preflight: fields(&[("Access-Control-Allow-Methods", "GET"), ("Access-Control-Allow-Credentials", "true")]),
        }),
    );
    let add_response_headers = fields(&[("Vary", "Origin"), ("X-Added", "1"), ("X-Added", "2")]);
    RouteOptions {
        middlewares: Some(Arc::new(Middlewares { steps, add_response_headers, ..Middlewares::default() })),
        set_response_headers: fields(&[
            ("Access-Control-Allow-Credentials", "true"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Content-Security-Policy", "default-src 'self'"),
            // They are for what the service sends.
            ("Content-Disposition", "attachment"),
            ("Cache-Control", "max-age=3600"),
        ]),
        ..RouteOptions::default()
    }
}

/// Behind a route that leads to nobody.
fn nowhere(steps: Vec<Middleware>) -> Proxy {
    let route = RouteSpec { options: Arc::new(options(steps)), ..spec(upstream(|_, _| {})) };
    proxy_with(route, None, settings())
}

fn sleeper(steps: Vec<Middleware>, script: Script) -> Sleeper {
    Asleep { options: options(steps), script, ..Asleep::default() }.with(echo)
}

fn is_as_wanted(head: &str) {
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-credentials", "true"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("vary", "Origin"),
    ] {
        assert!(header(head, name).is_some_and(|found| found.starts_with(value)), "{name} of {head}");
        let times = head.lines().filter(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:"))).count();
        assert_eq!(times, 1, "{name} of {head}");
    }
    assert_eq!(head.matches("X-Added: ").count(), 2, "{head}");
    assert!(header(head, "content-disposition").is_none(), "{head}");
}

const GET: &str = "GET / HTTP/1.1\r\nHost: app.test\r\nOrigin: https://app.example\r\n";

#[test]
fn refusals_and_errors_bear_the_fields_that_the_route_wants() {
    for (steps, status) in [(vec![denied()], "403"), (Vec::new(), "502")] {
        let proxy = nowhere(steps);
        let (head, _) = ask(&mut connect(&proxy), format!("{GET}\r\n"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        is_as_wanted(&head);
        assert_eq!(header(&head, "x-frame-options"), Some("DENY"), "{head}");
        assert_eq!(header(&head, "content-security-policy"), Some("default-src 'self'"), "{head}");
        // Ours says what it needs.
        let (head, body) = ask(&mut connect(&proxy), format!("{GET}Accept: text/html\r\n\r\n"));
        assert!(header(&head, "content-security-policy").is_some_and(|policy| policy.contains("style-src 'sha256-")));
        assert!(text(body).starts_with("<!doctype html>"), "{head}");
        // Who may not read it is not told that it may.
        let (head, _) = ask(&mut connect(&proxy), GET.replace("app.example", "evil.example") + "\r\n");
        assert!(header(&head, "access-control-allow-origin").is_none(), "{head}");
    }
}

#[test]
fn what_a_browser_asks_beforehand_is_answered_once() {
    let asks = GET.replace("GET", "OPTIONS") + "Access-Control-Request-Method: GET\r\n\r\n";
    let (head, _) = ask(&mut connect(&nowhere(Vec::new())), asks);
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    is_as_wanted(&head);
}

#[test]
fn the_waiting_page_bears_them_and_its_frame_can_be_shown_in_it() {
    let sleeper = sleeper(Vec::new(), slow_start());
    let (head, _) = sleeper.ask(&(GET.replace("GET / ", "GET /.dormouse/page?path=/ ") + "\r\n"));
    is_as_wanted(&head);
    assert!(header(&head, "x-frame-options").is_none(), "{head}");
    let mut client = connect(&sleeper.proxy);
    client.write_all(format!("{GET}Accept: text/html\r\n\r\n").as_bytes()).unwrap();
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    is_as_wanted(&head);
    assert_eq!(header(&head, "x-frame-options"), Some("DENY"), "{head}");
    assert!(header(&head, "content-security-policy").is_some_and(|policy| policy.contains("script-src 'sha256-")));
    assert!(text(read_chunked(&mut client)).contains("id=\"ready\""));
}

#[test]
fn a_page_of_ones_own_stands_for_every_error_of_the_proxy() {
    let pages = ["404", "502", "503"].map(|name| (name.to_owned(), format!("<p>page of {name}</p>")));
    let pages = Middleware::ErrorPages(Arc::new(ErrorPages(pages.into())));
    let html = format!("{GET}Accept: text/html\r\n\r\n");
    let (head, body) = ask(&mut connect(&nowhere(vec![pages.clone()])), html.as_str());
    assert_eq!(text(body), "<p>page of 502</p>", "{head}");
    is_as_wanted(&head);
    assert_eq!(header(&head, "content-security-policy"), Some("default-src 'self'"), "{head}");
    // A body that is none from its first byte.
    let bad = upstream(|_, stream| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n").unwrap();
    });
    let route = RouteSpec { options: Arc::new(options(vec![pages.clone()])), ..spec(bad) };
    let (head, body) = ask(&mut connect(&proxy_with(route, None, settings())), html.as_str());
    assert_eq!(text(body), "<p>page of 502</p>", "{head}");
    let script = Script { start_fails: Some("no".into()), ..Script::default() };
    let sleeper = sleeper(vec![pages], script);
    let (head, body) = sleeper.ask(&html.replace("GET / ", "GET /.dormouse/other "));
    assert_eq!(text(body), "<p>page of 404</p>", "{head}");
    // The one that waits is no error; the next one comes while the failed wake cools down.
    sleeper.ask(&html);
    let (head, body) = sleeper.ask(&html);
    assert!(head.starts_with("HTTP/1.1 503 ") && header(&head, "retry-after").is_some(), "{head}");
    assert_eq!(text(body), "<p>page of 503</p>", "{head}");
    is_as_wanted(&head);
    assert_eq!(sleeper.starts(), 1);
}
