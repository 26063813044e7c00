//! A Dormouse that other processes take over from, one after the other.

use std::{fs, io, process::Output};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::{
    apps::{App, config},
    dormouse::{Dormouse, Reply, get},
    wait::{must, until},
};

/// All processes of a Dormouse, the latest last. Killed when dropped.
pub(crate) struct Line {
    pub(crate) dormouse: Dormouse,
    pub(crate) heirs: Vec<u32>,
}

impl Line {
    pub(crate) fn of(dormouse: Dormouse) -> Self {
        Self { dormouse, heirs: Vec::new() }
    }

    /// One that serves these apps, each of them awake.
    pub(crate) async fn awake(apps: &[&App]) -> Self {
        let line = Self::of(Dormouse::start(&config(apps)).await);
        for app in apps {
            line.serves(&app.name).await;
        }
        line
    }

    pub(crate) async fn serves(&self, name: &str) {
        assert_eq!(self.dormouse.get(name, "/").await.status, 200, "{name}");
    }

    /// A request that the app takes so long for, under way when this returns.
    pub(crate) async fn slow(&self, app: &App, millis: u32) -> JoinHandle<io::Result<Reply>> {
        let (at, name, before) = (self.dormouse.http, app.name.clone(), app.journal().arrivals("/slow"));
        let slow = tokio::spawn(async move { get(at, &name, &format!("/slow?ms={millis}"), "").await });
        until("the request", async || app.journal().arrivals("/slow"), |count| *count > before).await;
        slow
    }

    /// Waits until there is a line in the log with these words, and returns the last one.
    pub(crate) async fn logs(&self, words: &str) -> String {
        let line = || self.dormouse.log().lines().rfind(|line| line.contains(words)).map(str::to_owned);
        until(words, async || line(), Option::is_some).await.unwrap_or_default()
    }

    /// What is told of a backend.
    pub(crate) async fn told(&self, app: &App) -> Value {
        self.dormouse.api("GET", &format!("/api/v1/backends/jobs/{}", app.name)).await
    }

    pub(crate) async fn order(&self) -> Output {
        let state_dir = self.dormouse.state_dir();
        let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_dormouse"))
            .args(["upgrade", "--json", "--state-dir"])
            .arg(state_dir)
            .output();
        must("the outcome of an upgrade", command).await.unwrap()
    }

    pub(crate) async fn upgrade(&mut self) {
        let output = self.order().await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}{complaint}\n{}", self.dormouse.log());
        let told: Value = serde_json::from_str(&said).unwrap();
        self.heirs.push(u32::try_from(told["pid"].as_u64().unwrap()).unwrap());
    }

    /// The complaint about an upgrade that comes to nothing.
    pub(crate) async fn is_not_upgraded(&self) -> String {
        let output = self.order().await;
        assert_eq!(output.status.code(), Some(1), "{output:?}\n{}", self.dormouse.log());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// How many of its processes live.
    pub(crate) fn living(&mut self) -> usize {
        usize::from(self.dormouse.is_running()) + self.heirs.iter().filter(|pid| lives(**pid)).count()
    }

    pub(crate) async fn is_one_process(&mut self) {
        let last = *self.heirs.last().expect("an heir");
        until("one process", async || self.living(), |living| *living == 1).await;
        assert!(lives(last));
    }

    /// Ends the latest, as a person does.
    pub(crate) async fn end(mut self) {
        let last = self.heirs.last().copied().unwrap_or_else(|| self.dormouse.pid());
        kill(pid(last), Signal::SIGTERM).unwrap();
        until("the end", async || self.living(), |living| *living == 0).await;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // The one before would have another one take its place.
        if self.dormouse.is_running() && !self.heirs.is_empty() {
            self.dormouse.kill();
        }
        for heir in self.heirs.iter().filter(|heir| lives(**heir)) {
            let _ = kill(pid(*heir), Signal::SIGKILL);
        }
    }
}

/// The answer of a slow request.
pub(crate) async fn is_answered(slow: JoinHandle<io::Result<Reply>>) {
    let reply = must("the answer", slow).await.unwrap().unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, "slow\n"));
}

pub(crate) fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

/// Whether it runs, and is no zombie.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}
