//! After a 101: bytes both ways, each direction with its own end.

use std::sync::atomic::Ordering;

use tokio::io::AsyncWriteExt;

use crate::{
    net::Ended,
    proxy::{
        access,
        carry::{Buf, Carrier, Direction},
    },
};

use super::{
    attempt::{Job, Way},
    front::{Client, Next},
    pool::Connection,
};

/// The close frame of a WebSocket server that goes away: code 1001.
const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];

/// Carries the tunnel until both directions have ended (of a WebSocket, that towards the client), one of them fails, or nothing moves for `stream_idle`.
/// `out` goes to the client first, then what the upstream had already sent behind its 101.
pub(super) async fn run(
    job: &mut Job<'_>,
    way: &Way,
    mut upstream: Box<Connection>,
    out: Buf,
    begun: Option<Buf>,
) -> Next {
    let idle = job.route.backend.as_ref().and_then(|backend| backend.policy().stream_idle);
    let websocket = job.head.upgrade.as_ref().is_some_and(|at| job.head.part(at).eq_ignore_ascii_case(b"websocket"));
    let Client { stream, timer, worker, input, notes, .. } = &mut *job.client;
    let home = &worker.buffers;
    let (down, up) = (Direction::new(out, begun, home), Direction::new(home.lend(), input.take(), home));
    let mut carrier = Carrier::new(up, down);
    // A WebSocket's server is the first to close: nobody reads what the client might still send.
    carrier.ends_with_upstream = websocket;
    let moved = |_| {
        if let Some(pass) = &way.pass {
            pass.touch();
        }
    };
    let ended = carrier.run(stream, &mut upstream.stream, (idle, timer), moved).await;
    let sent = carrier.sent();
    let counters = &job.route.counters;
    counters.bytes_in.fetch_add(sent.up, Ordering::Relaxed);
    counters.bytes_out.fetch_add(sent.down, Ordering::Relaxed);
    if let Some(notes) = notes {
        (notes.bytes_in, notes.bytes_out, notes.cut) = (sent.up, sent.down, access::cut(ended));
    }
    match ended {
        Ended::ClientCut | Ended::UpstreamCut => return Next::Reset,
        // Between two frames, so one of ours can be put in.
        Ended::Silent if websocket && carrier.may_add() => {
            let _ = stream.write_all(&GOING_AWAY).await;
        }
        Ended::Silent | Ended::Whole => {}
    }
    Next::Linger
}
