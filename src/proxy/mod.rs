//! The data plane: what stands between clients and backends.
//!
//! Uses `control` for the live routes, `backend` for passes, `net` for listeners. Nobody below knows it.

mod access;
mod crowd;
mod dialling;
mod group;
mod health;
mod http;
mod ports;
mod tcp;
mod told;
mod udp;

#[cfg(fuzzing)]
pub use http::fuzz;

pub use health::check_health;
pub use http::{
    BadChunk, BadRequest, BadResponse, BoundWorkers, ChunkScanner, Framing, Limits, ProxySettings, Scanned, SessionKey,
    Shared, Worker, Workers, bind_workers, run_workers, serve,
};
pub use ports::keep_ports;
