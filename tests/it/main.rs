//! Tests of the whole, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]
mod access_log;
mod access_log_refused;
mod acme;
mod acme_dns;
mod api;
mod attacks;
mod balance;
mod browser;
mod cli;
mod client_certificates;
mod connection_limits;
mod dependencies;
mod docker_demo;
mod docker_dependencies;
mod docker_engine_away;
mod docker_failures;
mod docker_first_byte;
mod docker_hands;
mod docker_no_network;
mod docker_restart;
mod docker_sleep;
mod docker_ssh;
mod docker_stream_clients;
mod docker_streams;
mod docker_tls;
mod edge_requests;
mod faults_apps;
mod faults_edges;
mod faults_engine;
mod faults_limits;
mod faults_state;
mod grpc;
mod hold_bodies;
mod http2;
mod keep_awake;
mod killed;
mod middlewares;
mod middlewares_limits;
mod middlewares_variables;
mod not_woken;
mod ocsp;
mod oidc;
mod oidc_twice;
mod orphans;
mod outside;
mod provider_conformance;
mod provider_docker;
mod provider_docker_faults;
mod provider_process;
mod reload;
mod service_manager;
mod shutdown;
mod splicing;
mod streams_balance;
mod streams_bounds;
mod streams_clients;
mod streams_first;
mod streams_tcp;
mod streams_tls;
mod streams_udp;
mod support;
mod tls;
mod tls_sessions;
mod upgrade;
mod upgrade_addresses;
mod upgrade_faults;
mod upgrade_state;
mod upstream_errors;
mod wake_limits;
