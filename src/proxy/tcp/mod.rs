//! TCP: a client's connection is held while the backend wakes, then carried both ways.
//!
//! - `meet` finds out who the client is and which route it wants, by the name in its TLS hello where several share a
//!   port;
//! - `connection` serves it from there to its last byte, through TLS where that ends here;
//! - `member` says which of a group it goes to, and who gets it when that one fails;
//! - `dial` connects to the endpoint, patiently after a wake.
//!
//! What always holds: what the client sent is kept unread in its socket, or read into one bounded buffer, and
//! delivered in order; the pass is held as long as the connection; who is turned away was never connected.

mod connection;
mod dial;
mod meet;
mod member;
mod status;

pub(super) use connection::{connection, serve};
