//! gRPC with the real thing: a service that sleeps, and a client.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use crate::support::{apps::free_port, dormouse::Dormouse, not_run::not_run};

/// A Python that has gRPC.
fn python() -> Option<&'static str> {
    let has_grpc = |python: &&str| {
        let asked = Command::new(python).args(["-c", "import grpc"]).output();
        asked.is_ok_and(|output| output.status.success())
    };
    ["python3", "/usr/bin/python3"].into_iter().find(has_grpc)
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/grpc").join(name)
}

#[tokio::test]
async fn every_kind_of_call_reaches_a_service_that_sleeps() {
    let Some(python) = python() else {
        return not_run("DORMOUSE_TEST_NO_DOCKER", "gRPC for Python (Debian package `python3-grpcio`)");
    };
    let port = free_port();
    let command = serde_json::json!([python, script("service.py"), port.to_string()]);
    let text = format!(
        "nodes: {{ jobs: process }}\nroutes:\n  calls: {{ backend: jobs/calls, port: {port}, scheme: h2c, ready: {{ http: /up }} }}\n\
         backends:\n  jobs/calls: {{ command: {command}, idle: {{ idle_timeout: 1s, min_uptime: 0s }} }}\n"
    );
    let dormouse = Dormouse::start(&text).await;
    let call = async || -> Output {
        let mut command = Command::new(python);
        command.arg(script("client.py")).args([dormouse.http.to_string(), "calls.test".to_owned()]);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    // Twice: it has slept in between.
    for wakes in 1..=2 {
        let output = call().await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("all good"), "{said}\n{}", dormouse.log());
        let slept = async || dormouse.log().matches("sleeps, stopped").count();
        crate::support::wait::until("it sleeps again", slept, |slept| *slept >= wakes).await;
    }
}

#[tokio::test]
async fn a_call_that_can_not_be_made_ends_with_a_status_of_its_own() {
    let Some(python) = python() else {
        return not_run("DORMOUSE_TEST_NO_DOCKER", "gRPC for Python (Debian package `python3-grpcio`)");
    };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (nobody, silent_port) = (free_port(), silent.local_addr().unwrap().port());
    let there = |port: u16| format!("host: 127.0.0.1, port: {port}, scheme: h2c");
    let text = format!(
        "nodes: {{ jobs: process }}\nroutes:\n  away: {{ {away} }}\n  late: {{ {late}, response_header_timeout: 300ms }}\n  \
         denied: {{ {away}, middlewares: [{{ deny: 127.0.0.0/8 }}] }}\n  \
         password: {{ {away}, middlewares: [{{ basic_auth: {{ users: {{ mia: \"{hash}\" }} }} }}] }}\n  \
         broken: {{ backend: jobs/broken, port: {broken}, scheme: h2c }}\n\
         backends:\n  jobs/broken: {{ command: [\"false\"], idle: {{ idle_timeout: 1h }} }}\n",
        away = there(nobody),
        late = there(silent_port),
        hash = "$2b$04$abcdefghijklmnopqrstuuX0pB3K0yQGz2rPO6eYbWBDbHcM1pY3K",
        broken = free_port(),
    );
    let dormouse = Dormouse::start(&text).await;
    let mut command = Command::new(python);
    command.arg(script("refused.py")).arg(dormouse.http.to_string());
    command.args(["away.test", "late.test", "denied.test", "password.test", "broken.test", "unknown.test"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let ends: Vec<String> = said.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "away.test UNAVAILABLE",
        "late.test DEADLINE_EXCEEDED",
        "denied.test PERMISSION_DENIED",
        "password.test UNAUTHENTICATED",
        "broken.test UNAVAILABLE",
        "unknown.test UNIMPLEMENTED",
    ];
    assert_eq!(ends, expected, "{said}\n{}", dormouse.log());
    assert!(said.contains("away.test UNAVAILABLE The service can not be reached."), "{said}");
    drop(silent);
}
