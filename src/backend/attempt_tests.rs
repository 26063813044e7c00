//! What is told of a wake that was not ready in time: the last try, and how it failed.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpListener,
    thread,
    time::Duration,
};

use super::{
    test_world::{World, cause, listener, minutes, policy, secs, world},
    *,
};
use crate::{
    model::{Health, IdlePolicy, Readiness},
    provider::Script,
};

/// A backend that has so long to get ready, in this way, at this port.
fn backend(world: &World, patience: Duration, ready: Readiness, port: Option<u16>, script: Script) -> Backend {
    world.engine.add("app", script);
    let policy = IdlePolicy { wake_timeout: patience, ..policy(600) };
    let spec = crate::model::BackendSpec { ready, ports: port.into_iter().collect(), ..world.spec("app", policy) };
    Backend::spawn(spec, Vec::new(), world.around.clone(), Restored::default(), world.end.clone()).0
}

/// The words of what was tried last.
async fn tried(backend: &Backend) -> String {
    match backend.enter(cause(), minutes(5)).await {
        Err(Refused::TimedOut { tried, .. }) => tried.as_deref().unwrap_or_default().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_that_nobody_listens_on_is_named_to_the_administrator_alone() {
    let world = world();
    let port = listener().local_addr().unwrap().port();
    let backend = backend(&world, secs(4), Readiness::Tcp, Some(port), Script::default());
    let refused = backend.enter(cause(), minutes(5)).await.unwrap_err();
    let why = format!(
        "it was not ready within 4s: port {port} refused the connection (does it listen on another port? say so with \
         `port`)"
    );
    assert_eq!(refused.to_string(), why);
    let tried = Attempt::Connect(port, ErrorKind::ConnectionRefused).to_string();
    assert_eq!(refused, Refused::TimedOut { after: secs(4), tried: Some(tried.into()) });
    assert_eq!(refused.reason(), "The service did not start in time.");
    assert_eq!(backend.status().borrow().failure.as_deref(), Some(why.as_str()));
    let told: Vec<String> = world.around.journal.since(0).0.iter().map(|entry| entry.what.to_string()).collect();
    assert!(told.contains(&format!("did not wake: {why}")), "{told:?}");
    assert_eq!(backend.order(Order::Wake, "me").await, Answer::Denied(why.clone()));
    // Who comes while it cools down is told the same, in the words of the cool-down.
    let cooling = backend.enter(cause(), minutes(5)).await.unwrap_err();
    assert_eq!(cooling.to_string(), format!("it could not be started and cools down: {why}"));
}

#[tokio::test(start_paused = true)]
async fn what_decides_instead_of_a_port_is_told_too() {
    let unhealthy = Script { health: Some(Health::Unhealthy), ..Script::default() };
    let never = Readiness::Log(regex::Regex::new("never written").unwrap());
    for (ready, script, expected) in [
        (Readiness::Engine, unhealthy, Attempt::Health(Health::Unhealthy)),
        (never, Script::default(), Attempt::Log),
        (Readiness::Delay(secs(60)), Script::default(), Attempt::Delay),
        (Readiness::Http { path: "/".into(), status: 200..=299, host: None }, Script::default(), Attempt::NoPort),
        (Readiness::Tcp, Script { start_hangs: true, ..Script::default() }, Attempt::NotStarted),
    ] {
        let world = world();
        let backend = backend(&world, secs(4), ready, None, script);
        assert_eq!(tried(&backend).await, expected.to_string());
    }
}

/// Answers whatever it is asked with this status, for as long as the test runs.
fn answers(status: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // Who asks may have gone already.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes());
        }
    });
    port
}

#[tokio::test]
async fn what_a_request_or_a_command_came_to_is_told() {
    let asked = || Readiness::Http { path: "/up".into(), status: 200..=299, host: None };
    let port = answers("503 Starting");
    let one = world();
    assert_eq!(
        tried(&backend(&one, secs(3), asked(), Some(port), Script::default())).await,
        Attempt::Asked(port, Some(503)).to_string()
    );
    let two = world();
    let closed = listener().local_addr().unwrap().port();
    let refused = Attempt::Connect(closed, ErrorKind::ConnectionRefused).to_string();
    assert_eq!(tried(&backend(&two, secs(3), asked(), Some(closed), Script::default())).await, refused);
    let three = world();
    let command = Readiness::Command(vec!["/bin/sh".into(), "-c".into(), "exit 3".into()]);
    assert_eq!(
        tried(&backend(&three, secs(3), command, None, Script::default())).await,
        Attempt::Command(Some(3)).to_string()
    );
}

#[tokio::test(start_paused = true)]
async fn a_try_of_an_earlier_wake_is_not_told_of_the_next() {
    let world = world();
    let port = listener().local_addr().unwrap().port();
    let backend = backend(&world, secs(4), Readiness::Tcp, Some(port), Script::default());
    let refused = tried(&backend).await;
    assert!(refused.contains("refused the connection"), "{refused}");
    world.engine.script("app", |script| script.start_hangs = true);
    tokio::time::sleep(minutes(10)).await;
    assert_eq!(tried(&backend).await, Attempt::NotStarted.to_string());
}
