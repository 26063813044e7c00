//! Whether a client has left whose request is not begun to be worked on.

use super::{
    chunk::ChunkScanner,
    front::Client,
    request_head::{Framing, RequestHead},
};
use crate::proxy::carry::{Buf, gone};

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
