//! `retry`: how often a request was tried again, and whether it is once more.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::Retry;

/// The tries of one request beyond the first.
#[derive(Debug, Default)]
pub(in crate::proxy::http) struct Again {
    tries: u32,
    /// The first failure.
    since: Option<Instant>,
}

impl Again {
    /// How long until the next try; nothing: it was the last one.
    pub(in crate::proxy::http) fn next(&mut self, rule: &Retry) -> Option<Duration> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let pause = rule.pause.saturating_mul(1 << self.tries.min(16));
        let in_time = since.elapsed().checked_add(pause).is_some_and(|then| then <= rule.timeout);
        if self.tries >= rule.attempts || !in_time {
            return None;
        }
        self.tries += 1;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tries_are_bounded_in_number_and_time() {
        let ms = Duration::from_millis;
        let rule = |attempts, timeout| Retry { attempts, statuses: Vec::new(), pause: ms(100), timeout: ms(timeout) };
        let mut again = Again::default();
        let pauses: Vec<_> = (0..5).map(|_| again.next(&rule(3, 10_000))).collect();
        assert_eq!(pauses, [Some(ms(100)), Some(ms(200)), Some(ms(400)), None, None]);
        let mut again = Again::default();
        assert_eq!(again.next(&rule(10, 250)), Some(ms(100)));
        tokio::time::advance(ms(100)).await;
        assert_eq!(again.next(&rule(10, 250)), None, "its pause would end too late");
        assert_eq!(Again::default().next(&rule(10, 50)), None);
    }
}
