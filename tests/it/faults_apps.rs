//! Apps that fail: when they start, while they run, and in what they answer.

use std::time::{Duration, Instant};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    history::History,
    wait::until,
};

async fn one(app: &App) -> (Dormouse, History) {
    let dormouse = Dormouse::start(&config(&[app])).await;
    let history = History::new(dormouse.http);
    (dormouse, history)
}

async fn passes(dormouse: &Dormouse) -> (u64, u64) {
    let backend = dormouse.api("GET", "/api/v1/backends/jobs/app").await;
    (backend["passes"].as_u64().unwrap(), backend["held"].as_u64().unwrap())
}

#[tokio::test]
async fn of_1000_requests_at_once_each_is_answered_and_there_is_one_start() {
    let app = App::new("app").options(&["--delay-listen", "1s"]).idle("idle_timeout: 1h");
    let (_dormouse, history) = one(&app).await;
    let asks = (0..1000).map(|number| history.ask(&app, if number % 2 == 0 { "GET" } else { "POST" }));
    futures_util::future::join_all(asks).await;
    println!("{:?}, the longest took {:?}", history.statuses(), history.longest());
    history.check(&[&app], &[]);
    assert_eq!((history.statuses()[&200], app.journal().starts()), (1000, 1));
}

#[tokio::test]
async fn one_that_dies_while_it_wakes_is_refused_soon_and_wakes_after_the_cool_down() {
    let app = App::new("app").options(&["--fail-starts", "1"]).idle("idle_timeout: 1h");
    let (dormouse, history) = one(&app).await;
    assert_eq!(history.ask(&app, "GET").await, Some(503));
    assert!(history.longest() < Duration::from_secs(10), "{:?}", history.longest());
    dormouse.reaches("app", "failed").await;
    // The failure is over by itself once it has rested.
    until("an answer", async || history.ask(&app, "POST").await, |status| *status == Some(200)).await;
    history.check(&[&app], &[503]);
    assert_eq!(app.journal().starts(), 2);
}

#[tokio::test]
async fn one_that_dies_at_every_start_is_not_started_in_a_loop() {
    let app = App::new("app").options(&["--exit-code", "7"]).idle("idle_timeout: 1h");
    let (dormouse, history) = one(&app).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        futures_util::future::join_all((0..10).map(|_| history.ask(&app, "GET"))).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{:?}, {} starts in {:?}", history.statuses(), app.journal().starts(), begun.elapsed());
    history.check(&[&app], &[503]);
    // One at once, one after 5 s.
    assert!(app.journal().starts() <= 2, "{} starts", app.journal().starts());
    let told = dormouse.api("GET", "/api/v1/backends/jobs/app").await["failure"].to_string();
    assert!(told.contains("exit code 7"), "{told}");
    assert!(dormouse.cpu_time() < begun.elapsed(), "a busy loop: {:?}", dormouse.cpu_time());
}

#[tokio::test]
async fn a_port_that_never_opens_gives_504_at_the_limit_of_the_wake() {
    let app = App::new("app").options(&["--never-listen"]).idle("idle_timeout: 1h, wake_timeout: 1s");
    let (dormouse, history) = one(&app).await;
    let asks = (0..50).map(|number| history.ask(&app, if number % 2 == 0 { "GET" } else { "POST" }));
    futures_util::future::join_all(asks).await;
    history.check(&[&app], &[504]);
    assert_eq!(history.statuses()[&504], 50);
    until("its end", async || app.journal().living().len(), |living| *living == 0).await;
    assert_eq!((app.journal().starts(), passes(&dormouse).await), (1, (0, 0)));
}

#[tokio::test]
async fn a_port_that_opens_late_is_used_when_it_opens() {
    let app = App::new("app").options(&["--delay-listen", "8s"]).idle("idle_timeout: 1s");
    let (_dormouse, history) = one(&app).await;
    let asks = (0..20).map(|number| history.ask(&app, if number % 2 == 0 { "GET" } else { "POST" }));
    futures_util::future::join_all(asks).await;
    history.check(&[&app], &[]);
    assert_eq!((history.statuses()[&200], app.journal().starts()), (20, 1));
    assert!(history.longest() >= Duration::from_secs(8));
}

#[tokio::test]
async fn an_app_that_is_not_ready_is_waited_for_with_a_check_and_passed_on_without() {
    let checked = App::new("checked")
        .options(&["--delay-ready", "4s"])
        .idle("idle_timeout: 1h")
        .backend(", ready: { http: { path: /health, status: 200-399 } }");
    let plain = App::new("plain").options(&["--delay-ready", "4s"]).idle("idle_timeout: 1h, settle: 500ms");
    let dormouse = Dormouse::start(&config(&[&checked, &plain])).await;
    let history = History::new(dormouse.http);
    futures_util::future::join_all((0..10).map(|_| history.ask(&checked, "POST"))).await;
    history.check(&[&checked], &[]);
    assert_eq!(history.statuses()[&200], 10);

    // Its own words are passed on: at once what may not be sent twice, the rest once it has had time to settle.
    for (method, body) in [("POST", "Content-Length: 2\r\n\r\nhi"), ("GET", "\r\n")] {
        let text = format!("{method} /echo?{method} HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n{body}");
        let reply = crate::support::dormouse::request(dormouse.http, &text).await.unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (503, "not ready yet\n"), "{method}");
    }
    assert_eq!(plain.journal().arrivals("/echo?POST"), 1);
    assert!(plain.journal().arrivals("/echo?GET") >= 1);
    until("ready", async || dormouse.get("plain", "/").await.status, |status| *status == 200).await;
    assert_eq!((plain.journal().starts(), checked.journal().starts()), (1, 1));
}

#[tokio::test]
async fn an_app_that_accepts_and_closes_gives_502_and_gets_nothing_unsafe_twice() {
    let app = App::new("app").options(&["--accept-then-close"]).idle("idle_timeout: 1h");
    let (dormouse, history) = one(&app).await;
    let asks = (0..20).map(|number| history.ask(&app, if number % 2 == 0 { "GET" } else { "POST" }));
    futures_util::future::join_all(asks).await;
    println!("{:?}, the longest took {:?}", history.statuses(), history.longest());
    history.check(&[&app], &[502]);
    assert_eq!(history.statuses()[&502], 20);
    assert!(history.longest() < Duration::from_secs(20), "{:?}", history.longest());
    assert_eq!(passes(&dormouse).await, (0, 0));
}

#[tokio::test]
async fn an_app_that_never_answers_gives_504_at_the_limit_and_a_client_that_leaves_frees_all() {
    let app = App::new("app").options(&["--hang"]).idle("idle_timeout: 1h").route(", response_header_timeout: 2s");
    let (dormouse, history) = one(&app).await;
    let asks = (0..20).map(|number| history.ask(&app, if number % 2 == 0 { "GET" } else { "POST" }));
    futures_util::future::join_all(asks).await;
    println!("{:?}, the longest took {:?}", history.statuses(), history.longest());
    history.check(&[&app], &[504]);
    assert_eq!(history.statuses()[&504], 20);

    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        stream.write_all(b"GET /left HTTP/1.1\r\nHost: app.test\r\n\r\n").await.unwrap();
        streams.push(stream);
    }
    until("all are at the app", async || app.journal().arrivals("/left"), |count| *count == 20).await;
    drop(streams);
    until("all are free", async || passes(&dormouse).await, |passes| *passes == (0, 0)).await;
}

#[tokio::test]
async fn a_crash_at_one_request_costs_at_most_that_one_and_nothing_unsafe_is_repeated() {
    // Each life ends at its 20th request.
    let app = App::new("app").options(&["--crash-after", "20"]).idle("idle_timeout: 1h");
    let (dormouse, history) = one(&app).await;
    for number in 0..30 {
        let method = if number % 2 == 0 { "GET" } else { "POST" };
        let status = history.ask(&app, method).await;
        assert!(method == "POST" || status == Some(200), "GET {number}: {status:?}");
        if status != Some(200) {
            println!("request {number}, {method}: {status:?}");
            // What comes next finds it dead, and wakes it.
            assert_eq!(status, Some(502));
            until("an answer", async || history.ask(&app, "GET").await, |status| *status == Some(200)).await;
        }
    }
    println!("{:?} in {} lives", history.statuses(), app.journal().starts());
    history.check(&[&app], &[502, 503]);
    assert_eq!(app.journal().starts(), 2);
    assert!(history.statuses().get(&502).copied().unwrap_or(0) <= 1);
    assert!(dormouse.log().contains("ended by itself"), "its end is not in the journal");
}

#[tokio::test]
async fn a_request_that_ends_whoever_gets_it_is_not_repeated_without_end() {
    // Each life ends at its first request.
    let app = App::new("app").options(&["--crash-after", "1"]).idle("idle_timeout: 1h");
    let (_dormouse, history) = one(&app).await;
    assert_eq!(history.ask(&app, "GET").await, Some(502));
    let starts = app.journal().starts();
    assert!((1..=2).contains(&starts), "{starts} lives were ended by one request");
}

/// Connections to an address on the loopback that this machine still knows, those that only wait to be forgotten aside.
fn connections_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let to = format!(":{port:04X}");
    let fields = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let open = |fields: &Vec<String>| fields[2].ends_with(&to) && fields[3] != "06";
    table.lines().skip(1).map(fields).filter(open).count()
}

#[tokio::test]
async fn connections_to_an_app_are_closed_when_it_sleeps() {
    let app = App::new("app").idle("idle_timeout: 1s");
    let (dormouse, history) = one(&app).await;
    assert_eq!(history.ask(&app, "GET").await, Some(200));
    assert!(connections_to(app.port) > 0, "its connection is kept for the next request");
    dormouse.reaches("app", "asleep").await;
    let asleep = Instant::now();
    until("no connection is left", async || connections_to(app.port), |left| *left == 0).await;
    assert!(asleep.elapsed() < Duration::from_secs(20), "only those are closed that waited for a minute");
    assert_eq!(history.ask(&app, "GET").await, Some(200));
}

#[tokio::test]
async fn another_program_on_its_port_never_answers_for_it() {
    // It would find out by itself that the port is taken, but late.
    let app = App::new("app").options(&["--delay-listen", "500ms"]).idle("idle_timeout: 1h");
    let foreign = tokio::net::TcpListener::bind(("127.0.0.1", app.port)).await.unwrap();
    let stranger = tokio::spawn(async move {
        while let Ok((mut stream, _)) = foreign.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nstranger").await;
        }
    });
    let (dormouse, history) = one(&app).await;
    assert_eq!(history.ask(&app, "GET").await, Some(503));
    assert!(dormouse.log().contains("another program listens on the port"), "{}", dormouse.log());
    stranger.abort();
    let _ = stranger.await;
    until("an answer", async || history.ask(&app, "GET").await, |status| *status == Some(200)).await;
    // An answer of the stranger would be the answer of another.
    history.check(&[&app], &[503]);
}

#[tokio::test]
async fn a_process_without_its_program_says_which() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let text = config(&[&app]).replace(&*crate::support::apps::app_program().display().to_string(), "no-such-program");
    let dormouse = Dormouse::start(&text).await;
    assert_eq!(History::new(dormouse.http).ask(&app, "GET").await, Some(503));
    let told = dormouse.api("GET", "/api/v1/backends/jobs/app").await;
    let failure = told["failure"].as_str().unwrap();
    assert!(failure.contains("there is no program `no-such-program`"), "{failure}");
}
