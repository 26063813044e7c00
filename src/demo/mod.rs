//! `dormouse demo`: three small apps of our own, what they are configured as, what to try with them, and a table of
//! their states.
//!
//! Used by `app`, which runs them behind the real proxy, on the real process provider or in containers of the real Docker
//! Engine, from an image made of this very program.

mod apps;
mod config;
mod image;
mod screen;

pub use apps::{BadApp, run_app};
pub use config::{DemoContainer, DemoPorts, Housing, SHUTDOWN, config, containers, intro};
pub use image::{ENVIRONMENT, PROGRAM, layer};
pub use screen::{Row, RowState, Screen};
