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
        "nodes: {{ jobs: process }}\nroutes:\n  calls: {{ backend: jobs/calls, port: {port}, scheme: h2c }}\n\
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
