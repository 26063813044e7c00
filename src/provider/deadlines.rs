//! How long each call to an engine may take. Every provider keeps to these.

use std::time::Duration;

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
