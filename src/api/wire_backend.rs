//! Backends as they are told.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire::{Cause, Problem};
use crate::model::{self, IdlePolicy, format_duration};

/// All backends, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backends {
    /// The backends.
    pub backends: Vec<Backend>,
    /// Containers of which no backend is made because their labels are refused, by name.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

/// A container of which no backend is made because its labels are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeftOut {
    /// `node/name`.
    #[schema(example = "local/jellyfin")]
    pub id: String,
    /// Why: the errors in its labels, at least one.
    pub problems: Vec<Problem>,
}

/// A backend: what it does now, and what is known of its wakes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backend {
    /// `node/name`.
    #[schema(example = "local/jellyfin")]
    pub id: String,
    /// The node that runs it.
    pub node: String,
    /// The engine's own name of it.
    pub name: String,
    /// `asleep`, `waking`, `awake`, `draining`, `stopping`, `failed`, `gone` or `unknown`.
    #[schema(example = "awake")]
    pub state: String,
    /// How it sleeps: `stopped` or `paused`; `null` when it does not.
    pub asleep_as: Option<String>,
    /// What its health checks have found: `healthy`, `unhealthy` or `unknown`; `null`: it is not checked.
    pub health: Option<String>,
    /// Its sleep is Dormouse's doing, rather than its owner's.
    pub put_to_sleep: bool,
    /// Since when it is in this state.
    pub since: String,
    /// What caused it.
    pub cause: Option<Cause>,
    /// The last failure, while it matters.
    pub failure: Option<String>,
    /// Passes that are out: requests, streams and dependants inside now.
    pub passes: u64,
    /// Requests that wait for it now.
    pub held: u64,
    /// Dependencies that are being woken for it.
    pub waits_for: Vec<String>,
    /// Seconds until it sleeps if nobody comes; `null` while it is in use, not awake, or never sleeps by itself.
    pub sleeps_in_s: Option<u64>,
    /// A person keeps it awake until then.
    pub pinned_until: Option<String>,
    /// The last wake.
    pub last_wake: Option<LastWake>,
    /// How often it was woken.
    pub wakes: Wakes,
    /// How long the last wakes took.
    pub wake_ms: WakeMillis,
    /// The share of time asleep since it is known, 0 to 1.
    pub asleep_share: Option<f64>,
    /// Bytes of memory that its sleep gives back: what it used when Dormouse last let it down. `null` while it is up or
    /// paused, and where that is not known.
    pub gives_back_bytes: Option<u64>,
    /// The routes that lead to it.
    pub routes: Vec<String>,
    /// When and how it sleeps.
    pub policy: Policy,
}

/// The last wake of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastWake {
    /// When it began.
    pub at: String,
    /// Its cause, in words.
    pub cause: Option<String>,
}

/// How often a backend was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wakes {
    /// Wakes since it is known.
    pub count: u64,
    /// Wakes that failed in this run of the program.
    pub failed: u64,
    /// Wakes since midnight, local time.
    pub today: u64,
}

/// How long the last wakes took; `null` before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WakeMillis {
    /// Half of them took at most so long.
    pub p50: Option<u64>,
    /// 95 of 100 took at most so long.
    pub p95: Option<u64>,
}

/// The idle policy in short; durations as the configuration writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// How long nobody must use it before it sleeps; `null`: it never sleeps by itself.
    #[schema(example = "15m")]
    pub idle_timeout: Option<String>,
    /// It sleeps with its last dependant.
    pub dependency_only: bool,
    /// `stop`, `pause` or `kill`.
    pub stop_method: String,
    /// Stopped after so long paused.
    pub stop_after: Option<String>,
    /// From the start call to ready.
    pub wake_timeout: String,
    /// It stays up at least so long.
    pub min_uptime: Option<String>,
    /// Windows in which it is kept awake.
    pub schedule: Vec<String>,
}

impl From<&IdlePolicy> for Policy {
    fn from(policy: &IdlePolicy) -> Self {
        let model::IdlePolicy { idle_timeout, stop_after, min_uptime, .. } = policy;
        Self {
            idle_timeout: idle_timeout.map(format_duration),
            dependency_only: policy.dependency_only,
            stop_method: policy.stop_method.to_string(),
            stop_after: stop_after.map(format_duration),
            wake_timeout: format_duration(policy.wake_timeout),
            min_uptime: (!min_uptime.is_zero()).then(|| format_duration(*min_uptime)),
            schedule: policy.schedule.0.iter().map(ToString::to_string).collect(),
        }
    }
}
