//! An engine whose daemon is killed, ended and started again, while its containers are asked for.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::support::{
    docker::Spare,
    dormouse::{Asked, Dormouse, Figures, Load, outcomes},
    wait::until,
};

/// Refusals come within this time.
const FAST: f64 = 100.0;

fn lives(history: &[Asked]) -> BTreeSet<u128> {
    let replies = history.iter().filter_map(|asked| asked.got.as_ref().ok());
    replies.filter(|reply| reply.status == 200).map(|reply| reply.told("started")).collect()
}

/// All of a history was refused fast, with a time to come back.
fn refused_fast(what: &str, history: &[Asked]) {
    let mut waits = Vec::new();
    for asked in history {
        let reply = asked.got.as_ref().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(reply.status, 503, "{what}: {reply:?}");
        assert!(reply.field("retry-after").is_some(), "{what}: {reply:?}");
        waits.push(asked.took.as_secs_f64() * 1e3);
    }
    let waits = Figures::new(waits);
    println!("{what}: {waits}");
    // A single one may meet a busy moment of the machine.
    assert!(waits.median() <= FAST && waits.quantile(0.95) <= 2.0 * FAST, "{what}: {waits}");
}

/// How long the engine is away.
fn away() -> Duration {
    Duration::from_secs(if std::env::var_os("DORMOUSE_TEST_LONG").is_some() { 60 } else { 6 })
}

#[tokio::test]
async fn with_live_restore_running_ones_are_served_all_along() {
    let Some(mut spare) = Spare::new(true).await else { return };
    let awake = spare.cli.sleeper(&["run", "-d"], "awake", &["idle_timeout=1h"], &[]).await;
    let asleep = spare.cli.sleeper(&["create"], "asleep", &["idle_timeout=1h"], &[]).await;
    let dormouse = Dormouse::start(&spare.cli.config()).await;
    dormouse.knows(&asleep).await;
    assert_eq!(dormouse.get(&awake, "/").await.status, 200);
    for killed in [true, false] {
        let load = Load::begin(&dormouse, &awake, "/", 2);
        if killed {
            spare.crash().await;
        } else {
            spare.stop().await;
        }
        let refused = Load::begin(&dormouse, &asleep, "/", 1);
        let (cpu, since) = (dormouse.cpu_time(), Instant::now());
        tokio::time::sleep(away()).await;
        let refused = refused.end().await;
        let history = load.end().await;
        let share = (dormouse.cpu_time() - cpu).as_secs_f64() / since.elapsed().as_secs_f64();
        refused_fast(if killed { "asleep, engine killed" } else { "asleep, engine ended" }, &refused);
        let counts = outcomes(&history);
        println!("awake: {counts:?}; processor share {share:.3}");
        assert_eq!(counts.keys().collect::<Vec<_>>(), ["200"]);
        assert_eq!(lives(&history).len(), 1);
        // Some 100 requests a second are asked all along; a loop would take a core.
        assert!(share < 0.6, "busy without need: {share}");
        let load = Load::begin(&dormouse, &awake, "/", 1);
        spare.start(&["live-restore"]).await;
        let answer = async || dormouse.get(&asleep, "/").await.status;
        let since = Instant::now();
        until("the sleeper wakes after the return", answer, |status| *status == 200).await;
        println!("woken {:?} after the return", since.elapsed());
        let history = load.end().await;
        assert_eq!(outcomes(&history).keys().collect::<Vec<_>>(), ["200"]);
        // Nothing is missed from now on.
        spare.cli.run(&["stop", "-t", "5", &asleep]).await;
        let took = dormouse.comes_to(&asleep, "stopped").await;
        println!("a stop by hand is seen after {took:?}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[tokio::test]
async fn without_live_restore_the_returning_engine_ends_them_and_they_are_woken() {
    let Some(mut spare) = Spare::new(false).await else { return };
    let awake = spare.cli.sleeper(&["run", "-d"], "awake", &["idle_timeout=1h"], &[]).await;
    let asleep = spare.cli.sleeper(&["create"], "asleep", &["idle_timeout=1h"], &[]).await;
    let dormouse = Dormouse::start(&spare.cli.config()).await;
    dormouse.knows(&asleep).await;
    let before = dormouse.get(&awake, "/").await.told("started");
    let load = Load::begin(&dormouse, &awake, "/", 2);
    spare.crash().await;
    let refused = Load::begin(&dormouse, &asleep, "/", 1);
    tokio::time::sleep(away()).await;
    refused_fast("asleep", &refused.end().await);
    let history = load.end().await;
    assert_eq!(outcomes(&history).keys().collect::<Vec<_>>(), ["200"], "until the engine returns");
    assert_eq!(lives(&history), BTreeSet::from([before]));
    // Its return kills what runs.
    let load = Load::begin(&dormouse, &awake, "/", 2);
    spare.start(&[]).await;
    let answer = async || {
        let reply = dormouse.get(&awake, "/").await;
        (reply.status, if reply.status == 200 { reply.told("started") } else { before })
    };
    let since = Instant::now();
    until("a new life answers", answer, |(status, started)| *status == 200 && *started != before).await;
    println!("a new life answers {:?} after the engine does", since.elapsed());
    let history = load.end().await;
    let counts = outcomes(&history);
    println!("around its return: {counts:?}");
    assert!(counts.keys().all(|outcome| ["200", "503"].contains(&outcome.as_str())), "{counts:?}");
    let late = history.iter().filter_map(|asked| asked.got.as_ref().ok()).filter(|reply| reply.status == 503);
    late.for_each(|reply| assert!(reply.field("retry-after").is_some(), "{reply:?}"));
    assert_eq!(spare.cli.count(&awake, "start").await, 1, "one start");
    assert_eq!(dormouse.get(&asleep, "/").await.status, 200);
}

#[tokio::test]
async fn an_engine_killed_during_a_wake_costs_a_refusal_at_most() {
    let Some(mut spare) = Spare::new(true).await else { return };
    let name = spare.cli.sleeper(&["create"], "app", &["idle_timeout=1h"], &["--delay-listen=1s"]).await;
    let dormouse = Dormouse::start(&spare.cli.config()).await;
    for (round, millis) in [80, 250, 900].into_iter().enumerate() {
        dormouse.knows(&name).await;
        let (reply, ()) = tokio::join!(dormouse.get(&name, "/"), async {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            spare.crash().await;
        });
        println!("killed {millis} ms into the wake: {} after {:?}", reply.status, reply.took);
        assert!([200, 503].contains(&reply.status), "{reply:?}");
        assert!(reply.status == 200 || reply.field("retry-after").is_some(), "{reply:?}");
        spare.start(&["live-restore"]).await;
        let answer = async || dormouse.get(&name, "/").await.status;
        until("it is served after the return", answer, |status| *status == 200).await;
        let started = dormouse.get(&name, "/").await.told("started");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(dormouse.get(&name, "/").await.told("started"), started, "one life");
        assert_eq!(dormouse.container_state(&name).await, "awake");
        spare.cli.run(&["stop", "-t", "5", &name]).await;
        dormouse.comes_to(&name, "stopped").await;
        println!("round {round} is over");
    }
}
