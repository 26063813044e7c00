//! The command line: what it takes, and the commands that ask or order a running Dormouse, or none at all.
//!
//! Used by `main`, which carries out `serve` and the demo through `app` and gives everything else to [`run`]. A running
//! Dormouse is reached through the Unix socket in its state directory.
//!
//! What always holds: what was asked for goes to standard output, everything else to standard error; the exit code is
//! 0, 1 when it failed, 2 when the usage or a configuration is wrong; a reader that closes early is no error.

mod absent;
mod arguments;
mod certificates;
mod check;
mod client;
mod events;
mod explain;
mod orders;
mod output;
mod run;
mod state_dir;
mod table;
mod trouble;
mod words;

pub use arguments::{Arguments, Command, Demo, DemoApp, LogStyle, Serve};
pub use run::{run, state_dir};
