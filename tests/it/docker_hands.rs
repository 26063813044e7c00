//! What people do to containers with the docker command, while Dormouse serves them.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::support::{
    docker::DockerCli,
    dormouse::{Dormouse, Load, outcomes},
    wait::until,
};

/// What a hand does is seen within this time.
const SEEN: Duration = Duration::from_secs(1);

#[tokio::test]
async fn each_act_is_seen_within_a_second() {
    let Some(cli) = DockerCli::new() else { return };
    let labels = ["idle_timeout=1h"];
    let name = cli.sleeper(&["run", "-d"], "app", &labels, &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    dormouse.comes_to(&name, "awake").await;
    let acts: [(&[&str], &str); 9] = [
        (&["stop", "-t", "5"], "stopped"),
        (&["start"], "awake"),
        (&["pause"], "paused"),
        (&["unpause"], "awake"),
        (&["restart", "-t", "5"], "awake"),
        (&["kill"], "stopped"),
        (&["start"], "awake"),
        (&["kill", "-s", "HUP"], "awake"),
        (&["rm", "-f"], "gone"),
    ];
    for (words, state) in acts {
        cli.run(&[words, &[name.as_str()]].concat()).await;
        let took = dormouse.comes_to(&name, state).await;
        println!("{words:?}: {state} after {took:?}");
        assert!(took < SEEN, "{words:?}: {state} after {took:?}");
    }
    let reply = dormouse.get(&name, "/").await;
    assert_eq!(reply.status, 503, "known, and gone: {reply:?}");
    cli.sleeper(&["run", "-d"], "app", &labels, &[]).await;
    let took = dormouse.comes_to(&name, "awake").await;
    println!("run again: awake after {took:?}");
    assert!(took < SEEN, "awake after {took:?}");
    assert_eq!(dormouse.get(&name, "/").await.status, 200);
}

#[tokio::test]
async fn a_signal_that_does_not_end_it_changes_nothing() {
    let Some(cli) = DockerCli::new() else { return };
    let name = cli.sleeper(&["run", "-d"], "app", &["idle_timeout=1h"], &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    let load = Load::begin(&dormouse, &name, "/", 4);
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..5 {
        cli.run(&["kill", "-s", "HUP", &name]).await;
        assert_eq!(dormouse.container_state(&name).await, "awake");
    }
    let history = load.end().await;
    assert_eq!(outcomes(&history).keys().collect::<Vec<_>>(), ["200"]);
    let lives: BTreeSet<_> =
        history.iter().filter_map(|asked| Some(asked.got.as_ref().ok()?.told("started"))).collect();
    assert_eq!(lives.len(), 1);
    assert!(cli.run(&["logs", &name]).await.contains("got HUP"));
    assert!(dormouse.logged(&name, "ended by itself").is_empty());
}

#[tokio::test]
async fn requests_during_stop_restart_kill_and_pause_by_hand_are_all_answered() {
    let Some(cli) = DockerCli::new() else { return };
    let name = cli.sleeper(&["run", "-d"], "app", &["idle_timeout=1h"], &["--term-delay=200ms"]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    let load = Load::begin(&dormouse, &name, "/", 4);
    let rest = || tokio::time::sleep(Duration::from_millis(1500));
    rest().await;
    for _ in 0..2 {
        cli.run(&["stop", "-t", "5", &name]).await;
        rest().await;
        cli.run(&["restart", "-t", "5", &name]).await;
        rest().await;
        cli.run(&["pause", &name]).await;
        rest().await;
        cli.run(&["unpause", &name]).await;
        rest().await;
    }
    // A life that was long enough, and dies at once: the next request wakes it without a cool-down.
    tokio::time::sleep(Duration::from_secs(11)).await;
    cli.run(&["kill", &name]).await;
    rest().await;
    dormouse.comes_to(&name, "awake").await;
    let history = load.end().await;
    let counts = outcomes(&history);
    let longest = history.iter().map(|asked| asked.took).max().unwrap();
    println!("{counts:?}, the longest took {longest:?}");
    let failed: Vec<_> = history.iter().filter(|asked| asked.outcome() != "200").collect();
    assert!(failed.is_empty(), "{failed:?}");
    let lives: BTreeSet<_> =
        history.iter().filter_map(|asked| Some(asked.got.as_ref().ok()?.told("started"))).collect();
    println!("lives: {}, starts: {}", lives.len(), cli.count(&name, "start").await);
    // One by us after each end, and those of the hand: no fight with it.
    assert!((4..=6).contains(&lives.len()), "{lives:?}");
}

#[tokio::test]
async fn a_request_that_is_inside_when_a_hand_pauses_it_is_answered_without_anybody_else() {
    let Some(cli) = DockerCli::new() else { return };
    let name = cli.sleeper(&["run", "-d"], "app", &["idle_timeout=1h"], &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    dormouse.comes_to(&name, "awake").await;
    let act = async {
        let inside = async || dormouse.container(&name).await["passes"].as_u64();
        until("the request is inside", inside, |passes| *passes == Some(1)).await;
        cli.run(&["pause", &name]).await;
        dormouse.comes_to(&name, "paused").await;
    };
    let (reply, ()) = tokio::join!(dormouse.get(&name, "/slow?ms=3000"), act);
    assert_eq!((reply.status, reply.body.as_str()), (200, "slow\n"), "{reply:?}");
    dormouse.has_logged(&name, "is paused by another hand with 1 inside: 30s are waited", 1).await;
    assert_eq!((cli.count(&name, "unpause").await, cli.count(&name, "start").await), (1, 1));
    assert_eq!(dormouse.container_state(&name).await, "awake");
}

#[tokio::test]
async fn a_new_container_of_the_same_name_is_taken_up_with_its_new_address() {
    let Some(cli) = DockerCli::new() else { return };
    let network = cli.network("other").await;
    let labels = ["idle_timeout=1h"];
    let name = cli.sleeper(&["run", "-d"], "app", &labels, &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    let load = Load::begin(&dormouse, &name, "/", 2);
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    for round in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = cli.inspect(&name, address).await;
        cli.run(&["rm", "-f", &name]).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let how: &[&str] = if round % 2 == 0 { &["run", "-d", "--network", &network] } else { &["run", "-d"] };
        cli.sleeper(how, "app", &labels, &[]).await;
        let came_back = SystemTime::now();
        let now = cli.inspect(&name, address).await;
        assert_ne!(before, now);
        // Right within a second of its return.
        tokio::time::sleep(SEEN).await;
        let reply = dormouse.get(&name, "/").await;
        assert_eq!(reply.status, 200);
        let started = Duration::from_nanos(u64::try_from(reply.told("started")).unwrap());
        assert!(UNIX_EPOCH + started + Duration::from_secs(30) > came_back);
    }
    let history = load.end().await;
    let counts = outcomes(&history);
    println!("{counts:?}");
    // While it was gone: 503 with a plain reason, and nothing else.
    assert!(counts.keys().all(|outcome| ["200", "503"].contains(&outcome.as_str())), "{counts:?}");
}

#[tokio::test]
async fn an_address_that_moved_to_another_container_is_not_used() {
    let Some(cli) = DockerCli::new() else { return };
    let network = cli.network("one").await;
    let other = cli.network("two").await;
    let how: &[&str] = &["run", "-d", "--network", &network];
    let name = cli.sleeper(how, "app", &["idle_timeout=500ms"], &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&name).await;
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let before = cli.inspect(&name, address).await;
    dormouse.has_logged(&name, "sleeps, ", 1).await;
    // Its address is given to somebody else while it sleeps.
    let thief = cli.container(how, "thief", &[], &["--delay-ready=1h"]).await;
    assert_eq!(cli.inspect(&thief, address).await, before);
    let reply = dormouse.get(&name, "/").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_ne!(cli.inspect(&name, address).await, before);
    // And once more, on another network.
    dormouse.has_logged(&name, "sleeps, ", 2).await;
    cli.run(&["network", "disconnect", &network, &name]).await;
    cli.run(&["network", "connect", &other, &name]).await;
    assert_eq!(dormouse.get(&name, "/").await.status, 200);
}
