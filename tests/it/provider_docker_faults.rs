//! What the Docker provider makes of an engine that misbehaves.

use std::time::Duration;

use dormouse::{
    model::{ContainerState, SleepMethod},
    provider::{Changed, Docker, Hint, Provider, ProviderError, StopOrder},
};
use futures_util::StreamExt;

use crate::support::{
    rig::{node, running, unit},
    scripted_engine::{Reply, ScriptedEngine},
    wait::{LONG, must, until},
};

const PAUSE: StopOrder = StopOrder { method: SleepMethod::Pause, signal: None, grace: LONG };
const STOP: StopOrder = StopOrder { method: SleepMethod::Stop, signal: None, grace: LONG };

fn docker(engine: &ScriptedEngine) -> Docker {
    Docker::connect(node(), &engine.address().as_str().into()).unwrap()
}

fn json(status: u16, body: &str) -> Reply {
    Reply::Json(status, body.to_owned())
}

fn inspected(name: &str, status: &str) -> Reply {
    Reply::Json(200, format!(r#"{{"Id":"{name}","Name":"/{name}","State":{{"Status":"{status}"}}}}"#))
}

fn event(name: &str, word: &str, nanos: u64) -> String {
    format!(
        r#"{{"Type":"container","Action":"{word}","Actor":{{"Attributes":{{"name":"{name}"}}}},"timeNano":{nanos}}}"#
    ) + "\n"
}

fn hint(name: &str, what: &str) -> Hint {
    Hint::Unit { name: name.to_owned(), what: what.to_owned() }
}

#[tokio::test]
async fn an_engine_that_is_missing_at_first_is_away_once_and_then_back() {
    let mut engine = ScriptedEngine::absent();
    let provider = docker(&engine);
    let mut events = provider.events();
    let first = must("the first hint", events.next()).await.unwrap();
    let Hint::Away(reason) = first else { panic!("{first:?}") };
    assert!(reason.contains(&engine.address()) && reason.contains("o such file"), "{reason}");
    let error = provider.look(&unit("app")).await.unwrap_err();
    assert!(error.is_away(), "{error:?}");
    engine.on("GET /events", [Reply::PiecesThenSilence(vec![event("app", "start", 1)])]);
    engine.appear();
    assert_eq!(must("the return", events.next()).await, Some(Hint::All));
    assert_eq!(must("an event", events.next()).await, Some(hint("app", "start")));
}

#[tokio::test]
async fn a_broken_event_stream_is_resumed_where_it_broke() {
    let engine = ScriptedEngine::new();
    let start = event("app", "start", 1_700_000_000_000_000_001);
    let (half, other_half) = start.split_at(20);
    let die = event("app", "die", 1_700_000_001_000_000_007);
    engine.on(
        "GET /events",
        [
            Reply::Pieces(vec![half.to_owned(), other_half.to_owned(), "no json\n".to_owned(), die[..9].to_owned()]),
            Reply::Close,
            Reply::PiecesThenSilence(vec![die]),
        ],
    );
    let mut events = docker(&engine).events();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(must("a hint", events.next()).await.unwrap());
    }
    assert!(matches!(seen[3], Hint::All) && matches!(seen[2], Hint::Away(_)), "{seen:?}");
    assert_eq!((&seen[0], &seen[1], &seen[4]), (&Hint::All, &hint("app", "start"), &hint("app", "die")));
    let asked = engine.seen();
    assert!(asked[0].starts_with("GET /events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D"), "{asked:?}");
    assert!(!asked[0].contains("since"), "{asked:?}");
    assert!(asked[2].ends_with("&since=1700000000.000000002"), "{asked:?}");
}

#[tokio::test]
async fn a_silent_engine_that_does_not_answer_a_ping_is_connected_anew() {
    let engine = ScriptedEngine::new();
    engine.on("GET /events", [Reply::PiecesThenSilence(vec![event("app", "start", 1)])]);
    engine.on("GET /_ping", [Reply::Close]);
    let mut events = docker(&engine).events();
    assert_eq!(must("the first hint", events.next()).await, Some(Hint::All));
    assert_eq!(must("an event", events.next()).await, Some(hint("app", "start")));
    assert_eq!(must("a new connection", events.next()).await, Some(Hint::All));
    assert!(engine.seen().contains(&"GET /_ping".to_owned()));
}

#[tokio::test]
async fn one_container_of_an_unknown_state_hides_no_other() {
    let engine = ScriptedEngine::new();
    engine.on("GET /containers/json", [json(200, r#"[{"Id":"a"},{"Id":"b"},{"Id":"gone"},{"Id":"c"}]"#)]);
    engine.on("GET /containers/a/json", [inspected("a", "running")]);
    engine.on("GET /containers/b/json", [inspected("b", "hibernating")]);
    engine.on("GET /containers/c/json", [inspected("c", "stopped")]);
    let listed = docker(&engine).list().await.unwrap();
    let states: Vec<_> = listed.iter().map(|found| (found.name.as_str(), &found.state)).collect();
    assert_eq!(states.len(), 3);
    assert!(running(states[0].1));
    assert_eq!(states[1], ("b", &ContainerState::Changing));
    assert!(matches!(states[2].1, ContainerState::Stopped { .. }));
}

#[tokio::test]
async fn a_refused_start_keeps_the_engines_words() {
    let engine = ScriptedEngine::new();
    engine.on("POST /containers/app/start", [json(500, r#"{"message":"driver failed: port is already allocated"}"#)]);
    engine.on("GET /containers/app/json", [inspected("app", "created")]);
    let error = docker(&engine).start(&unit("app")).await.unwrap_err();
    assert_eq!(error.to_string(), "the engine refused to start `app`: driver failed: port is already allocated");
    assert!(!error.is_away());
}

#[tokio::test]
async fn a_missing_image_is_no_missing_container() {
    let engine = ScriptedEngine::new();
    engine.on("POST /containers/app/start", [json(404, r#"{"message":"No such image: lost:1"}"#)]);
    engine.on("GET /containers/app/json", [inspected("app", "created")]);
    let error = docker(&engine).start(&unit("app")).await.unwrap_err();
    assert!(matches!(&error, ProviderError::Refused { reason, .. } if reason.contains("lost:1")), "{error:?}");
}

#[tokio::test]
async fn a_pause_that_meets_a_lagging_engine_is_tried_again() {
    let engine = ScriptedEngine::new();
    let lagging = json(409, r#"{"message":"Container app is already paused"}"#);
    engine.on("POST /containers/app/pause", [lagging.clone(), lagging, json(204, "")]);
    engine.on("GET /containers/app/json", [inspected("app", "running")]);
    assert_eq!(docker(&engine).stop(&unit("app"), PAUSE).await.unwrap(), Changed::Done);
}

#[tokio::test]
async fn a_paused_container_is_thawed_by_start_and_before_stop() {
    let engine = ScriptedEngine::new();
    engine.on("GET /containers/app/json", [inspected("app", "paused")]);
    engine.on("POST /containers/app/start", [json(409, r#"{"message":"cannot start a paused container"}"#)]);
    engine.on("POST /containers/app/unpause", [json(204, "")]);
    engine.on("POST /containers/app/stop", [json(204, "")]);
    let provider = docker(&engine);
    assert_eq!(provider.start(&unit("app")).await.unwrap(), Changed::Done);
    assert_eq!(provider.stop(&unit("app"), STOP).await.unwrap(), Changed::Done);
    let posts: Vec<_> = engine.seen().into_iter().filter(|request| request.starts_with("POST")).collect();
    let expected = ["start", "unpause", "unpause", "stop?t=60"].map(|verb| format!("POST /containers/app/{verb}"));
    assert_eq!(posts, expected);
}

#[tokio::test]
async fn somebody_elses_thaw_is_no_error() {
    let engine = ScriptedEngine::new();
    engine.on("GET /containers/app/json", [inspected("app", "paused"), inspected("app", "running")]);
    engine.on("POST /containers/app/start", [json(409, "{}")]);
    engine.on("POST /containers/app/unpause", [json(500, r#"{"message":"Container app is not paused"}"#)]);
    assert_eq!(docker(&engine).start(&unit("app")).await.unwrap(), Changed::Already);
}

#[tokio::test]
async fn an_engine_that_never_answers_costs_a_look_its_deadline_only() {
    let engine = ScriptedEngine::new();
    engine.on("GET /containers/app/json", [Reply::Silence]);
    let error = must("the deadline", docker(&engine).look(&unit("app"))).await.unwrap_err();
    assert!(matches!(error, ProviderError::TimedOut { after, .. } if after == Duration::from_secs(10)), "{error:?}");
}

#[tokio::test]
async fn nonsense_is_called_so() {
    let engine = ScriptedEngine::new();
    engine.on("GET /containers/json", [json(200, "<html>")]);
    engine.on("GET /containers/app/json", [json(200, "[]"), Reply::Close]);
    let provider = docker(&engine);
    assert!(matches!(provider.list().await, Err(ProviderError::Nonsense { .. })));
    assert!(matches!(provider.look(&unit("app")).await, Err(ProviderError::Nonsense { .. })));
    assert!(matches!(provider.look(&unit("app")).await, Err(ProviderError::Away { .. })));
}

#[tokio::test]
async fn a_name_cannot_leave_its_place_in_the_path() {
    let engine = ScriptedEngine::new();
    let odd = unit("../images/x?force=1#");
    assert_eq!(docker(&engine).look(&odd).await.unwrap(), ContainerState::Gone);
    assert_eq!(engine.seen(), ["GET /containers/..%2Fimages%2Fx%3Fforce%3D1%23/json"]);
}

#[tokio::test]
async fn an_order_goes_on_when_nobody_waits_for_it() {
    let engine = ScriptedEngine::new();
    engine.on("GET /containers/app/json", [inspected("app", "paused")]);
    engine.on("POST /containers/app/unpause", [json(204, "")]);
    engine.on("POST /containers/app/stop", [json(204, "")]);
    let provider = docker(&engine);
    let order = unit("app");
    // Polled once and dropped: the order has been taken.
    let _ = tokio::time::timeout(Duration::ZERO, provider.stop(&order, STOP)).await;
    let stops = async || engine.seen().iter().filter(|request| request.contains("/stop")).count();
    until("the stop", stops, |stops| *stops == 1).await;
}
