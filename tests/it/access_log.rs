//! The access log as it is found on the disk.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::Value;
use socket2::SockRef;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::support::{
    apps::{App, config},
    dormouse::{Dormouse, request},
    streams::{connect, echoed, talk},
    tls::curl,
    wait::{must, until},
};

struct Log {
    folder: TempDir,
}

impl Log {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    /// The configuration of these apps, with this log.
    fn config(&self, apps: &[&App], keys: &str) -> String {
        format!("{}access_log: {{ path: {}, {keys} }}\n", config(apps), self.path().display())
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap_or_default()
    }

    /// The object of the one line that holds these words, when it is there.
    async fn line(&self, words: &str) -> Value {
        let find = async || {
            let text = self.text();
            text.split_inclusive('\n').find(|line| line.ends_with('\n') && line.contains(words)).map(str::to_owned)
        };
        let line = until(&format!("a line with {words:?}"), find, |line| line.is_some()).await.unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

#[tokio::test]
async fn what_a_client_takes_for_its_head_is_no_time_of_the_service() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let log = Log::new();
    let dormouse = Dormouse::start(&log.config(&[&app], "format: json")).await;
    let mut client = TcpStream::connect(dormouse.http).await.unwrap();
    client.write_all(b"GET /slowly HTTP/1.1\r\nHost: app.test\r\n").await.unwrap();
    let pause = Duration::from_secs(1);
    tokio::time::sleep(pause).await;
    client.write_all(b"Connection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let line = log.line("/slowly").await;
    let number = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key}: {line}"));
    assert!(number("took_ms") - number("upstream_ms") >= pause.as_millis() as f64 * 0.9, "{line}");
}

#[tokio::test]
async fn each_request_has_a_line_with_what_it_waited_for() {
    let app = App::new("app").options(&["--delay-listen", "300ms"]).idle("idle_timeout: 1h");
    let quiet = App::new("quiet").idle("idle_timeout: 1h").route(", access_log: off");
    let log = Log::new();
    let keys = "format: json, fields: { headers: keep, cookies: redact }";
    let dormouse = Dormouse::start(&log.config(&[&app, &quiet], keys)).await;
    assert_eq!(dormouse.get("quiet", "/unseen").await.status, 200);
    let text = "POST /echo?token=geheim&a=1 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: 5\r\n\
                Authorization: Basic geheim\r\nCookie: sid=geheim\r\nUser-Agent: \x1b[2Jme\r\n\r\nhello";
    let text = text.replace('\x1b', "\\");
    let reply = request(dormouse.http, &text).await.unwrap();
    assert_eq!(reply.status, 200);
    let line = log.line("/echo").await;
    for (key, expected) in [
        ("method", "POST"),
        ("path", "/echo?token=REDACTED&a=1"),
        ("host", "app.test"),
        ("protocol", "HTTP/1.1"),
        ("client", "127.0.0.1"),
        ("route", "app"),
        ("backend", "jobs/app"),
        ("scheme", "http"),
    ] {
        assert_eq!(line[key], expected, "{key} of {line}");
    }
    assert_eq!((&line["status"], &line["bytes_in"]), (&200.into(), &text.len().into()), "{line}");
    let number = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key} of {line}"));
    assert!(number("wake_ms") >= 300.0 && number("took_ms") >= number("wake_ms"), "{line}");
    assert!(number("upstream_ms") < number("took_ms") && number("bytes_out") > 100.0, "{line}");
    assert_eq!((&line["headers"]["authorization"], &line["cookies"]["sid"]), (&"REDACTED".into(), &"REDACTED".into()));

    // What is no request, and what no route has.
    let reply = request(dormouse.http, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await.unwrap();
    assert_eq!((reply.status, log.line("\"status\":400").await["route"].as_str()), (400, Some("")));
    assert_eq!(request(dormouse.http, "GET /none HTTP/1.0\r\n\r\n").await.unwrap().status, 404);
    assert_eq!(log.line("/none").await["protocol"], "HTTP/1.0");
    let url = format!("http://app.test:{}/second", dormouse.http.port());
    curl(&url, "app.test", dormouse.http, vec!["--http2-prior-knowledge".to_owned()]).await;
    let line = log.line("/second").await;
    assert_eq!((&line["protocol"], &line["wake_ms"]), (&"HTTP/2.0".into(), &0.0.into()), "{line}");
    let all = log.text();
    assert!(!all.contains("geheim") && !all.contains("unseen"), "{all}");
}

#[tokio::test]
async fn the_client_is_the_one_that_a_proxy_in_front_tells_of() {
    let real = "{ real_ip: { header: X-Who, from: 127.0.0.1 } }";
    let app = App::new("app").idle("idle_timeout: 1h").route(&format!(", middlewares: {real}"));
    let log = Log::new();
    let dormouse = Dormouse::start(&log.config(&[&app], "format: json, filters: { cidr: 192.0.2.0/24 }")).await;
    for path in ["/unseen", "/seen"] {
        let who = if path == "/seen" { "X-Who: 192.0.2.7\r\n" } else { "" };
        let text = format!("GET {path} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n{who}\r\n");
        request(dormouse.http, &text).await.unwrap();
    }
    assert_eq!(log.line("/seen").await["client"], "192.0.2.7");
    assert!(!log.text().contains("/unseen"), "{}", log.text());
}

#[tokio::test]
async fn who_leaves_has_499_and_an_upgrade_its_line_at_its_end() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let log = Log::new();
    let dormouse = Dormouse::start(&log.config(&[&app], "format: json")).await;
    let begin = async |text: &str| {
        let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    };
    let stream = begin("GET /slow?ms=20000 HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
    until("it is asked", async || app.journal().arrivals("/slow"), |count| *count == 1).await;
    reset(stream);
    let line = log.line("/slow").await;
    assert_eq!((&line["status"], line.get("upstream_ms")), (&499.into(), None), "{line}");

    let ask = handshake("app");
    let (mut stream, mut answer) = upgrade(&dormouse, &ask).await;
    assert!(!log.text().contains("/ws"), "it goes on");
    // Masked with nothing: a message of one byte, and the end.
    stream.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'x', 0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
    must("the end", stream.read_to_end(&mut answer)).await.unwrap();
    let line = log.line("/ws").await;
    assert_eq!((&line["status"], &line["bytes_in"]), (&101.into(), &(ask.len() + 13).into()), "{line}");
    assert_eq!(line.get("cut"), None, "{line}");
}

#[tokio::test]
async fn a_line_says_who_ended_it_early() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let short = App::new("short").idle("idle_timeout: 1h, stream_idle: 100ms");
    let left = App::echoing("left", "tcp").idle("idle_timeout: 1h");
    let silent = App::echoing("silent", "tcp").idle("idle_timeout: 1h, stream_idle: 100ms");
    let kept = App::echoing("kept", "tcp").idle("idle_timeout: 1h");
    let log = Log::new();
    let config = log.config(&[&app, &short, &left, &silent, &kept], "format: json");
    let mut dormouse = Dormouse::start(&format!("{config}shutdown_timeout: 100ms\n")).await;
    reset(upgrade(&dormouse, &handshake("app")).await.0);
    let (stays_silent, _) = upgrade(&dormouse, &handshake("short")).await;
    let echoing = async |app: &App| {
        let mut stream = connect(app.front()).await;
        stream.write_all(b"x").await.unwrap();
        must("the echo", stream.read_exact(&mut [0])).await.unwrap();
        stream
    };
    reset(echoing(&left).await);
    let (_silent, _kept) = (echoing(&silent).await, echoing(&kept).await);
    for (route, cut) in [("app", "client"), ("short", "idle"), ("left", "client"), ("silent", "idle")] {
        assert_eq!(log.line(&format!("\"route\":\"{route}\"")).await["cut"], cut, "{route}");
    }
    drop(stays_silent);
    let mut download = connect(dormouse.http).await;
    let ask = "GET /download?bytes=10000000&rate=100000 HTTP/1.1\r\nHost: app.test\r\n\r\n";
    download.write_all(ask.as_bytes()).await.unwrap();
    must("its beginning", download.read_exact(&mut [0; 5000])).await.unwrap();
    dormouse.end().await;
    let line = log.line("/download").await;
    assert_eq!((&line["status"], &line["cut"]), (&200.into(), &"shutdown".into()), "{line}");
    assert!(line["bytes_out"].as_u64().is_some_and(|sent| sent >= 5000), "{line}");
    let line = log.line("\"route\":\"kept\"").await;
    assert_eq!((&line["status"], &line["cut"]), (&200.into(), &"shutdown".into()), "{line}");
}

/// A client leaves, and wants nothing any more.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// What asks an app for a WebSocket.
fn handshake(app: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {app}.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A WebSocket, and what came of it.
async fn upgrade(dormouse: &Dormouse, ask: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(dormouse.http).await.unwrap();
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        assert_ne!(must("the handshake", stream.read_buf(&mut answer)).await.unwrap(), 0);
    }
    (stream, answer)
}

#[tokio::test]
async fn streams_have_a_line_at_their_end() {
    let tcp = App::echoing("tcp", "tcp").idle("idle_timeout: 1h");
    let udp = App::echoing("udp", "udp").idle("idle_timeout: 1h, flow_timeout: 300ms");
    let log = Log::new();
    let _dormouse = Dormouse::start(&log.config(&[&tcp, &udp], "format: json")).await;
    assert_eq!(talk(tcp.front(), b"hello").await.unwrap(), echoed(b"hello"));
    let line = log.line("\"TCP\"").await;
    assert_eq!((&line["status"], &line["route"], &line["bytes_in"]), (&200.into(), &"tcp".into(), &5.into()), "{line}");
    assert_eq!((&line["path"], &line["bytes_out"]), (&tcp.front().to_string().into(), &10.into()), "{line}");
    assert!(line["wake_ms"].as_f64() > Some(0.0), "{line}");
    assert_eq!(line["scheme"], "tcp", "{line}");
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(udp.front()).await.unwrap();
    let ask = async || {
        let mut room = [0; 100];
        socket.send(b"hello").await.ok()?;
        tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut room)).await.ok()?.ok()
    };
    until("an answer", ask, |count| *count == Some(5)).await;
    let line = log.line("\"UDP\"").await;
    assert_eq!((&line["status"], &line["route"]), (&200.into(), &"udp".into()), "{line}");
    assert_eq!(line["scheme"], "udp", "{line}");
}

#[tokio::test]
async fn a_full_disk_is_told_and_nobody_waits_for_it() {
    let app = App::new("app").idle("idle_timeout: 1h").route(", access_log: { path: /dev/full }");
    let other = App::new("other").idle("idle_timeout: 1h");
    let log = Log::new();
    let dormouse = Dormouse::start(&log.config(&[&app, &other], "filters: { status_codes: 200-299 }")).await;
    for _ in 0..20 {
        assert_eq!(dormouse.get("app", "/").await.status, 200);
    }
    until("it is told", async || dormouse.log(), |log| log.contains("the access log can not be written")).await;
    assert_eq!(dormouse.get("other", "/echo").await.status, 200);
    assert_eq!(dormouse.get("none", "/filtered").await.status, 404);
    until("another log goes on", async || log.text(), |text| text.contains("\"GET /echo HTTP/1.1\" 200 ")).await;
    assert!(!log.text().contains("/filtered"), "{}", log.text());
    assert_eq!(dormouse.log().matches("can not be written").count(), 1, "{}", dormouse.log());
}

#[tokio::test]
async fn a_log_that_can_not_be_written_is_among_the_problems_until_it_can() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let log = Log::new();
    let folder = log.folder.path().join("logs");
    let keys = format!("access_log: {{ path: {}/access.log }}\n", folder.display());
    let dormouse = Dormouse::start(&format!("{}{keys}", config(&[&app]))).await;
    let told = format!("there is no folder `{}`", folder.display());
    let problems = async || dormouse.api("GET", "/api/v1/problems").await["problems"].clone();
    let is_told = async |severity: &str| {
        let is_it = |problem: &Value| {
            let (what, place) = (problem["what"].as_str().unwrap(), problem["file"].as_str().unwrap_or_default());
            problem["severity"] == severity
                && what.contains(&told)
                && place.ends_with("dormouse.yaml")
                && problem["line"].is_u64()
                && problem["hint"].as_str().unwrap().contains("install -d")
        };
        problems().await.as_array().unwrap().iter().any(is_it)
    };
    // At the start, by a reload, and by a check; nothing is made that nobody asked for.
    assert!(is_told("warning").await, "{}", problems().await);
    let logged = dormouse.log();
    assert!(logged.lines().any(|line| line.contains(" WARN ") && line.contains(&told)), "{logged}");
    let text = format!("{}{keys}", config(&[&app]));
    for answer in
        [dormouse.api("POST", "/api/v1/reload").await, dormouse.api_with("POST", "/api/v1/check", &text).await]
    {
        assert!(answer["problems"].to_string().contains(&told), "{answer}");
    }
    // Who asks is served all the same, and the line is lost.
    assert_eq!(dormouse.get("app", "/lost").await.status, 200);
    until("an error", async || is_told("error").await, |told| *told).await;
    assert!(!folder.exists());
    fs::create_dir(&folder).unwrap();
    assert_eq!(problems().await, Value::Array(Vec::new()));
    assert_eq!(dormouse.get("app", "/kept").await.status, 200);
    let text = async || fs::read_to_string(folder.join("access.log")).unwrap_or_default();
    until("a line", text, |text| text.contains("/kept") && !text.contains("/lost")).await;
    assert_eq!(problems().await, Value::Array(Vec::new()));
}

#[tokio::test]
async fn a_full_disk_is_among_the_problems_until_the_log_goes_elsewhere() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let dormouse = Dormouse::start(&format!("{}access_log: {{ path: /dev/full }}\n", config(&[&app]))).await;
    let problems = async || dormouse.api("GET", "/api/v1/problems").await["problems"].to_string();
    assert_eq!(problems().await, "[]");
    assert_eq!(dormouse.get("app", "/lost").await.status, 200);
    until("the problem", problems, |told| {
        told.contains("lines of the access log are lost: `/dev/full`: No space left")
    })
    .await;
    dormouse.configure(&config(&[&app]));
    until("no problem", problems, |told| told == "[]").await;
}

#[tokio::test]
async fn sigusr1_ends_nothing_and_has_a_file_that_was_moved_away_begun_anew_at_once() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let log = Log::new();
    let mut dormouse = Dormouse::start(&log.config(&[&app], "format: json")).await;
    dormouse.signal(libc::SIGUSR1);
    assert_eq!(dormouse.get("app", "/before").await.status, 200);
    log.line("/before").await;
    let moved = log.folder.path().join("moved");
    fs::rename(log.path(), &moved).unwrap();
    dormouse.signal(libc::SIGUSR1);
    // Not by the next line, as without the signal.
    until("a new file", async || log.path().exists(), |exists| *exists).await;
    assert_eq!(dormouse.get("app", "/after").await.status, 200);
    log.line("/after").await;
    assert!(!fs::read_to_string(&moved).unwrap().contains("/after"));
    assert!(dormouse.is_running() && app.journal().starts() == 1, "{}", dormouse.log());
    assert!(dormouse.end().await.success());
}

#[tokio::test]
async fn files_rotate_and_one_that_was_moved_away_is_begun_anew_and_nothing_is_lost() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let log = Log::new();
    let mut dormouse = Dormouse::start(&log.config(&[&app], "rotate_size: 2 KB, keep: 100")).await;
    for number in 0..60 {
        assert_eq!(dormouse.get("app", &format!("/n{number}")).await.status, 200);
    }
    until("the last line", async || log.text(), |text| text.contains("/n59 ")).await;
    let moved = log.folder.path().join("moved");
    fs::rename(log.path(), &moved).unwrap();
    let ask = async || {
        assert_eq!(dormouse.get("app", "/after").await.status, 200);
        log.text()
    };
    until("a new file", ask, |text| text.contains("/after ")).await;
    // What is under way at the end is written.
    assert_eq!(dormouse.get("app", "/last").await.status, 200);
    assert!(dormouse.end().await.success());
    let files = fs::read_dir(log.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let texts: Vec<_> = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    assert!(texts.len() > 4, "{} files", texts.len());
    let all = texts.concat();
    for word in (0..60).map(|number| format!("/n{number} ")).chain(["/last ".to_owned()]) {
        assert_eq!(all.matches(&word).count(), 1, "{word}");
    }
}
