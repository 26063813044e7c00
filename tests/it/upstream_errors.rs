//! What goes wrong between Dormouse and a service: tried again where the route wants that, and counted by its kind.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    apps::{App, config, free_port},
    dormouse::{Dormouse, get, request},
};

#[tokio::test]
async fn a_retry_of_what_a_sleeping_service_answers_wakes_it_once_and_repeats_only_what_is_safe() {
    let app = App::new("app")
        .idle("idle_timeout: 1h")
        .route(", middlewares: { retry: { attempts: 2, statuses: [500], pause: 1ms } }");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    assert_eq!(dormouse.state("app").await, "asleep");
    assert_eq!(dormouse.get("app", "/status/500?get").await.status, 500);
    let journal = app.journal();
    assert_eq!((journal.arrivals("/status/500?get"), journal.starts()), (3, 1), "{journal:?}");
    for method in ["POST", "PATCH"] {
        let target = format!("/status/500?{method}");
        let text =
            format!("{method} {target} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(request(dormouse.http, &text).await.unwrap().status, 500);
        assert_eq!(app.journal().arrivals(&target), 1, "{method}");
    }
    assert_eq!(dormouse.get("app", "/status/501").await.status, 501);
    assert_eq!((app.journal().arrivals("/status/501"), app.journal().starts()), (1, 1));
}

/// A service that says this to each request, and ends the connection.
async fn says(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") && stream.read_buf(&mut asked).await.is_ok_and(|count| count > 0) {}
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn errors_of_services_are_counted_by_their_kind() {
    let app = App::new("late").idle("idle_timeout: 1h").route(", response_header_timeout: 100ms");
    let (silent, odd) = (says("").await, says("220 mail.test ready\r\n\r\n").await);
    let half = says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    let nobody = free_port();
    let more = format!(
        "routes:\n  none: {{ host: 127.0.0.1, port: {nobody} }}\n  silent: {{ host: 127.0.0.1, port: {} }}\n  \
         half: {{ host: 127.0.0.1, port: {} }}\n  odd: {{ host: 127.0.0.1, port: {} }}\n",
        silent.port(),
        half.port(),
        odd.port()
    );
    let dormouse = Dormouse::start(&config(&[&app]).replacen("routes:\n", &more, 1)).await;
    let status = async |name: &str, path: &str| get(dormouse.http, name, path, "").await.map(|reply| reply.status).ok();
    assert_eq!(status("none", "/").await, Some(502));
    assert_eq!(status("silent", "/").await, Some(502));
    assert_eq!(status("half", "/").await, None, "it is never shown as whole");
    assert_eq!(status("odd", "/").await, Some(502));
    assert_eq!(status("late", "/echo").await, Some(200));
    assert_eq!(status("late", "/slow?ms=60000").await, Some(504));
    let text = dormouse.api_text("GET", "/metrics", "").await;
    let counted: Vec<&str> = text.lines().filter(|line| line.starts_with("dormouse_upstream_errors_total{")).collect();
    let expected =
        [("half", "closed"), ("late", "timeout"), ("none", "connect"), ("odd", "malformed"), ("silent", "closed")];
    let expected =
        expected.map(|(route, kind)| format!("dormouse_upstream_errors_total{{route=\"{route}\",kind=\"{kind}\"}} 1"));
    assert_eq!(counted, expected, "{text}");
}
