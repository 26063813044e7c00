//! Dormouse: a reverse proxy that lets services sleep and wakes them on the first request.
pub mod api;
pub mod app;
pub mod backend;
pub mod catalog;
pub mod config;
pub mod control;
pub mod demo;
pub mod model;
pub mod net;
pub mod provider;
pub mod proxy;
pub mod routing;
pub mod store;
pub mod telemetry;
pub mod web;
