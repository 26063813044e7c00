//! The HTTP relay on real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may panic")]

mod balance;
mod body_sizes;
mod bulk;
mod connections;
mod crowded;
mod fields;
mod forward_auth;
mod frames;
mod h2_out;
mod h2_out_rules;
mod h2_out_tls;
mod h2_out_wake;
mod h2_service;
mod http2;
mod http2_floods;
mod http2_frame_rules;
mod http2_rules;
mod http2_sleeper;
mod http2_states;
mod http2_suite;
mod middlewares;
mod middlewares_bodies;
mod own_answers;
mod panics;
mod refusals;
mod relay;
mod secure;
mod sleeper;
#[path = "../http/sleeping.rs"]
mod sleeping;
mod support;
mod wake;
