//! A new process takes over from a running one: nobody is refused or cut, and what is in use is kept.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::support::{
    apps::{App, config},
    docker::DockerCli,
    dormouse::{Dormouse, Load, field, get, outcomes},
    streams::connect,
    tls::{Authority, YEAR},
    wait::{must, until},
};

/// All processes of a Dormouse, the latest last. Killed when dropped.
struct Line {
    dormouse: Dormouse,
    heirs: Vec<u32>,
}

impl Line {
    fn of(dormouse: Dormouse) -> Self {
        Self { dormouse, heirs: Vec::new() }
    }

    async fn order(&self) -> Output {
        let state_dir = self.dormouse.state_dir();
        let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_dormouse"))
            .args(["upgrade", "--json", "--state-dir"])
            .arg(state_dir)
            .output();
        must("the outcome of an upgrade", command).await.unwrap()
    }

    async fn upgrade(&mut self) {
        let output = self.order().await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}{complaint}\n{}", self.dormouse.log());
        let told: serde_json::Value = serde_json::from_str(&said).unwrap();
        self.heirs.push(u32::try_from(told["pid"].as_u64().unwrap()).unwrap());
    }

    /// The complaint about an upgrade that comes to nothing.
    async fn is_not_upgraded(&self) -> String {
        let output = self.order().await;
        assert_eq!(output.status.code(), Some(1), "{output:?}\n{}", self.dormouse.log());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// How many of its processes live.
    fn living(&mut self) -> usize {
        usize::from(self.dormouse.is_running()) + self.heirs.iter().filter(|pid| lives(**pid)).count()
    }

    async fn is_one_process(&mut self) {
        let last = *self.heirs.last().expect("an heir");
        until("one process", async || self.living(), |living| *living == 1).await;
        assert!(lives(last));
    }

    /// Ends the latest, as a person does.
    async fn end(mut self) {
        let last = self.heirs.last().copied().unwrap_or_else(|| self.dormouse.pid());
        kill(pid(last), Signal::SIGTERM).unwrap();
        until("the end", async || self.living(), |living| *living == 0).await;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for heir in self.heirs.iter().filter(|heir| lives(**heir)) {
            let _ = kill(pid(*heir), Signal::SIGKILL);
        }
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

/// Whether it runs, and is no zombie.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}

/// What clients share: whether they end, and how often they were answered.
#[derive(Clone, Default)]
struct Shift {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
}

impl Shift {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    async fn answered(&self) {
        self.answers.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One request after the other on a connection, for as long as it is kept.
async fn keeps_alive(at: SocketAddr, shift: Shift) {
    while shift.goes_on() {
        let mut stream = TcpStream::connect(at).await.expect("nobody is refused");
        let mut kept = true;
        while kept && shift.goes_on() {
            stream.write_all(b"GET /echo HTTP/1.1\r\nHost: steady.test\r\n\r\n").await.expect("a request is taken");
            let mut got = Vec::new();
            let head = loop {
                let count = must("an answer", stream.read_buf(&mut got)).await.expect("an answer");
                assert_ne!(count, 0, "no answer, but {:?}", String::from_utf8_lossy(&got));
                let text = String::from_utf8_lossy(&got).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length: usize = field(head, "content-length").expect("a length").parse().unwrap();
                if body.len() >= length {
                    break head.to_owned();
                }
            };
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            kept = field(&head, "connection") != Some("close");
            shift.answered().await;
        }
    }
}

/// One request after the other through HTTP/2. What the connection takes no more, it is not asked.
async fn speaks_http2(at: SocketAddr, shift: Shift) {
    while shift.goes_on() {
        let stream = TcpStream::connect(at).await.expect("nobody is refused");
        let (client, connection) = h2::client::handshake(stream).await.expect("a handshake");
        let driving = tokio::spawn(connection);
        while shift.goes_on() {
            let Ok(mut ready) = client.clone().ready().await else { break };
            let request = http::Request::get("http://steady.test/echo").body(()).unwrap();
            let Ok((response, _)) = ready.send_request(request, true) else { break };
            let response = match must("an answer", response).await {
                Ok(response) => response,
                // It was not worked on (RFC 9113, 6.8), and is asked again.
                Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => break,
                Err(error) => panic!("a request failed: {error}"),
            };
            assert_eq!(response.status(), 200);
            let mut body = response.into_body();
            while let Some(piece) = must("a body", body.data()).await {
                let piece = piece.expect("a whole body");
                body.flow_control().release_capacity(piece.len()).unwrap();
            }
            shift.answered().await;
        }
        drop(client);
        let _ = driving.await;
    }
}

/// A connection for each request.
async fn comes_anew(at: SocketAddr, name: &'static str, pause: Duration, shift: Shift) {
    while shift.goes_on() {
        let reply = get(at, name, "/", "").await.expect("an answer");
        assert_eq!(reply.status, 200, "{reply:?}");
        shift.answered().await;
        tokio::time::sleep(pause).await;
    }
}

/// One WebSocket for the whole time.
async fn talks(at: SocketAddr, shift: Shift) {
    let stream = TcpStream::connect(at).await.expect("nobody is refused");
    let (mut socket, _) = must("a WebSocket", client_async("ws://steady.test/ws", stream)).await.unwrap();
    while shift.goes_on() {
        let text = Message::text(shift.answers.load(Ordering::SeqCst).to_string());
        socket.send(text.clone()).await.expect("it is not cut");
        assert_eq!(must("an echo", socket.next()).await.expect("it is not cut").expect("an echo"), text);
        shift.answered().await;
    }
}

/// One stream of TCP for the whole time.
async fn streams(mut stream: TcpStream, shift: Shift) {
    while shift.goes_on() {
        let text = format!("{:08}", shift.answers.load(Ordering::SeqCst));
        stream.write_all(text.as_bytes()).await.expect("it is not cut");
        let mut back = [0; 8];
        must("an echo", stream.read_exact(&mut back)).await.expect("it is not cut");
        assert_eq!(back, text.as_bytes());
        shift.answered().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_or_cut_by_three_upgrades() {
    let steady = App::new("steady").idle("idle_timeout: 1h");
    let sleepy = App::new("sleepy").options(&["--delay-listen", "300ms"]).idle("idle_timeout: 300ms");
    let stream = App::echoing("stream", "tcp").idle("idle_timeout: 1h");
    let mut line = Line::of(Dormouse::start(&config(&[&steady, &sleepy, &stream])).await);
    let at = line.dormouse.http;
    let mut clients = JoinSet::new();
    let shift = || Shift::default();
    let shifts: Vec<(&str, Shift)> = ["kept", "kept too", "HTTP/2", "new", "held", "WebSocket", "TCP"]
        .into_iter()
        .map(|kind| (kind, shift()))
        .collect();
    // One after the other has got through before the first upgrade.
    for (kind, shift) in &shifts {
        let shift = shift.clone();
        match *kind {
            "HTTP/2" => clients.spawn(speaks_http2(at, shift)),
            "new" => clients.spawn(comes_anew(at, "steady", Duration::ZERO, shift)),
            "held" => clients.spawn(comes_anew(at, "sleepy", Duration::from_millis(700), shift)),
            "WebSocket" => clients.spawn(talks(at, shift)),
            "TCP" => clients.spawn(streams(connect(stream.front()).await, shift)),
            _ => clients.spawn(keeps_alive(at, shift)),
        };
    }
    for _ in 0..3 {
        line.upgrade().await;
        for (kind, shift) in &shifts {
            let before = shift.answers.load(Ordering::SeqCst);
            let more = async || (shift.answers.load(Ordering::SeqCst), clients.try_join_next());
            let (_, ended) = until(kind, more, |(now, ended)| *now >= before + 3 || ended.is_some()).await;
            assert!(ended.is_none(), "a client failed: {ended:?}");
        }
    }
    // The WebSocket and the stream are still with the first.
    assert!(line.dormouse.is_running());
    for (_, shift) in &shifts {
        shift.over.store(true, Ordering::SeqCst);
    }
    while let Some(ended) = must("the end of the clients", clients.join_next()).await {
        ended.unwrap();
    }
    line.is_one_process().await;
    line.dormouse.reaches("sleepy", "asleep").await;
    for app in [&steady, &sleepy, &stream] {
        app.journal().was_never_ended_in_use();
        app.journal().had_one_life_at_a_time();
    }
    assert_eq!((steady.journal().starts(), stream.journal().starts()), (1, 1));
    assert!(sleepy.journal().starts() >= 3, "it never slept");
    line.end().await;
    for app in [&steady, &sleepy, &stream] {
        assert!(app.journal().living().is_empty(), "{} outlives Dormouse", app.name);
    }
}

#[tokio::test]
async fn with_a_broken_configuration_nothing_changes_and_with_a_good_one_it_is_used() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let other = App::new("other").idle("idle_timeout: 1h");
    let stream = App::echoing("stream", "tcp").idle("idle_timeout: 1h");
    let mut line = Line::of(Dormouse::start(&config(&[&app, &stream])).await);
    assert_eq!(line.dormouse.get("app", "/").await.status, 200);
    drop(connect(stream.front()).await);
    line.dormouse.configure(&(config(&[&app]) + "nonsense: 1\n"));
    let complaint = line.is_not_upgraded().await;
    assert!(complaint.contains("all is as before") && complaint.contains("nonsense"), "{complaint}");
    assert!(line.dormouse.log().contains("not upgraded"), "{}", line.dormouse.log());
    assert_eq!(line.living(), 1);
    assert_eq!(line.dormouse.get("app", "/").await.status, 200);
    assert_eq!(line.dormouse.state("app").await, "awake");
    // An address that the old one can not change to while it runs.
    let moved = crate::support::apps::free_port();
    line.dormouse.http.set_port(moved);
    line.dormouse.configure(&config(&[&app, &other]));
    line.upgrade().await;
    line.is_one_process().await;
    for name in ["app", "other"] {
        assert_eq!(line.dormouse.get(name, "/").await.status, 200);
    }
    // Of what is not wanted any more, nothing is held open.
    let refused = async || TcpStream::connect(stream.front()).await.map(drop).map_err(|error| error.kind());
    let _ = until("a closed port", refused, |answer| *answer == Err(std::io::ErrorKind::ConnectionRefused)).await;
    assert_eq!(app.journal().starts(), 1);
    line.end().await;
}

#[tokio::test]
async fn what_the_old_one_has_in_use_is_not_put_to_sleep_and_falls_idle_after_its_last_request() {
    let idle = Duration::from_secs(2);
    let app = App::new("app").idle("idle_timeout: 2s");
    let mut line = Line::of(Dormouse::start(&config(&[&app])).await);
    assert_eq!(line.dormouse.get("app", "/").await.status, 200);
    let at = line.dormouse.http;
    let slow = tokio::spawn(async move { get(at, "app", "/slow?ms=6000", "").await });
    until("the request", async || app.journal().arrivals("/slow"), |count| *count == 1).await;
    line.upgrade().await;
    let reply = must("the answer", slow).await.unwrap().unwrap();
    let ended = Instant::now();
    assert_eq!((reply.status, reply.body.as_str()), (200, "slow\n"));
    line.is_one_process().await;
    line.dormouse.has_logged("app", "is let down", 1).await;
    assert!(ended.elapsed() >= idle - Duration::from_millis(100), "asleep after {:?}", ended.elapsed());
    line.dormouse.reaches("app", "asleep").await;
    app.journal().was_never_ended_in_use();
    assert_eq!(app.journal().starts(), 1);
    line.end().await;
}

#[tokio::test]
async fn a_request_that_waits_for_a_wake_while_it_is_upgraded_is_answered() {
    let app = App::new("app").options(&["--delay-listen", "2s"]).idle("idle_timeout: 1h");
    let mut line = Line::of(Dormouse::start(&config(&[&app])).await);
    let at = line.dormouse.http;
    let held = tokio::spawn(async move { get(at, "app", "/", "").await });
    app.has_started(1).await;
    line.upgrade().await;
    assert_eq!(must("the answer", held).await.unwrap().unwrap().status, 200);
    line.is_one_process().await;
    assert_eq!(line.dormouse.get("app", "/").await.status, 200);
    assert_eq!(app.journal().starts(), 1);
    line.end().await;
}

fn write_program(path: &Path, text: &str) {
    // As an installer does: the program that runs is not written to.
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_new_process_that_fails_at_any_point_leaves_all_as_it_was() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let short = App::new("short").idle("idle_timeout: 1s");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("dormouse");
    let mut line = Line::of(Dormouse::start_as(&config(&[&app, &short]), &program).await);
    assert_eq!(line.dormouse.get("app", "/").await.status, 200);
    let at = line.dormouse.http;
    let slow = tokio::spawn(async move { get(at, "app", "/slow?ms=3000", "").await });
    until("the request", async || app.journal().arrivals("/slow"), |count| *count == 1).await;
    let cases = [
        ("exit 3", "exit status: 3"),
        // It is told to go on, and has all that it asked for.
        ("printf '\"Ready\"\\n' >&0; read go; exit 7", "exit status: 7"),
        ("printf '\"Taken\"\\n' >&0; read go", "not its turn"),
        ("printf 'nonsense\\n' >&0; read go", "not understood"),
    ];
    for (script, why) in cases {
        write_program(&program, &format!("#!/bin/sh\n{script}\n"));
        let complaint = line.is_not_upgraded().await;
        assert!(complaint.contains("all is as before") && complaint.contains(why), "{script}: {complaint}");
        for name in ["app", "short"] {
            assert_eq!(line.dormouse.get(name, "/").await.status, 200, "{script}");
        }
    }
    fs::remove_file(&program).unwrap();
    let complaint = line.is_not_upgraded().await;
    assert!(complaint.contains("can not be started"), "{complaint}");
    assert_eq!(must("the answer", slow).await.unwrap().unwrap().status, 200);
    // It still decides, and still remembers.
    line.dormouse.reaches("short", "asleep").await;
    fs::copy(env!("CARGO_BIN_EXE_dormouse"), &program).unwrap();
    line.upgrade().await;
    line.is_one_process().await;
    assert_eq!(line.dormouse.state("short").await, "asleep");
    assert_eq!(line.dormouse.get("app", "/").await.status, 200);
    assert_eq!(app.journal().starts(), 1);
    app.journal().was_never_ended_in_use();
    line.end().await;
}

#[tokio::test]
async fn when_the_new_one_ends_the_old_one_has_its_time_and_keeps_what_it_uses() {
    let app = App::new("app").idle("idle_timeout: 1s");
    let mut line = Line::of(Dormouse::start(&config(&[&app])).await);
    assert_eq!(line.dormouse.get("app", "/").await.status, 200);
    let at = line.dormouse.http;
    let slow = tokio::spawn(async move { get(at, "app", "/slow?ms=4000", "").await });
    until("the request", async || app.journal().arrivals("/slow"), |count| *count == 1).await;
    line.upgrade().await;
    line.end().await;
    let reply = must("the answer", slow).await.unwrap().unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, "slow\n"));
    app.journal().was_never_ended_in_use();
    assert!(app.journal().living().is_empty(), "it outlives Dormouse");
}

#[tokio::test]
async fn when_the_new_one_is_killed_what_the_old_one_has_in_use_goes_on() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let mut line = Line::of(Dormouse::start(&config(&[&app])).await);
    assert_eq!(line.dormouse.get("app", "/").await.status, 200);
    let at = line.dormouse.http;
    let slow = tokio::spawn(async move { get(at, "app", "/slow?ms=3000", "").await });
    until("the request", async || app.journal().arrivals("/slow"), |count| *count == 1).await;
    line.upgrade().await;
    kill(pid(line.heirs[0]), Signal::SIGKILL).unwrap();
    assert_eq!(must("the answer", slow).await.unwrap().unwrap().body, "slow\n");
    until("the end", async || line.living(), |living| *living == 0).await;
    // The next one finds what runs.
    line.dormouse.has_ended();
    line.dormouse.start_again().await;
    line.heirs.clear();
    assert_eq!(line.dormouse.get("app", "/").await.status, 200);
    assert_eq!((app.journal().starts(), app.journal().ends()), (1, 0));
}

#[tokio::test]
async fn datagrams_go_on_with_the_new_one_and_pins_and_clocks_are_kept() {
    let app = App::echoing("echo", "udp").idle("idle_timeout: 1h");
    let clock = App::new("clock").idle("idle_timeout: 2m");
    let mut line = Line::of(Dormouse::start(&config(&[&app, &clock])).await);
    assert_eq!(line.dormouse.get("clock", "/").await.status, 200);
    let quiet = Instant::now();
    let pinned = line.dormouse.api_with("POST", "/api/v1/backends/jobs/echo/pin", "{\"for\": \"1h\"}").await;
    assert_eq!(pinned["result"], "done", "{pinned}");
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(app.front()).await.unwrap();
    for number in 0..3 {
        // One may be lost in the moment of the upgrade, as on any way.
        let text = format!("datagram {number}");
        let echoed = async || {
            let _ = socket.send(text.as_bytes()).await;
            let mut room = [0; 100];
            let got = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut room)).await;
            matches!(got, Ok(Ok(count)) if room[..count] == *text.as_bytes())
        };
        until("an echo", echoed, |echoed| *echoed).await;
        line.upgrade().await;
    }
    line.is_one_process().await;
    let told = line.dormouse.api("GET", "/api/v1/backends/jobs/echo").await;
    assert!(told["pinned_until"].is_string(), "{told}");
    let left = line.dormouse.api("GET", "/api/v1/backends/jobs/clock").await["sleeps_in_s"].as_u64().unwrap();
    let gone = quiet.elapsed().as_secs();
    assert!((119..=121).contains(&(left + gone)), "sleeps in {left} s after {gone} s of quiet");
    assert_eq!((app.journal().starts(), clock.journal().starts()), (1, 1));
    line.end().await;
}

#[tokio::test]
async fn clients_of_https_notice_nothing() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let text = format!("{}tls: {{ certificates: [{}] }}\n", config(&[&app]), authority.entry("app"));
    let mut line = Line::of(Dormouse::start_secure(&text).await);
    let https = line.dormouse.https.unwrap();
    let asks = async {
        let mut asked = 0;
        // 50 each through one connection, of HTTP/2 and of HTTP/1.1.
        for version in ["--http2", "--http1.1", "--http2", "--http1.1"] {
            let reply = authority.curl("app.test", https, "/slow?ms=[20-60]", &[version, "--fail"]).await;
            assert!(reply.ok, "{reply:?}");
            asked += reply.body.matches("slow\n").count();
        }
        asked
    };
    let upgrades = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            line.upgrade().await;
        }
    };
    let (asked, ()) = tokio::join!(asks, upgrades);
    assert_eq!(asked, 4 * 41);
    line.is_one_process().await;
    assert_eq!(app.journal().starts(), 1);
    line.end().await;
}

#[tokio::test]
async fn containers_are_neither_started_again_nor_cut() {
    let Some(cli) = DockerCli::new() else { return };
    let awake = cli.sleeper(&["run", "-d"], "awake", &["idle_timeout=20s"], &[]).await;
    let asleep = cli.sleeper(&["create"], "asleep", &["idle_timeout=1s"], &[]).await;
    let mut line = Line::of(Dormouse::start(&cli.config()).await);
    for name in [&awake, &asleep] {
        line.dormouse.knows(name).await;
    }
    let load = Load::begin(&line.dormouse, &awake, "/", 4);
    for _ in 0..3 {
        let at = line.dormouse.http;
        let name = asleep.clone();
        let held = tokio::spawn(async move { get(at, &name, "/slow?ms=2500", "").await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        line.upgrade().await;
        assert_eq!(must("the answer", held).await.unwrap().unwrap().body, "slow\n");
        line.dormouse.comes_to(&asleep, "stopped").await;
    }
    let history = load.end().await;
    assert!(history.iter().all(|asked| asked.outcome() == "200"), "{:?}", outcomes(&history));
    assert_eq!((cli.count(&awake, "start").await, cli.count(&awake, "die").await), (1, 0));
    assert_eq!(cli.count(&asleep, "start").await, 3);
    line.is_one_process().await;
    line.end().await;
}
