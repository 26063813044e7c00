//! Dormouse itself killed and started again over a real engine.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::support::{
    docker::DockerCli,
    dormouse::{Dormouse, Load, outcomes},
};

#[tokio::test]
async fn killed_under_load_it_is_back_in_a_second_and_touches_nothing_that_runs() {
    let Some(cli) = DockerCli::new() else { return };
    let awake = cli.sleeper(&["run", "-d"], "awake", &["idle_timeout=20s"], &[]).await;
    let asleep = cli.sleeper(&["create"], "asleep", &["idle_timeout=1h"], &[]).await;
    let frozen = cli.sleeper(&["run", "-d"], "frozen", &["idle_timeout=300ms", "stop_method=pause"], &[]).await;
    let mut dormouse = Dormouse::start(&cli.config()).await;
    for name in [&awake, &asleep] {
        dormouse.knows(name).await;
    }
    dormouse.has_logged(&frozen, "sleeps, ", 1).await;
    let load = Load::begin(&dormouse, &awake, "/", 4);
    let mut returns = Vec::new();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        dormouse.kill();
        let since = Instant::now();
        dormouse.start_again().await;
        // What runs is served as soon as its engine has been asked.
        while dormouse.try_get(&awake, "/").await.map_or(0, |reply| reply.status) != 200 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        returns.push(since.elapsed().as_secs_f64() * 1e3);
    }
    let history = load.end().await;
    let returns = crate::support::dormouse::Figures::new(returns);
    println!("back and serving: {returns}; {:?}", outcomes(&history));
    assert!(returns.median() <= 1000.0, "{returns}");
    let replies = history.iter().filter_map(|asked| asked.got.as_ref().ok());
    let lives: BTreeSet<_> = replies.filter(|reply| reply.status == 200).map(|reply| reply.told("started")).collect();
    assert_eq!(lives.len(), 1, "the running one was never restarted");
    assert_eq!((cli.count(&awake, "start").await, cli.count(&awake, "die").await), (1, 0));
    assert_eq!((cli.status(&asleep).await, cli.status(&frozen).await), ("created".to_owned(), "paused".to_owned()));
    dormouse.comes_to(&frozen, "paused").await;
    assert_eq!(dormouse.get(&frozen, "/").await.status, 200);
    assert_eq!(cli.count(&frozen, "start").await, 1);
    assert_eq!(dormouse.get(&asleep, "/").await.status, 200);
}

#[tokio::test]
async fn killed_during_wakes_and_stops_it_finds_the_truth_and_starts_nothing_twice() {
    let Some(cli) = DockerCli::new() else { return };
    let labels = ["idle_timeout=400ms"];
    let name = cli.sleeper(&["create"], "app", &labels, &["--delay-listen=300ms", "--term-delay=300ms"]).await;
    let mut dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    for round in 0..8 {
        let http = dormouse.http;
        let asked = tokio::spawn({
            let name = name.clone();
            async move { crate::support::dormouse::get(http, &name, "/", "").await.map(|reply| reply.status) }
        });
        // Into the wake at first, later into the stop that follows it.
        tokio::time::sleep(Duration::from_millis(100 + round * 250)).await;
        dormouse.kill();
        let _ = asked.await;
        dormouse.start_again().await;
        dormouse.knows(&name).await;
        let reply = dormouse.get(&name, "/").await;
        assert_eq!(reply.status, 200, "round {round}");
        println!("round {round}: answered {:?} after the restart", reply.took);
        let (starts, ends) = (cli.count(&name, "start").await, cli.count(&name, "die").await);
        // It may have gone back to sleep while it was counted.
        assert!(starts == ends + 1 || starts == ends, "one life at a time: {starts} starts, {ends} ends");
        dormouse.comes_to(&name, "stopped").await;
        assert_eq!(cli.status(&name).await, "exited");
    }
    assert!(dormouse.end().await.success());
}
