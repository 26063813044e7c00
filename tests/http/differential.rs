//! `hyper` as a second opinion: whatever the relay lets through, `hyper` must read as the same requests, both in the
//! bytes that the client sent and in the bytes that the relay wrote.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    case,
    client::Client,
    echo::{Echo, Seen},
    relay::Relay,
    requests::{self, honest},
};

/// A whole request as a reader understood it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Understood {
    method: String,
    target: String,
    body: Vec<u8>,
}

/// Two readers, a backend and a relay between them.
#[derive(Debug)]
pub(crate) struct Differential {
    echo: Echo,
    relay: Relay,
    runtime: tokio::runtime::Runtime,
    /// Requests that were let through.
    pub(crate) passed: usize,
}

impl Differential {
    /// Starts them.
    pub(crate) fn start() -> Self {
        let echo = Echo::start();
        let relay = Relay::start(echo.address);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { echo, relay, runtime, passed: 0 }
    }

    /// Sends the bytes, ends, and compares what the backend saw with what `hyper` sees.
    pub(crate) fn check(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut client = Client::connect(self.relay.address);
        client.send(bytes);
        client.end();
        client.drain();
        honest(&mut Client::connect(self.relay.address), "/honest/after").map_err(|why| fault(bytes, &why))?;
        let log = self.echo.take();
        if let Some(wrong) = log.wrong.first() {
            return Err(fault(bytes, &format!("the backend was sent nonsense: {wrong}")));
        }
        let passed: Vec<_> = log
            .whole
            .iter()
            .filter(|seen| seen.message.whole && seen.message.head.words()[1] != "/honest/after")
            .collect();
        // `hyper` refuses what an HTTP/1 after 1.1 sends; we read it as 1.1.
        let readings = [self.read(bytes), self.read(&as_11(bytes))];
        let passes: Vec<_> = passed.iter().map(|seen| understood(seen)).collect();
        let in_order = |sent: &Vec<Understood>| {
            let mut sent = sent.iter();
            passes.iter().all(|passed| sent.any(|other| other == passed))
        };
        if !readings.iter().any(in_order) {
            let passed: Vec<_> = passes.iter().map(words).collect();
            return Err(fault(bytes, &format!("passed {}, not all of which hyper sees there", passed.join(", "))));
        }
        for seen in &passed {
            let understood = understood(seen);
            let again = self.read(&seen.raw);
            if again != [understood] {
                return Err(fault(
                    bytes,
                    &format!("wrote {}, which hyper reads as {again:?}", case::escape(&seen.raw)),
                ));
            }
            requests::invariants(seen).map_err(|why| fault(bytes, &why))?;
        }
        self.passed += passed.len();
        Ok(())
    }

    /// The whole requests that `hyper` sees in these bytes.
    fn read(&self, bytes: &[u8]) -> Vec<Understood> {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&requests);
        let service = service_fn(move |request: Request<Incoming>| note(request, Arc::clone(&noted)));
        self.runtime.block_on(async {
            let (mut near, far) = tokio::io::duplex(1 << 20);
            let serving = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(far), service);
            let client = async move {
                let _refused = near.write_all(bytes).await;
                let _refused = near.shutdown().await;
                let mut answers = Vec::new();
                let _refused = near.read_to_end(&mut answers).await;
            };
            let both = async { tokio::join!(serving, client) };
            tokio::time::timeout(Duration::from_secs(30), both).await.expect("hyper ends when its input does").0.ok();
        });
        let requests = requests.lock().expect("the requests");
        requests.clone()
    }
}

async fn note(
    request: Request<Incoming>,
    noted: Arc<Mutex<Vec<Understood>>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let method = request.method().to_string();
    let target = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    if let Ok(body) = request.into_body().collect().await {
        let body = body.to_bytes().to_vec();
        noted.lock().expect("the requests").push(Understood { method, target, body });
    }
    Ok(Response::new(Empty::new()))
}

/// The same bytes with every line that ends in a newer version of HTTP/1 ending in 1.1.
fn as_11(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 9..bytes.len() {
        if bytes[at] == b'\r' && bytes[..at - 1].ends_with(b" HTTP/1.") && matches!(bytes[at - 1], b'2'..=b'9') {
            bytes[at - 1] = b'1';
        }
    }
    bytes
}

fn understood(seen: &Seen) -> Understood {
    let words = seen.message.head.words();
    Understood { method: words[0].to_owned(), target: words[1].to_owned(), body: seen.message.body.clone() }
}

fn words(request: &Understood) -> String {
    format!("`{} {}` with the body `{}`", request.method, request.target, case::escape(&request.body))
}

fn fault(bytes: &[u8], why: &str) -> String {
    format!("sent: {}\n  {why}", case::escape(bytes))
}
