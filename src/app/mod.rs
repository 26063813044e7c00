//! The composition root: builds every room, owns every task, ends them in order.

mod files;
mod nodes;
mod serve;

pub use serve::{Failed, ServeOptions, serve};
