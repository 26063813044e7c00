//! The answer of a service of HTTP/2, as it would come on a connection of HTTP/1.1. What breaks the rules of RFC 9113,
//! section 8, is no answer; everything else is checked by who reads it.

use std::{
    future::Future,
    io::{self, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use h2::client::ResponseFuture;
use http::{HeaderMap, Response, StatusCode, response::Parts};
use tokio::io::ReadBuf;

use super::{
    field::{self, Known},
    h2_reading::{Reading, failure},
    request_head::Framing,
};

/// An answer as it is read.
#[derive(Debug)]
pub(super) struct Answering {
    response: ResponseFuture,
    body: Option<Reading>,
    /// The final head was read from the stream.
    begun: bool,
    /// What came is no answer.
    broken: bool,
    to_head: bool,
    /// What a 200 has to prove that answers a handshake.
    accept: Option<String>,
    /// Heads that wait to be read, and how much of them was read.
    text: Vec<u8>,
    read: usize,
}

/// What was sent is no answer.
#[derive(Debug, thiserror::Error)]
#[error("malformed answer")]
pub(super) struct Malformed;

impl Answering {
    pub(super) fn new(response: ResponseFuture, to_head: bool, accept: Option<String>) -> Self {
        Self { response, body: None, begun: false, broken: false, to_head, accept, text: Vec::new(), read: 0 }
    }

    /// The final head came.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Ready when there is something to read, or an end or a failure to be told of.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.read < self.text.len() {
            return Poll::Ready(Ok(()));
        }
        if let Some(body) = &mut self.body {
            return body.poll_ready(cx);
        }
        if self.broken {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Malformed)));
        }
        self.poll_heads(cx)
    }

    fn poll_heads(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(informational) = ready!(self.response.poll_informational(cx)) {
            let (parts, ()) = informational.map_err(failure)?.into_parts();
            // It never was one (RFC 9113, 8.6).
            if parts.status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(self.is_none()));
            }
            self.write(&parts)?;
            self.text.extend_from_slice(b"\r\n");
            return Poll::Ready(Ok(()));
        }
        let response = ready!(Pin::new(&mut self.response).poll(cx)).map_err(failure)?;
        Poll::Ready(self.begin(response))
    }

    /// Reads as much as there is. Nothing read is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?;
        let rest = self.text.get(self.read..).unwrap_or_default();
        if !rest.is_empty() {
            let count = rest.len().min(out.remaining());
            out.put_slice(rest.get(..count).unwrap_or_default());
            self.read += count;
            if self.read < self.text.len() {
                return Poll::Ready(Ok(()));
            }
            (self.text, self.read) = (Vec::new(), 0);
            // What of the body is there goes along.
            if let Some(body) = self.body.as_mut().filter(|_| out.remaining() > 0)
                && let Poll::Ready(Err(_)) = body.poll_read(cx, out)
            {
                // Told by the next read.
                return Poll::Ready(Ok(()));
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.body {
            Some(body) => body.poll_read(cx, out),
            None => Poll::Ready(Ok(())),
        }
    }

    /// The stream was reset behind the end of the answer: nothing is missing.
    pub(super) fn end_all_the_same(&mut self) {
        if let Some(body) = &mut self.body {
            body.end_all_the_same();
        }
    }

    fn begin(&mut self, response: Response<h2::RecvStream>) -> io::Result<()> {
        let (mut parts, body) = response.into_parts();
        let ended = body.is_end_stream();
        let mut lengths = parts.headers.get_all(http::header::CONTENT_LENGTH).iter();
        let length = match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(length), None) => Some(field::content_length(length.as_bytes()).ok_or_else(|| self.is_none())?),
            (Some(_), Some(_)) => return Err(self.is_none()),
        };
        if self.accept.is_some() && parts.status.is_success() {
            parts.status = StatusCode::SWITCHING_PROTOCOLS;
            parts.headers.remove(http::header::CONTENT_LENGTH);
            self.write(&parts)?;
            let accept = self.accept.take().unwrap_or_default();
            let _ = write!(
                self.text,
                "sec-websocket-accept: {accept}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
            );
            self.body = Some(Reading::new(body, None));
            self.begun = true;
            return Ok(());
        }
        let bodiless = self.to_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        // What may have trailers is told in chunks, which have a place for them.
        let in_chunks = !bodiless && !ended && (length.is_none() || is_grpc(&parts.headers));
        if in_chunks {
            parts.headers.remove(http::header::CONTENT_LENGTH);
        }
        self.write(&parts)?;
        let framing = match (in_chunks, length) {
            _ if bodiless => Framing::Empty,
            (true, _) => {
                self.text.extend_from_slice(b"transfer-encoding: chunked\r\n");
                Framing::Chunked
            }
            (false, Some(length)) => Framing::Length(length),
            (false, None) => {
                self.text.extend_from_slice(b"content-length: 0\r\n");
                Framing::Length(0)
            }
        };
        self.text.extend_from_slice(b"\r\n");
        self.body = Some(Reading::new(body, Some(framing)));
        self.begun = true;
        Ok(())
    }

    /// Writes a status line and fields.
    fn write(&mut self, head: &Parts) -> io::Result<()> {
        (self.text, self.read) = (Vec::with_capacity(512), 0);
        let reason = head.status.canonical_reason().unwrap_or_default();
        let _ = write!(self.text, "HTTP/1.1 {} {reason}\r\n", head.status.as_str());
        for (name, value) in &head.headers {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            let is_connections = match field::classify(name) {
                Known::Connection | Known::TransferEncoding | Known::Upgrade => true,
                Known::Hop => field::is_connections(name),
                Known::Host
                | Known::ContentLength
                | Known::Te
                | Known::Expect
                | Known::Forwarding
                | Known::HopMark
                | Known::Other => false,
            };
            let is_blank = |byte: &u8| matches!(*byte, b' ' | b'\t');
            if is_connections || [value.first(), value.last()].into_iter().flatten().any(is_blank) {
                return Err(self.is_none());
            }
            for part in [name, b": ", value, b"\r\n"] {
                self.text.extend_from_slice(part);
            }
        }
        Ok(())
    }

    /// What came is no answer, however often one looks.
    fn is_none(&mut self) -> io::Error {
        self.broken = true;
        self.text.clear();
        io::Error::new(io::ErrorKind::InvalidData, Malformed)
    }
}

fn is_grpc(fields: &HeaderMap) -> bool {
    fields.get(http::header::CONTENT_TYPE).is_some_and(|kind| field::is_grpc(kind.as_bytes()))
}
