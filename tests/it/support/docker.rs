//! A real engine in tests, driven by the `docker` program as a person would.
//!
//! `DORMOUSE_TEST_DOCKER` names the engine, such as `unix:///run/test/docker.sock`. Without it such tests fail, so that
//! nobody takes them for passed; `DORMOUSE_TEST_NO_DOCKER=1` skips them, and they say so.

use std::{
    collections::BTreeSet,
    fs,
    io::{Seek, SeekFrom},
    path::PathBuf,
    process::{Output, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::process::Command;

use super::{not_run::not_run, wait::until};

const LABEL: &str = "dormouse.test";

/// The image with the app of `examples/app/main.rs` and nothing else.
pub(crate) const IMAGE: &str = "dormouse-test/app:1";

/// An engine, and everything that one test made on it; removed at the end, however the test ends.
#[derive(Debug)]
pub(crate) struct DockerCli {
    pub(crate) address: String,
    /// Begins the name of everything of this test.
    pub(crate) prefix: String,
    record: tempfile::NamedTempFile,
    recorder: Option<std::process::Child>,
}

impl DockerCli {
    /// Absent when the person at the keyboard has said that there is no engine.
    pub(crate) fn new() -> Option<Self> {
        if let Ok(address) = std::env::var("DORMOUSE_TEST_DOCKER") {
            return Some(Self::at(address));
        }
        not_run("DORMOUSE_TEST_NO_DOCKER", "a Docker Engine, whose address DORMOUSE_TEST_DOCKER names");
        None
    }

    fn at(address: String) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("dt{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        prepare_image(&address);
        let record = tempfile::NamedTempFile::new().expect("a file");
        let mut cli = Self { address, prefix, record, recorder: None };
        cli.begin_record();
        cli
    }

    /// Follows the engine's events from now on. Its own memory holds the last 256 only.
    pub(crate) fn begin_record(&mut self) {
        self.end_record();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
        let since = format!("--since={}.{:09}", now.as_secs(), now.subsec_nanos());
        let format = "--format={{.TimeNano}} {{.Action}} {{or .Actor.Attributes.name .Actor.ID}}";
        let recorder = std::process::Command::new("docker")
            .args(["-H", &self.address, "events", &since, format])
            .stdin(Stdio::null())
            .stdout(
                self.record.reopen().and_then(|mut file| file.seek(SeekFrom::End(0)).map(|_| file)).expect("a file"),
            )
            .stderr(Stdio::null())
            .spawn();
        self.recorder = Some(recorder.expect("the docker program"));
    }

    fn end_record(&mut self) {
        if let Some(mut recorder) = self.recorder.take() {
            let _ = recorder.kill();
            let _ = recorder.wait();
        }
    }

    /// The configuration of a Dormouse that sees this engine and the containers of this test, but no others: tests
    /// run at the same time, and their containers are not to be slept by each other's. Labels of its own prefix.
    pub(crate) fn config(&self) -> String {
        let Self { address, prefix, .. } = self;
        format!(
            "nodes: {{ local: {{ docker: \"{address}\" }} }}\n\
             discover: {{ mode: labelled, prefixes: [{prefix}] }}\n\
             wakes_per_client: 100000\n"
        )
    }

    /// Creates a container with labels for the Dormouse of [`Self::config`]; `labels` as `idle_timeout=2s`.
    pub(crate) async fn sleeper(&self, how: &[&str], name: &str, labels: &[&str], arguments: &[&str]) -> String {
        let labels: Vec<_> = labels.iter().map(|label| format!("--label={}.{label}", self.prefix)).collect();
        let options: Vec<_> = ["--expose=80"].into_iter().chain(labels.iter().map(String::as_str)).collect();
        self.container(how, name, &options, arguments).await
    }

    /// A field of what the engine says about a container.
    pub(crate) async fn inspect(&self, name: &str, format: &str) -> String {
        self.run(&["inspect", "--format", format, name]).await
    }

    /// What the engine says that a container does: `running`, `paused`, `exited`, `created`.
    pub(crate) async fn status(&self, name: &str) -> String {
        self.inspect(name, "{{.State.Status}}").await
    }

    /// What happened on the engine since the test began, by the engine's own record: nanosecond, event and name each.
    pub(crate) async fn happened(&self) -> Vec<(i128, String, String)> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        // The record comes in order: all that was before this mark is there once the mark is.
        let mark = self.name(&format!("mark{}", COUNT.fetch_add(1, Ordering::SeqCst)));
        self.run(&["volume", "create", &mark]).await;
        let read = async || fs::read_to_string(self.record.path()).expect("the record");
        let record = until("the engine's record", read, |record| record.contains(&mark)).await;
        self.run(&["volume", "rm", &mark]).await;
        let line = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let at = words.next()?.parse().ok()?;
            Some((at, words.next()?.to_owned(), words.next()?.to_owned()))
        };
        record.lines().filter_map(line).collect()
    }

    /// When something happened last to a container, in nanoseconds since 1970.
    pub(crate) async fn happened_at(&self, name: &str, event: &str) -> i128 {
        let record = self.happened().await;
        let last = record.iter().rev().find(|(_, what, of)| what == event && of == name);
        last.unwrap_or_else(|| panic!("no {event} of {name} in {record:?}")).0
    }

    /// How often something happened to a container so far.
    pub(crate) async fn count(&self, name: &str, event: &str) -> usize {
        self.happened().await.iter().filter(|(_, what, of)| what == event && of == name).count()
    }

    /// The name of something of this test.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Runs `docker` with these words and returns how it went.
    pub(crate) async fn try_run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.arg("-H").arg(&self.address).args(words).stdin(Stdio::null()).kill_on_drop(true);
        command.output().await.expect("the docker program")
    }

    /// Runs `docker` with these words, which must go well, and returns what it printed.
    pub(crate) async fn run(&self, words: &[&str]) -> String {
        let output = self.try_run(words).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {words:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Creates (`create`) or runs (`run -d`) a container of this test from the test image; `options` stand before
    /// the image and `arguments` after it. Returns its name.
    pub(crate) async fn container(&self, how: &[&str], name: &str, options: &[&str], arguments: &[&str]) -> String {
        self.container_of(IMAGE, how, name, options, arguments).await
    }

    /// As [`Self::container`], from another image.
    pub(crate) async fn container_of(
        &self,
        image: &str,
        how: &[&str],
        name: &str,
        options: &[&str],
        arguments: &[&str],
    ) -> String {
        let (name, label) = (self.name(name), self.label());
        let words = [how, &["--name", &name, "--label", &label], options, &[image], arguments].concat();
        self.run(&words).await;
        name
    }

    /// By which everything of this test is found.
    pub(crate) fn label(&self) -> String {
        format!("{LABEL}={}", self.prefix)
    }

    /// Creates a network of this test and returns its name.
    pub(crate) async fn network(&self, name: &str) -> String {
        let name = self.name(name);
        self.run(&["network", "create", "--label", &self.label(), &name]).await;
        name
    }
}

impl Drop for DockerCli {
    fn drop(&mut self) {
        self.end_record();
        let script = r#"
            docker -H "$1" ps -aq --filter "label=$2" | xargs -r docker -H "$1" rm -fv
            docker -H "$1" images -q --filter "label=$2" | xargs -r docker -H "$1" rmi -f
            docker -H "$1" network ls -q --filter "label=$2" | xargs -r docker -H "$1" network rm"#;
        let label = self.label();
        let removed = std::process::Command::new("sh")
            .args(["-c", script, "sh", &self.address, &label])
            .stdout(Stdio::null())
            .status();
        if !removed.is_ok_and(|status| status.success()) {
            println!("containers with the label {label} may be left on {}", self.address);
        }
    }
}

/// The app as a static program, built once for each run of the tests.
pub(crate) fn app() -> &'static PathBuf {
    static APP: OnceLock<PathBuf> = OnceLock::new();
    APP.get_or_init(|| {
        if let Some(app) = std::env::var_os("DORMOUSE_TEST_APP").map(PathBuf::from) {
            assert!(app.ends_with("app"), "DORMOUSE_TEST_APP names a program `app`");
            return app;
        }
        let app = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("app");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/app/main.rs");
        let built = std::process::Command::new("rustc")
            .args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"])
            .arg(&app)
            .arg(source)
            .status();
        assert!(built.is_ok_and(|status| status.success()), "rustc could not build {source}");
        app
    })
}

/// Every test may be a process of its own: the image is made where the engine has none yet.
fn prepare_image(address: &str) {
    static DONE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !done.insert(address.to_owned()) {
        return;
    }
    let script = r#"
        docker -H "$1" image inspect "$3" 2>/dev/null ||
        tar -C "$2" -c app | docker -H "$1" import --change 'ENTRYPOINT ["/app"]' - "$3""#;
    let directory = app().parent().expect("a directory");
    let imported = std::process::Command::new("sh")
        .args(["-c", script, "sh", address])
        .arg(directory)
        .arg(IMAGE)
        .stdout(Stdio::null())
        .status();
    assert!(imported.is_ok_and(|status| status.success()), "the test image could not be imported");
}

/// The second engine of `tests/engines.sh`, for one test at a time: its daemon is stopped, killed and started.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) cli: DockerCli,
    is_up: bool,
    _turn: fs::File,
}

impl Spare {
    /// Its daemon's address on the network, when it was told to listen there.
    pub(crate) const HOST: &str = "10.231.0.2";

    /// Waits for its turn, and has the daemon running with or without `live-restore`.
    pub(crate) async fn new(live_restore: bool) -> Option<Self> {
        Self::with(if live_restore { &["live-restore"] } else { &[] }).await
    }

    /// Waits for its turn, and has the daemon running; `words` as for the verb `start` of `tests/engines.sh`.
    pub(crate) async fn with(words: &[&str]) -> Option<Self> {
        drop(DockerCli::new()?);
        let variable = |name| std::env::var(name).expect("the second engine of tests/engines.sh");
        let (address, run) = (variable("DORMOUSE_TEST_DOCKER_SPARE"), variable("DORMOUSE_TEST_RUN"));
        let turn = fs::File::create(format!("{run}/spare.turn")).expect("a file");
        let turn = tokio::task::spawn_blocking(move || turn.lock().map(|()| turn)).await;
        let turn = turn.expect("a thread").expect("a lock");
        engine("stop", &[]).await;
        engine("start", words).await;
        Some(Self { cli: DockerCli::at(address), is_up: true, _turn: turn })
    }

    /// Kills the daemon and its containerd on the spot.
    pub(crate) async fn crash(&mut self) {
        self.is_up = false;
        engine("crash", &[]).await;
    }

    /// Ends the daemon in order.
    pub(crate) async fn stop(&mut self) {
        self.is_up = false;
        engine("stop", &[]).await;
    }

    /// Starts the daemon again; `words` may be `live-restore`.
    pub(crate) async fn start(&mut self, words: &[&str]) {
        engine("start", words).await;
        self.is_up = true;
        self.cli.begin_record();
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if !self.is_up {
            let script = std::env::var_os("DORMOUSE_TEST_ENGINES").expect("tests/engines.sh");
            let _ = std::process::Command::new(script).args(["start", "spare"]).status();
        }
    }
}

/// Runs a verb of `tests/engines.sh` on the second engine.
async fn engine(verb: &str, words: &[&str]) {
    let script = std::env::var_os("DORMOUSE_TEST_ENGINES").expect("tests/engines.sh");
    let status = Command::new(script).args([verb, "spare"]).args(words).stdin(Stdio::null()).status().await;
    assert!(status.is_ok_and(|status| status.success()), "tests/engines.sh {verb} spare");
}
