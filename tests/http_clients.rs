//! Real clients through the HTTP relay: `curl`, Python's `http.client`, `hyper`, a WebSocket client.
#![allow(clippy::expect_used, clippy::panic)] // a test fails by panicking, its helpers too

#[path = "http/app.rs"]
mod app;
#[path = "http/relay.rs"]
mod relay;

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Output, Stdio},
    time::Duration,
};

use app::{App, LARGE, large, sum};
use futures_util::{SinkExt, StreamExt};
use relay::Relay;
use tempfile::NamedTempFile;
use tokio_tungstenite::tungstenite::Message;

/// How long a client may take. It decides nothing but when a hung test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// The app, the relay before it, and the runtime that the app runs on.
struct World {
    runtime: tokio::runtime::Runtime,
    app: App,
    relay: Relay,
}

impl World {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let app = runtime.block_on(App::start());
        let relay = Relay::start(app.address);
        Self { runtime, app, relay }
    }

    fn url(&self, path: &str) -> String {
        format!("http://app.test:{}{path}", self.relay.address.port())
    }

    /// `curl` with these arguments, with the name of the app leading to the relay.
    fn curl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("curl");
        let port = self.relay.address.port();
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--resolve"]);
        command.arg(format!("app.test:{port}:127.0.0.1")).args(arguments);
        command
    }

    /// What `curl` prints.
    fn curled(&self, arguments: &[&str]) -> Vec<u8> {
        good(self.curl(arguments).output().expect("`curl` is installed"))
    }

    fn curled_text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.curled(arguments)).expect("text")
    }
}

fn good(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn large_file() -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(&large()).expect("room for it");
    file
}

#[test]
fn curl_gets_a_page() {
    let world = World::new();
    let answer = world.curled_text(&["--include", &world.url("/page")]);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nGET /page\n"), "{answer}");
}

#[test]
fn curl_asks_for_the_head_alone() {
    let world = World::new();
    let answer = world.curled_text(&["--head", &world.url("/page")]).to_ascii_lowercase();
    assert!(answer.contains("content-length: 11\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn curl_speaks_http_1_0() {
    let world = World::new();
    assert_eq!(world.curled_text(&["--http1.0", &world.url("/old")]), "GET /old\n");
    // What the app sends in chunks has to arrive without them.
    assert_eq!(sum(&world.curled(&["--http1.0", &world.url("/large/chunked")])), sum(&large()));
}

#[test]
fn curl_asks_for_a_range() {
    let world = World::new();
    let answer = world.curled_text(&["--include", "--range", "0-4", &world.url("/range")]).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 206 ") && answer.contains("content-range: bytes 0-4/10\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n01234"), "{answer}");
}

#[test]
fn curl_keeps_its_connection_for_a_second_page() {
    let world = World::new();
    let written = ["--write-out", "%{num_connects}\n", &world.url("/one"), &world.url("/two")];
    assert_eq!(world.curled_text(&written), "GET /one\n1\nGET /two\n0\n");
}

#[test]
fn curl_follows_an_upload_with_a_page_on_the_same_connection() {
    let world = World::new();
    let (file, sum_url, page_url) = (large_file(), world.url("/sum"), world.url("/page"));
    let data = format!("@{}", file.path().display());
    let count = "%{num_connects}\n";
    let answer = world.curled_text(&[
        "--write-out",
        count,
        "--data-binary",
        &data,
        &sum_url,
        "--next",
        "--silent",
        "--write-out",
        count,
        &page_url,
    ]);
    assert_eq!(answer, format!("{} {LARGE} length\n1\nGET /page\n0\n", sum(&large())));
}

#[test]
fn curl_uploads_8_mib_in_every_way() {
    let world = World::new();
    let (file, url) = (large_file(), world.url("/sum"));
    let path = file.path().display().to_string();
    let data = format!("@{path}");
    let whole = sum(&large());
    for (arguments, framing) in [
        (vec!["--header", "Expect:", "--data-binary", &data], "length"),
        (vec!["--header", "Expect: 100-continue", "--data-binary", &data], "length"),
        (
            vec![
                "--request",
                "POST",
                "--header",
                "Transfer-Encoding: chunked",
                "--header",
                "Expect:",
                "--upload-file",
                &path,
            ],
            "chunked",
        ),
        (
            vec!["--header", "Transfer-Encoding: chunked", "--header", "Expect: 100-continue", "--upload-file", &path],
            "chunked",
        ),
        (vec!["--http1.0", "--data-binary", &data], "length"),
    ] {
        let answer = world.curled_text(&[&arguments[..], &[url.as_str()]].concat());
        assert_eq!(answer, format!("{whole} {LARGE} {framing}\n"), "{arguments:?}");
    }
}

#[test]
fn curl_is_told_to_continue() {
    let world = World::new();
    let arguments = [
        "--verbose",
        "--expect100-timeout",
        "50",
        "--header",
        "Expect: 100-continue",
        "--data",
        "hello",
        &world.url("/sum"),
    ];
    let output = world.curl(&arguments).output().expect("`curl` is installed");
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(talk.contains("< HTTP/1.1 100 Continue"), "{talk}");
    assert_eq!(good(output), format!("{} 5 length\n", sum(b"hello")).into_bytes());
}

#[test]
fn curl_downloads_8_mib_in_every_way() {
    let world = World::new();
    for path in ["/large", "/large/chunked"] {
        assert_eq!(sum(&world.curled(&[&world.url(path)])), sum(&large()), "{path}");
    }
}

#[test]
fn curl_takes_a_download_slowly() {
    let world = World::new();
    // Slower than the app sends, so that the relay has to wait for its client.
    assert_eq!(sum(&world.curled(&["--limit-rate", "16M", &world.url("/large")])), sum(&large()));
}

#[test]
fn a_client_that_leaves_in_mid_download_disturbs_nobody() {
    let world = World::new();
    for path in ["/large", "/large/chunked"] {
        for _ in 0..5 {
            let mut stream = std::net::TcpStream::connect(world.relay.address).expect("the relay listens");
            write!(stream, "GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n").expect("an open connection");
            stream.read_exact(&mut [0; 1000]).expect("the beginning");
            drop(stream);
            assert_eq!(world.curled_text(&[&world.url("/page")]), "GET /page\n");
        }
    }
}

#[test]
fn a_client_that_leaves_in_mid_upload_disturbs_nobody() {
    let world = World::new();
    for head in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        for _ in 0..5 {
            let mut stream = std::net::TcpStream::connect(world.relay.address).expect("the relay listens");
            write!(stream, "POST /sum HTTP/1.1\r\nHost: app.test\r\n{head}\r\n\r\n5\r\nhello")
                .expect("an open connection");
            drop(stream);
            assert_eq!(world.curled_text(&[&world.url("/page")]), "GET /page\n");
        }
    }
}

#[test]
fn an_unknown_host_is_told_so() {
    let world = World::new();
    let port = world.relay.address.port();
    let arguments = ["--write-out", "%{http_code}", "--output", "/dev/null", "--header", "Host: other.test"];
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(world.curled_text(&[&arguments[..], &[url.as_str()]].concat()), "404");
}

#[test]
fn events_arrive_one_by_one() {
    let world = World::new();
    let mut curl = world
        .curl(&["--no-buffer", &world.url("/events")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("`curl` is installed");
    let mut lines = BufReader::new(curl.stdout.take().expect("its output")).lines();
    for event in 0..50 {
        // The next is sent only when this one has been read: one that is kept back anywhere stops everything.
        world.app.events.blocking_send(event.to_string()).expect("the app listens");
        assert_eq!(lines.next().expect("an event").expect("text"), format!("data: {event}"));
        assert_eq!(lines.next().expect("its end").expect("text"), "");
    }
    curl.kill().expect("curl runs");
    curl.wait().expect("curl ends");
}

#[test]
fn python_asks_many_times_on_one_connection() {
    let world = World::new();
    let script = r"
import http.client, sys
connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=60)
host = {'Host': 'app.test'}
def ask(*arguments, **named):
    connection.request(*arguments, **named)
    response = connection.getresponse()
    return response.status, response.read().decode()
ask('GET', '/first', headers=host)
socket = connection.sock
for number in range(100):
    assert ask('GET', f'/{number}', headers=host) == (200, f'GET /{number}\n')
assert ask('HEAD', '/head', headers=host) == (200, '')
assert ask('POST', '/sum', body=b'hello', headers=host)[1].split()[1:] == ['5', 'length']
assert ask('POST', '/sum', body=iter([b'hel', b'lo']), headers={**host, 'Transfer-Encoding': 'chunked'}, encode_chunked=True)[1].split()[1:] == ['5', 'chunked']
assert ask('PUT', '/sum', body=b'', headers=host)[1].split()[1:] == ['0', 'length']
assert ask('OPTIONS', '*', headers=host)[0] == 200
assert ask('GET', '/', headers={'Host': 'other.test'})[0] == 404
assert connection.sock is socket, 'the connection was not kept'
print('done')
";
    let port = world.relay.address.port().to_string();
    let output = Command::new("python3").args(["-c", script, &port]).output().expect("`python3` is installed");
    assert_eq!(good(output), b"done\n");
}

#[test]
fn a_websocket_echoes_small_and_large_messages() {
    let world = World::new();
    let url = world.url("/socket").replacen("http", "ws", 1);
    let address = world.relay.address;
    let talk = async move {
        let stream = tokio::net::TcpStream::connect(address).await.expect("the relay listens");
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("an upgrade");
        for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20, LARGE] {
            let message = Message::binary(large()[..size].to_vec());
            socket.send(message.clone()).await.expect("an open tunnel");
            assert_eq!(socket.next().await.expect("an echo").expect("a message"), message, "{size} bytes");
        }
        // Many in flight, both ways at once.
        let (mut sink, mut source) = socket.split();
        let sending = async {
            for number in 0..2000 {
                sink.send(Message::text(number.to_string())).await.expect("an open tunnel");
            }
            sink
        };
        let reading = async {
            for number in 0..2000 {
                let message = source.next().await.expect("an echo").expect("a message");
                assert_eq!(message, Message::text(number.to_string()));
            }
            source
        };
        let (sink, source) = tokio::join!(sending, reading);
        let mut socket = sink.reunite(source).expect("two halves of one");
        socket.send(Message::Ping(b"ping".as_slice().into())).await.expect("an open tunnel");
        assert_eq!(
            socket.next().await.expect("an answer").expect("a message"),
            Message::Pong(b"ping".as_slice().into())
        );
        socket.close(None).await.expect("an open tunnel");
        while let Some(rest) = socket.next().await {
            assert!(rest.expect("an orderly end").is_close());
        }
    };
    world.runtime.block_on(async { tokio::time::timeout(PATIENCE, talk).await.expect("the tunnel does not hang") });
}

#[test]
fn two_hundred_clients_at_once_each_get_their_own() {
    let world = World::new();
    let address = world.relay.address;
    let client = move |number: usize| async move {
        let stream = tokio::net::TcpStream::connect(address).await.expect("the relay listens");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("a connection");
        tokio::spawn(connection);
        for round in 0..5 {
            let path = format!("/{number}/{round}");
            let request = hyper::Request::builder().uri(&path).header("host", "app.test");
            let request = request.body(http_body_util::Empty::<hyper::body::Bytes>::new()).expect("a request");
            let response = sender.send_request(request).await.expect("an answer");
            let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("its body").to_bytes();
            assert_eq!(body, format!("GET {path}\n"));
        }
    };
    world.runtime.block_on(async {
        let clients: Vec<_> = (0..200).map(|number| tokio::spawn(client(number))).collect();
        for client in clients {
            tokio::time::timeout(PATIENCE, client).await.expect("nobody hangs").expect("nobody fails");
        }
    });
}
