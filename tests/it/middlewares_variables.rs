//! Header fields with variables in them: each tells what it says of the very message, to a service that sleeps, too.

use crate::support::{
    apps::{App, config},
    dormouse::{Dormouse, Reply, get},
};

/// What an app that echoes got of a field.
fn got(reply: &Reply, name: &str) -> Vec<String> {
    let echo: serde_json::Value = serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("no echo: {reply:?}"));
    let fields = echo["headers"].as_array().unwrap().iter().map(|pair| (pair[0].as_str(), pair[1].as_str()));
    let own = fields.filter(|(own, _)| own.is_some_and(|own| own.eq_ignore_ascii_case(name)));
    own.filter_map(|(_, value)| value.map(str::to_owned)).collect()
}

#[tokio::test]
async fn each_message_has_its_own_values() {
    let app = App::new("told").idle("idle_timeout: 1h").route(
        ", middlewares: [{ set_headers: { X-Client: '$remote_host asks $req_method $req_url', X-Up: '$upstream_name', \
         X-At: '$upstream_url', X-Arg: '$arg(q)', X-Of: '$header(X-Mine)!', X-Said: '$header(X-Forwarded-For)', \
         X-Hop: '$header(Proxy-Authorization)', response: { X-Seen: '$status_code', \
         X-Kind: '$resp_content_type for $req_host' } } }, { add_headers: { X-Mine: '$req_query' } }]",
    );
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let sent = "X-Client: forged\r\nX-Mine: one\r\n";
    let reply = get(dormouse.http, "told", "/echo?q=a%20b", sent).await.unwrap();
    assert_eq!((reply.status, app.journal().starts()), (200, 1), "{reply:?}");
    for (name, expected) in [
        ("x-client", vec!["127.0.0.1 asks GET http://told.test/echo?q=a%20b".to_owned()]),
        ("x-up", vec!["told".to_owned()]),
        ("x-at", vec![format!("http://127.0.0.1:{}", app.port)]),
        ("x-arg", vec!["a b".to_owned()]),
        ("x-of", vec!["one!".to_owned()]),
        ("x-mine", vec!["one".to_owned(), "q=a%20b".to_owned()]),
    ] {
        assert_eq!(got(&reply, name), expected, "{name}");
    }
    assert_eq!(reply.field("x-seen"), Some("200"));
    assert_eq!(reply.field("x-kind"), Some("text/plain for told.test"), "{reply:?}");
    // Nothing that a client writes ends a field or begins another.
    let reply = get(dormouse.http, "told", "/echo?q=a%0d%0aX-Evil:%201", "").await.unwrap();
    assert_eq!(got(&reply, "x-arg"), ["a%0d%0aX-Evil:%201"]);
    assert!(got(&reply, "x-evil").is_empty(), "{reply:?}");
    assert_eq!(got(&reply, "x-of"), ["!"]);
    // What a stranger says of who asked, or of a connection, does not pass in another field's name either; and HTTP/2
    // takes no white space around a value.
    let sent = "X-Forwarded-For: 192.0.2.7\r\nProxy-Authorization: geheim\r\n";
    let reply = get(dormouse.http, "told", "/echo?q=%20a%20", sent).await.unwrap();
    assert_eq!((got(&reply, "x-said"), got(&reply, "x-hop")), (vec![String::new()], vec![String::new()]), "{reply:?}");
    assert_eq!(got(&reply, "x-arg"), ["a"]);
    let reply = get(dormouse.http, "told", "/status/404", "").await.unwrap();
    assert_eq!(reply.field("x-seen"), Some("404"), "{reply:?}");
}

/// What a middleware does not let pass does not pass under another name.
#[tokio::test]
async fn a_password_that_stays_here_stays_here() {
    let users = format!("{{ users: [\"mia:{}\"], remove_header: true }}", bcrypt::hash("secret", 4).unwrap());
    let app = App::new("kept").idle("idle_timeout: 1h").route(&format!(
        ", middlewares: [{{ basic_auth: {users} }}, {{ set_headers: {{ X-Copy: '<$header(Authorization)>' }} }}]"
    ));
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let reply = get(dormouse.http, "kept", "/echo", "Authorization: Basic bWlhOnNlY3JldA==\r\n").await.unwrap();
    assert_eq!((reply.status, got(&reply, "x-copy")), (200, vec!["<>".to_owned()]), "{reply:?}");
}

/// What repeats what a client wrote is bounded as what it wrote is.
#[tokio::test]
async fn a_head_that_variables_make_too_large_is_refused() {
    let app = App::new("large").idle("idle_timeout: 1h").route(
        ", middlewares: { set_headers: { X-Many: '$header(X-Big)$header(X-Big)$header(X-Big)$header(X-Big)' } }",
    );
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let ask = async |size: usize| {
        get(dormouse.http, "large", "/echo", &format!("X-Big: {}\r\n", "x".repeat(size))).await.unwrap()
    };
    let reply = ask(2000).await;
    assert_eq!((reply.status, got(&reply, "x-many")), (200, vec!["x".repeat(8000)]));
    let reply = ask(20_000).await;
    assert_eq!(reply.status, 431, "{reply:?}");
    assert!(reply.body.contains("too many or too long header fields"), "{reply:?}");
    assert_eq!(app.journal().arrivals("/echo"), 1);
}

/// What Dormouse says itself has them as well.
#[tokio::test]
async fn own_answers_have_them_too() {
    let app = App::new("shut").idle("idle_timeout: 1h").route(
        ", middlewares: { deny: 127.0.0.1, set_headers: { response: { X-Seen: '$status_code to $remote_host' } } }",
    );
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let reply = dormouse.get("shut", "/").await;
    assert_eq!((reply.status, reply.field("x-seen")), (403, Some("403 to 127.0.0.1")), "{reply:?}");
    assert_eq!(app.journal().starts(), 0);
}
