//! Orders as they are given and answered.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The outcome of an order that was not denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// `done`, or `already_so` when there was nothing to do.
    #[schema(example = "done")]
    pub result: String,
    /// The backend, as `node/name`.
    pub backend: String,
    /// Passes that were cut (`sleep` with `now`).
    pub cut: Option<u64>,
}

/// How to let a backend down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sleep {
    /// At once, whoever is inside; otherwise those inside may finish first.
    pub now: bool,
}

/// How long a backend is kept awake: exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pin {
    /// Until this time, RFC 3339.
    #[schema(example = "2030-01-01T18:00:00Z")]
    pub until: Option<String>,
    /// For so long from now.
    #[serde(rename = "for")]
    #[schema(example = "2h")]
    pub duration: Option<String>,
}

/// A new process has taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upgraded {
    /// Its process number.
    #[schema(example = 4711)]
    pub pid: u32,
}
