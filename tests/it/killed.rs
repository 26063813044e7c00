//! Dormouse killed on the spot, and what the next one finds.

use std::{sync::Arc, time::Duration};

use crate::support::{
    apps::{App, config},
    dormouse::{Dormouse, get},
    history::Dice,
    wait::until,
};

const ROUNDS: usize = 30;

/// Asks the apps until it is ended. Answers may be cut here: the program that gives them is killed.
async fn clients(at: std::net::SocketAddr, apps: Arc<Vec<App>>, mut dice: Dice) {
    loop {
        let app = &apps[dice.below(apps.len() as u64) as usize];
        let _ = get(at, &app.name, "/", "").await;
        tokio::time::sleep(dice.time(Duration::from_millis(300))).await;
    }
}

/// Waits until what is told of each app is what the system knows.
async fn tells_the_truth(dormouse: &Dormouse, apps: &[App]) {
    for app in apps {
        let told_and_true = async || (dormouse.state(&app.name).await, app.journal().living().len());
        let agree = |(told, living): &(String, usize)| match told.as_str() {
            "awake" | "draining" => *living == 1,
            "asleep" => *living == 0,
            _ => false,
        };
        until(&format!("the truth about {}", app.name), told_and_true, agree).await;
    }
}

#[tokio::test]
async fn killed_at_30_random_moments_it_finds_the_truth_and_starts_nothing_twice() {
    let apps: Vec<App> = (0..6)
        .map(|number| {
            let app = App::new(&format!("app{number}")).idle("idle_timeout: 300ms");
            match number % 3 {
                0 => app,
                1 => app.options(&["--delay-listen", "200ms"]),
                _ => app.options(&["--term-delay", "300ms"]),
            }
        })
        .collect();
    let apps = Arc::new(apps);
    let mut dormouse = Dormouse::start(&config(&apps.iter().collect::<Vec<_>>())).await;
    let mut dice = Dice::new();
    for round in 0..ROUNDS {
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..4 {
            let dice = dice.branch((round * 10 + client) as u64);
            tasks.spawn(clients(dormouse.http, Arc::clone(&apps), dice));
        }
        tokio::time::sleep(Duration::from_millis(100) + dice.time(Duration::from_millis(900))).await;
        dormouse.kill();
        tasks.shutdown().await;
        for app in apps.iter() {
            assert!(app.journal().living().len() <= 1, "{} runs twice", app.name);
        }
        dormouse.start_again().await;
        tells_the_truth(&dormouse, &apps).await;
        let app = &apps[round % apps.len()];
        assert_eq!(dormouse.get(&app.name, "/").await.status, 200, "round {round}");
    }
    let (mut starts, mut ends) = (0, 0);
    for app in apps.iter() {
        app.journal().had_one_life_at_a_time();
        (starts, ends) = (starts + app.journal().starts(), ends + app.journal().ends());
    }
    println!("{ROUNDS} kills, {starts} starts, {ends} ends");
    assert!(starts > ROUNDS && ends > ROUNDS / 2, "nothing happened: {starts} starts, {ends} ends");
    tells_the_truth(&dormouse, &apps).await;
    dormouse.end().await;
    for app in apps.iter() {
        assert!(app.journal().living().is_empty(), "{} outlives Dormouse", app.name);
    }
}

#[tokio::test]
async fn killed_while_one_that_is_left_half_started_comes_up_it_starts_no_second_one() {
    let idle = "idle_timeout: 3s, wake_timeout: 700ms, on_wake_timeout: leave";
    let app = App::new("app").options(&["--delay-listen", "2s"]).idle(idle);
    let apps = [app.clone()];
    let mut dormouse = Dormouse::start(&config(&[&app])).await;
    let mut dice = Dice::new();
    // In the wake, after its time, and when it is up at last.
    for (round, after) in [0, 700, 1400, 2100].into_iter().enumerate() {
        let at = dormouse.http;
        let asked = tokio::spawn(async move { get(at, "app", "/", "").await });
        app.has_started(round + 1).await;
        tokio::time::sleep(Duration::from_millis(after) + dice.time(Duration::from_millis(600))).await;
        dormouse.kill();
        // It may have been told that it is late, or is cut.
        let _ = asked.await;
        assert_eq!(app.journal().living().len(), 1, "round {round}: it did not stay");
        dormouse.start_again().await;
        let ask = async || dormouse.try_get("app", "/").await.map_or(0, |reply| reply.status);
        until("an answer", ask, |status| *status == 200).await;
        tells_the_truth(&dormouse, &apps).await;
        assert_eq!((app.journal().starts(), app.journal().ends()), (round + 1, round), "round {round}");
        dormouse.reaches("app", "asleep").await;
        tells_the_truth(&dormouse, &apps).await;
    }
    app.journal().had_one_life_at_a_time();
    app.journal().was_never_ended_in_use();
}

#[tokio::test]
async fn idle_clocks_and_pins_go_on_after_a_kill() {
    let clock = App::new("clock").idle("idle_timeout: 2m");
    let short = App::new("short").idle("idle_timeout: 3s");
    let mut dormouse = Dormouse::start(&config(&[&clock, &short])).await;
    assert_eq!(dormouse.get("clock", "/").await.status, 200);
    assert_eq!(dormouse.get("short", "/").await.status, 200);
    let begun = std::time::Instant::now();
    dormouse.reaches("short", "asleep").await;
    // Long enough for it to be written down, whatever the moment.
    tokio::time::sleep(Duration::from_secs(20).saturating_sub(begun.elapsed())).await;
    dormouse.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    dormouse.start_again().await;
    dormouse.reaches("clock", "awake").await;
    let left = dormouse.api("GET", "/api/v1/backends/jobs/clock").await["sleeps_in_s"].as_u64().unwrap();
    let quiet = begun.elapsed().as_secs();
    println!("after {quiet} s of quiet, a kill among them, it sleeps in {left} s");
    assert!(left <= 120 - 20, "the idle clock began anew: {left} s left");
    assert!(left + quiet >= 118, "the idle clock runs too fast: {left} s left after {quiet} s");
    assert_eq!(dormouse.get("clock", "/").await.status, 200);
    assert_eq!((clock.journal().starts(), clock.journal().ends()), (1, 0), "it was started or ended by the restart");
    // The short one sleeps as before.
    assert_eq!(dormouse.state("short").await, "asleep");
    assert_eq!(dormouse.get("short", "/").await.status, 200);
    assert_eq!(short.journal().starts(), 2);
}
