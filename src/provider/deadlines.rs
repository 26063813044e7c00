//! How long each call to an engine may take. Every provider keeps to these.

use std::{future::Future, time::Duration};

use tokio::{task::JoinError, time::timeout};

use super::ProviderError;

/// For `list` and `look`.
pub(super) const LOOK: Duration = Duration::from_secs(10);

/// For `start`, thawing included.
pub(super) const START: Duration = Duration::from_secs(60);

/// For `pause`, `kill` and the wait for their effect.
pub(super) const FREEZE: Duration = Duration::from_secs(30);

/// For `stop`: the grace time, and time for the engine to kill and to clean up.
pub(super) fn stop(grace: Duration) -> Duration {
    grace + Duration::from_secs(30)
}

/// Ends the work in time.
pub(super) async fn within<T>(
    engine: &str,
    deadline: Duration,
    work: impl Future<Output = Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    let late = |_| ProviderError::TimedOut { engine: engine.to_owned(), after: deadline };
    timeout(deadline, work).await.map_err(late)?
}

/// Does the work in a task of its own and ends it in time, so that it also ends when nobody waits for it.
pub(super) async fn detached<T: Send + 'static>(
    engine: &str,
    deadline: Duration,
    work: impl Future<Output = Result<T, ProviderError>> + Send + 'static,
) -> Result<T, ProviderError> {
    let name = engine.to_owned();
    let task = tokio::spawn(async move { within(&name, deadline, work).await });
    let nonsense = |error: JoinError| ProviderError::Nonsense { engine: engine.to_owned(), reason: error.to_string() };
    task.await.map_err(nonsense)?
}
