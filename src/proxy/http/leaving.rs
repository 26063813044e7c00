//! Whether a client has left, and whether one that takes or sends a body still moves.

use std::{future::Future, io, pin::Pin, task::Context, time::Duration};

use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, Sleep},
};

/// Resolves when the client has left: its connection is reset, or ended before the request did (`incomplete`).
/// Half-closing after a whole request is not leaving.
pub(super) async fn gone(client: &TcpStream, incomplete: bool) {
    loop {
        match client.peek(&mut [0]).await {
            Ok(0) if incomplete => return,
            Ok(0) => {
                // It may have gone for good: let the kernel find out.
                let keepalive = socket2::TcpKeepalive::new()
                    .with_time(Duration::from_secs(5))
                    .with_interval(Duration::from_secs(5))
                    .with_retries(3);
                let _ = socket2::SockRef::from(client).set_tcp_keepalive(&keepalive);
                break;
            }
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
    let _ = client.ready(Interest::ERROR).await;
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
        timer: &mut Pin<Box<Sleep>>,
        moved: u64,
        window: Duration,
        minimum: u64,
    ) -> bool {
        let mut since = match self.since {
            Some(since) => since,
            None => {
                timer.as_mut().reset(Instant::now() + window);
                moved
            }
        };
        while timer.as_mut().poll(cx).is_ready() {
            if moved - since < minimum {
                return true;
            }
            since = moved;
            timer.as_mut().reset(Instant::now() + window);
        }
        self.since = Some(since);
        false
    }

    /// Nothing waits for the client.
    pub(super) fn rest(&mut self) {
        self.since = None;
    }
}
