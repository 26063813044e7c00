//! Certificates from an authority (ACME, RFC 8555): got when they are wanted, kept in the state directory, renewed in
//! the last third of their time.
//!
//! - `schedule` says when what is due; pure;
//! - `vault` keeps account and certificates across restarts, whatever ends the program;
//! - `order` talks to the authority about one certificate, `hook` puts records into the DNS;
//! - `manager` is the one task that owns all of it.
//!
//! What always holds: a certificate in force is replaced by a newer one or by none; an authority that fails is asked
//! again, ever more rarely; private keys are in no log and readable by nobody else.

mod hook;
mod manager;
mod order;
mod schedule;
mod vault;

pub use manager::Acme;
