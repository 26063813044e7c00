//! The one timer of a connection.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    task::unconstrained,
    time::{Instant, Sleep},
};

/// A moment by which something must have happened. Putting it off costs nothing: the timer beneath is left as it is,
/// and is set anew when it fires too early.
#[derive(Debug)]
pub(in crate::proxy) struct Deadline {
    timer: Pin<Box<Sleep>>,
    at: Instant,
    /// The timer, as it is set now, wakes this task.
    registered: bool,
}

impl Deadline {
    pub(in crate::proxy) fn new(at: Instant) -> Self {
        Self { timer: Box::pin(tokio::time::sleep_until(at)), at, registered: false }
    }

    pub(in crate::proxy) fn set(&mut self, at: Instant) {
        self.at = at;
        if at < self.timer.deadline() || self.timer.is_elapsed() {
            self.reset();
        }
    }

    /// Ready when the moment has come. To be polled by one task alone.
    pub(in crate::proxy) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.registered && !self.timer.is_elapsed() {
                return Poll::Pending;
            }
            // Not held back for fairness: that would look like having been registered.
            self.registered = Pin::new(&mut unconstrained(self.timer.as_mut())).poll(cx).is_pending();
            if self.registered {
                return Poll::Pending;
            }
            if self.has_come() {
                return Poll::Ready(());
            }
            self.reset();
        }
    }

    /// Whether the timer was seen to fire for this moment.
    pub(in crate::proxy) fn has_come(&self) -> bool {
        self.timer.is_elapsed() && self.at <= self.timer.deadline()
    }

    fn reset(&mut self) {
        self.timer.as_mut().reset(self.at);
        self.registered = false;
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    async fn reached(deadline: &mut Deadline) -> Duration {
        let start = Instant::now();
        poll_fn(|cx| deadline.poll(cx)).await;
        start.elapsed()
    }

    fn about(took: Duration, millis: u64) -> bool {
        (millis..millis + 3).contains(&u64::try_from(took.as_millis()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_put_off_and_brought_forward() {
        let second = Duration::from_secs(1);
        let mut deadline = Deadline::new(Instant::now() + second);
        assert!(!deadline.has_come());
        // Registered, then put off twice.
        assert!(tokio::time::timeout(second / 2, reached(&mut deadline)).await.is_err());
        deadline.set(Instant::now() + 2 * second);
        deadline.set(Instant::now() + 3 * second);
        assert!(about(reached(&mut deadline).await, 3000));
        assert!(deadline.has_come());
        deadline.set(Instant::now() + 10 * second);
        assert!(!deadline.has_come());
        assert!(tokio::time::timeout(second, reached(&mut deadline)).await.is_err());
        deadline.set(Instant::now() + second);
        assert!(about(reached(&mut deadline).await, 1000));
    }
}
