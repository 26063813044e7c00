//! The composition root: builds every room, owns every task, ends them in order.

mod certificates;
mod demo;
mod files;
mod nodes;
mod serve;
mod service_manager;
mod sticky_key;
mod wake_all;

pub use demo::demo;
pub use serve::{Failed, ServeOptions, serve};
