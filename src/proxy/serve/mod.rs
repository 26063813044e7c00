//! The workers, above all that they serve: `http`, `tcp` and `udp`, which do not know each other.
//!
//! - `workers` binds, and runs a thread with a runtime for each worker;
//! - `listener` lets in the clients of one listener of HTTP or HTTPS;
//! - `ports` serves the ports of stream routes. Who wants one of those on the port of HTTPS is handed over by what the
//!   listener was given for that.

mod listener;
mod ports;
mod workers;

pub use workers::{BoundWorkers, Workers, bind_workers, run_workers};
