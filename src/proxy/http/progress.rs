//! Whether a client that takes or sends a body still moves.

use std::{task::Context, time::Duration};

use tokio::time::Instant;

use crate::proxy::carry::Deadline;

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
