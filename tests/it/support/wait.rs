//! Waiting for conditions, with a deadline so generous that only a fault reaches it.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

/// Longer than any right answer takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is as wanted.
pub(crate) async fn until<T: Debug>(what: &str, mut ask: impl AsyncFnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let since = Instant::now();
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(since.elapsed() < LONG, "{what}: still {answer:?} after {LONG:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for something that must come.
pub(crate) async fn must<T>(what: &str, coming: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LONG, coming).await {
        Ok(it) => it,
        Err(_) => panic!("{what} did not come within {LONG:?}"),
    }
}
