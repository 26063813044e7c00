//! A response as it is written to a connection of HTTP/1.1, sent as a stream of HTTP/2. One that is not written to its
//! end is never shown as whole.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};
use http::{Response, StatusCode};
use memchr::memmem;

use super::{
    field::{self, Known},
    h2_body::Sending,
    h2_fields::{Written, bad},
    h2_reading::failure,
    request_head::MAX_FIELDS,
};

/// A response as it is written.
#[derive(Debug)]
pub(super) struct Writing {
    respond: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    /// The answer to a HEAD.
    to_head: bool,
    /// What becomes of the body; absent: its head is to come.
    sending: Option<Sending>,
    /// A head that did not come whole.
    begun: Vec<u8>,
}

/// A head that was read.
struct Head {
    response: Response<()>,
    length: Option<u64>,
    chunked: bool,
}

impl Writing {
    pub(super) fn new(respond: SendResponse<Bytes>, to_head: bool) -> Self {
        Self { respond, body: None, to_head, sending: None, begun: Vec::new() }
    }

    /// Takes what can be taken.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match (&mut self.sending, &mut self.body) {
            (None, _) => Poll::Ready(self.head(bytes)),
            (Some(sending), Some(body)) => sending.poll_write(body, cx, bytes),
            (Some(_), None) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Takes what belongs to a head; says how much that was.
    fn head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.begun.is_empty()
            && let Some(end) = memmem::find(bytes, b"\r\n\r\n")
        {
            return self.respond(bytes.get(..end + 4).unwrap_or_default()).map(|()| end + 4);
        }
        // Byte by byte: heads come whole, all but always.
        for (at, byte) in bytes.iter().enumerate() {
            self.begun.push(*byte);
            if self.begun.ends_with(b"\r\n\r\n") {
                let head = std::mem::take(&mut self.begun);
                return self.respond(&head).map(|()| at + 1);
            }
        }
        Ok(bytes.len())
    }

    fn respond(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Head { mut response, length, chunked } = read(bytes)?;
        let status = response.status();
        let sending = if status == StatusCode::SWITCHING_PROTOCOLS {
            // What it answers was no Upgrade (RFC 8441, 5).
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove("sec-websocket-accept");
            Sending::Tunnel
        } else if status.is_informational() {
            return self.respond.send_informational(response).map_err(failure);
        } else if self.to_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            Sending::Ended
        } else {
            match (chunked, length) {
                (true, _) => Sending::chunks(),
                (false, Some(length)) => Sending::length(length),
                (false, None) => return Err(bad()),
            }
        };
        let ended = sending.is_ended();
        self.sending = Some(sending);
        self.body = Some(self.respond.send_response(response, ended).map_err(failure)?);
        Ok(())
    }

    /// No more is written: the end of a tunnel.
    pub(super) fn shutdown(&mut self) -> io::Result<()> {
        match (&mut self.sending, &mut self.body) {
            (Some(sending), Some(body)) => sending.shutdown(body),
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// Ready when the client has reset the stream, or its connection is gone.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.body {
            Some(body) => body.poll_reset(cx).map(drop),
            None => self.respond.poll_reset(cx).map(drop),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.sending.as_ref().is_some_and(Sending::is_ended) {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// Reads a head that we wrote.
fn read(bytes: &[u8]) -> io::Result<Head> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS + 16];
    let mut parsed = httparse::Response::new(&mut slots);
    if !matches!(parsed.parse(bytes), Ok(httparse::Status::Complete(_))) {
        return Err(bad());
    }
    let mut head = Head { response: Response::new(()), length: None, chunked: false };
    *head.response.status_mut() = StatusCode::from_u16(parsed.code.unwrap_or(0)).map_err(|_| bad())?;
    let written = Written::new(bytes);
    let fields = head.response.headers_mut();
    fields.reserve(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = field.name.as_bytes();
        match field::classify(name) {
            Known::Connection | Known::Upgrade => continue,
            Known::TransferEncoding => {
                head.chunked = true;
                continue;
            }
            Known::Hop if field::is_connections(name) => continue,
            Known::ContentLength => head.length = field::content_length(field.value),
            Known::Host
            | Known::Te
            | Known::Expect
            | Known::Hop
            | Known::Forwarding
            | Known::HopMark
            | Known::Other => {}
        }
        let (name, value) = written.field(field)?;
        fields.append(name, value);
    }
    Ok(head)
}
