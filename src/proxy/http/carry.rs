//! Bytes both ways between two connections, whatever they rest on; each direction has its own end.

use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{io::AsyncWrite, time::Instant};

use crate::net::{Ended, Moved, ReadHalf, Stream, WriteHalf, reset_when_dropped};

use super::{
    deadline::Deadline,
    relay::{Cut, Pump},
    worker::Inner,
};

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
    fn new(pump: Pump) -> Self {
        Self { pump, ended: false }
    }

    /// Ready when this direction is over; an error ends both.
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

/// Both directions.
pub(super) struct Carrier {
    up: Direction,
    down: Direction,
    /// The end of what the upstream sends ends all.
    pub(super) ends_with_upstream: bool,
}

impl Carrier {
    pub(super) fn new(up: Pump, down: Pump) -> Self {
        Self { up: Direction::new(up), down: Direction::new(down), ends_with_upstream: false }
    }

    /// Bytes that were written: to the upstream, and to the client.
    pub(super) fn sent(&self) -> Moved {
        Moved { up: self.up.pump.sent, down: self.down.pump.sent }
    }

    /// Whether something of our own can still be said to the client.
    pub(super) fn may_add(&self) -> bool {
        !self.down.ended && !self.down.pump.has_output()
    }

    fn holds_nothing(&self) -> bool {
        !self.up.pump.has_output() && !self.down.pump.has_output()
    }

    /// Carries until both directions have ended, one side was cut, or nothing moves for `idle`. `moved` is told what
    /// was read since it was told last.
    pub(super) async fn run(
        &mut self,
        client: &mut Stream,
        upstream: &mut Stream,
        (idle, timer): (Option<Duration>, &mut Deadline),
        mut moved: impl FnMut(Moved),
    ) -> Ended {
        let mut before = Moved::default();
        if let Some(idle) = idle {
            timer.set(Instant::now() + idle);
        }
        let Self { up, down, ends_with_upstream } = self;
        let (mut client_read, mut client_write) = client.split();
        let (mut up_read, mut up_write) = upstream.split();
        poll_fn(|cx| {
            let towards_client = down.poll(cx, &mut up_read, &mut client_write);
            let towards_upstream = up.poll(cx, &mut client_read, &mut up_write);
            let now = Moved { up: up.pump.received, down: down.pump.received };
            if now != before {
                let before = mem::replace(&mut before, now);
                moved(Moved { up: now.up - before.up, down: now.down - before.down });
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
                (Poll::Ready(Ok(())), Poll::Pending) if *ends_with_upstream => Poll::Ready(Ended::Whole),
                _ if idle.is_some() => timer.poll(cx).map(|()| Ended::Silent),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

/// Both ends of a stream. Dropped while it is not whole, both are reset: neither side must take what it got for the
/// whole.
struct Ends {
    client: Stream,
    upstream: Stream,
    is_whole: bool,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if self.is_whole {
            self.client.say_goodbye();
        } else {
            let sockets = [self.client.beneath().socket(), self.upstream.beneath().socket()];
            sockets.into_iter().flatten().for_each(reset_when_dropped);
        }
    }
}

/// Carries a stream of which one side at least is no plain socket to its end. `begun` goes to the upstream first.
pub(in crate::proxy) async fn carry(
    worker: &Inner,
    (client, upstream): (Stream, Stream),
    begun: &[u8],
    idle: Option<Duration>,
    moved: impl FnMut(Moved),
) -> Ended {
    let mut ends = Ends { client, upstream, is_whole: false };
    let mut first = worker.buffers.lend();
    first.push(begun);
    let up = Pump::tunnel(first, None, &worker.buffers);
    let (Ok(up), Ok(down)) = (up, Pump::tunnel(worker.buffers.lend(), None, &worker.buffers)) else {
        return Ended::UpstreamCut;
    };
    let mut carrier = Carrier::new(up, down);
    let mut timer = Deadline::new(Instant::now());
    let ended = carrier.run(&mut ends.client, &mut ends.upstream, (idle, &mut timer), moved).await;
    ends.is_whole = match ended {
        Ended::Whole => true,
        Ended::ClientCut | Ended::UpstreamCut => false,
        Ended::Silent => carrier.holds_nothing(),
    };
    ended
}
