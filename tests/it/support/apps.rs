//! The test app as plain processes on the node `jobs`, each with a route and a journal of its own.

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

use tempfile::TempDir;

use super::wait::until;

/// The ports of a test: so many for each process of the tests, below those that the kernel gives to clients.
const PORTS: u16 = 450;

/// So many processes may have some at once.
const RANGES: u16 = 40;

/// The first port of a range that this process has to itself as long as it lives: whoever listens on the port that stands
/// for a range has the range.
fn own_range() -> u16 {
    static OWN: OnceLock<(u16, TcpListener)> = OnceLock::new();
    let (first, _) = OWN.get_or_init(|| {
        let start = u16::try_from(std::process::id() % u32::from(RANGES)).unwrap_or(0);
        (0..RANGES)
            .map(|step| (start + step) % RANGES)
            .find_map(|range| Some((12_000 + range * PORTS, TcpListener::bind(("127.0.0.1", 11_800 + range)).ok()?)))
            .expect("a free range of ports")
    });
    *first
}

/// A port that nobody else takes, another for each caller.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = own_range() + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        // An endpoint whose port ends in 443 is taken for one of HTTPS.
        if port % 1000 != 443 && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The test app beside the program.
pub(crate) fn app_program() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_dormouse")).with_file_name("examples").join("app");
    assert!(beside.exists(), "{} is missing: run `cargo build --example app`", beside.display());
    beside
}

/// The directory of an app. Whatever of the app outlives a test that has failed ends with it.
#[derive(Debug)]
struct Directory(TempDir);

impl Drop for Directory {
    fn drop(&mut self) {
        let journal = self.0.path().join("journal");
        for pid in Journal(fs::read_to_string(&journal).unwrap_or_default()).living() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// One app: a backend of its own, reached by its name.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// Where its stream route listens; absent: it has a route of HTTP.
    pub(crate) listen: Option<u16>,
    directory: Arc<Directory>,
    options: Vec<String>,
    idle: String,
    backend: String,
    route: String,
}

impl App {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            port: free_port(),
            listen: None,
            directory: Arc::new(Directory(tempfile::tempdir().expect("a directory"))),
            options: Vec::new(),
            idle: String::new(),
            backend: String::new(),
            route: String::new(),
        }
    }

    /// One that echoes, behind a stream route.
    pub(crate) fn echoing(name: &str, scheme: &str) -> Self {
        let app = Self { listen: Some(free_port()), ..Self::new(name) };
        app.options(&["--echo"]).route(&format!(", scheme: {scheme}"))
    }

    /// Where its stream route listens.
    pub(crate) fn front(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.listen.expect("a stream route")))
    }

    /// Options of the app.
    pub(crate) fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Its idle settings, as the inside of a YAML mapping.
    pub(crate) fn idle(mut self, settings: &str) -> Self {
        self.idle = settings.to_owned();
        self
    }

    /// More keys of its backend, each with a comma before it.
    pub(crate) fn backend(mut self, keys: &str) -> Self {
        self.backend = keys.to_owned();
        self
    }

    /// More keys of its route, each with a comma before it.
    pub(crate) fn route(mut self, keys: &str) -> Self {
        self.route.push_str(keys);
        self
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.0.path().join(file)
    }

    /// What its lives have noted.
    pub(crate) fn journal(&self) -> Journal {
        Journal(fs::read_to_string(self.path("journal")).unwrap_or_default())
    }

    /// Waits until it has been started so often.
    pub(crate) async fn has_started(&self, times: usize) {
        let what = format!("{} starts of {}", times, self.name);
        until(&what, async || self.journal().starts(), |starts| *starts >= times).await;
    }

    /// Runs it at once, as nobody's backend. It ends with the test.
    pub(crate) fn run(&self) -> Child {
        let words: Vec<String> = serde_json::from_str(&self.command()).expect("a list of words");
        Command::new(&words[0]).args(&words[1..]).spawn().expect("the app runs")
    }

    fn command(&self) -> String {
        let (program, port) = (app_program(), self.port.to_string());
        let journal = self.path("journal");
        let mut words = vec![program.display().to_string(), "--port".to_owned(), port];
        words.extend(["--journal".to_owned(), journal.display().to_string()]);
        words.extend(self.options.iter().cloned());
        serde_json::to_string(&words).expect("a list of words")
    }
}

/// A configuration with these apps. No bound on wakes, since all clients of a test have one address.
pub(crate) fn config(apps: &[&App]) -> String {
    let mut text = "nodes: { jobs: process }\nwakes_per_client: 1000000\nroutes:\n".to_owned();
    for App { name, port, listen, route, .. } in apps {
        let listen = listen.map(|listen| format!("{listen}:")).unwrap_or_default();
        let _ = writeln!(text, "  {name}: {{ backend: jobs/{name}, port: \"{listen}{port}\"{route} }}");
    }
    text.push_str("backends:\n");
    for app in apps {
        let App { name, idle, backend, .. } = app;
        let _ = writeln!(text, "  jobs/{name}: {{ command: {}, idle: {{ {idle} }}{backend} }}", app.command());
    }
    text
}

/// What the lives of an app have noted: a line each, `TIME PID WHAT`.
#[derive(Debug)]
pub(crate) struct Journal(String);

impl Journal {
    fn all(&self, what: &str) -> impl Iterator<Item = &str> {
        self.0.lines().filter_map(move |line| line.splitn(3, ' ').nth(2)?.strip_prefix(what))
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> usize {
        self.all("start").count()
    }

    /// How often it was told to end.
    pub(crate) fn ends(&self) -> usize {
        self.all("term ").count()
    }

    /// How often a request arrived whose target contains this.
    pub(crate) fn arrivals(&self, of: &str) -> usize {
        self.all("begin ").filter(|request| request.contains(of)).count()
    }

    /// No request was in hand when it was told to end.
    pub(crate) fn was_never_ended_in_use(&self) {
        let in_use: Vec<_> = self.all("term ").filter(|in_hand| *in_hand != "0").collect();
        assert!(in_use.is_empty(), "ended with requests in hand ({in_use:?}):\n{}", self.0);
    }

    /// When each line with these words was written, in nanoseconds since 1970.
    pub(crate) fn times(&self, words: &str) -> Vec<u128> {
        let lines = self.0.lines().filter(|line| line.splitn(3, ' ').nth(2).is_some_and(|what| what.contains(words)));
        lines.filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
    }

    /// Each life was told to end before the next began: at no time did two run.
    pub(crate) fn had_one_life_at_a_time(&self) {
        let mut told_to_end = true;
        for line in self.0.lines() {
            match line.splitn(3, ' ').nth(2) {
                Some("start") => assert!(std::mem::take(&mut told_to_end), "started while it ran:\n{}", self.0),
                Some(what) if what.starts_with("term ") => told_to_end = true,
                _ => {}
            }
        }
    }

    /// The pids of its lives that go on.
    pub(crate) fn living(&self) -> Vec<i32> {
        let starts = self.0.lines().filter(|line| line.ends_with(" start"));
        starts.filter_map(|line| line.split(' ').nth(1)?.parse().ok()).filter(|pid| lives(*pid)).collect()
    }
}

/// Whether a process is one of our apps and no zombie.
fn lives(pid: i32) -> bool {
    let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.contains("--journal")
}
