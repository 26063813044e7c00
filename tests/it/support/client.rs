//! Plain clients of HTTP/1.1, and what they got.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::wait::LONG;

/// What a client got, and when.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The head as it came, without the status line.
    pub(crate) head: String,
    pub(crate) body: String,
    /// When the request was written.
    pub(crate) sent: SystemTime,
    /// When the first byte of the answer came.
    pub(crate) first_byte: SystemTime,
    pub(crate) took: Duration,
}

/// One GET by a plain client: no browser, so that it is held.
pub(crate) async fn get(at: SocketAddr, name: &str, path: &str, fields: &str) -> io::Result<Reply> {
    request(at, &format!("GET {path} HTTP/1.1\r\nHost: {name}.test\r\nConnection: close\r\n{fields}\r\n")).await
}

/// Writes a whole request and reads the answer until the connection ends.
pub(crate) async fn request(at: SocketAddr, text: &str) -> io::Result<Reply> {
    let talk = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let sent = SystemTime::now();
        stream.write_all(text.as_bytes()).await?;
        read_reply(&mut stream, sent).await
    };
    tokio::time::timeout(LONG, talk).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads an answer until the connection ends.
pub(crate) async fn read_reply(stream: &mut TcpStream, sent: SystemTime) -> io::Result<Reply> {
    let mut bytes = vec![0; 16 << 10];
    let count = stream.read(&mut bytes).await?;
    let first_byte = SystemTime::now();
    bytes.truncate(count);
    stream.read_to_end(&mut bytes).await?;
    let text = String::from_utf8_lossy(&bytes);
    let broken = || io::Error::other(format!("no answer, but {text:?}"));
    let (start, rest) = text.split_once("\r\n").ok_or_else(broken)?;
    let (head, body) = rest.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = start.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    let length = field(head, "content-length").and_then(|length| length.parse::<usize>().ok());
    if length.is_some_and(|length| length != body.len()) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let took = SystemTime::now().duration_since(sent).unwrap_or_default();
    Ok(Reply { status, head: head.to_owned(), body: body.to_owned(), sent, first_byte, took })
}

pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

impl Reply {
    /// A field of its head.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// A number that the app tells about itself: `pid`, or the nanosecond at which it `started` or `listened`.
    pub(crate) fn told(&self, word: &str) -> u128 {
        let words: Vec<_> = self.body.split_whitespace().collect();
        let found = words.windows(2).find(|pair| pair[0] == word).and_then(|pair| pair[1].parse().ok());
        found.unwrap_or_else(|| panic!("no {word:?} in {self:?}"))
    }

    /// From the moment the app listened to the first byte of the answer, in milliseconds.
    pub(crate) fn after_listening(&self) -> f64 {
        let first = self.first_byte.duration_since(UNIX_EPOCH).expect("a time after 1970").as_nanos();
        (first as f64 - self.told("listened") as f64) / 1e6
    }
}
