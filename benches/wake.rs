//! The time from an app's listening to the first byte of the answer that woke it: plain processes, and containers where
//! `DORMOUSE_TEST_DOCKER` names an engine, as in `tests/engines.sh with cargo bench --bench wake`. `--quick` takes fewer rounds.
//!
//! The app tells in its answer when it began to listen, by the same clock that the first byte is stamped with.

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::{
    fs,
    io::{Error, Read, Result, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long after its start the app listens.
const DELAY: &str = "100ms";

/// Nothing takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let rounds = if std::env::args().any(|word| word == "--quick") { 10 } else { 50 };
    let directory = tempfile::tempdir()?;
    let app = directory.path().join("app");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/app/main.rs");
    let rustc = ["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o"];
    run(Command::new("rustc").args(rustc).arg(&app).arg(source))?;
    report("process", &mut processes(directory.path(), &app, rounds)?);
    match std::env::var("DORMOUSE_TEST_DOCKER") {
        Ok(address) => report("docker", &mut containers(directory.path(), &address, rounds)?),
        Err(_) => println!("wake/docker: DORMOUSE_TEST_DOCKER is not set"),
    }
    Ok(())
}

fn report(engine: &str, times: &mut [f64]) {
    times.sort_by(f64::total_cmp);
    let quantile = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    println!(
        "wake/{engine}: first byte after the app listens: median {:.2} ms, p95 {:.2} ms, min {:.2} ms, {} wakes",
        quantile(0.5),
        quantile(0.95),
        quantile(0.0),
        times.len()
    );
}

/// One process, put to sleep by its idle time and woken again.
fn processes(directory: &Path, app: &Path, rounds: usize) -> Result<Vec<f64>> {
    let port = free()?;
    let config = format!(
        "nodes: {{ jobs: process }}\n\
         backends:\n  jobs/app: {{ command: [\"{}\", \"--port\", \"{}\", \"--delay-listen\", \"{DELAY}\"] }}\n\
         routes:\n  app: {{ backend: jobs/app, port: {}, idle: {{ idle_timeout: 100ms, min_uptime: 0s }} }}\n",
        app.display(),
        port.port(),
        port.port(),
    );
    let dormouse = Dormouse::start(&directory.join("process"), &config)?;
    (0..rounds)
        .map(|_| {
            until("the app is asleep", || TcpStream::connect(port).is_err())?;
            dormouse.wake("app")
        })
        .collect()
}

/// A fresh container for each wake.
fn containers(directory: &Path, address: &str, rounds: usize) -> Result<Vec<f64>> {
    let prefix = format!("dormouse-bench-{}", std::process::id());
    let docker = || {
        let mut command = Command::new("docker");
        command.args(["-H", address]).stdout(Stdio::null());
        command
    };
    let image = format!("{prefix}:1");
    let archive = directory.join("app.tar");
    run(Command::new("tar").arg("-C").arg(directory).args(["-c", "-f"]).arg(&archive).arg("app"))?;
    run(docker().args(["import", "--change", "ENTRYPOINT [\"/app\"]"]).arg(&archive).arg(&image))?;
    let config = format!(
        "nodes: {{ local: {{ docker: \"{address}\" }} }}\ndiscover: {{ mode: labelled, prefixes: [{prefix}] }}\n\
         wakes_per_client: 100000\n"
    );
    let dormouse = Dormouse::start(&directory.join("docker"), &config)?;
    let label = format!("{prefix}.idle_timeout=1h");
    let times = (0..rounds)
        .map(|round| {
            let name = format!("{prefix}-{round}");
            let create = ["create", "--name", &name, "--label", &label, "--expose", "80", &image];
            run(docker().args(create).args(["--delay-listen", DELAY]))?;
            let took = dormouse.wake(&name);
            run(docker().args(["rm", "-f", &name]))?;
            took
        })
        .collect();
    drop(dormouse);
    run(docker().args(["rmi", &image]))?;
    times
}

/// The program under measurement; ended when dropped.
struct Dormouse {
    child: Child,
    http: SocketAddr,
}

impl Dormouse {
    fn start(directory: &Path, config: &str) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let (http, file) = (free()?, directory.join("dormouse.yaml"));
        fs::write(&file, format!("listen: {{ http: \"{http}\", api: off }}\n{config}"))?;
        let log = fs::File::create(directory.join("log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        command.arg("serve").arg("--config").arg(&file).arg("--state-dir").arg(directory.join("state"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let dormouse = Self { child: command.spawn()?, http };
        until("Dormouse listens", || TcpStream::connect(http).is_ok())?;
        Ok(dormouse)
    }

    /// Milliseconds from the app's listening to the first byte here. Asks again while the route is not known.
    fn wake(&self, name: &str) -> Result<f64> {
        let begun = Instant::now();
        loop {
            let mut stream = TcpStream::connect(self.http)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(stream, "GET / HTTP/1.1\r\nHost: {name}.test\r\nConnection: close\r\n\r\n")?;
            let mut answer = vec![0];
            stream.read_exact(&mut answer)?;
            let first = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Error::other)?.as_nanos();
            stream.read_to_end(&mut answer)?;
            let answer = String::from_utf8_lossy(&answer);
            if answer.starts_with("HTTP/1.1 404") && begun.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            let listened = answer.split_once("listened ").and_then(|(_, rest)| rest.split_whitespace().next());
            let listened: Option<u128> = listened.and_then(|nanos| nanos.parse().ok());
            let listened = listened.ok_or_else(|| Error::other(format!("not the app's answer:\n{answer}")))?;
            return Ok((first as f64 - listened as f64) / 1e6);
        }
    }
}

impl Drop for Dormouse {
    fn drop(&mut self) {
        // Politely, so that it ends its processes.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn free() -> Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(Error::other(format!("{command:?}: {status}"))) }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > PATIENCE {
            return Err(Error::other(format!("never came: {what}")));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
