//! Certificates from an authority (ACME, RFC 8555): got when they are wanted, kept in the state directory, renewed in
//! the last third of their time.
//!
//! - `schedule` says when what is due; pure;
//! - `vault` keeps account and certificates across restarts, whatever ends the program, and `notes` what is in the DNS;
//! - `order` talks to the authority about one certificate, and `records` keeps what it has in the DNS: `hook` runs a
//!   command, `dns_provider` speaks to a provider with what `dns_secrets` read, checked by `dns_forms` (`dns_error`: what its
//!   errors mean), and `dns_ask` looks what is to be seen;
//! - `desk` is what all orders share, `failed` what they come to when they come to nothing, and `leftovers` takes out of
//!   the DNS what they have left there;
//! - `manager` begins orders and keeps what comes of them, and `task` is the one task that owns all of it.
//!
//! What always holds: a certificate in force is replaced by a newer one or by none; an authority that fails is asked
//! again, ever more rarely; what is put into the DNS is noted before; private keys and the secrets of providers are in no log and readable by nobody else.

mod desk;
mod dns_ask;
mod dns_error;
mod dns_forms;
mod dns_provider;
mod dns_secrets;
mod failed;
mod hook;
mod leftovers;
mod manager;
mod notes;
mod order;
mod records;
mod schedule;
mod task;
mod vault;

pub use dns_secrets::check_dns;
pub use task::Acme;
