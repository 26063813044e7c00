//! The composition root: builds every room, owns every task, ends them in order.

mod bind;
mod candidate;
mod certificates;
mod demo;
mod files;
mod heir;
mod leftovers;
mod legacy;
mod legacy_backend;
mod legacy_events;
mod legacy_words;
mod nodes;
mod plane;
mod predecessor;
mod remember;
mod serve;
mod service_manager;
mod session_key;
mod signals;
mod sticky_key;
mod successor;
mod upgrade_line;
mod wake_all;

pub use demo::demo;
pub use predecessor::Predecessor;
pub use serve::{Failed, ServeOptions, serve};
