//! An engine to test a provider against, and another hand that acts on it behind the provider's back.

use std::{fmt::Debug, path::PathBuf, sync::Arc};

use dormouse::{
    model::{Command, ContainerState, NodeName, Unit},
    provider::{Docker, FileBook, Process, ProcessBook, Provider, Script, SharedProvider, Simulated},
};
use futures_util::{StreamExt, future::BoxFuture};

use super::{
    docker::DockerCli,
    wait::{must, until},
};

/// How a unit of the test behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ends soon when it gets the stop signal, with code 0, after writing `got TERM` to its log.
    Good,
    /// Does not end by the stop signal.
    Stubborn,
    /// Exits with code 3 as soon as it has started.
    ExitsAtOnce,
    /// Cannot be started.
    Broken,
}

/// Another hand. What an engine has no way to do is said by `false`.
pub(crate) trait Hand: Send + Sync + Debug {
    fn make<'a>(&'a self, name: &'a str, kind: Kind) -> BoxFuture<'a, Unit>;
    fn start<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool>;
    fn end<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool>;
    fn pause<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool>;
    fn hup<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool>;
    fn remove<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool>;
    /// How often it came up, where the engine counts.
    fn runs<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Option<u64>>;
}

/// A provider and another hand on the same engine.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) provider: SharedProvider,
    pub(crate) hand: Box<dyn Hand>,
}

impl Rig {
    /// What one unit does now, which must be told.
    pub(crate) async fn look(&self, unit: &Unit) -> ContainerState {
        self.provider.look(unit).await.unwrap()
    }

    /// Waits until a unit does what is wanted.
    pub(crate) async fn see(&self, unit: &Unit, wanted: impl Fn(&ContainerState) -> bool) -> ContainerState {
        until(&unit.name, async || self.look(unit).await, wanted).await
    }

    /// Waits for the first line of its log that holds these words.
    pub(crate) async fn see_in_log(&self, unit: &Unit, words: &str) -> String {
        let find = async {
            let mut lines = self.provider.log_lines(unit);
            while let Some(line) = lines.next().await {
                if line.contains(words) {
                    return line;
                }
            }
            panic!("the log of {} ended without {words:?}", unit.name);
        };
        must("a line of the log", find).await
    }
}

pub(crate) fn node() -> NodeName {
    "test".parse().unwrap()
}

pub(crate) fn unit(name: &str) -> Unit {
    Unit { name: name.to_owned(), network: None, command: None }
}

pub(crate) fn running(state: &ContainerState) -> bool {
    matches!(state, ContainerState::Running(_))
}

pub(crate) fn paused(state: &ContainerState) -> bool {
    matches!(state, ContainerState::Paused(_))
}

pub(crate) fn stopped(state: &ContainerState) -> bool {
    matches!(state, ContainerState::Stopped { .. })
}

/// A rig on the simulated engine, and the handle that scripts it.
pub(crate) fn simulated() -> (Rig, Simulated) {
    let engine = Simulated::new(node());
    (Rig { provider: Arc::new(engine.clone()), hand: Box::new(SimulatedHand(engine.clone())) }, engine)
}

#[derive(Debug)]
struct SimulatedHand(Simulated);

impl SimulatedHand {
    fn done<'a>(&'a self, act: impl FnOnce(&Simulated)) -> BoxFuture<'a, bool> {
        act(&self.0);
        Box::pin(async { true })
    }
}

impl Hand for SimulatedHand {
    fn make<'a>(&'a self, name: &'a str, kind: Kind) -> BoxFuture<'a, Unit> {
        let mut script = Script { log: vec!["ready".to_owned(), "got TERM".to_owned()], ..Script::default() };
        match kind {
            Kind::Good => {}
            Kind::Stubborn => script.stop_delay = super::wait::LONG,
            Kind::ExitsAtOnce => script.exits_at_once = Some(3),
            Kind::Broken => script.start_fails = Some("no such program".to_owned()),
        }
        self.0.add(name, script);
        Box::pin(async { unit(name) })
    }

    fn start<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        self.done(|engine| engine.hand_start(&unit.name))
    }

    fn end<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        self.done(|engine| engine.hand_stop(&unit.name, 137))
    }

    fn pause<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        self.done(|engine| engine.hand_pause(&unit.name))
    }

    fn hup<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        self.done(|engine| engine.hand_signal(&unit.name))
    }

    fn remove<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        self.done(|engine| engine.hand_remove(&unit.name))
    }

    fn runs<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Option<u64>> {
        Box::pin(async { Some(self.0.runs(&unit.name)) })
    }
}

/// A rig on plain processes; they end with it.
#[derive(Debug)]
pub(crate) struct ProcessRig {
    pub(crate) rig: Rig,
    pub(crate) processes: Arc<Process>,
    directory: tempfile::TempDir,
}

impl ProcessRig {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let processes = Arc::new(open(directory.path().to_owned()));
        let hand = Box::new(ProcessHand { processes: Arc::clone(&processes), runs: directory.path().join("runs") });
        Self { rig: Rig { provider: processes.clone(), hand }, processes, directory }
    }

    /// Another provider on the same state, as a Dormouse that comes after a crash has it.
    pub(crate) fn next_life(&self) -> Process {
        open(self.directory.path().to_owned())
    }

    /// Ends everything; nothing may be left of it.
    pub(crate) async fn finish(self) {
        self.processes.end_all(std::time::Duration::ZERO).await;
    }
}

impl Drop for ProcessRig {
    /// After a failure, the processes that are still in the book.
    fn drop(&mut self) {
        let records = FileBook::open(self.directory.path()).and_then(|book| book.load()).unwrap_or_default();
        for record in records {
            let group = format!("-{}", record.pid);
            let _ = std::process::Command::new("kill").args(["-s", "KILL", "--", &group]).status();
        }
    }
}

fn open(directory: PathBuf) -> Process {
    let book = Arc::new(FileBook::open(&directory).unwrap());
    Process::open(node(), directory, book).unwrap()
}

#[derive(Debug)]
struct ProcessHand {
    processes: Arc<Process>,
    runs: PathBuf,
}

/// A process of the shell: tells its number, counts its run, and lives on until it is ended.
pub(crate) fn shell(name: &str, runs: &std::path::Path, script: &str) -> Unit {
    let count = format!("echo run >>{}.{name}", runs.display());
    let text = format!("{count}; {script}");
    let argv = vec!["/bin/sh".to_owned(), "-c".to_owned(), text];
    let command = Command { argv, env: Default::default(), directory: None, user: None };
    Unit { command: Some(command), ..unit(name) }
}

const GOOD: &str = r#"trap 'echo got TERM; exit 0' TERM; trap : HUP; echo pid $$ ready; while :; do sleep 0.05; done"#;
const STUBBORN: &str = r#"trap '' TERM HUP; echo pid $$ ready; while :; do sleep 0.05; done"#;

impl ProcessHand {
    async fn signal(&self, unit: &Unit, name: &str) -> bool {
        let find = async {
            let mut lines = self.processes.log_lines(unit);
            loop {
                let line = lines.next().await.expect("a process that tells its number");
                if let Some(rest) = line.strip_prefix("pid ") {
                    return rest.split(' ').next().unwrap().to_owned();
                }
            }
        };
        let pid = must("the number of the process", find).await;
        let sent = tokio::process::Command::new("kill").args(["-s", name, "--", &pid]).status().await.unwrap();
        sent.success()
    }
}

impl Hand for ProcessHand {
    fn make<'a>(&'a self, name: &'a str, kind: Kind) -> BoxFuture<'a, Unit> {
        let unit = match kind {
            Kind::Good => shell(name, &self.runs, GOOD),
            Kind::Stubborn => shell(name, &self.runs, STUBBORN),
            Kind::ExitsAtOnce => shell(name, &self.runs, "echo ready; exit 3"),
            Kind::Broken => {
                let mut unit = shell(name, &self.runs, "");
                unit.command.as_mut().unwrap().argv = vec!["/no/such/program".to_owned()];
                unit
            }
        };
        Box::pin(async { unit })
    }

    fn start<'a>(&'a self, _unit: &'a Unit) -> BoxFuture<'a, bool> {
        Box::pin(async { false })
    }

    fn end<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        Box::pin(self.signal(unit, "KILL"))
    }

    fn pause<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        Box::pin(self.signal(unit, "STOP"))
    }

    fn hup<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        Box::pin(self.signal(unit, "HUP"))
    }

    fn remove<'a>(&'a self, _unit: &'a Unit) -> BoxFuture<'a, bool> {
        Box::pin(async { false })
    }

    fn runs<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Option<u64>> {
        let path = format!("{}.{}", self.runs.display(), unit.name);
        Box::pin(async move { Some(std::fs::read_to_string(path).unwrap_or_default().lines().count() as u64) })
    }
}

/// A rig on a real engine; absent when there is none.
pub(crate) fn docker() -> Option<Rig> {
    let cli = DockerCli::new()?;
    let provider = Docker::connect(node(), &cli.address.as_str().into()).unwrap();
    Some(Rig { provider: Arc::new(provider), hand: Box::new(DockerHand(cli)) })
}

#[derive(Debug)]
struct DockerHand(DockerCli);

impl DockerHand {
    fn do_to<'a>(&'a self, unit: &'a Unit, words: &'a [&str]) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.0.try_run(&[words, &[&unit.name]].concat()).await.status.success() })
    }
}

impl Hand for DockerHand {
    fn make<'a>(&'a self, name: &'a str, kind: Kind) -> BoxFuture<'a, Unit> {
        let (options, arguments): (&[&str], &[&str]) = match kind {
            Kind::Good => (&[], &[]),
            Kind::Stubborn => (&[], &["--ignore-term"]),
            Kind::ExitsAtOnce => (&[], &["--exit-code", "3"]),
            Kind::Broken => (&["--entrypoint", "/no/such/program"], &[]),
        };
        Box::pin(async { unit(&self.0.container(&["create"], name, options, arguments).await) })
    }

    fn start<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        self.do_to(unit, &["start"])
    }

    fn end<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        self.do_to(unit, &["kill"])
    }

    fn pause<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        self.do_to(unit, &["pause"])
    }

    fn hup<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        self.do_to(unit, &["kill", "--signal", "HUP"])
    }

    fn remove<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, bool> {
        self.do_to(unit, &["rm", "-f"])
    }

    /// Engines do not count; their events since the creation do.
    fn runs<'a>(&'a self, unit: &'a Unit) -> BoxFuture<'a, Option<u64>> {
        Box::pin(async {
            let filter = format!("container={}", unit.name);
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
            let words = ["events", "--since", "0", "--until", &until, "--filter", &filter, "--filter", "event=start"];
            Some(self.0.run(&words).await.lines().count() as u64)
        })
    }
}
