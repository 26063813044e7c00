//! Logs, metrics, and the journal of what happened.

mod counters;
mod journal;

pub use counters::RouteCounters;
pub use journal::{Entry, Happening, Journal, Phases};
