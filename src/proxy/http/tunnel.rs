//! After a 101: bytes both ways, each direction with its own end.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use crate::{
    net::{Ended, ReadHalf, WriteHalf},
    proxy::access,
};

use super::{
    attempt::{Job, Way},
    buffer::Buf,
    front::{Client, Next},
    pool::Connection,
    relay::{Cut, Pump},
};

/// The close frame of a WebSocket server that goes away: code 1001.
const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];

/// Which side of a direction was cut.
enum Side {
    Source,
    Sink,
}

/// One direction and whether its end was passed on.
struct Direction {
    pump: Pump,
    ended: bool,
}

impl Direction {
    /// Ready when this direction is over; an error ends the tunnel.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut ReadHalf<'_>,
        sink: &mut WriteHalf<'_>,
    ) -> Poll<Result<(), Side>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        ready!(self.pump.poll(cx, source, sink)).map_err(|cut| match cut {
            Cut::Source(_) | Cut::Malformed | Cut::TooLarge => Side::Source,
            Cut::Sink(_) => Side::Sink,
        })?;
        ready!(Pin::new(sink).poll_shutdown(cx)).map_err(|_| Side::Sink)?;
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}

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
    let empty = worker.buffers.lend();
    let (Ok(down), Ok(up)) =
        (Pump::tunnel(out, begun, &worker.buffers), Pump::tunnel(empty, input.take(), &worker.buffers))
    else {
        return Next::Reset;
    };
    let (mut down, mut up) = (Direction { pump: down, ended: false }, Direction { pump: up, ended: false });
    let mut moved = 0;
    if let Some(idle) = idle {
        timer.set(Instant::now() + idle);
    }
    let ended = {
        let (mut client_read, mut client_write) = stream.split();
        let (mut up_read, mut up_write) = upstream.stream.split();
        poll_fn(|cx| {
            let towards_client = down.poll(cx, &mut up_read, &mut client_write);
            let towards_upstream = up.poll(cx, &mut client_read, &mut up_write);
            let now = down.pump.received + up.pump.received;
            if now != moved {
                moved = now;
                if let Some(pass) = &way.pass {
                    pass.touch();
                }
                if let Some(idle) = idle {
                    timer.set(Instant::now() + idle);
                }
            }
            match (towards_client, towards_upstream) {
                (Poll::Ready(Err(Side::Source)), _) | (_, Poll::Ready(Err(Side::Sink))) => {
                    Poll::Ready(Ended::UpstreamCut)
                }
                (Poll::Ready(Err(Side::Sink)), _) | (_, Poll::Ready(Err(Side::Source))) => {
                    Poll::Ready(Ended::ClientCut)
                }
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ended::Whole),
                // A WebSocket's server is the first to close: nobody reads what the client might still send.
                (Poll::Ready(Ok(())), Poll::Pending) if websocket => Poll::Ready(Ended::Whole),
                _ if idle.is_some() => timer.poll(cx).map(|()| Ended::Silent),
                _ => Poll::Pending,
            }
        })
        .await
    };
    let counters = &job.route.counters;
    counters.bytes_in.fetch_add(up.pump.sent, Ordering::Relaxed);
    counters.bytes_out.fetch_add(down.pump.sent, Ordering::Relaxed);
    if let Some(notes) = notes {
        (notes.bytes_in, notes.bytes_out, notes.cut) = (up.pump.sent, down.pump.sent, access::cut(ended));
    }
    match ended {
        Ended::ClientCut | Ended::UpstreamCut => return Next::Reset,
        // Between two frames, so one of ours can be put in.
        Ended::Silent if websocket && !down.ended && !down.pump.has_output() => {
            let _ = stream.write_all(&GOING_AWAY).await;
        }
        Ended::Silent | Ended::Whole => {}
    }
    Next::Linger
}
