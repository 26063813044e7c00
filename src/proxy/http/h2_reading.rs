//! The body of a message of HTTP/2, framed for a connection of HTTP/1.1.
//!
//! Trailers with pseudo-header fields are malformed (RFC 9113, 8.1). `h2` decodes such a block to its end, drops those fields
//! and shows the rest, so that they can not be told from others here. It does no harm: where the request goes was decided by
//! its head, nothing of them is ever passed on, and the table of fields stays the one that the other side has.

use std::{
    io::{self, Write as _},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use h2::RecvStream;
use http::HeaderMap;
use tokio::io::ReadBuf;

use super::request_head::Framing;

/// A body as it is read.
#[derive(Debug)]
pub(super) struct Reading {
    body: RecvStream,
    /// Read as chunks, since nobody told the length.
    chunked: bool,
    stage: Stage,
    /// Framing that comes before the data, and how much of it was read.
    ahead: Vec<u8>,
    read: usize,
    data: Bytes,
    /// Framing that comes behind the data.
    behind: &'static [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    Ended,
}

impl Reading {
    pub(super) fn new(body: RecvStream, framing: Option<Framing>) -> Self {
        let chunked = framing == Some(Framing::Chunked);
        Self { body, chunked, stage: Stage::Data, ahead: Vec::new(), read: 0, data: Bytes::new(), behind: b"" }
    }

    /// Ready when there is something to read, or an end or a failure to be told of.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.is_empty() {
            match self.stage {
                Stage::Data => match ready!(self.body.poll_data(cx)) {
                    Some(Ok(data)) => self.take(data),
                    Some(Err(error)) => return Poll::Ready(Err(failure(error))),
                    None if self.chunked => self.stage = Stage::Trailers,
                    None => self.stage = Stage::Ended,
                },
                Stage::Trailers => {
                    let trailers = ready!(self.body.poll_trailers(cx)).map_err(failure)?;
                    self.end(trailers.as_ref());
                }
                Stage::Ended => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads as much as there is. Nothing read is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?;
        loop {
            let ahead = self.ahead.get(self.read..).unwrap_or_default();
            let count = ahead.len().min(out.remaining());
            out.put_slice(ahead.get(..count).unwrap_or_default());
            self.read += count;
            let data = self.data.len().min(out.remaining());
            if data > 0 {
                out.put_slice(self.data.get(..data).unwrap_or_default());
                self.data.advance(data);
                // The other side may send that much more. It fails for a stream that is over.
                let _ = self.body.flow_control().release_capacity(data);
            }
            if self.data.is_empty() && self.read == self.ahead.len() {
                let count = self.behind.len().min(out.remaining());
                let (now, later) = self.behind.split_at(count);
                out.put_slice(now);
                self.behind = later;
            }
            if !self.is_empty() || self.stage == Stage::Ended || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // What failed is told by the next read.
            if !matches!(self.poll_ready(cx), Poll::Ready(Ok(()))) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// It failed behind its end: nothing of it is missing.
    pub(super) fn end_all_the_same(&mut self) {
        match (self.stage, self.chunked) {
            (Stage::Ended, _) => {}
            (Stage::Data | Stage::Trailers, true) => self.end(None),
            (Stage::Data | Stage::Trailers, false) => self.stage = Stage::Ended,
        }
    }

    fn is_empty(&self) -> bool {
        self.read == self.ahead.len() && self.data.is_empty() && self.behind.is_empty()
    }

    fn take(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        (self.read, self.data) = (0, data);
        self.ahead.clear();
        if self.chunked {
            let _ = write!(self.ahead, "{:x}\r\n", self.data.len());
            self.behind = b"\r\n";
        }
    }

    /// The last chunk, with the trailers. They are checked by who reads them.
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.stage = Stage::Ended;
        self.read = 0;
        self.ahead.clear();
        self.ahead.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.into_iter().flatten() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                self.ahead.extend_from_slice(part);
            }
        }
        self.ahead.extend_from_slice(b"\r\n");
    }
}

/// A stream that was reset, or whose connection ended or failed.
pub(super) fn failure(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
