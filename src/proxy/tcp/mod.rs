//! TCP: a client's connection is held while the backend wakes, then carried both ways.
//!
//! - `connection` is one client from its first byte to its last;
//! - `first` reads what tells where it goes and whether it wakes: the TLS hello, an opening;
//! - `dial` connects to the endpoint, patiently after a wake.
//!
//! What always holds: what the client sent is kept unread in its socket, or read into one bounded buffer, and
//! delivered in order; the pass is held as long as the connection; who is turned away was never connected.

mod connection;
mod dial;
mod first;
mod status;

pub(super) use connection::connection;
