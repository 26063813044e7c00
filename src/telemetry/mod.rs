//! Logs, metrics, and the journal of what happened.

mod access_file;
mod access_line;
mod access_obstacle;
mod access_trouble;
mod access_values;
mod access_writer;
mod chain;
mod connections;
mod counters;
mod exposition;
mod histogram;
mod journal;
mod logs;
mod metrics;
mod stats;

pub use access_line::{AccessHeaders, AccessRecord, Now};
pub use access_trouble::{access_troubles, check_access_outputs};
pub use access_writer::AccessWriter;
pub use chain::chain;
pub use connections::{ConnectionCounters, TurnedAway};
pub use counters::{RouteCounters, UpstreamError};
pub use journal::{Entry, Happening, Journal, Phases};
pub use logs::{LogError, LogFormat, init};
pub use metrics::{BackendSample, EndpointSample, Metrics, World};
pub use stats::{WakeDurations, WakesToday, asleep_share};
