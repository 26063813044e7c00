//! Dormouse: a reverse proxy that lets services sleep and wakes them on the first request.
pub mod config;
pub mod model;
pub mod provider;
pub mod telemetry;
