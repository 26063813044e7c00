//! The management interface: what runs, why, and orders to it, as JSON over HTTP/1.1.
//!
//! Used by `app`, which starts it; by the command line, which speaks to it through the Unix socket; by whoever
//! automates. It reads and orders through `control` alone and has its own wire types, so that a change inside does not
//! change what others rely on.
//!
//! What always holds:
//! - It is served on loopback and on a Unix socket of mode 0600, nowhere else. On TCP the `Host` must be a loopback
//!   name, so that no web page reaches it under a name of its own; requests of other origins are refused.
//! - Answers name things by their names and never show a secret: no variable of a process, no label's value.
//! - Every error is `application/problem+json` with a `code` of one closed set.

mod backends;
mod certificates;
mod check;
mod connection;
mod error;
mod events;
mod guard;
mod health;
mod metrics;
mod orders;
mod router;
mod serve;
mod upgrade;
pub mod wire;
mod wire_backend;
mod wire_catalog;
mod wire_certificate;
mod wire_event;
mod wire_order;
mod wire_problem;

pub use connection::Connection;
pub use error::{Code, Failure};
pub use router::{Api, openapi, router};
pub use serve::{SOCKET, bind_unix, serve};
pub use upgrade::{UpgradeOrder, Upgrades};
