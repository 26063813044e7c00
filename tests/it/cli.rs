//! The program itself, as a user runs it: processes on a private state directory.

use std::{
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::wait::LONG;

fn dormouse(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    command.current_dir(directory).env_remove("DORMOUSE_LOG").arg("--state-dir").arg("state").args(arguments);
    command
}

fn ran(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    told(dormouse(directory, arguments).output().unwrap())
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn place() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).unwrap();
}

/// A running Dormouse with one process as its backend.
struct Running {
    child: Child,
    directory: TempDir,
}

impl Running {
    fn start() -> Self {
        let directory = place();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "listen:\n  http: 127.0.0.1:0\n  api: off\nnodes:\n  here: process\nbackends:\n  here/nap:\n    \
             command: [sleep, \"1000\"]\n    ready: {{delay: 0s}}\n    idle: {{idle_timeout: 1h}}\nroutes:\n  nap:\n    \
             backend: here/nap\n    port: {}\n",
            port()
        );
        let running = Self::of(directory, &config);
        running.until(&["ps", "--json"], |(code, out, _)| *code == 0 && out.contains("\"asleep\""));
        running
    }

    /// One of this configuration, perhaps before it answers.
    fn of(directory: TempDir, config: &str) -> Self {
        write(directory.path(), "d.yaml", config);
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = dormouse(directory.path(), &["serve", "--config", "d.yaml"]).stderr(log).spawn().unwrap();
        Self { child, directory }
    }

    fn ran(&self, arguments: &[&str]) -> (i32, String, String) {
        ran(self.directory.path(), arguments)
    }

    /// Standard output of a command that succeeds.
    fn good(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.ran(arguments);
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        out
    }

    fn until(&self, arguments: &[&str], wanted: impl Fn(&(i32, String, String)) -> bool) {
        let since = Instant::now();
        loop {
            let told = self.ran(arguments);
            if wanted(&told) {
                return;
            }
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(since.elapsed() < LONG, "{arguments:?}: still {told:?}\n{log}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Ends it in order. Returns what it has logged.
    fn finish(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        self.log()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_file_is_checked_with_places_and_exit_codes() {
    let place = place();
    write(place.path(), "good.yaml", "routes:\n  app:\n    host: 192.0.2.7\n    port: 80\n");
    assert_eq!(ran(place.path(), &["check", "good.yaml"]), (0, "ok\n".to_owned(), String::new()));
    write(place.path(), "bad.yaml", "listen:\n  htp: 80\nroutes:\n  app:\n    host: 192.0.2.7\n    prot: 80\n");
    let (code, out, _) = ran(place.path(), &["check", "bad.yaml"]);
    assert_eq!(code, 2);
    assert!(out.contains("bad.yaml:2:3") && out.contains("did you mean `http`?"), "{out}");
    assert!(out.contains("bad.yaml:6:5"), "all problems at once: {out}");
    let (code, out, _) = ran(place.path(), &["check", "bad.yaml", "--json"]);
    let checked: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &checked["ok"], &checked["problems"][0]["line"]), (2, &Value::Bool(false), &Value::from(2)));
    assert_eq!(ran(place.path(), &["check", "none.yaml"]).0, 2);
    let (code, _, err) = ran(place.path(), &["serve", "--config", "bad.yaml"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("bad.yaml:2:3"), "{err}");
}

#[test]
fn a_taken_port_is_told_with_how_to_find_out_who_has_it() {
    let place = place();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let find = format!("ss -ltnp 'sport = :{}'", taken.port());
    for listen in [format!("{{http: \"{taken}\", api: off}}"), format!("{{http: 127.0.0.1:0, api: \"{taken}\"}}")] {
        write(place.path(), "d.yaml", &format!("listen: {listen}\nnodes: {{here: process}}\n"));
        let (code, _, err) = ran(place.path(), &["serve", "--config", "d.yaml"]);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(&taken.to_string()) && err.contains("in use") && err.contains(&find), "{err}");
        assert!(!err.contains("CAP_NET_BIND_SERVICE"), "no right is missing: {err}");
    }
}

#[test]
fn a_line_of_the_log_says_its_level_once() {
    let place = place();
    let routes = "routes: {a: {host: 127.0.0.1, port: 9, load_balance: {weight: 2}}}";
    let config = format!("listen: {{http: 127.0.0.1:0, api: off}}\nnodes: {{here: process}}\n{routes}\n");
    write(place.path(), "d.yaml", &config);
    let log = std::fs::File::create(place.path().join("log")).unwrap();
    let mut child = dormouse(place.path(), &["serve", "--config", "d.yaml"]).stderr(log).spawn().unwrap();
    let since = Instant::now();
    let told = loop {
        let log = std::fs::read_to_string(place.path().join("log")).unwrap();
        if let Some(line) = log.lines().find(|line| line.contains("load_balance")) {
            break line.to_owned();
        }
        assert!(since.elapsed() < LONG, "{log}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told.contains(" WARN ") && told.contains(": d.yaml:3:") && !told.contains("warning:"), "{told}");
}

#[test]
fn what_needs_nothing_works_anywhere() {
    let place = place();
    let (code, out, _) = ran(place.path(), &["schema"]);
    assert_eq!(code, 0);
    assert!(serde_json::from_str::<Value>(&out).unwrap().is_object());
    assert!(ran(place.path(), &["completions", "bash"]).1.contains("dormouse"));
    assert!(ran(place.path(), &["man"]).1.starts_with(".ie"));
    let (code, page, _) = ran(place.path(), &["man", "pin"]);
    assert!(code == 0 && page.contains("TH dormouse") && page.contains("For so long"), "{page}");
    assert_eq!(ran(place.path(), &["man", "frobnicate"]).0, 2);
    assert_eq!(ran(place.path(), &["frobnicate"]).0, 2);
    assert_eq!(ran(place.path(), &["pin", "app"]).0, 2, "for how long?");
    let (code, _, err) = ran(place.path(), &["ps"]);
    assert_eq!(code, 1);
    assert!(err.contains("no Dormouse is running with state directory `state`"), "{err}");
}

#[test]
fn an_inspected_container_is_explained_without_an_engine() {
    let place = place();
    let object = |name: &str, label: &str| {
        let text = r#"{"Id": "c0ffee", "Name": "/NAME", "Created": "2026-01-01T00:00:00Z",
            "State": {"Status": "exited", "Running": false, "ExitCode": 0},
            "HostConfig": {"NetworkMode": "bridge", "RestartPolicy": {"Name": "no"}},
            "Config": {"Image": "shop:1", "ExposedPorts": {"3000/tcp": {}}, "Labels": {"LABEL": "15m"}},
            "NetworkSettings": {"Ports": {}, "Networks": {"bridge": {"IPAddress": ""}}}}"#;
        text.replace("NAME", name).replace("LABEL", label)
    };
    let inspect = &format!("[{}, {}]", object("app", "dormouse.idle_timeout"), object("bad", "dormouse.aliasses"));
    write(place.path(), "app.json", inspect);
    let (code, out, err) = ran(place.path(), &["explain", "--inspect", "app.json", "--json"]);
    assert_eq!(code, 2, "a mistake is not passed over: {err}");
    let explained: Value = serde_json::from_str(&out).unwrap();
    let app = &explained["containers"][0];
    assert_eq!(app["container"], "local/app");
    assert_eq!(app["policy"]["idle_timeout"], "15m", "{app}");
    assert_eq!((&app["routes"][0]["alias"], &app["routes"][0]["port"]), (&Value::from("app"), &Value::from(3000)));
    let bad = &explained["containers"][1];
    assert_eq!(bad["problems"][0]["label"], "dormouse.aliasses", "{bad}");
    assert_eq!(bad["routes"], Value::Array(Vec::new()), "a label that is not understood refuses the route");
    let mut piped = dormouse(place.path(), &["explain", "--inspect", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(inspect.as_bytes()).unwrap();
    let (code, out, err) = told(piped.wait_with_output().unwrap());
    assert_eq!(code, 2, "{err}");
    assert!(out.starts_with("local/app  shop:1  stopped\n"), "{out}");
    assert!(
        out.contains("\n  refused: it is not reached through Dormouse until the errors below are mended\n"),
        "{out}"
    );
    write(place.path(), "good.json", &object("app", "dormouse.idle_timeout"));
    assert_eq!(ran(place.path(), &["explain", "--inspect", "good.json"]).0, 0);
    write(place.path(), "other.json", &format!("[{}, {{\"Name\": \"/b\"}}]", object("app", "dormouse.idle_timeout")));
    let (code, _, err) = ran(place.path(), &["explain", "--inspect", "other.json"]);
    assert_eq!(code, 2);
    assert!(err.contains("`other.json`: object 2 has no `Id`, `Config`, `State`: it is not in the form of"), "{err}");
    write(place.path(), "broken.json", "{");
    assert_eq!(ran(place.path(), &["explain", "--inspect", "broken.json"]).0, 2);
}

#[test]
fn a_running_one_is_listed_and_ordered() {
    let running = Running::start();
    assert_eq!(running.good(&["wake", "nap"]), "here/nap is awake\n");
    assert_eq!(running.good(&["wake", "here/nap"]), "here/nap was awake\n");
    let table = running.good(&["ps"]);
    assert!(table.starts_with("BACKEND"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("here/nap  awake")), "{table}");
    assert!(!table.contains('\x1b'), "no colours where nobody looks");
    let all: Value = serde_json::from_str(&running.good(&["ps", "--json"])).unwrap();
    assert_eq!(all["backends"][0]["wakes"]["count"], 1);
    assert!(running.good(&["routes"]).contains("http://here/nap:"));
    assert_eq!(running.good(&["pin", "nap", "--for", "2h"]), "here/nap is kept awake\n");
    let (code, _, err) = running.ran(&["sleep", "nap"]);
    assert_eq!((code, err.as_str()), (1, "error: `here/nap`: it is pinned awake; unpin it first\n"));
    assert_eq!(running.ran(&["pin", "nap", "--for", "2"]).0, 2);
    assert_eq!(running.good(&["unpin", "nap"]), "here/nap is no longer pinned\n");
    assert_eq!(running.good(&["sleep", "nap", "--now"]), "here/nap sleeps\n");
    assert_eq!(running.good(&["wake", "--all"]), "here/nap is awake\n");
    assert_eq!(running.good(&["restart", "nap"]), "here/nap is awake again\n");
    let explained = running.good(&["explain", "nap"]);
    assert!(explained.starts_with("here/nap  sleep 1000  awake\n  route nap: "), "{explained}");
    assert!(running.good(&["explain", "here/nap", "--config", "d.yaml"]).starts_with("here/nap  sleep 1000  "));
    let (code, _, err) = running.ran(&["wake", "nop"]);
    assert_eq!(code, 1);
    assert!(err.contains("did you mean `here/nap`?"), "{err}");
    let events = running.good(&["events", "--json"]);
    assert!(events.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].is_u64()));
    assert!(running.good(&["events", "nap"]).contains("here/nap sleeps, stopped in"));
    running.finish();
}

#[test]
fn an_engine_that_is_away_is_told_beside_whatever_is_shown() {
    let directory = place();
    let socket = directory.path().join("no.sock");
    let config = format!(
        "listen: {{ http: \"127.0.0.1:0\", api: off }}\nnodes: {{ far: {{ docker: \"unix://{}\" }} }}\nroutes:\n  d: {{ backend: \
         far/app, port: 80 }}\n",
        socket.display()
    );
    let running = Running::of(directory, &config);
    let why = format!("node far: engine `unix://{}` is away: No such file or directory", socket.display());
    running.until(&["ps"], |(code, out, err)| *code == 0 && out.contains("far/app") && err.contains(&why));
    for shows in ["ps", "routes", "explain"] {
        let (code, out, err) = running.ran(&[shows]);
        assert_eq!((code, err.lines().count()), (0, 1), "{shows}: {out}{err}");
        assert!(err.starts_with(&why) && err.ends_with("; what is shown of it may be out of date\n"), "{shows}: {err}");
        assert!(!out.contains("is away"), "{shows}: {out}");
        let (code, out, err) = running.ran(&[shows, "--json"]);
        assert!(code == 0 && err.is_empty() && serde_json::from_str::<Value>(&out).is_ok(), "{shows}: {out}{err}");
    }
    let checked = running.good(&["check"]);
    assert!(checked.starts_with(&format!("warning: {why}")) && checked.ends_with("\nok\n"), "{checked}");
    let (code, _, err) = running.ran(&["explain", "d"]);
    assert!(code == 1 && err.contains("node `far` can not tell: engine `unix://"), "{err}");
    running.finish();
}

/// Has this done to the file of its state.
fn to_the_state(running: &Running, statement: &'static str) {
    let path = running.directory.path().join("state/state.db");
    let change = async {
        let url = format!("sqlite://{}", path.display());
        let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        sqlx::Connection::close(connection).await.unwrap();
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(change);
}

#[test]
fn a_pin_that_can_not_be_written_down_is_told_as_that_and_is_not_lost_once_it_can_be() {
    let mut running = Running::start();
    running.good(&["wake", "nap"]);
    to_the_state(&running, "ALTER TABLE backend RENAME TO elsewhere");
    let (code, out, err) = running.ran(&["pin", "nap", "--for", "2h"]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(
        err.starts_with("error: `here/nap`: the order holds now, but it could not be written down: ")
            && err.contains("; it is lost when Dormouse ends\n  hint: "),
        "{err}"
    );
    let pinned = |running: &Running| -> Value {
        let all: Value = serde_json::from_str(&running.good(&["ps", "--json"])).unwrap();
        all["backends"][0]["pinned_until"].clone()
    };
    let until = pinned(&running);
    assert!(until.is_string(), "it holds while it runs");
    to_the_state(&running, "ALTER TABLE elsewhere RENAME TO backend");
    let again = running.good(&["pin", "nap", "--until", until.as_str().unwrap()]);
    assert_eq!(again, "here/nap was pinned so already\n");
    // What is acknowledged is there after a kill.
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let log = std::fs::File::create(running.directory.path().join("log")).unwrap();
    running.child = dormouse(running.directory.path(), &["serve", "--config", "d.yaml"]).stderr(log).spawn().unwrap();
    running.until(&["ps", "--json"], |(code, out, _)| *code == 0 && out.contains("here/nap"));
    assert_eq!(pinned(&running), until);
    running.good(&["unpin", "nap"]);
    running.good(&["sleep", "nap", "--now"]);
    running.finish();
}

#[test]
fn a_reload_takes_what_is_right_and_refuses_what_is_not() {
    let running = Running::start();
    let path = running.directory.path();
    let config = std::fs::read_to_string(path.join("d.yaml")).unwrap();
    write(path, "new.yaml", &format!("{config}  more:\n    host: 192.0.2.7\n    port: 80\n"));
    assert!(running.good(&["check", "new.yaml", "--diff"]).starts_with("add route `more`"));
    assert!(!running.good(&["routes"]).contains("more"));
    write(path, "d.yaml", &format!("{config}  more:\n    hots: 192.0.2.7\n"));
    let (code, _, err) = running.ran(&["reload"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("did you mean `host`?"), "{err}");
    assert_eq!(running.ran(&["check"]).0, 2, "the refused reload is remembered");
    write(path, "d.yaml", &std::fs::read_to_string(path.join("new.yaml")).unwrap());
    running.until(&["reload"], |(code, ..)| *code == 0);
    running.until(&["routes"], |(_, out, _)| out.contains("more"));
    running.finish();
}

#[test]
fn settings_that_another_file_changes_are_told_by_their_keys() {
    let running = Running::start();
    let path = running.directory.path();
    let config = std::fs::read_to_string(path.join("d.yaml")).unwrap();
    let more = "max_connections: 500\ntrusted_proxies: [10.9.8.7]\nacme:\n";
    write(path, "new.yaml", &format!("{}{more}", config.replace("http: 127.0.0.1:0", "http: 127.0.0.2:0")));
    let listen = "change setting `listen.http`: only with `dormouse upgrade` (or a new start), the running process can not \
                  change to it\n";
    let added = "add setting `max_connections`\nadd setting `trusted_proxies`\n";
    assert_eq!(running.good(&["check", "new.yaml", "--diff"]), format!("{listen}{added}ok\n"));
    let checked: Value = serde_json::from_str(&running.good(&["check", "new.yaml", "--diff", "--json"])).unwrap();
    assert_eq!(
        (&checked["changes"][0]["what"], &checked["changes"][0]["name"]),
        (&"change_setting".into(), &"listen.http".into())
    );
    assert_eq!(checked["waiting"], serde_json::json!(["listen.http"]));
    assert_eq!(running.good(&["check", "d.yaml", "--diff"]), "ok: nothing would change\n");

    write(path, "d.yaml", &std::fs::read_to_string(path.join("new.yaml")).unwrap());
    // Read by itself or by this: what only a new process heeds is told each time.
    running.until(&["reload"], |(code, out, _)| *code == 0 && out.contains(listen));
    assert_eq!(running.good(&["reload"]), listen, "the others are in force");
    let note = "settings changed: `max_connections`, `trusted_proxies`, settings that only `dormouse upgrade` (or a new start) \
                changes: `listen.http`";
    let (events, log) = (running.good(&["events"]), running.log());
    assert!(events.contains(note) && log.contains(note), "{events}{log}");
    assert!(!log.contains("10.9.8.7"), "no value: {log}");
    assert!(running.good(&["check"]).contains("d.yaml:2:3: `listen.http` was changed, which only a new process heeds"));
    // As it was, there is nothing to tell of.
    write(path, "d.yaml", &config);
    running.until(&["reload"], |(_, out, _)| out == "nothing changed\n");
    assert_eq!(running.good(&["check"]), "ok\n");
    write(path, "d.yaml", &format!("{config}shutdown_timeout: 7s\n"));
    running.until(&["events"], |(_, out, _)| out.contains("settings changed: `shutdown_timeout`"));
    let log = running.finish();
    assert!(log.contains("those in use may finish within 7s"), "{log}");
}

#[test]
fn what_is_no_file_is_told_at_once_as_what_it_is() {
    let running = Running::start();
    let path = running.directory.path();
    let pipe = path.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::create_dir(path.join("folder")).unwrap();
    for (name, what) in [("pipe", "a pipe"), ("folder", "a directory"), ("/dev/zero", "a device")] {
        let told = format!("it is {what}, and not a regular file");
        for arguments in [&["check", name][..], &["check", name, "--diff"], &["serve", "--config", name]] {
            let (code, out, err) = ran(path, arguments);
            assert_ne!(code, 0, "{arguments:?}: {out}{err}");
            assert!(format!("{out}{err}").contains(&told), "{arguments:?}: {out}{err}");
        }
        write(path, "d2.yaml", &format!("include: [{name}]\n"));
        let (code, out, _) = ran(path, &["check", "d2.yaml"]);
        assert!(code == 2 && out.contains("d2.yaml:1:11: ") && out.contains(&told), "{out}");
    }
    let before = std::fs::read_to_string(path.join("d.yaml")).unwrap();
    std::fs::rename(&pipe, path.join("d.yaml")).unwrap();
    let (code, _, err) = running.ran(&["reload"]);
    assert!(code == 2 && err.contains("it is a pipe, and not a regular file"), "{err}");
    let log = running.log();
    let refused = log.lines().find(|line| line.contains("configuration refused")).unwrap_or_else(|| panic!("{log}"));
    assert!(refused.contains(" WARN "), "{refused}");
    std::fs::remove_file(path.join("d.yaml")).unwrap();
    write(path, "d.yaml", &before);
    running.until(&["reload"], |(code, ..)| *code == 0);
    running.finish();
}

#[test]
fn what_a_command_writes_is_checked_like_a_file() {
    let place = place();
    let line = format!("printf 'lisen: {{}}' | {} check /dev/stdin", env!("CARGO_BIN_EXE_dormouse"));
    let (code, out, err) = told(Command::new("sh").args(["-c", &line]).current_dir(place.path()).output().unwrap());
    assert!(code == 2 && out.contains("did you mean `listen`?"), "{out}{err}");
}

#[test]
fn a_reader_that_closes_early_is_no_error() {
    let running = Running::start();
    let mut events =
        dormouse(running.directory.path(), &["events", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(events.stdout.take());
    // The next event is written to a closed pipe.
    running.good(&["wake", "nap"]);
    assert_eq!(events.wait().unwrap().code(), Some(0));
    running.finish();
}
