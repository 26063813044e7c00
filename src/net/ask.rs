//! A question of our own to a service: is it well, is it ready. Of the answer only the status is wanted.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// `GET` or `HEAD`.
    pub method: &'a str,
    /// The host that is asked for.
    pub host: &'a str,
    /// The path, with a leading slash.
    pub path: &'a str,
    /// Who asks.
    pub agent: &'a str,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum NoStatus {
    /// The connection is gone.
    #[error("the connection failed")]
    Cut(#[from] io::Error),
    /// It ended before there was one.
    #[error("it ended the connection without an answer")]
    Silent,
    /// It speaks HTTP/2 to those who came with HTTP/1.1.
    #[error("it speaks HTTP/2 alone")]
    SpeaksHttp2,
    /// It speaks something else.
    #[error("its answer is not HTTP")]
    NotHttp,
    /// HTTP/2 failed.
    #[error("HTTP/2 failed")]
    Http2(#[source] h2::Error),
    /// It can not be asked.
    #[error("the question can not be asked")]
    Question(#[from] http::Error),
}

/// Asks in HTTP/1.1.
pub async fn ask_http1(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    question: Question<'_>,
) -> Result<u16, NoStatus> {
    let Question { method, host, path, agent } = question;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    // Who sends first may not read at all.
    let written = stream.write_all(request.as_bytes()).await;
    let mut line = Vec::with_capacity(64);
    let mut piece = [0; 64];
    // `HTTP/1.1 200`
    while line.len() < 12 {
        let count = match stream.read(&mut piece).await {
            Ok(count) => count,
            Err(_) if is_http2(&line) => 0,
            Err(error) => return Err(error.into()),
        };
        if count == 0 {
            written?;
            return Err(if is_http2(&line) { NoStatus::SpeaksHttp2 } else { NoStatus::Silent });
        }
        line.extend_from_slice(piece.get(..count).unwrap_or_default());
    }
    if is_http2(&line) {
        return Err(NoStatus::SpeaksHttp2);
    }
    let status = line.get(9..12).filter(|_| line.starts_with(b"HTTP/1."));
    let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.ok_or(NoStatus::NotHttp)
}

/// Whether a connection begins with the settings of HTTP/2 (RFC 9113, 3.4).
fn is_http2(bytes: &[u8]) -> bool {
    bytes.get(..9).is_some_and(|frame| frame.get(3..) == Some(&[4, 0, 0, 0, 0, 0]))
}

/// Asks in HTTP/2, in clear and without being told that it is spoken.
pub async fn ask_http2(stream: impl AsyncRead + AsyncWrite + Unpin, question: Question<'_>) -> Result<u16, NoStatus> {
    let Question { method, host, path, agent } = question;
    let (mut requests, connection) = h2::client::handshake(stream).await.map_err(NoStatus::Http2)?;
    let request = http::Request::builder().method(method).uri(format!("http://{host}{path}"));
    let request = request.header("user-agent", agent).body(())?;
    let asking = async {
        let (response, _) = requests.send_request(request, true).map_err(NoStatus::Http2)?;
        Ok(response.await.map_err(NoStatus::Http2)?.status().as_u16())
    };
    tokio::select! {
        biased;
        status = asking => status,
        _ = connection => Err(NoStatus::Silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(answer: &'static [u8]) -> Result<u16, String> {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(answer).await.unwrap();
        far.shutdown().await.unwrap();
        let question = Question { method: "GET", host: "app.test", path: "/up", agent: "test" };
        let (told, _) = tokio::join!(ask_http1(near, question), far.read_u8());
        told.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_status_is_told_or_why_there_is_none() {
        for (answer, expected) in [
            (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], Ok(204)),
            (b"HTTP/1.0 500 No\r\n\r\n", Ok(500)),
            (b"", Err("it ended the connection without an answer")),
            (b"HTTP/1.1 2", Err("it ended the connection without an answer")),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Err("its answer is not HTTP")),
            (b"\0\0\0\x04\0\0\0\0\0", Err("it speaks HTTP/2 alone")),
            (b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x80", Err("it speaks HTTP/2 alone")),
        ] {
            assert_eq!(told(answer).await, expected.map_err(str::to_owned), "{answer:?}");
        }
    }
}
