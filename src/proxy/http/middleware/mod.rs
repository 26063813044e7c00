//! Middlewares that look at each request, before anything is woken for it: who is refused wakes nothing.
//!
//! [`admit`] goes through those of a route in order. What is to be changed on the way is gathered in [`Edits`], and
//! done where heads are written. What routes remember between requests is in the [`Ledger`]. Header fields that are the
//! same for every request are no business of this room.

mod asker;
mod auth_server;
mod basic_auth;
mod chain;
mod clients;
mod cors;
mod forward_auth;
mod in_flight_limit;
mod ledger;
mod max_body;
mod oidc;
mod oidc_provider;
mod oidc_text;
mod oidc_token;
mod path;
mod rate_limit;
mod real_ip;
mod redirect;
mod retry;
#[cfg(test)]
pub(super) mod samples;

pub(super) use asker::Asker;
pub(super) use chain::{Edits, admit};
pub(super) use cors::allowed_origin;
pub(in crate::proxy) use ledger::Ledger;
pub(super) use retry::Again;
