//! Containers that sleep and wake, on a real engine.

use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;

use crate::support::{
    docker::DockerCli,
    dormouse::{Dormouse, Reply},
    wait::until,
};

/// The status that `curl` gets, and nothing of ours between.
fn curl(dormouse: &Dormouse, name: &str) -> String {
    let words = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "60", "-H"];
    let url = format!("http://{}/", dormouse.http);
    let output = Command::new("curl").args(words).arg(format!("Host: {name}.test")).arg(url).output();
    String::from_utf8(output.expect("curl").stdout).unwrap()
}

/// Seconds from the end of an answer to what happened last to a container, by the engine's own clock.
async fn seconds_until(cli: &DockerCli, name: &str, event: &str, reply: &Reply) -> f64 {
    let at = cli.happened_at(name, event).await;
    let ended = Timestamp::try_from(reply.sent + reply.took).unwrap().as_nanosecond();
    (at - ended) as f64 / 1e9
}

async fn has_status(cli: &DockerCli, name: &str, wanted: &str) {
    until(&format!("{name} is {wanted}"), async || cli.status(name).await, |status| status == wanted).await;
}

#[tokio::test]
async fn one_label_is_enough() {
    let Some(cli) = DockerCli::new() else { return };
    // No setting but where the engine is: the label alone makes it sleep.
    let options = ["--expose=80", "--label=dormouse.idle_timeout=2s"];
    let name = cli.container(&["create"], "app", &options, &[]).await;
    let dormouse = Dormouse::start(&format!("nodes: {{ local: {{ docker: \"{}\" }} }}\n", cli.address)).await;
    dormouse.knows(&name).await;
    let reply = dormouse.get(&name, "/").await;
    assert_eq!(reply.status, 200);
    has_status(&cli, &name, "exited").await;
    let quiet = seconds_until(&cli, &name, "die", &reply).await;
    println!("stopped after {quiet:.2} s of quiet");
    assert!((2.0..3.0).contains(&quiet), "stopped after {quiet} s");
    assert_eq!(cli.count(&name, "start").await, 1);
    dormouse.has_logged(&name, "sleeps, ", 1).await;
    assert_eq!(curl(&dormouse, &name), "200");
    assert_eq!(cli.count(&name, "start").await, 2);
    assert_eq!(cli.inspect(&name, "{{.State.ExitCode}}").await, "0");
}

#[tokio::test]
async fn a_paused_one_is_thawed_and_later_stopped_by_its_own_handler() {
    let Some(cli) = DockerCli::new() else { return };
    let labels = ["idle_timeout=2s", "stop_method=pause", "stop_after=3s"];
    let name = cli.sleeper(&["create"], "app", &labels, &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    let pid = dormouse.get(&name, "/").await.told("started");
    has_status(&cli, &name, "paused").await;
    dormouse.has_logged(&name, "sleeps, ", 1).await;
    let reply = dormouse.get(&name, "/").await;
    assert_eq!((reply.status, reply.told("started")), (200, pid), "its memory is kept");
    has_status(&cli, &name, "paused").await;
    let quiet = seconds_until(&cli, &name, "pause", &reply).await;
    println!("paused after {quiet:.2} s of quiet");
    assert!((2.0..3.0).contains(&quiet), "paused after {quiet} s");
    assert_eq!((cli.count(&name, "start").await, cli.count(&name, "unpause").await), (1, 1));
    // A frozen process can not run its handler: exit code 137 after the whole grace time would tell so.
    has_status(&cli, &name, "exited").await;
    let total = seconds_until(&cli, &name, "die", &reply).await;
    println!("stopped after {total:.2} s");
    assert!(cli.run(&["logs", &name]).await.contains("got TERM"));
    assert_eq!(cli.inspect(&name, "{{.State.ExitCode}}").await, "0");
    assert!((5.0..8.0).contains(&total), "stopped after {total} s");
    assert_eq!(curl(&dormouse, &name), "200");
    assert_eq!(cli.count(&name, "start").await, 2);
}

#[tokio::test]
async fn requests_around_the_idle_decision_and_a_slow_stop_do_not_fail() {
    let Some(cli) = DockerCli::new() else { return };
    // Three containers at a time: one that stops slowly, one that stops at once, one that is paused.
    let slow = cli.sleeper(&["create"], "slow", &["idle_timeout=50ms"], &["--term-delay=300ms"]).await;
    let swift = cli.sleeper(&["create"], "swift", &["idle_timeout=50ms"], &[]).await;
    let frozen = cli.sleeper(&["create"], "frozen", &["idle_timeout=50ms", "stop_method=pause"], &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos() | 1;
    println!("seed {seed}");
    let rounds = async |name: &str, salt: u32, longest: u32| {
        dormouse.knows(name).await;
        let mut state = seed ^ salt;
        for round in 0..16 {
            assert_eq!(dormouse.get(name, "/").await.status, 200, "{name} in round {round}");
            // Around the decision at 50 ms, and all along the stop that follows.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let pause = if round % 2 == 0 { 45_000 + state % 10_000 } else { state % longest };
            tokio::time::sleep(Duration::from_micros(u64::from(pause))).await;
        }
    };
    tokio::join!(rounds(&slow, 0x51, 600_000), rounds(&swift, 0x3a7, 300_000), rounds(&frozen, 0x9b1, 200_000));
    // One that was asked for in the middle of its stop is woken out of it: it was let down, and never slept.
    let stops = [&slow, &swift, &frozen].map(|name| dormouse.logged(name, "is let down").len());
    println!("let down: {stops:?}");
    assert!(stops.iter().all(|stops| *stops > 0), "no request came near a sleep: {stops:?}");
    let log = cli.run(&["logs", &slow]).await;
    assert!(!log.contains("connection:"), "a request was cut: {log}");
}

#[tokio::test]
async fn one_that_ignores_the_signal_is_killed_after_the_grace_and_woken_anew() {
    let Some(cli) = DockerCli::new() else { return };
    let labels = ["idle_timeout=500ms", "stop_timeout=2s"];
    let name = cli.sleeper(&["create"], "deaf", &labels, &["--ignore-term"]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    let first = dormouse.get(&name, "/").await.told("started");
    dormouse.has_logged(&name, "is let down", 1).await;
    // In the grace time: it never meets the dying one, and is answered by the next.
    let reply = dormouse.get(&name, "/").await;
    assert_eq!(reply.status, 200);
    assert!(reply.told("started") > first, "answered by the dying one");
    assert_eq!((cli.count(&name, "die").await, cli.count(&name, "start").await), (1, 2));
    println!("answered {:.2} s after it came", reply.took.as_secs_f64());
}

#[tokio::test]
async fn a_thaw_by_another_hand_does_not_disturb_the_stop() {
    let Some(cli) = DockerCli::new() else { return };
    let labels = ["idle_timeout=2s", "stop_method=pause", "stop_after=1s"];
    let name = cli.sleeper(&["run", "-d"], "app", &labels, &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    // The engine refuses to unpause what somebody else has thawed meanwhile: that is no failure.
    dormouse.has_logged(&name, "sleeps, ", 1).await;
    let words = ["unpause", name.as_str()];
    let (thawed, ()) = tokio::join!(cli.try_run(&words), has_status(&cli, &name, "exited"));
    println!("thawed by hand: {}", thawed.status.success());
    assert_eq!(cli.inspect(&name, "{{.State.ExitCode}}").await, "0", "it was killed, not stopped");
    assert_eq!(dormouse.get(&name, "/").await.status, 200);
}
