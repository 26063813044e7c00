//! What must survive a restart, in one SQLite file in a state directory.
//!
//! Used by `control`, which saves what it knows of a backend after each change and reads all of it once at the start.
//!
//! What always holds:
//! - Saving never waits and never fails: the newest memory of each backend is kept aside and written by one task, in
//!   one transaction, at most every two seconds and only when something changed.
//! - Being killed at any point loses at most the last seconds, never the file.
//! - A file that can not be used is moved aside and told; a place that can not be written is told, and memory serves
//!   until it can be. Neither keeps anything down.
//! - One process owns a state directory; a second one is refused.

mod file;
mod lock;
mod memory;
mod rows;
mod writer;

pub use lock::StateInUse;
pub use memory::{BackendMemory, CoolDown, IdleSoFar, LastWake, ProcessRecord, WakeMemory};
pub use writer::{NotWritten, Store};

#[cfg(test)]
mod tests;
