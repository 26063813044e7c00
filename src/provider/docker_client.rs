//! Requests to a Docker-compatible engine, answered within their deadlines.
//!
//! Requests name no API version: every engine then speaks its newest, and an engine that has dropped old versions
//! is no trouble. What is read from the answers is so little, and read so leniently, that versions do not matter.
//! Each request has its own connection: calls are rare, connecting is cheap, and none can disturb another.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::{ProviderError, deadlines::within, docker_place::Place};

/// No answer may be longer.
const LONGEST_ANSWER: usize = 32 << 20;

/// An engine, asked by HTTP.
#[derive(Debug)]
pub(super) struct Client {
    place: Place,
    /// Under which address the engine's machine was reached last.
    machine: Mutex<IpAddr>,
    /// The version of its API that it told last.
    version: Mutex<Option<Version>>,
}

/// A version of the engine's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u16, pub(super) u16);

/// What it answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    body: Bytes,
}

impl Answer {
    /// The engine's words about what went wrong.
    pub(super) fn words(&self) -> String {
        let message = self.json().and_then(|body| Some(body.get("message")?.as_str()?.trim().to_owned()));
        message.filter(|words| !words.is_empty()).unwrap_or_else(|| format!("status {}", self.status))
    }

    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The objects of an answer that tells of progress, a line each.
    pub(super) fn lines(&self) -> impl Iterator<Item = Value> {
        self.body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
    }
}

impl Client {
    pub(super) fn new(place: Place) -> Self {
        Self { place, machine: Mutex::new(IpAddr::V4(Ipv4Addr::LOCALHOST)), version: Mutex::default() }
    }

    /// Its address.
    pub(super) fn engine(&self) -> String {
        self.place.to_string()
    }

    /// Under which address its machine is reached; loopback for an engine of this machine.
    pub(super) fn machine(&self) -> IpAddr {
        *self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its API is known to be of this version or newer.
    pub(super) fn speaks(&self, wanted: Version) -> bool {
        self.version.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|version| version >= wanted)
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn call(&self, method: Method, path: &str, deadline: Duration) -> Result<Answer, ProviderError> {
        self.send_body(method, path, "application/json", Bytes::new(), deadline).await
    }

    /// As [`Self::call`], with a body.
    pub(super) async fn send_body(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Answer, ProviderError> {
        within(&self.engine(), deadline, async {
            let answer = self.send(method, path, kind, body).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
            let body = body.map_err(|source| ProviderError::Away { engine: self.engine(), source })?;
            Ok(Answer { status, body: body.to_bytes() })
        })
        .await
    }

    /// Asks, and returns the answer's body as it comes. The deadline is for the head.
    pub(super) async fn stream(&self, path: &str, deadline: Duration) -> Result<Incoming, ProviderError> {
        let answer = self.send(Method::GET, path, "application/json", Bytes::new());
        let answer = within(&self.engine(), deadline, answer).await?;
        if answer.status().is_success() {
            Ok(answer.into_body())
        } else {
            Err(self.nonsense(&format!("status {} for `{path}`", answer.status())))
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<hyper::Response<Incoming>, ProviderError> {
        let (connection, machine) = self.place.connect().await.map_err(|error| self.away(error))?;
        *self.machine.lock().unwrap_or_else(PoisonError::into_inner) = machine;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await;
        let (mut sender, driver) = handshake.map_err(|error| self.away(error))?;
        tokio::spawn(driver);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "docker")
            .header("User-Agent", concat!("dormouse/", env!("CARGO_PKG_VERSION")))
            .header("Content-Type", kind)
            .body(Full::new(body))
            .map_err(|error| self.away(io::Error::other(error)))?;
        let answer = sender.send_request(request).await.map_err(|error| self.away(error))?;
        let version = answer.headers().get("Api-Version").and_then(|text| Version::parse(text.to_str().ok()?));
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
        Ok(answer)
    }

    pub(super) fn nonsense(&self, reason: &str) -> ProviderError {
        ProviderError::Nonsense { engine: self.engine(), reason: reason.to_owned() }
    }

    fn away(&self, source: impl std::error::Error + Send + Sync + 'static) -> ProviderError {
        ProviderError::Away { engine: self.engine(), source: Box::new(source) }
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// A text as one piece of a path or one value of a query.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
