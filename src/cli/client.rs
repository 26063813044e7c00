//! The client of a running Dormouse: HTTP/1.1 through its Unix socket.

use std::{io::ErrorKind, path::PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::trouble::Trouble;
use crate::api::{self, wire};

/// Where a running Dormouse is reached.
#[derive(Debug)]
pub(super) struct Client {
    state_dir: PathBuf,
}

impl Client {
    pub(super) fn new(state_dir: PathBuf) -> Self {
        Self { state_dir }
    }

    /// Asks.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        read(self.send(Method::GET, path, Vec::new(), None).await?).await
    }

    /// Asks, unless nothing runs there.
    pub(super) async fn get_if_running<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Trouble> {
        if self.connect().await?.is_none() {
            return Ok(None);
        }
        self.get(path).await.map(Some)
    }

    /// Orders.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T, Trouble> {
        read(self.send(Method::POST, path, body, None).await?).await
    }

    /// Orders with a JSON body.
    pub(super) async fn order<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Trouble> {
        self.post(path, serde_json::to_vec(body).map_err(|error| Trouble::Failed(error.to_string()))?).await
    }

    /// Asks for a stream, from after this event on.
    pub(super) async fn stream(&self, path: &str, last: Option<&str>) -> Result<Incoming, Trouble> {
        let response = self.send(Method::GET, path, Vec::new(), last).await?;
        if response.status().is_success() { Ok(response.into_body()) } else { Err(problem(response).await) }
    }

    async fn connect(&self) -> Result<Option<UnixStream>, Trouble> {
        let socket = self.state_dir.join(api::SOCKET);
        match UnixStream::connect(&socket).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(Trouble::Failed(format!("can not connect to `{}`: {error}", socket.display()))),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        last: Option<&str>,
    ) -> Result<Response<Incoming>, Trouble> {
        let stream = self.connect().await?.ok_or_else(|| self.nothing_runs())?;
        let broke = |error: hyper::Error| Trouble::Failed(format!("the connection to Dormouse broke: {error}"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
        // Ends with the response; an error reaches whoever reads it.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| Trouble::Failed(error.to_string()))?;
        sender.send_request(request).await.map_err(broke)
    }

    fn nothing_runs(&self) -> Trouble {
        Trouble::Failed(format!(
            "no Dormouse is running with state directory `{}`: start one with `dormouse serve`, or name its directory \
             with `--state-dir`",
            self.state_dir.display()
        ))
    }
}

/// A name as one or two segments of a path.
pub(super) fn segments(name: &str) -> String {
    name.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// A text as one segment of a path or one value of a query.
pub(super) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

async fn read<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Trouble> {
    if !response.status().is_success() {
        return Err(problem(response).await);
    }
    let body = whole(response).await?;
    serde_json::from_slice(&body).map_err(|error| Trouble::Failed(format!("the answer is not understood: {error}")))
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Trouble> {
    let body = response.into_body().collect().await;
    Ok(body.map_err(|error| Trouble::Failed(format!("the answer broke off: {error}")))?.to_bytes())
}

/// What the answer says went wrong.
async fn problem(response: Response<Incoming>) -> Trouble {
    let status = response.status();
    let body = match whole(response).await {
        Ok(body) => body,
        Err(trouble) => return trouble,
    };
    let Ok(details) = serde_json::from_slice::<wire::ProblemDetails>(&body) else {
        return Trouble::Failed(format!("Dormouse answered with status {status}"));
    };
    let mut text = details.detail;
    if let Some(hint) = details.hint {
        text.push_str("\n  hint: ");
        text.push_str(&hint);
    }
    for problem in &details.problems {
        text.push('\n');
        text.push_str(&super::check::in_words(problem));
    }
    let wrong = matches!(details.code.as_str(), "configuration_refused" | "bad_request");
    if wrong { Trouble::Wrong(text) } else { Trouble::Failed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_segments_of_a_path() {
        assert_eq!(segments("local/My_App.1"), "local/My_App.1");
        assert_eq!(segments("ä b?"), "%C3%A4%20b%3F");
        assert_eq!(segment("a/b"), "a%2Fb");
    }
}
