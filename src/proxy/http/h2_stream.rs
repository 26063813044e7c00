//! A stream of HTTP/2 that reads and writes like a connection of HTTP/1.1: the exchange does not know the difference.
//!
//! What is read is the request's body, framed as its head says (the head itself goes another way); what is written is
//! the response, heads and framing and all.

use std::{
    cell::RefCell,
    io,
    task::{Context, Poll},
};

use h2::{RecvStream, server::SendResponse};
use tokio::io::ReadBuf;

use crate::net::Within;

use super::{h2_reading::Reading, h2_writing::Writing, request_head::RequestHead};

/// One stream, for the one task that works on its request.
#[derive(Debug)]
pub(super) struct H2Stream {
    reading: RefCell<Reading>,
    writing: RefCell<Writing>,
}

impl H2Stream {
    /// The stream of a request with this head; without one it is answered at once.
    pub(super) fn new(head: Option<&RequestHead>, body: RecvStream, respond: SendResponse<bytes::Bytes>) -> Self {
        let framing = head.map(|head| head.framing);
        let to_head = head.is_some_and(RequestHead::is_head);
        Self {
            reading: RefCell::new(Reading::new(body, framing)),
            writing: RefCell::new(Writing::new(respond, to_head)),
        }
    }
}

impl Within for H2Stream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reading.borrow_mut().poll_ready(cx)
    }

    fn poll_read(&self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.reading.borrow_mut().poll_read(cx, out)
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writing.borrow_mut().poll_write(cx, bytes)
    }

    fn poll_shutdown(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.writing.borrow_mut().shutdown())
    }

    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.writing.borrow_mut().poll_left(cx)
    }
}
