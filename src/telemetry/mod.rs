//! Logs, metrics, and the journal of what happened.

mod chain;
mod counters;
mod journal;

pub use chain::chain;
pub use counters::RouteCounters;
pub use journal::{Entry, Happening, Journal, Phases};
