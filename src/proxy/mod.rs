//! The data plane: what stands between clients and backends.
//!
//! Uses `control` for the live routes, `backend` for passes, `net` for listeners. Nobody below knows it.
//!
//! It has rooms of its own, and arrows between them point downward only. Beneath all are `carry` (bytes between two
//! connections), `listening` (what is open) and `worker` (what a thread has, and what all share); upon these stand
//! `ports` and `group`, for whatever leads to a backend. `http`, `tcp` and `udp` do not know each other: `serve`, above
//! them, accepts for all, and hands a client from one to the other.

mod access;
mod carry;
mod dialling;
mod group;
mod health;
mod http;
mod listening;
mod ports;
mod serve;
mod tcp;
mod told;
mod udp;
mod worker;

#[cfg(fuzzing)]
pub use http::fuzz;

pub use health::check_health;
pub use http::{BadChunk, BadRequest, BadResponse, ChunkScanner, Framing, Scanned};
pub use ports::keep_ports;
pub use serve::{BoundWorkers, Workers, bind_workers, run_workers};
pub use worker::{Limits, ProxySettings, SessionKey, Shared};
