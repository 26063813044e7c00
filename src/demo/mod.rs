//! `dormouse demo`: three small apps of our own, what they are configured as, what to try with them, and a table of
//! their states.
//!
//! Used by `app`, which runs them behind the real proxy on the real process provider.

mod apps;
mod config;
mod screen;

pub use apps::{BadApp, run_app};
pub use config::{DemoPorts, config, intro};
pub use screen::{Row, RowState, Screen};
