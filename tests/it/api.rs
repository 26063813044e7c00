//! The management interface on real sockets, before a simulated engine.

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
};

use dormouse::{
    api::{self, Api, Upgrades},
    control::{Control, FileSource, Keeper, Node},
    model::{ContainerPort, Transport},
    provider::{Script, Simulated},
    telemetry::{AccessWriter, Journal},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::support::wait::{must, until};

/// An interface over one node with the containers `app` and `other`, both asleep.
struct World {
    engine: Simulated,
    control: Control,
    tcp: SocketAddr,
    unix: PathBuf,
    end: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A problem of this status and code.
    fn is_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(self.head.contains("application/problem+json"), "{}", self.head);
        let problem = self.json();
        assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code), Some(u64::from(status))));
        problem
    }

    fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }
}

async fn world() -> World {
    let engine = Simulated::new("local".parse().unwrap());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for name in ["app", "other"] {
        // Listens for as long as the unit runs.
        let inhabitant = Arc::new(move |address| {
            let listener = TcpListener::bind((address, port)).unwrap();
            Box::new(listener) as dormouse::provider::Inhabitant
        });
        engine.add(name, Script { inhabitant: Some(inhabitant), address_changes: true, ..Script::default() });
        engine.facts(name, |container| {
            container.ports = vec![ContainerPort { port, transport: Transport::Tcp, published: None }];
            container.labels.insert("dormouse.idle_timeout".to_owned(), "1h".to_owned());
            container.labels.insert("dormouse.aliases".to_owned(), format!("{name}-route"));
            container.labels.insert("secret".to_owned(), "hunter2".to_owned());
        });
    }
    let node = Node { provider: Arc::new(engine.clone()), engine: "simulated".to_owned(), discovers: true };
    let nodes = BTreeMap::from([("local".parse().unwrap(), node)]);
    let loaded = (FileSource::None { explicit: false, https: None }).load().unwrap();
    let (keeper, control) = Keeper::new(
        FileSource::None { explicit: false, https: None },
        loaded,
        nodes,
        None,
        HashMap::new(),
        Journal::default(),
    );
    let end = CancellationToken::new();
    let directory = tempfile::tempdir().unwrap();
    let unix = directory.path().join(api::SOCKET);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = listener.local_addr().unwrap();
    let router = api::router(Api {
        control: control.clone(),
        run: Timestamp::now(),
        access: AccessWriter::default(),
        connections: Arc::default(),
        upgrades: Upgrades::default(),
    });
    let serving = api::serve(router, Some(listener), api::bind_unix(&unix).unwrap(), end.clone());
    let (keeping, ending) = (keeper, end.clone());
    let tasks = vec![
        tokio::spawn(async { serving.await.unwrap() }),
        tokio::spawn(async {
            keeping.run(ending).await;
        }),
    ];
    let world = World { engine, control, tcp, unix, end, tasks, _directory: directory };
    let states = async || world.get("/api/v1/backends").await.body;
    until("both backends asleep", states, |body| body.matches("\"state\":\"asleep\"").count() == 2).await;
    world
}

impl World {
    async fn send(&self, method: &str, path: &str, fields: &str, body: &str) -> Answer {
        let stream = TcpStream::connect(self.tcp).await.unwrap();
        let host = if fields.to_ascii_lowercase().contains("host:") {
            String::new()
        } else {
            "host: localhost\r\n".to_owned()
        };
        exchange(stream, method, path, &format!("{host}{fields}"), body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "").await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, "", body).await
    }

    async fn backend(&self, name: &str) -> Value {
        self.get(&format!("/api/v1/backends/local/{name}")).await.good()
    }

    /// Everything ends when it is told to.
    async fn finish(self) {
        self.end.cancel();
        for task in self.tasks {
            must("the end of the interface", task).await.unwrap();
        }
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    fields: &str,
    body: &str,
) -> Answer {
    let head =
        format!("{method} {path} HTTP/1.1\r\n{fields}connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses early need not read all of it.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = must("the answer", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_whose_labels_are_refused_is_told_beside_the_backends() {
    let world = world().await;
    assert_eq!(world.get("/api/v1/backends").await.good()["left_out"], json!([]));
    world.engine.add("wrong", Script::default());
    world.engine.facts("wrong", |container| {
        container.labels.insert("dormouse.idle_timeout".to_owned(), "30".to_owned());
        container.labels.insert("dormouse.stop_method".to_owned(), "doze".to_owned());
    });
    let left_out = async || world.get("/api/v1/backends").await.good()["left_out"].clone();
    let told = until("it is listed", left_out, |told| told.as_array().is_some_and(|all| !all.is_empty())).await;
    assert_eq!((told.as_array().unwrap().len(), &told[0]["id"]), (1, &json!("local/wrong")));
    let labels: Vec<&str> =
        told[0]["problems"].as_array().unwrap().iter().map(|problem| problem["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["dormouse.idle_timeout", "dormouse.stop_method"]);
    let mut ps = tokio::process::Command::new(env!("CARGO_BIN_EXE_dormouse"));
    ps.arg("--state-dir").arg(world.unix.parent().unwrap()).arg("ps");
    let shown = String::from_utf8(must("it answers", ps.output()).await.unwrap().stdout).unwrap();
    let last = shown.lines().last().unwrap();
    assert!(last.starts_with("local/wrong: left out: label `dormouse.idle_timeout`: "), "{shown}");
    assert!(last.ends_with(" (and 1 more); see `dormouse explain local/wrong`"), "{shown}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_away_is_a_problem_for_as_long_as_it_is() {
    let world = world().await;
    let problems = async || world.get("/api/v1/problems").await.good()["problems"].clone();
    assert_eq!(problems().await, json!([]));
    world.engine.go_away("no socket");
    let told = until("it is told", problems, |told| *told != json!([])).await;
    assert_eq!((told.as_array().unwrap().len(), &told[0]["severity"]), (1, &json!("warning")));
    assert_eq!((&told[0]["node"], &told[0]["place"]), (&json!("local"), &json!("node local")));
    assert!(told[0]["what"].as_str().unwrap().contains("no socket") && told[0]["hint"].is_string(), "{told}");
    let node = world.get("/api/v1/nodes").await.good()["nodes"][0].clone();
    let since = node["away_since"].as_str().unwrap();
    assert!(told[0]["what"].as_str().unwrap().contains(since), "{told}");
    // What is told of its container may be out of date, and one that it did not tell of may be there.
    assert_eq!(world.get("/api/v1/explain/app").await.good()["problems"], told);
    let nobody = world.get("/api/v1/explain/nobody").await.is_problem(404, "no_such_container");
    let detail = nobody["detail"].as_str().unwrap();
    assert!(detail.contains("node `local` can not tell: ") && detail.contains("no socket"), "{detail}");
    world.engine.come_back();
    until("it is over", problems, |told| *told == json!([])).await;
    assert_eq!(world.get("/api/v1/explain/app").await.good()["problems"], json!([]));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_exists_is_told() {
    let world = world().await;
    let backend = world.backend("app").await;
    assert_eq!(backend["state"], "asleep");
    assert_eq!(backend["asleep_as"], "stopped");
    assert_eq!(backend["routes"], json!(["app-route"]));
    assert_eq!(backend["policy"]["idle_timeout"], "1h");
    assert_eq!(backend["sleeps_in_s"], Value::Null);
    for short in ["app", "app-route", "local%2Fapp"] {
        assert_eq!(world.get(&format!("/api/v1/backends/{short}")).await.good()["id"], "local/app", "{short}");
    }
    let routes = world.get("/api/v1/routes").await.good();
    assert_eq!(routes["routes"][0]["alias"], "app-route");
    assert_eq!(routes["routes"][0]["backend"], "local/app");
    assert_eq!(routes["routes"][0]["state"], "asleep");
    let nodes = world.get("/api/v1/nodes").await.good();
    assert_eq!(nodes["nodes"][0]["up"], true);
    assert_eq!(nodes["nodes"][0]["units"], 2);
    assert_eq!(world.get("/api/v1/problems").await.good()["refused"], json!([]));
    let explained = world.get("/api/v1/explain/local/app").await;
    assert_eq!(explained.good()["routes"][0]["alias"], "app-route");
    assert_eq!(world.get("/api/v1/explain").await.good()["containers"].as_array().unwrap().len(), 2);
    assert!(!explained.body.contains("hunter2"), "{}", explained.body);
    assert_eq!(world.get("/healthz").await.status, 200);
    assert_eq!(world.get("/readyz").await.body, "ready\n");
    let metrics = world.get("/metrics").await;
    assert!(metrics.head.contains("application/openmetrics-text"), "{}", metrics.head);
    assert!(
        metrics.body.contains(r#"dormouse_backend_state{backend="local/app",state="asleep"} 1"#),
        "{}",
        metrics.body
    );
    assert!(metrics.body.ends_with("# EOF\n"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_done_or_already_so_or_denied() {
    let world = world().await;
    let order = async |order: &str, body: &str| world.post(&format!("/api/v1/backends/local/app/{order}"), body).await;
    let result = |answer: Answer| answer.good()["result"].as_str().unwrap().to_owned();
    assert_eq!(result(order("wake", "").await), "done");
    assert_eq!(result(order("wake", "").await), "already_so");
    let backend = world.backend("app").await;
    assert_eq!(backend["state"], "awake");
    assert_eq!(backend["wakes"]["count"], 1);
    assert_eq!(backend["wakes"]["today"], 1);
    assert_eq!(backend["last_wake"]["cause"], "ordered by the API");
    assert!((3500..=3600).contains(&backend["sleeps_in_s"].as_u64().unwrap()), "{backend}");
    assert!(backend["wake_ms"]["p50"].is_u64(), "{backend}");

    assert_eq!(result(order("pin", r#"{"for": "2h"}"#).await), "done");
    assert!(world.backend("app").await["pinned_until"].is_string());
    assert!(world.backend("app").await["sleeps_in_s"].as_u64().unwrap() > 7000);
    let denied = order("sleep", "").await.is_problem(409, "denied");
    assert!(denied["detail"].as_str().unwrap().contains("pinned"), "{denied}");
    assert_eq!(result(order("unpin", "").await), "done");
    assert_eq!(result(order("unpin", "").await), "already_so");

    let pass = world.control.find("app").unwrap().try_enter().unwrap();
    let cut = order("sleep", r#"{"now": true}"#).await.good();
    assert_eq!((cut["result"].as_str(), cut["cut"].as_u64()), (Some("done"), Some(1)));
    drop(pass);
    assert_eq!(result(order("sleep", "").await), "already_so");
    assert_eq!(world.engine.stop_calls("app"), 1);
    assert_eq!(result(world.post("/api/v1/backends/app-route/restart", "").await), "done");
    assert_eq!(world.engine.start_calls("app"), 2);
    assert_eq!(world.engine.start_calls("other"), 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_carried_out_is_a_problem_with_a_code() {
    let world = world().await;
    let unknown = world.post("/api/v1/backends/local/ap/wake", "").await.is_problem(404, "no_such_backend");
    assert_eq!(unknown["hint"], "did you mean `local/app`?");
    world.get("/api/v1/explain/nobody").await.is_problem(404, "no_such_container");
    world.get("/api/v1/nothing").await.is_problem(404, "no_such_path");
    world.post("/api/v1/backends/app/dance", "").await.is_problem(404, "no_such_path");
    world.send("DELETE", "/api/v1/backends", "", "").await.is_problem(405, "method_not_allowed");
    world.get("/api/v1/events?folow=false").await.is_problem(400, "bad_request");
    let pin = "/api/v1/backends/local/app/pin";
    for body in [
        "",
        "{}",
        "x",
        r#"{"for": "2"}"#,
        r#"{"until": "soon"}"#,
        r#"{"for": "1h", "until": "2030-01-01T00:00:00Z"}"#,
        r#"{"until": "2020-01-01T00:00:00Z"}"#,
        r#"{"fro": "1h"}"#,
    ] {
        world.post(pin, body).await.is_problem(400, "bad_request");
    }
    world.post("/api/v1/backends/local/app/sleep", r#"{"nwo": true}"#).await.is_problem(400, "bad_request");
    world.post("/api/v1/check", &"#".repeat(1024 * 1024 + 1)).await.is_problem(413, "body_too_large");
    assert_eq!(world.engine.start_calls("app"), 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web_pages_of_others_are_refused() {
    let world = world().await;
    let evil = format!("host: evil.example:{}\r\n", world.tcp.port());
    world.send("GET", "/api/v1/backends", &evil, "").await.is_problem(403, "host_not_allowed");
    world.send("GET", "/metrics", &evil, "").await.is_problem(403, "host_not_allowed");
    let wake = "/api/v1/backends/local/app/wake";
    for field in [
        "origin: https://evil.example\r\n",
        "origin: null\r\n",
        "sec-fetch-site: cross-site\r\n",
        "sec-fetch-site: same-site\r\n",
    ] {
        world.send("POST", wake, field, "").await.is_problem(403, "origin_not_allowed");
    }
    world
        .send("GET", "/api/v1/backends", "sec-fetch-site: cross-site\r\n", "")
        .await
        .is_problem(403, "origin_not_allowed");
    assert_eq!(world.engine.start_calls("app"), 0);
    let own = format!("host: {0}\r\norigin: http://{0}\r\nsec-fetch-site: same-origin\r\n", world.tcp);
    let answer = world.send("POST", wake, &own, "").await;
    assert_eq!(answer.good()["result"], "done");
    assert!(!answer.head.to_ascii_lowercase().contains("access-control"), "{}", answer.head);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unix_socket_is_its_owners_and_names_the_person() {
    let world = world().await;
    assert_eq!(std::fs::metadata(&world.unix).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(api::bind_unix(&world.unix).is_err(), "it is in use");
    let stream = UnixStream::connect(&world.unix).await.unwrap();
    let answer = exchange(stream, "POST", "/api/v1/backends/app/wake", "host: dormouse\r\n", "").await;
    assert_eq!(answer.good()["result"], "done");
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    assert_eq!(world.backend("app").await["last_wake"]["cause"], format!("ordered by {me}"));
    let unix = world.unix.clone();
    world.end.cancel();
    until("nobody listens", async || UnixStream::connect(&unix).await.is_err(), |gone| *gone).await;
    drop(api::bind_unix(&unix).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_on_where_they_broke_off() {
    let world = world().await;
    let kept = world.get("/api/v1/events?follow=false").await;
    assert!(kept.head.contains("application/x-ndjson"), "{}", kept.head);
    assert_eq!(world.post("/api/v1/backends/local/app/wake", "").await.status, 200);
    let first = follow(&world, "", |events| events.iter().any(|(_, event)| event["what"] == "woke")).await;
    let (last, _) = first.last().unwrap();
    assert_eq!(world.post("/api/v1/backends/local/app/sleep", "").await.status, 200);
    let resumed = format!("last-event-id: {last}\r\n");
    let second = follow(&world, &resumed, |events| events.iter().any(|(_, event)| event["what"] == "slept")).await;
    let numbers: Vec<u64> = first.iter().chain(&second).map(|(_, event)| event["seq"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = (1..).take(numbers.len()).collect();
    assert_eq!(numbers, expected, "each once, none left out");
    // An id of another run says nothing of this one.
    let again = follow(&world, "last-event-id: 12345-2\r\n", |events| events.len() == numbers.len()).await;
    assert_eq!(again[0].1["seq"], 1);
    let lines = world.get("/api/v1/events?follow=false&backend=app").await.body;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["backend"] == "local/app"), "{lines:?}");
    let woke = lines.iter().find(|line| line["what"] == "woke").unwrap();
    assert_eq!(woke["cause"]["kind"], "person");
    assert!(woke["phases"]["total"].is_u64());
    world.finish().await;
}

/// Reads events until there are enough, and breaks off.
async fn follow(world: &World, fields: &str, enough: impl Fn(&[(String, Value)]) -> bool) -> Vec<(String, Value)> {
    let mut stream = TcpStream::connect(world.tcp).await.unwrap();
    let head = format!("GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let (mut events, mut id) = (Vec::new(), String::new());
    while !enough(&events) {
        let line = must("an event", lines.next_line()).await.unwrap().expect("the stream goes on");
        if let Some(found) = line.strip_prefix("id: ") {
            id = found.to_owned();
        } else if let Some(data) = line.strip_prefix("data: ") {
            events.push((id.clone(), serde_json::from_str(data).unwrap()));
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_checked_against_what_runs() {
    let world = world().await;
    let good = "routes:\n  new:\n    host: 192.0.2.7\n    port: 80\n";
    let checked = world.post("/api/v1/check", good).await.good();
    assert_eq!(checked["ok"], true, "{checked}");
    assert_eq!(checked["changes"][0]["what"], "add_route");
    assert_eq!(checked["changes"][0]["name"], "new");
    // Over TCP a setting is not compared: its value could be guessed at.
    let checked = world.post("/api/v1/check", "max_connections: 5\n").await.good();
    assert!(!checked.to_string().contains("setting"), "{checked}");
    let checked = world.post("/api/v1/check", "routs: {}\n").await.good();
    assert_eq!(checked["ok"], false);
    assert_eq!(checked["problems"][0]["line"], 1, "{checked}");
    assert!(checked["problems"][0]["hint"].as_str().unwrap().contains("routes"), "{checked}");
    // Anybody on the machine may ask over TCP, and is told nothing that only Dormouse can read.
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret.yaml");
    std::fs::write(&secret, "the-secret: of-this-machine\n").unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let path = secret.display();
    for text in [
        format!("include: [\"{path}\"]\n"),
        format!("include: [\"{}/*\"]\n", directory.path().display()),
        format!("include: [\"{}\"]\n", pipe.display()),
        format!("routes: {{ x: {{ host: \"${{file:{path}}}\", port: 80 }} }}\n"),
        "routes:\n  x:\n    host: ${PATH}\n    port: 80\n".to_owned(),
    ] {
        let checked = world.post("/api/v1/check", &text).await.good();
        assert_eq!(checked["ok"], false, "{text}: {checked}");
        let told = checked.to_string();
        assert!(!told.contains("of-this-machine") && !told.contains("/usr/"), "{text}: {told}");
        assert!(told.contains("over TCP"), "{text}: {told}");
    }
    assert_eq!(world.get("/api/v1/routes").await.good()["routes"].as_array().unwrap().len(), 2);
    assert_eq!(world.post("/api/v1/reload", "").await.good(), json!({"changes": [], "waiting": [], "problems": []}));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_describes_every_path() {
    let world = world().await;
    let document = world.get("/openapi.json").await.good();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    let backend = "/api/v1/backends/{node}/{name}";
    let mut expected: Vec<String> =
        ["wake", "sleep", "pin", "unpin", "restart"].map(|order| format!("{backend}/{order}")).into();
    expected.extend(
        [
            "backends",
            "backends/{name}",
            "backends/{node}/{name}",
            "certificates",
            "check",
            "events",
            "explain",
            "explain/{container}",
            "nodes",
            "problems",
            "reload",
            "routes",
            "upgrade",
        ]
        .map(|path| format!("/api/v1/{path}")),
    );
    expected.extend(["/healthz", "/metrics", "/readyz"].map(str::to_owned));
    for path in &expected {
        assert!(paths.contains(&path), "{path} is missing in {paths:?}");
    }
    assert_eq!(paths.len(), expected.len(), "{paths:?}");
    for schema in ["Backend", "Event", "ProblemDetails", "Explained"] {
        assert!(document["components"]["schemas"][schema].is_object(), "{schema}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_reached_however_many_connect_over_tcp() {
    let world = world().await;
    let since = std::time::Instant::now();
    let mut hoard = Vec::new();
    for _ in 0..300 {
        hoard.push(TcpStream::connect(world.tcp).await.unwrap());
    }
    let socket = UnixStream::connect(&world.unix).await.unwrap();
    let answer = exchange(socket, "GET", "/healthz", "host: localhost\r\n", "").await;
    assert_eq!(answer.status, 200);
    // Later some of those who say nothing would have been sent away.
    assert!(since.elapsed() < std::time::Duration::from_secs(9), "{:?}", since.elapsed());
    drop(hoard);
    world.finish().await;
}
