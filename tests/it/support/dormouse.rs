//! The program itself, run as a user runs it, and clients of it.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use super::{
    apps::free_port,
    wait::{LONG, must, until},
};
pub(crate) use super::{
    client::{Reply, field, get, read_reply, request},
    figures::Figures,
    load::{Asked, Load, outcomes},
};

/// A running Dormouse with a configuration, a state directory and a log of its own. Ended in order when dropped.
#[derive(Debug)]
pub(crate) struct Dormouse {
    directory: TempDir,
    program: PathBuf,
    child: Option<Child>,
    environment: Vec<(String, String)>,
    /// It is given the orphans of what it starts, as the first process of a container is.
    adopts: bool,
    /// A program that becomes this one, under the same pid, and its arguments.
    under: Vec<String>,
    /// Where it serves HTTP.
    pub(crate) http: SocketAddr,
    /// Where it serves HTTPS, if it does.
    pub(crate) https: Option<SocketAddr>,
}

impl Dormouse {
    /// Starts the program with this configuration, to which the listening addresses are added, and waits until it
    /// serves.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_in(config, &[]).await
    }

    /// As [`Self::start`], with a bound on its descriptors that it can not raise.
    pub(crate) async fn start_bounded(config: &str, descriptors: u32) -> Self {
        Self::start_under(config, &["prlimit", &format!("--nofile={descriptors}:{descriptors}")]).await
    }

    /// As [`Self::start`], by a program that changes what a process may do, and becomes this one then.
    pub(crate) async fn start_under(config: &str, under: &[&str]) -> Self {
        let mut dormouse = Self::new(&[], None);
        dormouse.under = under.iter().map(|word| (*word).to_owned()).collect();
        dormouse.configure(config);
        dormouse.start_again().await;
        dormouse
    }

    /// As [`Self::start`], as one to whom orphans come.
    pub(crate) async fn start_adopting(config: &str) -> Self {
        let mut dormouse = Self::new(&[], None);
        dormouse.adopts = true;
        dormouse.configure(config);
        dormouse.start_again().await;
        dormouse
    }

    /// As [`Self::start`], from a copy of the program at this path.
    pub(crate) async fn start_as(config: &str, program: &Path) -> Self {
        let mut dormouse = Self::new(&[], None);
        fs::copy(&dormouse.program, program).expect("a copy of the program");
        dormouse.program = program.to_owned();
        dormouse.configure(config);
        dormouse.start_again().await;
        dormouse
    }

    /// As [`Self::start`], with variables of its environment.
    pub(crate) async fn start_in(config: &str, environment: &[(&str, &str)]) -> Self {
        let mut dormouse = Self::new(environment, None);
        dormouse.configure(config);
        dormouse.start_again().await;
        dormouse
    }

    /// As [`Self::start`], with HTTPS too.
    pub(crate) async fn start_secure(config: &str) -> Self {
        let mut dormouse = Self::new(&[], Some(SocketAddr::from(([127, 0, 0, 1], free_port()))));
        dormouse.configure(config);
        dormouse.start_again().await;
        dormouse
    }

    /// As [`Self::start_secure`], with variables of its environment.
    pub(crate) async fn start_secure_in(config: &str, environment: &[(&str, &str)]) -> Self {
        let mut dormouse = Self::new(environment, Some(SocketAddr::from(([127, 0, 0, 1], free_port()))));
        dormouse.configure(config);
        dormouse.start_again().await;
        dormouse
    }

    /// As [`Self::start_secure`], at these addresses.
    pub(crate) async fn start_at(config: &str, http: SocketAddr, https: SocketAddr) -> Self {
        let mut dormouse = Self::new(&[], Some(https));
        dormouse.http = http;
        dormouse.configure(config);
        dormouse.start_again().await;
        dormouse
    }

    fn new(environment: &[(&str, &str)], https: Option<SocketAddr>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // One address for the whole test, also after a restart.
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let program = PathBuf::from(env!("CARGO_BIN_EXE_dormouse"));
        let environment = environment.collect();
        Self { directory, program, child: None, environment, adopts: false, under: Vec::new(), http, https }
    }

    /// Writes the configuration anew, in place. One that runs reads it again by itself.
    pub(crate) fn configure(&self, config: &str) {
        let https = self.https.map(|https| format!("https: \"{https}\", ")).unwrap_or_default();
        let listen = format!("listen: {{ http: \"{}\", {https}api: off }}\n", self.http);
        fs::write(self.directory.path().join("dormouse.yaml"), listen + config).expect("a configuration file");
    }

    /// Starts it with the files of its last life.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        // A child that was just forked holds the listeners of a killed one until it becomes its own program.
        // HTTPS is the last to listen, and the last to be let go.
        let last = self.https.unwrap_or(self.http);
        until("nobody listens", async || TcpStream::connect(last).await.is_err(), |is_free| *is_free).await;
        let log = fs::File::options().create(true).append(true).open(self.log_file()).expect("a log file");
        let program = &self.program;
        let mut command = match self.under.split_first() {
            Some((under, arguments)) => {
                let mut command = Command::new(under);
                command.args(arguments).arg(program.as_os_str());
                command
            }
            None => Command::new(program),
        };
        if self.adopts {
            adopt(&mut command);
        }
        let child = command
            .args(serve(&self.directory.path().join("dormouse.yaml"), &self.state_dir()))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("the program"));
        let mut is_up = async || TcpStream::connect(last).await.is_ok() || !self.is_running();
        until("it listens", &mut is_up, |is_up| *is_up).await;
        assert!(self.is_running(), "it ended at once:\n{}", self.log());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Where its state is kept.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Asks the management interface through its socket.
    pub(crate) async fn api(&self, method: &str, path: &str) -> serde_json::Value {
        self.api_with(method, path, "").await
    }

    /// As [`Self::api`], with a body.
    pub(crate) async fn api_with(&self, method: &str, path: &str, body: &str) -> serde_json::Value {
        let text = self.api_text(method, path, body).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{method} {path}: {error} in {text}"))
    }

    /// The body of an answer of the management interface.
    pub(crate) async fn api_text(&self, method: &str, path: &str, body: &str) -> String {
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let talk = async {
            let socket = self.state_dir().join("dormouse.sock");
            let connect = async || UnixStream::connect(&socket).await;
            let mut stream = until("the management interface", connect, |stream| stream.is_ok()).await?;
            stream.write_all(text.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let answer = must("an answer of the management interface", talk).await.expect("the management interface");
        let text = String::from_utf8_lossy(&answer);
        text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default().to_owned()
    }

    /// The state of a backend on the node `jobs`.
    pub(crate) async fn state(&self, name: &str) -> String {
        let backend = self.api("GET", &format!("/api/v1/backends/jobs/{name}")).await;
        backend["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a backend on the node `jobs` is in this state.
    pub(crate) async fn reaches(&self, name: &str, state: &str) {
        until(&format!("{name} is {state}"), async || self.state(name).await, |now| now == state).await;
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// All that it has logged, over all its lives.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Lines of the log about one backend that contain these words.
    pub(crate) fn logged(&self, backend: &str, words: &str) -> Vec<String> {
        let log = self.log();
        let about = format!("/{backend} ");
        let lines = log.lines().filter(|line| line.contains(&about) && line.contains(words));
        lines.map(str::to_owned).collect()
    }

    /// Waits until so many lines about a backend contain these words.
    pub(crate) async fn has_logged(&self, backend: &str, words: &str, times: usize) {
        let what = format!("{times} times {words:?} about {backend}");
        until(&what, async || self.logged(backend, words).len(), |count| *count >= times).await;
    }

    /// Waits until a stream route listens there, without being its client.
    pub(crate) async fn serves_at(&self, front: SocketAddr) {
        let address = format!("address={front}");
        until("an open port", async || self.log().lines().any(|line| line.contains(&address)), |open| *open).await;
    }

    /// Ends it in order and returns how it ended.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        let mut child = self.child.take().expect("it runs");
        let since = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("a child") {
                return status;
            }
            assert!(since.elapsed() < LONG, "it does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// It ended by itself, and its end was seen.
    pub(crate) fn has_ended(&mut self) {
        assert!(!self.is_running(), "it runs");
        self.child = None;
    }

    /// Kills it on the spot.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("a child");
        let status = child.wait().expect("a child");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it had ended before:\n{}", self.log());
    }

    #[allow(unsafe_code, reason = "a signal to our own child")]
    pub(crate) fn signal(&self, signal: libc::c_int) {
        let child = self.child.as_ref().expect("it runs");
        let pid = libc::pid_t::try_from(child.id()).expect("a pid");
        // SAFETY: no memory is involved, and the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "a signal to the program");
    }

    /// Its processor time so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        let pid = self.child.as_ref().expect("it runs").id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        // Fields 14 and 15, user and system time in hundredths of a second; the name before them ends with `)`.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// What the management interface tells about a container.
    pub(crate) async fn container(&self, name: &str) -> Value {
        self.api("GET", &format!("/api/v1/backends/local/{name}")).await
    }

    /// The state of a container, as `awake`; of one that sleeps, how: `stopped` or `paused`.
    pub(crate) async fn container_state(&self, name: &str) -> String {
        let told = self.container(name).await;
        let word = |key: &str| told.get(key).and_then(Value::as_str);
        word("asleep_as").or_else(|| word("state")).unwrap_or("not known").to_owned()
    }

    /// Waits until a container is in this state, and returns how long that took.
    pub(crate) async fn comes_to(&self, name: &str, wanted: &str) -> Duration {
        let since = Instant::now();
        let what = format!("{name} comes to {wanted}");
        until(&what, async || self.container_state(name).await, |state| state == wanted).await;
        since.elapsed()
    }

    /// A GET on a connection of its own. The host's first label is the name of the container.
    pub(crate) async fn get(&self, name: &str, path: &str) -> Reply {
        self.try_get(name, path).await.unwrap_or_else(|error| panic!("{name}{path}: {error}\n{}", self.log()))
    }

    /// As [`Self::get`], for where a cut connection is no surprise.
    pub(crate) async fn try_get(&self, name: &str, path: &str) -> io::Result<Reply> {
        get(self.http, name, path, "").await
    }

    /// Waits until a route of this name is known, and wakes nothing by asking: a prefetch does not.
    pub(crate) async fn knows(&self, name: &str) {
        let ask = async || get(self.http, name, "/", "Sec-Purpose: prefetch\r\n").await.map(|reply| reply.status);
        let known = |status: &io::Result<u16>| matches!(status, Ok(status) if *status != 404);
        let _ = until(&format!("a route for {name}"), ask, known).await;
    }
}

/// Has orphans come to the program.
#[allow(unsafe_code)]
fn adopt(command: &mut Command) {
    // SAFETY: between fork and exec there is this one system call, which takes no lock and no memory.
    unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_child_subreaper(true)?)) };
}

/// The words with which it serves.
pub(crate) fn serve(config: &Path, state_dir: &Path) -> [PathBuf; 5] {
    ["--state-dir".into(), state_dir.to_owned(), "serve".into(), "--config".into(), config.to_owned()]
}

impl Drop for Dormouse {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal(libc::SIGTERM);
            let since = Instant::now();
            while self.is_running() && since.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            println!("the log of Dormouse:\n{}", self.log());
        }
    }
}
