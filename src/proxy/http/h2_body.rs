//! A body as it is written to a connection of HTTP/1.1, sent as the data of a stream of HTTP/2.
//!
//! What is taken is what the other side's windows have room for: nothing piles up.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use super::{
    chunk::ChunkScanner,
    h2_fields::{Written, bad},
    h2_reading::failure,
    request_head::MAX_FIELDS,
};

/// Bytes that are offered to the windows at once.
const OFFER: usize = 64 * 1024;

/// What of a body is still to come, and how it is framed.
#[derive(Debug)]
pub(super) enum Sending {
    /// So many bytes are to come.
    Length(u64),
    Chunks(ChunkScanner),
    /// Whatever comes, until no more is written.
    Tunnel,
    Ended,
}

impl Sending {
    /// A body of this length.
    pub(super) fn length(length: u64) -> Self {
        if length == 0 { Self::Ended } else { Self::Length(length) }
    }

    /// A body in chunks.
    pub(super) fn chunks() -> Self {
        Self::Chunks(ChunkScanner::apart())
    }

    /// It was sent to its end.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Takes what can be taken.
    pub(super) fn poll_write(
        &mut self,
        body: &mut SendStream<Bytes>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Length(left) => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let count = ready!(poll_room(body, cx, wanted))?.min(wanted);
                *left -= count as u64;
                let ended = *left == 0;
                let data = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
                body.send_data(data, ended).map_err(failure)?;
                if ended {
                    *self = Self::Ended;
                }
                Poll::Ready(Ok(count))
            }
            Self::Tunnel => {
                let count = ready!(poll_room(body, cx, bytes.len()))?.min(bytes.len());
                let data = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
                body.send_data(data, false).map_err(failure)?;
                Poll::Ready(Ok(count))
            }
            Self::Chunks(_) => self.poll_chunks(body, cx, bytes),
            Self::Ended => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_chunks(
        &mut self,
        body: &mut SendStream<Bytes>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self::Chunks(scanner) = self else { return Poll::Ready(Ok(0)) };
        // Framing goes through without room: the end of a body needs none.
        let room = match poll_room(body, cx, bytes.len()) {
            Poll::Ready(room) => room?,
            Poll::Pending => 0,
        };
        let (mut data, mut tail) = (bytes.get(..bytes.len().min(OFFER)).unwrap_or_default().to_vec(), Vec::new());
        scanner.bound(room as u64);
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
            *self = Self::Ended;
        }
        Poll::Ready(Ok(scanned.consumed))
    }

    /// No more is written: the end of a tunnel.
    pub(super) fn shutdown(&mut self, body: &mut SendStream<Bytes>) -> io::Result<()> {
        if matches!(self, Self::Tunnel) {
            body.send_data(Bytes::new(), true).map_err(failure)?;
            *self = Self::Ended;
        }
        Ok(())
    }
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

/// Reads a trailer section that was checked.
fn trailers(section: &[u8]) -> io::Result<HeaderMap> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(section, &mut slots) else {
        return Err(bad());
    };
    let written = Written::new(section);
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let (name, value) = written.field(field)?;
        trailers.append(name, value);
    }
    Ok(trailers)
}
