//! Whether a client has left, and whether one that takes or sends a body still moves.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use crate::net::{Beneath, Came};

use super::{
    buffer::Buf,
    chunk::ChunkScanner,
    deadline::Deadline,
    front::Client,
    request_head::{Framing, RequestHead},
};

/// Resolves when the client has left.
pub(in crate::proxy) async fn gone(client: Beneath<'_>, incomplete: bool) {
    let mut leaving = Leaving::new(client, incomplete);
    poll_fn(|cx| leaving.poll(cx)).await;
}

/// Resolves when the client has left whose request was not begun to be worked on.
pub(super) async fn left(client: &Client, head: &RequestHead) {
    gone(client.stream.beneath(), is_incomplete(client, head)).await;
}

/// Whether more of the request is still to come from the client.
fn is_incomplete(client: &Client, head: &RequestHead) -> bool {
    lacks(head.framing, client.input.as_ref().map_or(&[][..], Buf::filled))
}

/// Whether a body that begins so does not end there.
fn lacks(framing: Framing, input: &[u8]) -> bool {
    match framing {
        Framing::Length(length) => length > input.len() as u64,
        Framing::Chunked => {
            let read = ChunkScanner::new(false).scan(&mut input.to_vec(), &mut Vec::new());
            !read.is_ok_and(|read| read.done)
        }
        Framing::Empty | Framing::UntilClose => false,
    }
}

/// Watches for a client that leaves: its connection is reset, or ended before the request did (`incomplete`).
/// Half-closing after a whole request is not leaving; a reset after that is.
pub(super) struct Leaving<'a> {
    client: Beneath<'a>,
    incomplete: bool,
    /// What is left to see once something came: a reset.
    reset: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
}

impl<'a> Leaving<'a> {
    pub(super) fn new(client: Beneath<'a>, incomplete: bool) -> Self {
        Self { client, incomplete, reset: None }
    }

    /// Ready when the client has left.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(reset) = &mut self.reset {
            return reset.as_mut().poll(cx);
        }
        let (client, came) = match self.client {
            Beneath::Socket(client) => (client, std::task::ready!(poll_come(client, cx))),
            Beneath::Tls(tls) => (tls.socket(), std::task::ready!(tls.poll_come(cx))),
            Beneath::Within(within) => return within.poll_left(cx),
        };
        match came {
            Ok(Came::Data) => {}
            Ok(Came::End) if !self.incomplete => {}
            Ok(Came::End) | Err(_) => return Poll::Ready(()),
        }
        // It may have gone for good, behind data that nobody reads too: let the kernel find out.
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(5))
            .with_interval(Duration::from_secs(5))
            .with_retries(3);
        let _ = socket2::SockRef::from(client).set_tcp_keepalive(&keepalive);
        let reset = self.reset.insert(Box::pin(async move {
            let _ = client.ready(Interest::ERROR).await;
        }));
        reset.as_mut().poll(cx)
    }
}

/// What came on a socket in clear, without taking it.
fn poll_come(client: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<Came>> {
    loop {
        match std::task::ready!(client.poll_peek(cx, &mut ReadBuf::new(&mut [0]))) {
            Ok(0) => return Poll::Ready(Ok(Came::End)),
            Ok(_) => return Poll::Ready(Ok(Came::Data)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Watches that a body that waits for its client moves at a least rate.
#[derive(Debug, Default)]
pub(super) struct Progress {
    since: Option<u64>,
}

impl Progress {
    /// To be asked whenever nothing moves, with the bytes moved so far.
    pub(super) fn is_too_slow(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut Deadline,
        moved: u64,
        window: Duration,
        minimum: u64,
    ) -> bool {
        let mut since = match self.since {
            Some(since) => since,
            None => {
                timer.set(Instant::now() + window);
                moved
            }
        };
        while timer.poll(cx).is_ready() {
            if moved - since < minimum {
                return true;
            }
            since = moved;
            timer.set(Instant::now() + window);
        }
        self.since = Some(since);
        false
    }

    /// Nothing waits for the client.
    pub(super) fn rest(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_there_or_not_whatever_follows_it() {
        for whole in
            ["0\r\n\r\n", "3\r\nabc\r\n0\r\nX: y\r\n\r\n", "1\r\na\r\n00;x\r\n\r\n", "0\r\n\r\nGET / HTTP/1.1\r\n"]
        {
            assert!(!lacks(Framing::Chunked, whole.as_bytes()), "{whole:?}");
        }
        for part in ["", "0\r\n", "5\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\nX: y\r\n"] {
            assert!(lacks(Framing::Chunked, part.as_bytes()), "{part:?}");
        }
        assert!(lacks(Framing::Length(4), b"abc") && !lacks(Framing::Length(3), b"abcd"));
    }
}
