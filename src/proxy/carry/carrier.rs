//! Bytes both ways between two connections, whatever they rest on; each direction has its own end.

use std::{future::poll_fn, mem, rc::Rc, task::Poll, time::Duration};

use tokio::time::Instant;

use super::{
    buffer::Buffers,
    deadline::Deadline,
    direction::{Direction, Side},
};
use crate::net::{Ended, Moved, Stream, reset_when_dropped};

/// Both directions.
pub(in crate::proxy) struct Carrier {
    up: Direction,
    down: Direction,
    /// The end of what the upstream sends ends all.
    pub(in crate::proxy) ends_with_upstream: bool,
}

impl Carrier {
    pub(in crate::proxy) fn new(up: Direction, down: Direction) -> Self {
        Self { up, down, ends_with_upstream: false }
    }

    /// Bytes that were written: to the upstream, and to the client.
    pub(in crate::proxy) fn sent(&self) -> Moved {
        Moved { up: self.up.sent, down: self.down.sent }
    }

    /// Whether something of our own can still be said to the client.
    pub(in crate::proxy) fn may_add(&self) -> bool {
        !self.down.ended && !self.down.has_output()
    }

    fn holds_nothing(&self) -> bool {
        !self.up.has_output() && !self.down.has_output()
    }

    /// Carries until both directions have ended, one side was cut, or nothing moves for `idle`. `moved` is told what
    /// was read since it was told last.
    pub(in crate::proxy) async fn run(
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
            let now = Moved { up: up.received, down: down.received };
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
    buffers: &Rc<Buffers>,
    (client, upstream): (Stream, Stream),
    begun: &[u8],
    idle: Option<Duration>,
    moved: impl FnMut(Moved),
) -> Ended {
    let mut ends = Ends { client, upstream, is_whole: false };
    let mut first = buffers.lend();
    first.push(begun);
    let (up, down) = (Direction::new(first, None, buffers), Direction::new(buffers.lend(), None, buffers));
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
