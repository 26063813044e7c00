//! Header fields: what stays here, what is passed on, and what is believed.

use std::{
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use dormouse::proxy::ProxySettings;

use crate::support::*;

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
