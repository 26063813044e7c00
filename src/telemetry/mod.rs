//! Logs, metrics, and the journal of what happened.

mod journal;

pub use journal::{Entry, Happening, Journal, Phases};
