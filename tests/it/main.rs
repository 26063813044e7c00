//! Tests of the whole, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]
mod docker_engine_away;
mod docker_failures;
mod docker_first_byte;
mod docker_hands;
mod docker_restart;
mod docker_sleep;
mod provider_conformance;
mod provider_docker;
mod provider_docker_faults;
mod provider_process;
mod support;
