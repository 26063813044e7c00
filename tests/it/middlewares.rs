//! Middlewares in front of services that sleep: who is refused wakes nothing, who is let in finds what was promised.

use tokio::net::TcpStream;
use tokio_tungstenite::{client_async, tungstenite};

use crate::support::{
    apps::{App, config},
    dormouse::{Dormouse, Reply, get, request},
    tls::curl,
    wait::until,
};

/// An app that sleeps, behind these middlewares.
fn behind(name: &str, middlewares: &str) -> App {
    App::new(name).idle("idle_timeout: 1h").route(&format!(", middlewares: {middlewares}"))
}

/// A user `mia` with the password `secret`.
fn mia() -> String {
    format!("{{ users: [\"mia:{}\"], realm: house }}", bcrypt::hash("secret", 4).unwrap())
}

const MIA: &str = "Authorization: Basic bWlhOnNlY3JldA==\r\n";
const NOT_MIA: &str = "Authorization: Basic bWlhOndyb25n\r\n";

/// What an app that echoes got of a field; empty when it got none.
fn got(reply: &Reply, name: &str) -> Vec<String> {
    let echo: serde_json::Value = serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("no echo: {reply:?}"));
    let fields = echo["headers"].as_array().unwrap().iter().map(|pair| (pair[0].as_str(), pair[1].as_str()));
    let own = fields.filter(|(own, _)| own.is_some_and(|own| own.eq_ignore_ascii_case(name)));
    own.filter_map(|(_, value)| value.map(str::to_owned)).collect()
}

fn target(reply: &Reply) -> String {
    let echo: serde_json::Value = serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("no echo: {reply:?}"));
    echo["target"].as_str().unwrap().to_owned()
}

/// Each of these with fields that are refused, the status for that, and fields that are let in.
#[tokio::test]
async fn who_is_refused_wakes_nothing() {
    let from = |address: &str| format!("X-Real-IP: {address}\r\n");
    let origin = |origin: &str| format!("Origin: {origin}\r\n");
    let real = "real_ip: { from: [127.0.0.1] }";
    let (inside, outside) = (from("10.1.2.3"), from("192.0.2.1"));
    let cors = "{ cors: { allow_origins: 'https://app.example', allow_headers: X-A } }";
    let asks = |own: &str| format!("{}Access-Control-Request-Method: PUT\r\n", origin(own));
    let basic = format!("{{ basic_auth: {} }}", mia());
    let cases: Vec<(&str, String, &str, String, u16, String)> = vec![
        (
            "whitelist",
            format!("{{ {real}, cidr_whitelist: {{ allow: 10.0.0.0/8, status: 404, message: no }} }}"),
            "GET",
            outside.clone(),
            404,
            inside.clone(),
        ),
        ("allow", format!("{{ {real}, allow: 10.0.0.0/8 }}"), "GET", outside.clone(), 403, inside.clone()),
        (
            "deny",
            format!("[{real}, {{ deny: 10.0.0.0/8 }}]").replace(real, &format!("{{ {real} }}")),
            "GET",
            inside,
            403,
            outside,
        ),
        ("password", basic.clone(), "GET", NOT_MIA.to_owned(), 401, MIA.to_owned()),
        ("nobody", basic.clone(), "GET", String::new(), 401, MIA.to_owned()),
        (
            "hidden",
            basic.replace("realm: house", "realm: house, remove_header: true"),
            "GET",
            NOT_MIA.to_owned(),
            401,
            MIA.to_owned(),
        ),
        ("cors", cors.to_owned(), "OPTIONS", asks("https://evil.example"), 403, origin("https://app.example")),
        ("preflight", cors.to_owned(), "OPTIONS", asks("https://app.example"), 204, origin("https://app.example")),
        (
            "large",
            "{ max_body: 10 }".to_owned(),
            "POST",
            "Content-Length: 11\r\n".to_owned(),
            413,
            "Content-Length: 0\r\n".to_owned(),
        ),
        (
            "chunks",
            "{ max_body: 10 }".to_owned(),
            "POST",
            "Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n".to_owned(),
            413,
            "Transfer-Encoding: chunked\r\n\r\na\r\nhelloworld\r\n0\r\n".to_owned(),
        ),
        ("slash", "{ strip_prefix: /echo }".to_owned(), "GET", String::new(), 400, String::new()),
        (
            "clear",
            "{ redirect_http: {} }".to_owned(),
            "GET",
            String::new(),
            308,
            "X-Forwarded-Proto: https\r\n".to_owned(),
        ),
        (
            "moved",
            "{ redirect: { from: ^/moved/(.*)$, to: 'https://new.example/$1', status: 307 } }".to_owned(),
            "GET",
            String::new(),
            307,
            String::new(),
        ),
    ];
    let apps: Vec<App> = cases.iter().map(|(name, middlewares, ..)| behind(name, middlewares)).collect();
    let text = config(&apps.iter().collect::<Vec<_>>());
    let text = format!("trusted_proxies: [127.0.0.1]\n{text}");
    let dormouse = Dormouse::start_in(&text, &[("DORMOUSE_LOG", "debug")]).await;
    for (app, (name, _, method, refused, status, let_in)) in apps.iter().zip(&cases) {
        let (bad, good) = match *name {
            "slash" => ("/echo/..%2f..", "/echo/echo"),
            "moved" => ("/moved/a?b=1", "/echo"),
            _ => ("/echo", "/echo"),
        };
        let ask = async |path: &str, fields: &str| {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: {name}.test\r\nConnection: close\r\n");
            request(dormouse.http, &format!("{head}{fields}\r\n")).await.unwrap()
        };
        for _ in 0..3 {
            let reply = ask(bad, refused).await;
            assert_eq!(reply.status, *status, "{name}: {reply:?}");
            match *name {
                "password" | "nobody" | "hidden" => {
                    assert_eq!(reply.field("www-authenticate"), Some("Basic realm=\"house\", charset=\"UTF-8\""));
                }
                "preflight" => {
                    assert_eq!(reply.field("access-control-allow-origin"), Some("https://app.example"));
                    assert_eq!(reply.field("access-control-allow-headers"), Some("X-A"));
                }
                "clear" => assert_eq!(reply.field("location"), Some("https://clear.test/echo")),
                "moved" => assert_eq!(reply.field("location"), Some("https://new.example/a?b=1")),
                "whitelist" => assert!(reply.body.contains("no"), "{reply:?}"),
                _ => {}
            }
        }
        assert_eq!(app.journal().starts(), 0, "{name} was woken");
        let reply = ask(good, let_in).await;
        assert_eq!((reply.status, app.journal().starts()), (200, 1), "{name}: {reply:?}\n{}", dormouse.log());
        // What is awake is guarded as well.
        assert_eq!(ask(bad, refused).await.status, *status, "{name}");
    }
    // Who was let in is not told to the service where that is not wanted.
    let reply = get(dormouse.http, "hidden", "/echo", MIA).await.unwrap();
    assert_eq!((reply.status, got(&reply, "authorization")), (200, vec![]), "{reply:?}");
    let reply = get(dormouse.http, "password", "/echo", MIA).await.unwrap();
    assert_eq!(got(&reply, "authorization"), ["Basic bWlhOnNlY3JldA=="], "{reply:?}");
    let log = dormouse.log();
    assert!(log.contains("not let in") && log.contains("name or password are wrong"), "{log}");
    assert!(!log.contains("$2b$") && !log.contains("bWlh"), "{log}");
}

#[tokio::test]
async fn heads_are_changed_both_ways() {
    let paths =
        behind("paths", "[{ strip_prefix: /v1 }, { rewrite: { from: ^/old/(.*)$, to: /$1 } }, { add_prefix: /base }]");
    let fields = behind(
        "fields",
        "[secure_headers, cache_nothing, { add_headers: { request: { X-A: two }, response: { X-B: three } } }, \
         { modify_request: { set_headers: { X-C: ours }, hide_headers: [X-D] } }]",
    );
    let cors = behind("pages", "{ cors: { allow_origins: ['https://app.example'], allow_credentials: true } }");
    let sets =
        behind("sets", "{ set_headers: { X-C: ours, response: { X-E: set } }, hide_headers: [X-D, Server-Name] }");
    let plain = App::new("plain").idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&paths, &fields, &cors, &sets, &plain])).await;
    let sent = "X-A: one\r\nX-C: theirs\r\nX-D: gone\r\nIf-None-Match: x\r\nOrigin: https://app.example\r\n";

    for (path, expected) in [("/v1/old/a?b", "/base/a?b"), ("/v1", "/base/"), ("/echo", "/base/echo")] {
        let reply = get(dormouse.http, "paths", path, "").await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(paths.journal().arrivals(&format!("GET {expected}")) > 0, "{path} did not come as {expected}");
    }
    let reply = get(dormouse.http, "fields", "/echo", sent).await.unwrap();
    assert_eq!(target(&reply), "/echo");
    for (name, expected) in
        [("x-a", vec!["one", "two"]), ("x-c", vec!["ours"]), ("x-d", vec![]), ("if-none-match", vec![])]
    {
        assert_eq!(got(&reply, name), expected, "{name}");
    }
    for (name, expected) in [
        ("x-frame-options", "SAMEORIGIN"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("x-b", "three"),
    ] {
        assert_eq!(reply.field(name), Some(expected), "{name}: {reply:?}");
    }
    let reply = get(dormouse.http, "sets", "/echo", sent).await.unwrap();
    for (name, expected) in [("x-a", vec!["one"]), ("x-c", vec!["ours"]), ("x-d", vec![])] {
        assert_eq!(got(&reply, name), expected, "{name}");
    }
    assert_eq!((reply.field("x-e"), sets.journal().starts()), (Some("set"), 1), "{reply:?}");
    for (origin, allowed) in [("https://app.example", Some("https://app.example")), ("https://evil.example", None)] {
        let reply = get(dormouse.http, "pages", "/echo", &format!("Origin: {origin}\r\n")).await.unwrap();
        assert_eq!((reply.status, reply.field("access-control-allow-origin")), (200, allowed), "{reply:?}");
        assert_eq!(reply.field("vary"), Some("Origin"));
    }
    let reply = get(dormouse.http, "plain", "/echo", sent).await.unwrap();
    assert_eq!(got(&reply, "x-c"), ["theirs"]);
    assert!(
        reply.field("cache-control").is_none() && reply.field("access-control-allow-origin").is_none(),
        "{reply:?}"
    );
}

#[tokio::test]
async fn a_body_is_counted_on_its_way_and_the_service_is_told_who_asked() {
    let small = behind("small", "{ max_body: 10, real_ip: { header: CF-Connecting-IP, from: 127.0.0.1 } }");
    let dormouse = Dormouse::start(&config(&[&small])).await;
    let send = async |body: &str| {
        let head = "POST /echo HTTP/1.1\r\nHost: small.test\r\nConnection: close\r\nCF-Connecting-IP: 192.0.2.7\r\n";
        request(dormouse.http, &format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}")).await.unwrap()
    };
    for fits in ["a\r\n0123456789\r\n0\r\n\r\n", "5\r\n01234\r\n5\r\n01234\r\n0\r\n\r\n", "0\r\n\r\n"] {
        let reply = send(fits).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(got(&reply, "x-real-ip"), ["192.0.2.7"]);
        assert_eq!(got(&reply, "x-forwarded-for"), ["192.0.2.7"]);
    }
    for too_large in
        ["b\r\n0123456789a\r\n0\r\n\r\n", "5\r\n01234\r\n6\r\n012345\r\n0\r\n\r\n", "ffffff\r\n0123456789abc"]
    {
        assert_eq!(send(too_large).await.status, 413, "{too_large:?}");
    }
    let reply = get(dormouse.http, "small", "/echo", "").await.unwrap();
    assert_eq!(got(&reply, "x-real-ip"), ["127.0.0.1"]);
}

#[tokio::test]
async fn websockets_and_http2_pass_the_same_guards() {
    let app = behind("app", &format!("{{ basic_auth: {} }}", mia()));
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let stream = TcpStream::connect(dormouse.http).await.unwrap();
    let refused = client_async("ws://app.test/ws", stream).await.err();
    let Some(tungstenite::Error::Http(answer)) = refused else { panic!("it was let in: {refused:?}") };
    assert_eq!(answer.status(), 401);
    let url = format!("http://app.test:{}/echo", dormouse.http.port());
    let ask = async |options: &[&str]| {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        curl(&url, "app.test", dormouse.http, options).await
    };
    let reply = ask(&["--http2-prior-knowledge"]).await;
    assert!(reply.head.starts_with("HTTP/2 401"), "{reply:?}");
    assert_eq!(reply.field("www-authenticate"), Some("Basic realm=\"house\", charset=\"UTF-8\""));
    assert_eq!(app.journal().starts(), 0);
    let reply = ask(&["--http2-prior-knowledge", "--user", "mia:secret"]).await;
    assert!(reply.head.starts_with("HTTP/2 200"), "{reply:?}");
    assert_eq!(app.journal().starts(), 1);
}

/// The service that decides is itself one that sleeps: it is woken to decide, the other one when it agrees.
#[tokio::test]
async fn a_service_decides_who_is_let_in() {
    let auth = App::new("auth").idle("idle_timeout: 1h");
    let agrees = behind("agrees", "{ forward_auth: { route: auth, auth_endpoint: /echo, headers: [X-User] } }");
    let refuses = behind("refuses", "{ forward_auth: { route: auth, auth_endpoint: /status/403 } }");
    let sends =
        behind("sends", &format!("{{ forward_auth: {{ address: 'http://127.0.0.1:{}/status/302' }} }}", auth.port));
    let away = behind("away", "{ forward_auth: { address: 'http://127.0.0.1:1/' } }");
    let nowhere = behind("nowhere", "{ forward_auth: { route: nobody } }");
    let apps = [&auth, &agrees, &refuses, &sends, &away, &nowhere];
    let dormouse = Dormouse::start(&config(&apps)).await;
    let reply = get(dormouse.http, "agrees", "/echo?a=1", "X-User: forged\r\nCookie: a=b\r\n").await.unwrap();
    assert_eq!(reply.status, 200, "{reply:?}\n{}", dormouse.log());
    assert!(got(&reply, "x-user").is_empty(), "{reply:?}");
    assert_eq!((auth.journal().starts(), agrees.journal().starts()), (1, 1));
    assert_eq!(auth.journal().arrivals("GET /echo"), 1);
    for (name, status) in [("refuses", 403), ("sends", 302), ("away", 502), ("nowhere", 502)] {
        let reply = get(dormouse.http, name, "/echo", "").await.unwrap();
        assert_eq!(reply.status, status, "{name}: {reply:?}");
        if name == "sends" {
            assert_eq!(reply.field("location"), Some("/landed"), "{reply:?}");
        }
    }
    for app in [&refuses, &sends, &away, &nowhere] {
        assert_eq!(app.journal().starts(), 0, "{} was woken", app.name);
    }
}

#[tokio::test]
async fn a_named_set_is_changed_for_all_who_use_it() {
    let (first, second) = (behind("first", "guard"), behind("second", "[secure_headers, guard]"));
    let text = |guard: &str| format!("middlewares: {{ guard: {guard} }}\n{}", config(&[&first, &second]));
    let dormouse = Dormouse::start(&text("{ deny: 127.0.0.1 }")).await;
    for name in ["first", "second"] {
        assert_eq!(dormouse.get(name, "/").await.status, 403);
    }
    dormouse.configure(&text("{ allow: 127.0.0.1 }"));
    for (name, app) in [("first", &first), ("second", &second)] {
        let ask = async || dormouse.get(name, "/").await.status;
        until("the guard to let in", ask, |status| *status == 200).await;
        assert_eq!(app.journal().starts(), 1);
    }
}
