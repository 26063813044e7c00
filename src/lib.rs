//! Dormouse: a reverse proxy that lets services sleep and wakes them on the first request.
pub mod demo;
pub mod model;
pub mod provider;
pub mod store;
pub mod telemetry;
pub mod web;
