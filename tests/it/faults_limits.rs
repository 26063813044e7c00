//! Too few descriptors, too little memory, too many at once, and bad neighbours.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    history::History,
    wait::until,
};

fn descriptors(dormouse: &Dormouse, most: u32) {
    let words = [format!("--pid={}", dormouse.pid()), format!("--nofile={most}:4096")];
    assert!(Command::new("prlimit").args(words).status().unwrap().success());
}

#[tokio::test]
async fn without_descriptors_it_waits_and_recovers_by_itself() {
    let app = App::new("app").idle("idle_timeout: 1s");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    descriptors(&dormouse, 256);
    let mut hoard = Vec::new();
    for _ in 0..400 {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        hoard.push(stream);
    }
    let history = History::new(dormouse.http);
    let honest = futures_util::future::join_all((0..20).map(|_| history.ask(&app, "POST")));
    let let_go = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let busy = dormouse.cpu_time();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let spent = dormouse.cpu_time().saturating_sub(busy);
        println!("{spent:?} of processor time in two seconds without descriptors");
        assert!(spent < Duration::from_secs(1), "a busy loop: {spent:?}");
        drop(hoard);
    };
    tokio::join!(honest, let_go);
    println!("{:?}, the longest took {:?}", history.statuses(), history.longest());
    history.check(&[&app], &[502, 503, 504]);
    until("an answer", async || history.ask(&app, "GET").await, |status| *status == Some(200)).await;
    dormouse.reaches("app", "asleep").await;
    assert_eq!(history.ask(&app, "GET").await, Some(200));
}

/// Whether the other end has closed.
fn is_over(stream: &TcpStream) -> bool {
    let mut bytes = [0; 1024];
    loop {
        match stream.try_read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test]
async fn a_hoard_of_silent_connections_keeps_nobody_from_an_answer() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let dormouse = Dormouse::start_bounded(&config(&[&app]), 1024).await;
    let history = History::new(dormouse.http);
    assert_eq!(history.ask(&app, "GET").await, Some(200));
    let before = memory(&dormouse, "VmRSS:");
    let mut hoard = Vec::new();
    for _ in 0..1010 {
        hoard.push(TcpStream::connect(dormouse.http).await.unwrap());
    }
    let ended = async || hoard.iter().filter(|stream| is_over(stream)).count();
    until("the silent ones give up their places", ended, |ended| *ended >= 1010 - 512).await;
    let busy = dormouse.cpu_time();
    for number in 0..40 {
        let status = history.ask(&app, if number % 2 == 0 { "GET" } else { "POST" }).await;
        assert_eq!(status, Some(200), "kept from a place by those who say nothing");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (spent, grown) = (dormouse.cpu_time().saturating_sub(busy), memory(&dormouse, "VmRSS:").saturating_sub(before));
    println!("{:?}, the longest took {:?}; {spent:?}, {grown} KiB", history.statuses(), history.longest());
    assert!(history.longest() < Duration::from_secs(15), "{:?}", history.longest());
    assert!(spent < Duration::from_secs(1), "a busy loop: {spent:?} in two seconds");
    assert!(grown < 32 << 10, "{grown} KiB for a thousand who say nothing");
    drop(hoard);
    until("an answer", async || history.ask(&app, "GET").await, |status| *status == Some(200)).await;
    history.check(&[&app], &[]);
}

fn memory(dormouse: &Dormouse, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", dormouse.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_herd_with_bodies_does_not_fill_the_memory() {
    let app = App::new("app").options(&["--delay-listen", "10s"]).idle("idle_timeout: 1h, max_held: 500");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let before = memory(&dormouse, "VmRSS:");
    // Heads that promise 100 MB, and a beginning of it. None of them is ever whole.
    let piece = vec![b'x'; 64 << 10];
    let mut streams = Vec::new();
    for _ in 0..600 {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        let head = "POST /echo HTTP/1.1\r\nHost: app.test\r\nContent-Length: 100000000\r\n\r\n";
        // The excess is refused and cut, which is as it should be.
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = tokio::time::timeout(Duration::from_millis(1), stream.write_all(&piece)).await;
        streams.push(stream);
    }
    let held = async || dormouse.api("GET", "/api/v1/backends/jobs/app").await["held"].as_u64().unwrap();
    until("the herd waits", held, |held| *held == 500).await;
    let most = memory(&dormouse, "VmHWM:");
    println!("500 held with bodies of 100 MB: {} KiB more, {most} KiB at most", most - before);
    assert!(most - before < 64 << 10, "{} KiB more", most - before);
    drop(streams);
    until("all have left", held, |held| *held == 0).await;
    until("an answer", async || dormouse.get("app", "/").await.status, |status| *status == 200).await;
}

#[tokio::test]
async fn one_in_a_crash_loop_does_not_disturb_20_good_ones() {
    let bad = App::new("bad").options(&["--exit-code", "1"]).idle("idle_timeout: 1h");
    let good: Vec<App> = (0..20).map(|number| App::new(&format!("good{number}")).idle("idle_timeout: 1h")).collect();
    let all: Vec<&App> = good.iter().chain([&bad]).collect();
    let dormouse = Dormouse::start(&config(&all)).await;
    let (history, noise) = (History::new(dormouse.http), History::new(dormouse.http));
    let end = Instant::now() + Duration::from_secs(7);
    let crashes = async {
        while Instant::now() < end {
            noise.ask(&bad, "GET").await;
            dormouse.api("POST", "/api/v1/backends/jobs/bad/wake").await;
        }
    };
    let asks = good.iter().map(|app| async {
        while Instant::now() < end {
            history.ask(app, "GET").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    tokio::join!(crashes, futures_util::future::join_all(asks));
    println!("{:?} of the good, {} starts of the bad", history.statuses(), bad.journal().starts());
    history.check(&good.iter().collect::<Vec<_>>(), &[]);
    noise.check(&[&bad], &[503]);
    assert!(bad.journal().starts() > 5, "it did not crash in a loop");
    for app in &good {
        assert_eq!((app.journal().starts(), app.journal().ends()), (1, 0), "{}", app.name);
    }
}

#[tokio::test]
async fn of_200_that_wake_at_once_8_wake_at_a_time_and_none_is_lost() {
    let apps: Vec<App> = (0..200)
        .map(|number| App::new(&format!("app{number}")).options(&["--delay-listen", "100ms"]).idle("idle_timeout: 1h"))
        .collect();
    let all: Vec<&App> = apps.iter().collect();
    let dormouse = Dormouse::start(&config(&all)).await;
    let history = History::new(dormouse.http);
    futures_util::future::join_all(apps.iter().map(|app| history.ask(app, "POST"))).await;
    println!("{:?}, the longest took {:?}", history.statuses(), history.longest());
    history.check(&all, &[]);
    assert_eq!(history.statuses()[&200], 200);
    // Between start and listening: the journals tell how many were so at once.
    let mut marks: Vec<(u128, i32)> = Vec::new();
    for app in &apps {
        let journal = app.journal();
        assert_eq!(journal.starts(), 1, "{}", app.name);
        marks.extend([(journal.times("start")[0], 1), (journal.times("listen")[0], -1)]);
    }
    marks.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, step) in marks {
        now += step;
        most = most.max(now);
    }
    println!("at most {most} woke at once");
    assert!((2..=8).contains(&most), "{most} woke at once");
}

#[tokio::test]
async fn a_configuration_that_vanishes_for_a_moment_changes_nothing() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    assert_eq!(dormouse.get("app", "/").await.status, 200);
    let file = dormouse.state_dir().with_file_name("dormouse.yaml");
    fs::remove_file(&file).unwrap();
    let problems = async || dormouse.api("GET", "/api/v1/problems").await.to_string();
    until("the problem", problems, |text| text.contains("dormouse.yaml")).await;
    assert_eq!(dormouse.get("app", "/").await.status, 200);
    dormouse.configure(&config(&[&app]));
    until("no problem", problems, |text| !text.contains("dormouse.yaml")).await;
    assert_eq!((dormouse.get("app", "/").await.status, app.journal().starts(), app.journal().ends()), (200, 1, 0));
}
