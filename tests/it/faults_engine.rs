//! An engine that hangs, lies, cuts its events or tells them late, as the whole program meets it.

use std::{
    process::Child,
    time::{Duration, Instant},
};

use crate::support::{
    apps::App,
    dormouse::Dormouse,
    history::History,
    scripted_engine::{Reply, ScriptedEngine},
    wait::until,
};

const LOOK: &str = "GET /containers/app/json";
const START: &str = "POST /containers/app/start";

/// A container `app` on a scripted engine. The app itself listens all the time; what it does is the engine's word.
struct World {
    engine: ScriptedEngine,
    app: App,
    _process: Child,
    labels: String,
    dormouse: Dormouse,
    history: History,
}

impl World {
    /// `labels` as `"wake_timeout": "2s"`, with a comma before each.
    async fn new(labels: &[(&str, &str)], status: &str) -> Self {
        let engine = ScriptedEngine::new();
        let app = App::new("app");
        let process = app.run();
        let listens = async || std::net::TcpStream::connect(("127.0.0.1", app.port)).is_ok();
        until("the app listens", listens, |listens| *listens).await;
        let labels = [("idle_timeout", "1h")].iter().chain(labels);
        let labels = labels.map(|(key, value)| format!("\"t.{key}\":\"{value}\"")).collect::<Vec<_>>().join(",");
        engine.on("GET /containers/json", [Reply::Json(200, r#"[{"Id":"app"}]"#.to_owned())]);
        engine.on("GET /events", [Reply::Events]);
        engine.on("GET /_ping", [Reply::Json(200, String::new())]);
        let described = description(&app, &labels, status, 0);
        engine.on(LOOK, [described]);
        let config = format!(
            "nodes: {{ local: {{ docker: \"{}\" }} }}\ndiscover: {{ mode: labelled, prefixes: [t] }}\n\
             wakes_per_client: 100000\n",
            engine.address()
        );
        let dormouse = Dormouse::start(&config).await;
        dormouse.knows("app").await;
        let history = History::new(dormouse.http);
        Self { engine, app, _process: process, labels, dormouse, history }
    }

    /// From now on the engine says so.
    fn is(&self, status: &str, exit_code: i64) {
        self.engine.on(LOOK, [description(&self.app, &self.labels, status, exit_code)]);
    }

    async fn comes_to(&self, wanted: &str) {
        self.dormouse.comes_to("app", wanted).await;
    }

    /// The calls that change something.
    fn orders(&self) -> Vec<String> {
        self.engine.seen().into_iter().filter(|request| request.starts_with("POST")).collect()
    }

    fn looks(&self) -> usize {
        self.engine.seen().iter().filter(|request| request.as_str() == LOOK).count()
    }
}

fn description(app: &App, labels: &str, status: &str, exit_code: i64) -> Reply {
    let port = app.port;
    Reply::Json(
        200,
        format!(
            r#"{{"Id":"app","Name":"/app","State":{{"Status":"{status}","ExitCode":{exit_code}}},
            "Config":{{"Image":"app:1","Labels":{{{labels}}},"ExposedPorts":{{"{port}/tcp":{{}}}}}},
            "HostConfig":{{"NetworkMode":"bridge","RestartPolicy":{{"Name":"no"}}}},
            "NetworkSettings":{{"Networks":{{"bridge":{{"IPAddress":"127.0.0.1"}}}}}}}}"#
        ),
    )
}

fn event(word: &str, more: &str) -> String {
    let nanos = jiff::Timestamp::now().as_nanosecond();
    format!(
        r#"{{"Type":"container","Action":"{word}","Actor":{{"Attributes":{{"name":"app"{more}}}}},"timeNano":{nanos}}}"#
    ) + "\n"
}

#[tokio::test]
async fn a_start_call_that_hangs_costs_its_callers_the_wakes_deadline_and_its_late_success_is_found() {
    let world = World::new(&[("wake_timeout", "2s"), ("on_wake_timeout", "leave")], "exited").await;
    world.engine.on(START, [Reply::Silence]);
    let begun = Instant::now();
    futures_util::future::join_all((0..20).map(|_| world.history.ask(&world.app, "POST"))).await;
    println!("{:?} after {:?}", world.history.statuses(), begun.elapsed());
    assert!(begun.elapsed() >= Duration::from_secs(2), "nobody waited for it");
    assert_eq!(world.history.statuses().keys().collect::<Vec<_>>(), [&504]);
    assert_eq!(world.orders(), [START], "one start for all of them");
    // The call never answers, but the container runs now: the first wake after the cool-down finds that.
    world.is("running", 0);
    world.engine.tell(&event("start", ""));
    world.engine.on(START, [Reply::Json(304, String::new())]);
    let ask = async || world.history.ask(&world.app, "POST").await;
    until("it is served", ask, |status| *status == Some(200)).await;
    assert_eq!(world.orders(), [START, START], "one for each wake, none in the cool-down");
    world.history.check(&[&world.app], &[503, 504]);
}

#[tokio::test]
async fn a_start_that_is_only_said_to_have_been_done_is_found_out_by_looking() {
    let world = World::new(&[], "exited").await;
    world.is("exited", 3);
    world.engine.on(START, [Reply::Json(204, String::new())]);
    futures_util::future::join_all((0..20).map(|_| world.history.ask(&world.app, "POST"))).await;
    println!("{:?}, the longest took {:?}", world.history.statuses(), world.history.longest());
    assert!(world.history.longest() < Duration::from_secs(60), "the wake's own deadline is three minutes");
    assert_eq!(world.history.statuses().keys().collect::<Vec<_>>(), [&503]);
    let told = world.dormouse.container("app").await.to_string();
    assert!(told.contains("exit code 3") || told.contains("code 3"), "{told}");
    // Those who come in the cool-down start nothing.
    assert_eq!(world.history.ask(&world.app, "GET").await, Some(503));
    assert_eq!(world.orders(), [START]);
    world.history.check(&[&world.app], &[503]);
}

#[tokio::test]
async fn events_that_are_cut_torn_unknown_or_too_many_change_nothing_that_is_true() {
    let world = World::new(&[], "running").await;
    world.comes_to("awake").await;
    let ask = async || assert_eq!(world.history.ask(&world.app, "POST").await, Some(200));
    ask().await;
    // A cut in the middle of a line; what happened meanwhile is seen by the list that follows.
    let die = event("die", r#","exitCode":"0""#);
    world.engine.tell(&die[..die.len() / 2]);
    world.is("exited", 0);
    world.engine.cut();
    let cut = Instant::now();
    world.comes_to("stopped").await;
    println!("the cut stream cost {:?}", cut.elapsed());
    world.is("running", 0);
    world.engine.tell(&event("start", ""));
    world.comes_to("awake").await;
    ask().await;
    // Ten thousand, and some that make no sense.
    let (looks, busy) = (world.looks(), world.dormouse.cpu_time());
    for number in 0..10_000 {
        world.engine.tell(&match number % 4 {
            0 => "no json at all\n".to_owned(),
            1 => event("hibernate", ""),
            2 => event("health_status: healthy", ""),
            _ => event("start", "").replace("container", "galaxy"),
        });
        if number % 500 == 0 {
            ask().await;
        }
    }
    // All of them have been read when the last one has had its effect.
    world.is("exited", 0);
    world.engine.tell(&event("die", r#","exitCode":"0""#));
    world.comes_to("stopped").await;
    let (looks, busy) = (world.looks() - looks, world.dormouse.cpu_time() - busy);
    println!("{looks} looks and {busy:?} for 10,000 events");
    // Half of them are hints, and a handful of looks answers them.
    assert!(looks < 1_000, "hints that come together are one look");
    assert_eq!(world.orders(), [""; 0]);
    world.history.check(&[&world.app], &[]);
}

#[tokio::test]
async fn what_no_event_tells_is_seen_by_the_next_list() {
    let world = World::new(&[], "running").await;
    world.comes_to("awake").await;
    assert_eq!(world.history.ask(&world.app, "GET").await, Some(200));
    world.is("exited", 0);
    let since = Instant::now();
    world.comes_to("stopped").await;
    println!("seen after {:?}", since.elapsed());
    world.is("running", 0);
    world.comes_to("awake").await;
    assert_eq!(world.history.ask(&world.app, "GET").await, Some(200));
    assert_eq!(world.orders(), [""; 0]);
    world.history.check(&[&world.app], &[]);
}

#[tokio::test]
async fn events_out_of_order_are_hints_and_the_engines_state_wins() {
    let world = World::new(&[], "running").await;
    world.comes_to("awake").await;
    for _ in 0..50 {
        // It was restarted, and its end is told after its start.
        let looks = world.looks();
        world.engine.tell(&event("start", ""));
        world.engine.tell(&event("die", r#","exitCode":"137""#));
        let answers = futures_util::future::join_all((0..4).map(|_| world.history.ask(&world.app, "POST"))).await;
        assert_eq!(answers, [Some(200); 4]);
        until("a look", async || world.looks(), |now| *now > looks).await;
        assert_eq!(world.dormouse.container_state("app").await, "awake");
    }
    assert_eq!(world.orders(), [""; 0], "nothing was started that runs");
    world.history.check(&[&world.app], &[]);
}
