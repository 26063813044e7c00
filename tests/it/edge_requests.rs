//! Requests at the very moment at which their backend goes to sleep.

use std::{sync::Arc, time::Duration};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    history::{Dice, History},
};

const BACKENDS: usize = 20;
const REQUESTS: usize = 100;

/// Half of the requests around the decision, half all along the stop.
#[tokio::test]
async fn of_2000_requests_around_the_idle_decision_and_a_slow_stop_none_fails() {
    let apps: Vec<App> = (0..BACKENDS)
        .map(|number| {
            let app = App::new(&format!("app{number}")).idle("idle_timeout: 50ms");
            // Some stop at once, some take their time.
            if number % 2 == 0 { app.options(&["--term-delay", "100ms"]) } else { app }
        })
        .collect();
    let text = config(&apps.iter().collect::<Vec<_>>()) + "max_parallel_wakes: 20\n";
    let dormouse = Dormouse::start(&text).await;
    let history = Arc::new(History::new(dormouse.http));
    let dice = Dice::new();
    let mut clients = tokio::task::JoinSet::new();
    for (number, app) in apps.iter().cloned().enumerate() {
        let (history, mut dice) = (Arc::clone(&history), dice.branch(number as u64 + 1));
        clients.spawn(async move {
            for request in 0..REQUESTS {
                let method = if dice.below(2) == 0 { "GET" } else { "POST" };
                history.ask(&app, method).await;
                let pause = if request % 2 == 0 {
                    Duration::from_millis(45) + dice.time(Duration::from_millis(12))
                } else {
                    Duration::from_millis(50) + dice.time(Duration::from_millis(200))
                };
                tokio::time::sleep(pause).await;
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let (mut starts, mut ends) = (0, 0);
    for app in &apps {
        (starts, ends) = (starts + app.journal().starts(), ends + app.journal().ends());
    }
    println!("{:?} in {starts} lives, {ends} ends; the longest took {:?}", history.statuses(), history.longest());
    history.check(&apps.iter().collect::<Vec<_>>(), &[]);
    assert_eq!(history.statuses().get(&200), Some(&(BACKENDS * REQUESTS)));
    assert!(ends > BACKENDS * 5, "only {ends} requests came near an end");
    for app in &apps {
        // Each start but the last was ended before the next began.
        let journal = app.journal();
        assert!(journal.starts() <= journal.ends() + 1, "{} was started while it ran", app.name);
    }
}
