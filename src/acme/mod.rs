//! Certificates from an authority (ACME, RFC 8555): got when they are wanted, kept in the state directory, renewed in
//! the last third of their time.
//!
//! - `schedule` says when what is due; pure;
//! - `vault` keeps account and certificates across restarts, whatever ends the program;
//! - `order` talks to the authority about one certificate, and `records` keeps what it has in the DNS: `hook` runs a
//!   command, `dns_provider` speaks to a provider with what `dns_secrets` read, and `dns_ask` looks what is to be seen;
//! - `manager` is the one task that owns all of it.
//!
//! What always holds: a certificate in force is replaced by a newer one or by none; an authority that fails is asked
//! again, ever more rarely; private keys and the secrets of providers are in no log and readable by nobody else.

mod dns_ask;
mod dns_provider;
mod dns_secrets;
mod hook;
mod manager;
mod order;
mod records;
mod schedule;
mod vault;

pub use dns_secrets::check_dns;
pub use manager::Acme;
