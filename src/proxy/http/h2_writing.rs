//! A response as it is written to a connection of HTTP/1.1, sent as a stream of HTTP/2.
//!
//! What is taken is what the other side's windows have room for: nothing piles up. A response that is not written to
//! its end is never shown as whole.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use memchr::memmem;

use super::{
    chunk::ChunkScanner,
    field::{self, Known},
    h2_reading::failure,
    request_head::MAX_FIELDS,
};

/// Bytes that are offered to the windows at once.
const OFFER: usize = 64 * 1024;

/// A response as it is written.
#[derive(Debug)]
pub(super) struct Writing {
    respond: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    /// The answer to a HEAD.
    to_head: bool,
    stage: Stage,
    /// A head that did not come whole.
    begun: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    Head,
    /// So many bytes are to come.
    Length(u64),
    Chunks(ChunkScanner),
    /// After a 101.
    Tunnel,
    Ended,
}

/// A head that was read.
struct Head {
    response: Response<()>,
    length: Option<u64>,
    chunked: bool,
}

impl Writing {
    pub(super) fn new(respond: SendResponse<Bytes>, to_head: bool) -> Self {
        Self { respond, body: None, to_head, stage: Stage::Head, begun: Vec::new() }
    }

    /// Takes what can be taken.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stage {
            Stage::Head => Poll::Ready(self.head(bytes)),
            Stage::Length(left) => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let body = open(&mut self.body)?;
                let count = ready!(poll_room(body, cx, wanted))?.min(wanted);
                *left -= count as u64;
                let ended = *left == 0;
                let data = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
                body.send_data(data, ended).map_err(failure)?;
                if ended {
                    self.stage = Stage::Ended;
                }
                Poll::Ready(Ok(count))
            }
            Stage::Tunnel => {
                let body = open(&mut self.body)?;
                let count = ready!(poll_room(body, cx, bytes.len()))?.min(bytes.len());
                let data = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
                body.send_data(data, false).map_err(failure)?;
                Poll::Ready(Ok(count))
            }
            Stage::Chunks(_) => self.poll_chunks(cx, bytes),
            Stage::Ended => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_chunks(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (Stage::Chunks(scanner), body) = (&mut self.stage, open(&mut self.body)?) else {
            return Poll::Ready(Ok(0));
        };
        // Framing goes through without room: the end of a body needs none.
        let room = match poll_room(body, cx, bytes.len()) {
            Poll::Ready(room) => room?,
            Poll::Pending => 0,
        };
        let (mut data, mut tail) = (bytes.get(..bytes.len().min(OFFER)).unwrap_or_default().to_vec(), Vec::new());
        scanner.make_room(room);
        let scanned = scanner.scan(&mut data, &mut tail).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        if scanned.consumed == 0 {
            return Poll::Pending;
        }
        data.truncate(scanned.produced);
        let trailers = if scanned.done { trailers(&tail)? } else { HeaderMap::new() };
        let ended = scanned.done && trailers.is_empty();
        if ended || !data.is_empty() {
            body.send_data(data.into(), ended).map_err(failure)?;
        }
        if !trailers.is_empty() {
            body.send_trailers(trailers).map_err(failure)?;
        }
        if scanned.done {
            self.stage = Stage::Ended;
        }
        Poll::Ready(Ok(scanned.consumed))
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
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // What it answers was no Upgrade (RFC 8441, 5).
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove("sec-websocket-accept");
            self.stage = Stage::Tunnel;
        } else if status.is_informational() {
            return self.respond.send_informational(response).map_err(failure);
        } else if self.to_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            self.stage = Stage::Ended;
        } else {
            self.stage = match (chunked, length) {
                (true, _) => Stage::Chunks(ChunkScanner::apart()),
                (false, Some(0)) => Stage::Ended,
                (false, Some(length)) => Stage::Length(length),
                (false, None) => return Err(io::ErrorKind::InvalidData.into()),
            };
        }
        let ended = matches!(self.stage, Stage::Ended);
        self.body = Some(self.respond.send_response(response, ended).map_err(failure)?);
        Ok(())
    }

    /// No more is written: the end of a tunnel.
    pub(super) fn shutdown(&mut self) -> io::Result<()> {
        if let (Stage::Tunnel, Some(body)) = (&self.stage, &mut self.body) {
            body.send_data(Bytes::new(), true).map_err(failure)?;
            self.stage = Stage::Ended;
        }
        Ok(())
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
        if !matches!(self.stage, Stage::Ended) {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

fn open(body: &mut Option<SendStream<Bytes>>) -> io::Result<&mut SendStream<Bytes>> {
    body.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// Room in the windows, for up to so many bytes; not none.
fn poll_room(body: &mut SendStream<Bytes>, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
    body.reserve_capacity(wanted.min(OFFER));
    loop {
        match body.capacity() {
            0 => match ready!(body.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(failure(error))),
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            },
            room => return Poll::Ready(Ok(room)),
        }
    }
}

/// Reads a head that we wrote.
fn read(bytes: &[u8]) -> io::Result<Head> {
    let bad = |_| io::Error::from(io::ErrorKind::InvalidData);
    let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS + 16];
    let mut parsed = httparse::Response::new(&mut slots);
    let read = parsed.parse(bytes);
    if !matches!(read, Ok(httparse::Status::Complete(_))) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut head = Head { response: Response::new(()), length: None, chunked: false };
    *head.response.status_mut() = StatusCode::from_u16(parsed.code.unwrap_or(0)).map_err(|_| bad(()))?;
    // One copy for all values.
    let (copy, base) = (Bytes::copy_from_slice(bytes), bytes.as_ptr() as usize);
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
            Known::Hop if is_connections(name) => continue,
            Known::ContentLength => head.length = field::content_length(field.value),
            Known::Host
            | Known::Te
            | Known::Expect
            | Known::Hop
            | Known::Forwarding
            | Known::HopMark
            | Known::Other => {}
        }
        let start = (field.value.as_ptr() as usize).wrapping_sub(base);
        let value = if field.value.is_empty() { Bytes::new() } else { copy.slice(start..start + field.value.len()) };
        let name = HeaderName::from_bytes(name).map_err(|_| bad(()))?;
        fields.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| bad(()))?);
    }
    Ok(head)
}

/// Fields that are about a connection of HTTP/1.1, and make a message of HTTP/2 malformed.
fn is_connections(name: &[u8]) -> bool {
    ["keep-alive", "proxy-connection"].iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
}

/// Reads a trailer section that was checked.
fn trailers(section: &[u8]) -> io::Result<HeaderMap> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(section, &mut slots) else {
        return Err(bad());
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| bad())?;
        trailers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| bad())?);
    }
    Ok(trailers)
}
