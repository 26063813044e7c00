//! Middlewares that bound how much is asked: what they refuse does not wake, and what waits for a wake counts.

use crate::support::{
    apps::{App, config},
    dormouse::{Dormouse, get},
};

/// An app that sleeps, behind these middlewares.
fn behind(name: &str, middlewares: &str) -> App {
    App::new(name).idle("idle_timeout: 1h").route(&format!(", middlewares: {middlewares}"))
}

#[tokio::test]
async fn rates_are_held_while_a_service_sleeps_and_wakes() {
    let rated = behind("rated", "{ rate_limit: { average: 1, burst: 3, period: 1h } }");
    let dormouse = Dormouse::start(&config(&[&rated])).await;
    for _ in 0..3 {
        assert_eq!(dormouse.get("rated", "/").await.status, 200);
    }
    dormouse.api("POST", "/api/v1/backends/jobs/rated/sleep").await;
    dormouse.reaches("rated", "asleep").await;
    for _ in 0..3 {
        let reply = dormouse.get("rated", "/").await;
        let again = reply.field("retry-after").and_then(|after| after.parse::<u64>().ok());
        assert!(reply.status == 429 && again.is_some_and(|after| (3000..=3600).contains(&after)), "{reply:?}");
    }
    assert_eq!(dormouse.state("rated").await, "asleep");
    assert_eq!(rated.journal().starts(), 1, "what was refused woke it");
}

/// The first one holds the place while it waits for the app, and no longer.
#[tokio::test]
async fn places_are_held_by_those_who_wait_for_a_wake() {
    let placed = behind("placed", "{ in_flight_limit: 1 }").options(&["--delay-listen", "1s"]);
    let dormouse = Dormouse::start(&config(&[&placed])).await;
    let first = dormouse.get("placed", "/");
    let second = async {
        placed.has_started(1).await;
        dormouse.get("placed", "/").await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.status, second.status), (200, 503), "{second:?}");
    assert_eq!(dormouse.get("placed", "/").await.status, 200);
}

/// Each client has places of its own: one that takes too many keeps nobody else out.
#[tokio::test]
async fn places_of_a_client_are_its_own() {
    let each =
        behind("each", "[{ real_ip: { from: 127.0.0.1 } }, { in_flight_limit: { amount: 1, per_client: true } }]")
            .options(&["--delay-listen", "1s"]);
    let dormouse = Dormouse::start(&config(&[&each])).await;
    let ask = async |address: &str| {
        get(dormouse.http, "each", "/", &format!("X-Real-IP: {address}\r\n")).await.unwrap().status
    };
    let others = async {
        each.has_started(1).await;
        tokio::join!(ask("192.0.2.1"), ask("192.0.2.2"))
    };
    let (first, (second, other)) = tokio::join!(ask("192.0.2.1"), others);
    assert_eq!((first, second, other), (200, 429, 200));
    assert_eq!(ask("192.0.2.1").await, 200);
    assert_eq!(each.journal().starts(), 1);
}
