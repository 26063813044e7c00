//! Wakes that come to nothing: all who wait are told at once, and the next try waits.

use std::time::{Duration, Instant};

use crate::support::{
    apps::{App, config},
    dormouse::{Dormouse, get},
    wait::until,
};

const HTML: &str = "Accept: text/html\r\n";

#[tokio::test]
async fn when_wake_timeout_passes_all_waiters_get_504_and_the_half_started_one_is_stopped() {
    let app = App::new("app").options(&["--never-listen"]).idle("idle_timeout: 1h, wake_timeout: 3s");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let begun = Instant::now();
    let page = async { get(dormouse.http, "app", "/", HTML).await.unwrap() };
    let early = futures_util::future::join_all((0..20).map(|_| dormouse.get("app", "/")));
    // Who comes late waits only for what is left.
    let late = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        dormouse.get("app", "/").await
    };
    let (page, early, late) = tokio::join!(page, early, late);
    let took: Vec<_> = early.iter().map(|reply| reply.took).collect();
    println!("504 after {:?} to {:?}, the late one after {:?}", took.iter().min(), took.iter().max(), late.took);
    for reply in early.iter().chain([&late]) {
        assert_eq!(reply.status, 504, "{reply:?}");
        assert!(reply.field("retry-after").is_some(), "{reply:?}");
    }
    assert!(took.iter().all(|took| *took >= Duration::from_millis(2900)), "{took:?}");
    let spread = *took.iter().max().unwrap() - *took.iter().min().unwrap();
    assert!(spread < Duration::from_secs(1), "they were told at different times: {took:?}");
    assert!(late.took < Duration::from_secs(2), "the late one waited {:?}", late.took);
    assert_eq!(page.status, 503);
    println!("the page ends with {:?}", &page.body[page.body.len().saturating_sub(400)..]);
    assert!(page.body.contains("in time"), "the page does not tell why: {}", page.body);
    // It ignores nothing, so the order to stop ends it.
    until("the end", async || app.journal().ends(), |ends| *ends == 1).await;
    assert_eq!(app.journal().starts(), 1);
    println!("all in {:?}", begun.elapsed());
}

#[tokio::test]
async fn with_leave_the_half_started_one_stays() {
    let idle = "idle_timeout: 1h, wake_timeout: 1s, on_wake_timeout: leave";
    let app = App::new("app").options(&["--delay-listen", "3s"]).idle(idle);
    let dormouse = Dormouse::start(&config(&[&app])).await;
    assert_eq!(dormouse.get("app", "/").await.status, 504);
    // It listens in the end, and is then used as it is.
    let ask = async || dormouse.get("app", "/").await.status;
    until("an answer", ask, |status| *status == 200).await;
    assert_eq!((app.journal().starts(), app.journal().ends()), (1, 0));
}

#[tokio::test]
async fn an_order_to_sleep_calls_a_wake_off_and_who_waits_is_told_so() {
    let app = App::new("app").options(&["--never-listen"]).idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    for (round, body) in ["", "{\"now\": true}"].into_iter().enumerate() {
        let page = async { get(dormouse.http, "app", "/", HTML).await.unwrap() };
        let held = futures_util::future::join_all((0..5).map(|_| dormouse.get("app", "/")));
        let order = async {
            app.has_started(round + 1).await;
            let waits = async || dormouse.api("GET", "/api/v1/backends/jobs/app").await["held"].as_u64();
            until("those who wait", waits, |held| *held == Some(6)).await;
            dormouse.api_with("POST", "/api/v1/backends/jobs/app/sleep", body).await
        };
        let (page, held, told) = tokio::join!(page, held, order);
        assert_eq!(told["result"], "done", "{told}");
        for reply in held {
            assert_eq!(reply.status, 503, "{reply:?}");
            assert!(reply.body.contains("put to sleep by an order"), "{reply:?}");
        }
        assert!(page.body.contains("put to sleep by an order"), "the page does not tell why: {}", page.body);
        assert_eq!(dormouse.state("app").await, "asleep");
        assert_eq!((app.journal().starts(), app.journal().living().len()), (round + 1, 0));
    }
    assert_eq!(dormouse.logged("app", "is let down").len(), 2);
}

#[tokio::test]
async fn a_reload_that_mends_the_command_ends_the_wake_and_begins_it_anew_for_those_who_wait() {
    let broken = App::new("app").idle("idle_timeout: 1h");
    let mended = broken.clone();
    let broken = broken.options(&["--never-listen"]);
    let dormouse = Dormouse::start(&config(&[&broken])).await;
    let held = futures_util::future::join_all((0..5).map(|_| dormouse.get("app", "/")));
    let mend = async {
        broken.has_started(1).await;
        dormouse.configure(&config(&[&mended]));
    };
    let (held, ()) = tokio::join!(held, mend);
    for reply in held {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert_eq!((mended.journal().starts(), mended.journal().ends()), (2, 1));
    mended.journal().had_one_life_at_a_time();
}

#[tokio::test]
async fn a_reload_that_mends_the_command_ends_the_cool_down() {
    let broken = App::new("app").idle("idle_timeout: 1h");
    let mended = broken.clone();
    let broken = broken.options(&["--exit-code", "3"]);
    let dormouse = Dormouse::start(&config(&[&broken])).await;
    let begun = Instant::now();
    assert_eq!(dormouse.get("app", "/").await.status, 503);
    dormouse.configure(&config(&[&mended]));
    let ask = async || dormouse.get("app", "/").await.status;
    until("an answer", ask, |status| *status == 200).await;
    println!("answered {:?} after the failure", begun.elapsed());
    assert_eq!(mended.journal().starts(), 2);
}

/// The seconds of `Retry-After`.
fn retry_after(reply: &crate::support::dormouse::Reply) -> u64 {
    reply.field("retry-after").and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{reply:?}"))
}

#[tokio::test]
async fn a_failed_start_is_told_at_once_cools_down_and_doubles() {
    let app = App::new("app").options(&["--exit-code", "3"]).idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let mut waits = Vec::new();
    for round in 1..=3 {
        let ended = async { until("the start", async || app.journal().starts(), |starts| *starts == round).await };
        let (reply, _) = tokio::join!(dormouse.get("app", "/"), ended);
        assert_eq!(reply.status, 503, "round {round}: {reply:?}");
        let wait = retry_after(&reply);
        waits.push(wait);
        // Meanwhile: no start, and an answer at once.
        let again = dormouse.get("app", "/").await;
        assert_eq!((again.status, app.journal().starts()), (503, round));
        println!("round {round}: {:?} to the refusal, then {:?}, {wait} s of rest", reply.took, again.took);
        assert!(again.took < Duration::from_millis(500), "{:?} in the cool-down", again.took);
        if round < 3 {
            let ask = async || {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let states = dormouse.api("GET", "/api/v1/backends/jobs/app").await;
                states["failure"].as_str().map(str::to_owned)
            };
            let failure = ask().await.expect("a reason");
            assert!(failure.contains('3'), "the exit code is not told: {failure}");
            tokio::time::sleep(Duration::from_secs(wait)).await;
        }
    }
    assert_eq!(waits.first(), Some(&5));
    assert!(waits.windows(2).all(|pair| pair[1] == 2 * pair[0]), "{waits:?}");
    // A person's order overrides the cool-down.
    dormouse.api("POST", "/api/v1/backends/jobs/app/wake").await;
    assert_eq!(app.journal().starts(), 4);
}

#[tokio::test]
async fn the_refusal_comes_within_50_ms_of_the_end_of_the_process() {
    // The app's own last words tell when it ended.
    let app = App::new("app").options(&["--delay-start", "1s", "--exit-code", "9"]).idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let reply = dormouse.get("app", "/").await;
    assert_eq!(reply.status, 503);
    let log = dormouse.state_dir().join("processes/jobs/app.log");
    let ended = std::fs::metadata(log).unwrap().modified().unwrap();
    let after = reply.first_byte.duration_since(ended).unwrap_or_default();
    println!("503 came {:.1} ms after the last word of the process", after.as_secs_f64() * 1e3);
    assert!(after < Duration::from_millis(50), "{after:?} after the end");
}

#[tokio::test]
async fn an_order_to_sleep_at_once_holds_and_who_is_cut_by_it_is_told_so() {
    // It dies in the middle of what it does, so that its clients get no answer of its own.
    let app = App::new("app").idle("idle_timeout: 1h, stop_method: kill");
    let dormouse = Dormouse::start(&config(&[&app])).await;
    let cut = futures_util::future::join_all((0..5).map(|_| dormouse.get("app", "/slow?ms=60000")));
    let order = async {
        until("requests in hand", async || app.journal().arrivals("/slow"), |arrived| *arrived == 5).await;
        dormouse.api_with("POST", "/api/v1/backends/jobs/app/sleep", "{\"now\": true}").await
    };
    let (cut, told) = tokio::join!(cut, order);
    assert_eq!((told["result"].as_str(), told["cut"].as_u64()), (Some("done"), Some(5)), "{told}");
    for reply in cut {
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.body.contains("put to sleep by an order"), "{reply:?}");
        assert!(reply.field("retry-after").is_some(), "{reply:?}");
    }
    assert_eq!(dormouse.state("app").await, "asleep");
    assert_eq!((app.journal().starts(), app.journal().living().len()), (1, 0));
    // Who comes after the order is a new wish.
    assert_eq!(dormouse.get("app", "/").await.status, 200);
    assert_eq!(app.journal().starts(), 2);
}

#[tokio::test]
async fn why_one_is_not_up_is_told_wherever_one_asks_and_where_its_own_words_are() {
    let app = App::new("app").options(&["--exit-code", "3"]).idle("stop_timeout: 5s");
    let twins: Vec<App> = ["one", "two"].map(|name| App::new(name).route(", load_balance: { link: twins }")).into();
    let dormouse = Dormouse::start(&config(&[&app, &twins[0], &twins[1]])).await;
    assert_eq!(dormouse.get("app", "/").await.status, 503);
    let file = dormouse.state_dir().join("processes/jobs/app.log");
    assert!(std::fs::read_to_string(&file).expect("its words").contains("ready"));
    let why = format!("it ended before it was ready with exit code 3; its output is in `{}`", file.display());
    let explained = dormouse.api("GET", "/api/v1/explain/jobs/app").await;
    assert_eq!(explained["failure"].as_str(), Some(why.as_str()), "{explained}");
    let backend = dormouse.api("GET", "/api/v1/backends/jobs/app").await;
    assert_eq!(backend["failure"].as_str(), Some(why.as_str()), "{backend}");
    assert_eq!(dormouse.logged("app", &why).len(), 1, "{}", dormouse.log());
    let told = dormouse.api("POST", "/api/v1/backends/jobs/app/wake").await.to_string();
    assert!(told.contains("its output is in"), "{told}");
    // By the command line, too, and what to set is named where it stands.
    let state_dir = dormouse.state_dir();
    let explain = async |name: &str| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_dormouse"));
        let said = command.args(["explain", name, "--state-dir"]).arg(&state_dir).output().await.unwrap();
        [said.stdout, said.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    };
    let said = explain("app").await;
    assert!(said.contains(&format!("failed: {why}")), "{said}");
    assert!(
        said.contains("never by itself (set `idle: { idle_timeout: 15m }` of `jobs/app` below `backends`)"),
        "{said}"
    );
    let said = explain("twins").await;
    assert!(said.contains("`twins` leads to more than one backend"), "{said}");
    assert!(said.contains("name one of `jobs/one`, `jobs/two`"), "{said}");
}
