//! A new process takes over from a running one: nobody is refused or cut, and what is in use is kept.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::support::{
    apps::{App, config, free_port},
    docker::DockerCli,
    dormouse::{Dormouse, Load, get, outcomes},
    line::{Line, is_answered},
    shift::{Shift, comes_anew, keeps_alive, speaks_http2, streams, talks},
    streams::{connect, echoed, hello, talk},
    tls::{Authority, YEAR},
    wait::{must, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_or_cut_by_three_upgrades() {
    let steady = App::new("steady").idle("idle_timeout: 1h");
    let sleepy = App::new("sleepy").options(&["--delay-listen", "300ms"]).idle("idle_timeout: 300ms");
    let stream = App::echoing("stream", "tcp").idle("idle_timeout: 1h");
    let mut line = Line::of(Dormouse::start(&config(&[&steady, &sleepy, &stream])).await);
    let at = line.dormouse.http;
    let mut clients = JoinSet::new();
    let shift = || Shift::default();
    let shifts: Vec<(&str, Shift)> = ["kept", "kept too", "HTTP/2", "new", "held", "WebSocket", "TCP"]
        .into_iter()
        .map(|kind| (kind, shift()))
        .collect();
    // One after the other has got through before the first upgrade.
    for (kind, shift) in &shifts {
        let shift = shift.clone();
        match *kind {
            "HTTP/2" => clients.spawn(speaks_http2(at, shift)),
            "new" => clients.spawn(comes_anew(at, "steady", Duration::ZERO, shift)),
            "held" => clients.spawn(comes_anew(at, "sleepy", Duration::from_millis(700), shift)),
            "WebSocket" => clients.spawn(talks(at, shift)),
            "TCP" => clients.spawn(streams(connect(stream.front()).await, shift)),
            _ => clients.spawn(keeps_alive(at, shift)),
        };
    }
    for _ in 0..3 {
        line.upgrade().await;
        for (kind, shift) in &shifts {
            let before = shift.answers.load(Ordering::SeqCst);
            let more = async || (shift.answers.load(Ordering::SeqCst), clients.try_join_next());
            let (_, ended) = until(kind, more, |(now, ended)| *now >= before + 3 || ended.is_some()).await;
            assert!(ended.is_none(), "a client failed: {ended:?}");
        }
    }
    // The WebSocket and the stream are still with the first.
    assert!(line.dormouse.is_running());
    for (_, shift) in &shifts {
        shift.over.store(true, Ordering::SeqCst);
    }
    while let Some(ended) = must("the end of the clients", clients.join_next()).await {
        ended.unwrap();
    }
    line.is_one_process().await;
    line.dormouse.reaches("sleepy", "asleep").await;
    for app in [&steady, &sleepy, &stream] {
        app.journal().was_never_ended_in_use();
        app.journal().had_one_life_at_a_time();
    }
    assert_eq!((steady.journal().starts(), stream.journal().starts()), (1, 1));
    assert!(sleepy.journal().starts() >= 3, "it never slept");
    line.end().await;
    for app in [&steady, &sleepy, &stream] {
        assert!(app.journal().living().is_empty(), "{} outlives Dormouse", app.name);
    }
}

#[tokio::test]
async fn what_the_old_one_has_in_use_is_not_put_to_sleep_and_falls_idle_after_its_last_request() {
    let idle = Duration::from_secs(2);
    let app = App::new("app").idle("idle_timeout: 2s");
    let mut line = Line::awake(&[&app]).await;
    let slow = line.slow(&app, 6000).await;
    line.upgrade().await;
    is_answered(slow).await;
    let ended = Instant::now();
    line.is_one_process().await;
    line.dormouse.has_logged("app", "is let down", 1).await;
    assert!(ended.elapsed() >= idle - Duration::from_millis(100), "asleep after {:?}", ended.elapsed());
    line.dormouse.reaches("app", "asleep").await;
    app.journal().was_never_ended_in_use();
    assert_eq!(app.journal().starts(), 1);
    line.end().await;
}

#[tokio::test]
async fn what_is_in_use_in_the_first_has_its_time_however_many_upgrades_follow() {
    let app = App::new("app").idle("idle_timeout: 1s");
    let mut line = Line::of(Dormouse::start(&(config(&[&app]) + "shutdown_timeout: 1s\n")).await);
    line.serves("app").await;
    let slow = line.slow(&app, 8000).await;
    for _ in 0..2 {
        line.upgrade().await;
    }
    is_answered(slow).await;
    line.is_one_process().await;
    line.dormouse.reaches("app", "asleep").await;
    app.journal().was_never_ended_in_use();
    assert_eq!(app.journal().starts(), 1);
    line.end().await;
}

#[tokio::test]
async fn a_request_that_waits_for_a_wake_while_it_is_upgraded_is_answered() {
    let app = App::new("app").options(&["--delay-listen", "2s"]).idle("idle_timeout: 1h");
    let mut line = Line::of(Dormouse::start(&config(&[&app])).await);
    let at = line.dormouse.http;
    let held = tokio::spawn(async move { get(at, "app", "/", "").await });
    app.has_started(1).await;
    line.upgrade().await;
    assert_eq!(must("the answer", held).await.unwrap().unwrap().status, 200);
    line.is_one_process().await;
    line.serves("app").await;
    assert_eq!(app.journal().starts(), 1);
    line.end().await;
}

#[tokio::test]
async fn clients_of_https_notice_nothing() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let text = format!("{}tls: {{ certificates: [{}] }}\n", config(&[&app]), authority.entry("app"));
    let mut line = Line::of(Dormouse::start_secure(&text).await);
    let https = line.dormouse.https.unwrap();
    let asks = async {
        let mut asked = 0;
        // 50 each through one connection, of HTTP/2 and of HTTP/1.1.
        for version in ["--http2", "--http1.1", "--http2", "--http1.1"] {
            let reply = authority.curl("app.test", https, "/slow?ms=[20-60]", &[version, "--fail"]).await;
            assert!(reply.ok, "{reply:?}");
            asked += reply.body.matches("slow\n").count();
        }
        asked
    };
    let upgrades = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            line.upgrade().await;
        }
    };
    let (asked, ()) = tokio::join!(asks, upgrades);
    assert_eq!(asked, 4 * 41);
    line.is_one_process().await;
    assert_eq!(app.journal().starts(), 1);
    line.end().await;
}

/// The new process knows the streams on the port of HTTPS before it takes its first client: HTTPS answers none of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_on_the_port_of_https_are_never_taken_for_https() {
    let [http, at] = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut app = App::echoing("pass", "tcp").route(", sni: [pass.test]").idle("idle_timeout: 1h");
    app.listen = Some(at.port());
    let mut line = Line::of(Dormouse::start_at(&config(&[&app]), http, at).await);
    let (over, text) = (AtomicBool::new(false), hello("pass.test"));
    let asks = || async {
        let mut asked = 0;
        while !over.load(Ordering::SeqCst) {
            assert_eq!(talk(at, &text).await.unwrap(), echoed(&text));
            asked += 1;
        }
        asked
    };
    let upgrades = async {
        for _ in 0..10 {
            line.upgrade().await;
        }
        over.store(true, Ordering::SeqCst);
    };
    let (one, two, three, four, ()) = tokio::join!(asks(), asks(), asks(), asks(), upgrades);
    assert!([one, two, three, four].iter().all(|asked| *asked > 0));
    line.is_one_process().await;
    assert_eq!(app.journal().starts(), 1);
    line.end().await;
}

#[tokio::test]
async fn containers_are_neither_started_again_nor_cut() {
    let Some(cli) = DockerCli::new() else { return };
    let awake = cli.sleeper(&["run", "-d"], "awake", &["idle_timeout=20s"], &[]).await;
    let asleep = cli.sleeper(&["create"], "asleep", &["idle_timeout=1s"], &[]).await;
    let mut line = Line::of(Dormouse::start(&cli.config()).await);
    for name in [&awake, &asleep] {
        line.dormouse.knows(name).await;
    }
    let load = Load::begin(&line.dormouse, &awake, "/", 4);
    for _ in 0..3 {
        let at = line.dormouse.http;
        let name = asleep.clone();
        let held = tokio::spawn(async move { get(at, &name, "/slow?ms=2500", "").await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        line.upgrade().await;
        assert_eq!(must("the answer", held).await.unwrap().unwrap().body, "slow\n");
        line.dormouse.comes_to(&asleep, "stopped").await;
    }
    let history = load.end().await;
    assert!(history.iter().all(|asked| asked.outcome() == "200"), "{:?}", outcomes(&history));
    assert_eq!((cli.count(&awake, "start").await, cli.count(&awake, "die").await), (1, 0));
    assert_eq!(cli.count(&asleep, "start").await, 3);
    line.is_one_process().await;
    line.end().await;
}
