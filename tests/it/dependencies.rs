//! Backends that need others.

use std::{process::Command, time::Duration};

use crate::support::{
    apps::{App, config},
    dormouse::{Dormouse, serve},
    wait::until,
};

#[tokio::test]
async fn what_two_need_is_woken_first_and_sleeps_after_the_last_of_them() {
    let base = App::new("base").options(&["--delay-listen", "500ms"]);
    let short = App::new("short").idle("idle_timeout: 1s").backend(", depends_on: [base]");
    let long = App::new("long").idle("idle_timeout: 4s").backend(", depends_on: [base]");
    let dormouse = Dormouse::start(&config(&[&base, &short, &long])).await;
    let (one, other) = tokio::join!(dormouse.get("short", "/"), dormouse.get("long", "/"));
    assert_eq!((one.status, other.status), (200, 200));
    assert_eq!(base.journal().starts(), 1);
    let listened = base.journal().times("listen")[0];
    for app in [&short, &long] {
        assert!(app.journal().times("start")[0] > listened, "{} was started too early", app.name);
    }
    dormouse.reaches("short", "asleep").await;
    assert_eq!(base.journal().ends(), 0, "it sleeps while one still needs it");
    dormouse.reaches("long", "asleep").await;
    dormouse.reaches("base", "asleep").await;
    let (ended, base_ended) = (long.journal().times("term")[0], base.journal().times("term")[0]);
    assert!(base_ended > ended, "it was ended before the last that needs it");
    println!("base ended {:.0} ms after the last", (base_ended - ended) as f64 / 1e6);

    // One alone is enough, and its use keeps what it needs.
    assert_eq!(dormouse.get("short", "/slow?ms=3000").await.status, 200);
    assert_eq!((base.journal().starts(), base.journal().ends()), (2, 1));
    dormouse.reaches("base", "asleep").await;
    for app in [&base, &short, &long] {
        app.journal().had_one_life_at_a_time();
        app.journal().was_never_ended_in_use();
    }
}

#[tokio::test]
async fn when_what_it_needs_fails_the_request_is_refused_and_the_reason_names_it() {
    let base = App::new("base").options(&["--exit-code", "5"]);
    let app = App::new("app").idle("idle_timeout: 1h").backend(", depends_on: [base]");
    let dormouse = Dormouse::start(&config(&[&base, &app])).await;
    let reply = dormouse.get("app", "/").await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.field("retry-after").is_some(), "{reply:?}");
    assert!(reply.took < Duration::from_secs(20), "{:?}", reply.took);
    assert_eq!(app.journal().starts(), 0, "it was started without what it needs");
    let failure = async || dormouse.api("GET", "/api/v1/backends/jobs/app").await["failure"].clone();
    let told = until("a reason", failure, |failure| failure.is_string()).await;
    println!("the reason: {told}");
    assert!(told.as_str().unwrap().contains("base"), "{told}");
}

#[test]
fn a_cycle_is_refused_by_name_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let [a, b, c] = [("a", "b"), ("b", "c"), ("c", "a")]
        .map(|(name, needs)| App::new(name).idle("idle_timeout: 1h").backend(&format!(", depends_on: [{needs}]")));
    let file = directory.path().join("dormouse.yaml");
    std::fs::write(&file, "listen: { http: \"127.0.0.1:0\", api: off }\n".to_owned() + &config(&[&a, &b, &c])).unwrap();
    let words = serve(&file, directory.path());
    let output = Command::new(env!("CARGO_BIN_EXE_dormouse")).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`jobs/a` → `jobs/b` → `jobs/c` → `jobs/a`"), "{said}");
    assert!(said.contains("dormouse.yaml:"), "no place: {said}");
    for app in [&a, &b, &c] {
        assert_eq!(app.journal().starts(), 0);
    }
}
