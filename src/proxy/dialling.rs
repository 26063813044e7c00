//! How an endpoint is dialled that may be starting, or may have ended.

use std::time::Duration;

use crate::backend::{Backend, StatusState};

/// How long a backend that does not take connections is tried before that is taken for an answer.
pub(super) const DIAL_PATIENCE: Duration = Duration::from_secs(5);

/// The pause before it is tried again. Short at first: the app may listen any moment.
pub(super) fn dial_pause(tries: u32) -> Duration {
    Duration::from_millis(u64::from(tries.clamp(1, 10)) * 5)
}

/// Resolves when the backend is down: nobody answers at the address of a container that has ended, not even to say no.
pub(super) async fn is_down(backend: Option<&Backend>) {
    match backend {
        Some(backend) => comes_to(backend, |state| !matches!(state, StatusState::Awake | StatusState::Draining)).await,
        None => std::future::pending().await,
    }
}

/// Resolves when the backend is awake.
pub(super) async fn is_awake(backend: &Backend) {
    comes_to(backend, |state| state == StatusState::Awake).await;
}

async fn comes_to(backend: &Backend, wanted: impl Fn(StatusState) -> bool) {
    if backend.status().wait_for(|status| wanted(status.state)).await.is_err() {
        // Retired: it comes to nothing any more, and its passes stay good.
        std::future::pending().await
    }
}
