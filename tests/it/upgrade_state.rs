//! What a process knows of its backends goes on in the one that takes over.

use std::{
    io::BufRead,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    line::{Line, is_answered},
    wait::{must, until},
};

/// What is told of a backend that an upgrade leaves as it is.
async fn lasting(line: &Line, app: &App) -> Value {
    let mut told = line.told(app).await;
    let lasting =
        ["state", "asleep_as", "since", "cause", "failure", "pinned_until", "put_to_sleep", "last_wake", "wakes"];
    told.as_object_mut().unwrap().retain(|key, _| lasting.contains(&key.as_str()));
    told
}

#[tokio::test]
async fn what_is_told_of_backends_is_the_same_after_an_upgrade() {
    let up = App::new("up").idle("idle_timeout: 1h");
    let down = App::new("down").idle("idle_timeout: 1s");
    let broken = App::new("broken").options(&["--exit-code", "3"]).idle("idle_timeout: 1h");
    let late = App::new("late").options(&["--never-listen"]);
    let late = late.idle("idle_timeout: 1h, wake_timeout: 1s, on_wake_timeout: leave");
    let apps = [&up, &down, &broken, &late];
    let mut line = Line::of(Dormouse::start(&config(&apps)).await);
    line.serves("up").await;
    line.serves("down").await;
    assert_eq!(line.dormouse.get("broken", "/").await.status, 503);
    assert_eq!(line.dormouse.get("late", "/").await.status, 504);
    line.dormouse.reaches("down", "asleep").await;
    let mut before = Vec::new();
    for (app, state) in apps.iter().zip(["awake", "asleep", "failed", "failed"]) {
        let told = lasting(&line, app).await;
        assert_eq!(told["state"], state, "{told}");
        before.push(told);
    }
    for _ in 0..2 {
        line.upgrade().await;
        line.is_one_process().await;
        for (app, before) in apps.iter().zip(&before) {
            until(&format!("{} as before", app.name), async || lasting(&line, app).await, |now| now == before).await;
        }
    }
    let log = line.dormouse.log();
    assert!(!log.contains("was found running"), "{log}");
    // Their cool-downs have gone on, and end.
    let ask = async || (line.dormouse.get("broken", "/").await.status, broken.journal().starts());
    until("the next start", ask, |(status, starts)| *status == 503 && *starts == 2).await;
    line.end().await;
}

#[tokio::test]
async fn events_are_counted_on_and_a_broken_stream_of_them_goes_on_without_a_gap() {
    let app = App::new("app").idle("idle_timeout: 1s");
    let mut line = Line::awake(&[&app]).await;
    let events = async |line: &Line| {
        let path = "/api/v1/events?follow=false";
        let text = line.dormouse.api_text("GET", path, "").await;
        text.lines().map(|event| serde_json::from_str::<Value>(event).unwrap()).collect::<Vec<_>>()
    };
    line.dormouse.reaches("app", "asleep").await;
    let before = events(&line).await;
    let mut follower = std::process::Command::new(env!("CARGO_BIN_EXE_dormouse"))
        .args(["events", "--follow", "--json", "--state-dir"])
        .arg(line.dormouse.state_dir())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    line.upgrade().await;
    line.is_one_process().await;
    line.serves("app").await;
    let after = events(&line).await;
    assert_eq!(after[..before.len()], before);
    let seqs: Vec<u64> = after.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.len() > before.len() && seqs.iter().copied().eq(1..=seqs.len() as u64), "{seqs:?}");
    // Who follows sees each of them once.
    let output = follower.stdout.take().unwrap();
    let wanted = after.clone();
    let followed = tokio::task::spawn_blocking(move || {
        let lines = std::io::BufReader::new(output).lines().map(|line| line.unwrap());
        lines.take(wanted.len()).map(|line| serde_json::from_str(&line).unwrap()).collect::<Vec<Value>>()
    });
    let followed = must("the events", followed).await;
    let _ = follower.kill();
    let _ = follower.wait();
    assert_eq!(followed.unwrap(), after);
    let (old, new) = (line.dormouse.pid(), line.heirs[0]);
    let note = format!("process {new} (version {}) has taken over from process {old}", env!("CARGO_PKG_VERSION"));
    let told = after.iter().filter(|event| event.to_string().contains(&note)).count();
    assert_eq!(told, 1, "{note}: {after:?}");
    line.end().await;
}

#[tokio::test]
async fn a_backend_sleeps_when_it_would_have_slept_without_the_upgrade() {
    let app = App::new("app").idle("idle_timeout: 6s");
    let mut line = Line::awake(&[&app]).await;
    let quiet = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    line.upgrade().await;
    line.dormouse.reaches("app", "asleep").await;
    let asleep = quiet.elapsed();
    println!("asleep after {asleep:?} of quiet, an upgrade among them");
    assert!(asleep >= Duration::from_millis(5900), "its idle clock ran too fast: {asleep:?}");
    let slept = app.journal().times("term 0");
    let last = app.journal().times("begin ");
    let idle = Duration::from_nanos(u64::try_from(slept[0] - last[last.len() - 1]).unwrap());
    assert!(idle < Duration::from_millis(8900), "its idle clock began anew: {idle:?}");
    line.end().await;
}

#[tokio::test]
async fn datagrams_go_on_with_the_new_one_and_pins_and_clocks_are_kept() {
    let app = App::echoing("echo", "udp").idle("idle_timeout: 1h");
    let clock = App::new("clock").idle("idle_timeout: 2m");
    let mut line = Line::of(Dormouse::start(&config(&[&app, &clock])).await);
    line.serves("clock").await;
    let quiet = Instant::now();
    let pinned = line.dormouse.api_with("POST", "/api/v1/backends/jobs/echo/pin", "{\"for\": \"1h\"}").await;
    assert_eq!(pinned["result"], "done", "{pinned}");
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(app.front()).await.unwrap();
    for number in 0..3 {
        // One may be lost in the moment of the upgrade, as on any way.
        let text = format!("datagram {number}");
        let echoed = async || {
            let _ = socket.send(text.as_bytes()).await;
            let mut room = [0; 100];
            let got = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut room)).await;
            matches!(got, Ok(Ok(count)) if room[..count] == *text.as_bytes())
        };
        until("an echo", echoed, |echoed| *echoed).await;
        line.upgrade().await;
    }
    line.is_one_process().await;
    let told = line.told(&app).await;
    assert!(told["pinned_until"].is_string(), "{told}");
    let left = line.told(&clock).await["sleeps_in_s"].as_u64().unwrap();
    let gone = quiet.elapsed().as_secs();
    assert!((119..=121).contains(&(left + gone)), "sleeps in {left} s after {gone} s of quiet");
    assert_eq!((app.journal().starts(), clock.journal().starts()), (1, 1));
    line.end().await;
}

#[tokio::test]
async fn a_request_that_takes_longer_than_the_idle_time_is_answered() {
    let app = App::new("app").idle("idle_timeout: 1s");
    let mut line = Line::awake(&[&app]).await;
    let slow = line.slow(&app, 9000).await;
    // Nobody has come or gone for longer than the idle time, and it is in use all the same.
    tokio::time::sleep(Duration::from_secs(3)).await;
    line.upgrade().await;
    is_answered(slow).await;
    app.journal().was_never_ended_in_use();
    assert_eq!((app.journal().starts(), app.journal().ends()), (1, 0));
    line.dormouse.reaches("app", "asleep").await;
    line.end().await;
}

#[tokio::test]
async fn what_only_others_need_is_not_touched_and_sleeps_after_them() {
    // One of them sorts before what needs it, the other one behind.
    let bases = [App::new("aa").idle(""), App::new("zz").idle("")];
    let app = App::new("app").idle("idle_timeout: 8s").backend(", depends_on: [aa, zz]");
    let steady = App::new("steady").idle("idle_timeout: 1h").backend(", depends_on: [zz]");
    let mut line = Line::of(Dormouse::start(&config(&[&bases[0], &bases[1], &app, &steady])).await);
    for name in ["app", "steady"] {
        line.serves(name).await;
    }
    for _ in 0..3 {
        line.serves("app").await;
        line.upgrade().await;
        line.is_one_process().await;
        for base in &bases {
            assert_eq!((base.journal().starts(), base.journal().ends()), (1, 0), "{}", base.name);
        }
    }
    line.dormouse.reaches("app", "asleep").await;
    line.dormouse.reaches("aa", "asleep").await;
    assert_eq!((bases[1].journal().starts(), bases[1].journal().ends()), (1, 0), "another one needs it");
    assert_eq!((app.journal().starts(), steady.journal().ends()), (1, 0));
    line.end().await;
}
