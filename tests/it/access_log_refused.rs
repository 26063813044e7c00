//! The lines of requests that come to no service: refused before it is known where they lead, or taken back by their
//! client.

use std::{fs, net::SocketAddr, path::PathBuf};

use h2::{Reason, client::SendRequest};
use http::Request;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    apps::{App, config},
    dormouse::Dormouse,
    frames::{HEADERS, RST_STREAM, WHOLE, frame, get, hello},
    tls::{Authority, YEAR},
    wait::{must, until},
};

struct Log(TempDir);

impl Log {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("access.log")
    }

    fn config(&self, apps: &[&App], format: &str) -> String {
        format!("{}access_log: {{ path: {}, format: {format} }}\n", config(apps), self.path().display())
    }

    /// The lines, when there are so many.
    async fn lines(&self, count: usize) -> Vec<String> {
        let read = async || fs::read_to_string(self.path()).unwrap_or_default();
        let text = until("the lines", read, |text| text.matches('\n').count() >= count).await;
        text.lines().map(str::to_owned).collect()
    }

    async fn objects(&self, count: usize) -> Vec<Value> {
        self.lines(count).await.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What came of this until the connection ended.
async fn say(to: SocketAddr, text: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut came = Vec::new();
    must("the end", stream.read_to_end(&mut came)).await.unwrap();
    came
}

/// Keys of a line, and what they must be.
fn check(line: &Value, expected: &Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&line[key], value, "{key} of {line}");
    }
}

#[tokio::test]
async fn a_refused_request_has_a_line_with_what_could_be_read_of_it() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let authority = Authority::new("an authority of tests");
    authority.issue("app", &["app.test"], YEAR);
    let log = Log::new();
    let config = log.config(&[&app], "json");
    let text = format!("{config}tls: {{ certificates: [{}] }}\ntrusted_proxies: [127.0.0.1]\n", authority.entry("app"));
    let dormouse = Dormouse::start_secure(&text).await;
    let https = dormouse.https.expect("it serves HTTPS");
    let long = "x".repeat(9000);
    let cases = [
        (
            "TRACE /t?token=geheim HTTP/1.1\r\nHost: App.test:80\r\nUser-Agent: me\r\n\r\n".to_owned(),
            json!({
                "status": 405, "method": "TRACE", "path": "/t?token=REDACTED", "host": "app.test", "protocol": "HTTP/1.1",
                "user_agent": "me", "client": "127.0.0.1"
            }),
        ),
        (
            "CONNECT b.test:443 HTTP/1.1\r\nHost: b.test\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n".to_owned(),
            json!({
                "status": 405, "method": "CONNECT", "path": "b.test:443", "host": "b.test", "client": "192.0.2.7"
            }),
        ),
        (
            "GET /twice HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
            json!({
                "status": 400, "method": "GET", "path": "/twice", "host": "", "protocol": "HTTP/1.1"
            }),
        ),
        (
            "GET /none HTTP/1.1\r\nHost: none.test\r\nConnection: close\r\n\r\n".to_owned(),
            json!({
                "status": 404, "method": "GET", "path": "/none", "host": "none.test", "route": ""
            }),
        ),
        (
            format!("GET /long{long} HTTP/1.1\r\nHost: app.test\r\n\r\n"),
            json!({
                "status": 414, "method": "GET", "path": format!("/long{}...", "x".repeat(4096 - 5))
            }),
        ),
        (
            format!("GET /many HTTP/1.1\r\nHost: app.test\r\nX: {}\r\n\r\n", long.repeat(8)),
            json!({
                "status": 431, "method": "GET", "path": "/many", "host": "app.test", "protocol": "HTTP/1.1"
            }),
        ),
        (
            "\x01\x02 / \x03".to_owned() + "\r\n\r\n",
            json!({
                "status": 400, "method": "", "path": "", "host": "", "protocol": ""
            }),
        ),
        (
            "GET /moved HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n".to_owned(),
            json!({
                "status": 308, "method": "GET", "path": "/moved", "host": "app.test", "route": "app"
            }),
        ),
    ];
    for (place, (text, expected)) in cases.iter().enumerate() {
        let came = say(dormouse.http, text).await;
        let line = log.objects(place + 1).await.remove(place);
        check(&line, expected);
        assert_eq!(line["bytes_out"], came.len(), "{line}\n{}", String::from_utf8_lossy(&came));
        assert!(line["bytes_in"].as_u64().is_some_and(|bytes| bytes > 0), "{line}");
    }
    let count = cases.len();
    let came = say(https, "GET /clear HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
    let line = log.objects(count + 1).await.remove(count);
    check(&line, &json!({ "status": 400, "method": "GET", "path": "/clear", "host": "app.test", "scheme": "http" }));
    assert_eq!(line["bytes_out"], came.len(), "{line}");
    assert_eq!(app.journal().starts(), 0);
}

#[tokio::test]
async fn who_does_not_finish_has_a_line_with_what_came() {
    let log = Log::new();
    let dormouse = Dormouse::start(&log.config(&[], "common")).await;
    let came = say(dormouse.http, "GET /unfinished HTTP/1.1\r\nHost: app.test\r\nX: y").await;
    assert!(came.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&came));
    let line = log.lines(1).await.remove(0);
    let expected = format!("\"GET /unfinished HTTP/1.1\" 408 {} host=app.test route=- ", came.len());
    assert!(line.contains(&expected), "{line}");
}

async fn client(to: SocketAddr) -> SendRequest<bytes::Bytes> {
    let stream = TcpStream::connect(to).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn so_has_a_stream_of_http2() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let log = Log::new();
    let dormouse = Dormouse::start(&log.config(&[&app], "json")).await;
    let mut sender = client(dormouse.http).await;
    let request = |method: &str, uri: &str| Request::builder().method(method).uri(uri);
    let long = format!("http://app.test/long{}", "x".repeat(9000));
    let cases = [
        (
            request("TRACE", "http://app.test:81/t").header("user-agent", "me"),
            json!({
                "status": 405, "method": "TRACE", "path": "/t", "host": "app.test", "user_agent": "me"
            }),
        ),
        (
            request("CONNECT", "b.test:443"),
            json!({
                "status": 405, "method": "CONNECT", "path": "b.test:443", "host": "b.test"
            }),
        ),
        (
            request("GET", "http://none.test/none"),
            json!({
                "status": 404, "method": "GET", "path": "/none", "host": "none.test", "route": ""
            }),
        ),
        (request("GET", &long), json!({ "status": 414, "method": "GET", "host": "app.test" })),
        (
            request("GET", "http://app.test/odd").header("host", "b.test"),
            json!({
                "status": 400, "method": "GET", "path": "/odd", "host": ""
            }),
        ),
    ];
    for (place, (request, expected)) in cases.into_iter().enumerate() {
        let (answer, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
        let answer = must("an answer", answer).await;
        let line = log.objects(place + 1).await.remove(place);
        check(&line, &expected);
        assert_eq!(line["protocol"], "HTTP/2.0", "{line}");
        match answer {
            Ok(answer) => {
                assert_eq!(line["status"], answer.status().as_u16(), "{line}");
                assert!(line["bytes_out"].as_u64().is_some_and(|sent| sent > 50), "{line}");
            }
            // What breaks the rules is answered with a reset.
            Err(error) => {
                assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{error}");
                assert_eq!((&line["status"], &line["bytes_out"]), (&400.into(), &0.into()), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_its_client_resets_has_499_or_tells_who_cut_it() {
    let app = App::new("app").idle("idle_timeout: 1h");
    let log = Log::new();
    let dormouse = Dormouse::start(&log.config(&[&app], "json")).await;
    let mut sender = client(dormouse.http).await;
    let mut ask = |path: &str, ended: bool| {
        let request = Request::get(format!("http://app.test{path}")).body(()).unwrap();
        sender.send_request(request, ended).unwrap()
    };
    // Before its answer, and where its body is still to come.
    for (place, (path, ended)) in [("/slow?ms=60000&a", true), ("/slow?ms=60000&b", false)].into_iter().enumerate() {
        let (answer, mut stream) = ask(path, ended);
        until("it is asked", async || app.journal().arrivals("/slow"), |count| *count == place + 1).await;
        stream.send_reset(Reason::CANCEL);
        drop(answer);
        let line = log.objects(place + 1).await.remove(place);
        check(&line, &json!({ "status": 499, "path": path, "route": "app", "protocol": "HTTP/2.0", "bytes_out": 0 }));
    }
    // Within its answer.
    let (answer, mut stream) = ask("/download?bytes=10000000&rate=100000", true);
    let mut body = must("an answer", answer).await.unwrap().into_body();
    must("its beginning", body.data()).await.unwrap().unwrap();
    stream.send_reset(Reason::CANCEL);
    let line = log.objects(3).await.remove(2);
    check(&line, &json!({ "status": 200, "path": "/download?bytes=10000000&rate=100000", "cut": "client" }));
    // With its request, in one piece.
    let mut raw = TcpStream::connect(dormouse.http).await.unwrap();
    let taken_back = [frame(HEADERS, WHOLE, 1, &get("/early")), frame(RST_STREAM, 0, 1, &8u32.to_be_bytes())].concat();
    raw.write_all(&[hello(&[]), taken_back].concat()).await.unwrap();
    let line = log.objects(4).await.remove(3);
    check(&line, &json!({ "status": 499, "method": "GET", "path": "/early", "host": "app.test" }));
}
