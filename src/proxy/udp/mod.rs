//! UDP: a flow for each client address, carried both ways until nothing was heard of it for a while.
//!
//! - `port` reads the datagrams of one port and knows its flows;
//! - `flow` is one client: its datagrams are kept while the backend wakes, then sent in order;
//! - `door` is the port's socket, which answers from the address that a client has sent to.
//!
//! What always holds: the datagrams of a flow keep their order; one flow never waits for another; what is kept is
//! bounded by count and bytes, for a flow and for a port.

mod door;
mod flow;
mod port;

pub(super) use port::serve;
