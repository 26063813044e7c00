//! Whether a client has left whose request is not begun to be worked on.

use super::{begun_body::BegunBody, front::Client, request_head::RequestHead};
use crate::proxy::carry::{Buf, gone};

/// Resolves when the client has left whose request was not begun to be worked on.
pub(super) async fn left(client: &Client, head: &RequestHead) {
    gone(client.stream.beneath(), is_incomplete(client, head)).await;
}

/// Whether more of the request is still to come from the client.
fn is_incomplete(client: &Client, head: &RequestHead) -> bool {
    let begun = client.input.as_ref().map_or(&[][..], Buf::filled);
    BegunBody::of(head.framing, begun, u64::MAX) != BegunBody::Whole
}
