//! Who is ignored neither wakes nor keeps awake.

use std::time::{Duration, Instant};

use crate::support::{
    apps::{App, config},
    dormouse::{Dormouse, get},
};

const MONITOR: &str = "User-Agent: Uptime-Kuma/1.23.11\r\n";
const SCANNER: &str = "User-Agent: acme-scanner/2.0\r\n";

const IGNORE: &str = "ignore: { presets: [monitors, favicon], agents: [acme-scanner] }";

#[tokio::test]
async fn a_scanner_of_1000_paths_wakes_nothing() {
    let app = App::new("app").idle(&format!("idle_timeout: 1h, {IGNORE}"));
    let dormouse = Dormouse::start(&config(&[&app])).await;
    for round in 0..10 {
        let asks = (0..100).map(|number| {
            let path = format!("/wp-content/{round}/{number}.php");
            async move { get(dormouse.http, "app", &path, SCANNER).await.unwrap() }
        });
        for reply in futures_util::future::join_all(asks).await {
            assert_eq!(reply.status, 503);
            assert!(reply.field("retry-after").is_some(), "{reply:?}");
        }
    }
    assert_eq!(app.journal().starts(), 0);
    assert_eq!(dormouse.state("app").await, "asleep");
    assert_eq!(dormouse.get("app", "/").await.status, 200);
    // While it is awake the scanner is answered as anybody.
    assert_eq!(get(dormouse.http, "app", "/wp-login.php", SCANNER).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_monitor_every_second_and_favicons_do_not_keep_awake() {
    let asleep = "asleep_response: { status: 200, body: asleep }";
    let app = App::new("app").idle(&format!("idle_timeout: 4s, {IGNORE}, {asleep}"));
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let reply = get(dormouse.http, "app", "/", MONITOR).await.unwrap();
    assert_eq!((reply.status, reply.body.as_str(), app.journal().starts()), (200, "asleep", 0));
    let reply = get(dormouse.http, "app", "/favicon.ico", "").await.unwrap();
    assert_eq!((reply.status, app.journal().starts()), (200, 0));

    assert_eq!(dormouse.get("app", "/").await.status, 200);
    let last = Instant::now();
    let mut answered = 0;
    while app.journal().ends() == 0 {
        assert!(last.elapsed() < Duration::from_secs(60), "it was kept awake");
        for (path, fields) in [("/health", MONITOR), ("/favicon.ico", "")] {
            let reply = get(dormouse.http, "app", path, fields).await.unwrap();
            assert_eq!(reply.status, 200, "{reply:?}");
            answered += usize::from(reply.body.starts_with("hello"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("asleep {:.1} s after the last use, {answered} ignored requests answered", last.elapsed().as_secs_f64());
    assert!(last.elapsed() >= Duration::from_millis(3900), "it sleeps too early");
    assert!(answered >= 4, "the monitor was not let through to the awake app");
    dormouse.reaches("app", "asleep").await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(get(dormouse.http, "app", "/health", MONITOR).await.unwrap().body, "asleep");
    }
    assert_eq!(app.journal().starts(), 1);
}
