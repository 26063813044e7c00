//! The data plane: what stands between clients and backends.
//!
//! Uses `control` for the live routes, `backend` for passes, `net` for listeners. Nobody below knows it.

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
