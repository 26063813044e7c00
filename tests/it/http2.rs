//! HTTP/2 with a real client, `curl`: in clear by prior knowledge, and through TLS.

use std::fs;

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    tls::{Authority, YEAR, curl},
};

#[tokio::test]
async fn a_sleeping_service_is_woken_through_http2_in_clear() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let url = |path: &str| format!("http://app.test:{}{path}", dormouse.http.port());
    let ask = async |path: &str, options: &[&str]| {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        curl(&url(path), "app.test", dormouse.http, options).await
    };
    let reply = ask("/echo", &["--http2-prior-knowledge", "--data", "hello"]).await;
    assert!(reply.head.starts_with("HTTP/2 200"), "{reply:?}\n{}", dormouse.log());
    assert!(reply.body.contains("\"length\":5"), "{reply:?}");
    assert_eq!(app.journal().starts(), 1);
    let reply = ask("/download?bytes=3000000", &["--http2-prior-knowledge"]).await;
    assert_eq!((reply.ok, reply.body.len()), (true, 3_000_000), "{}", reply.said);
    // Asked whether HTTP/2 is spoken, as an upgrade of HTTP/1.1: nobody answers that, and the request goes on.
    let reply = ask("/echo", &["--http2"]).await;
    assert!(reply.head.starts_with("HTTP/1.1 200") && !reply.body.contains("h2c"), "{reply:?}");
}

#[tokio::test]
async fn through_tls_http2_is_chosen_where_the_client_speaks_it() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let text = format!("{}tls: {{ certificates: [{}] }}\n", config(&[&app]), authority.entry("app"));
    let dormouse = Dormouse::start_secure(&text).await;
    let https = dormouse.https.expect("it serves HTTPS");
    let body = vec![b'x'; 3 << 20];
    fs::write(authority.path("body"), &body).unwrap();
    let file = format!("@{}", authority.path("body").display());
    let reply = authority.curl("app.test", https, "/echo", &["--data-binary", &file]).await;
    assert!(reply.head.starts_with("HTTP/2 200"), "{reply:?}\n{}", dormouse.log());
    assert!(reply.body.contains("\"length\":3145728"), "{reply:?}");
    let reply = authority.curl("app.test", https, "/echo", &["--http1.1"]).await;
    assert!(reply.head.starts_with("HTTP/1.1 200"), "{reply:?}");
    assert_eq!(app.journal().starts(), 1);
}
