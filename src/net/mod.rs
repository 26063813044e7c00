//! Accept well: listeners that share a port, a bound on connections, and patience when descriptors run out; what the
//! first bytes of a connection tell; bytes both ways.

mod both_ways;
mod client_hello;
mod listen;
mod minecraft;
mod opening;
mod pipe;
mod proxy_header;

pub use both_ways::{Ended, Moved, copy_both_ways, reset_when_dropped};
pub use client_hello::{Hello, LONGEST_HELLO, client_hello};
pub use listen::{accept, bind, bind_udp, check_free};
pub use minecraft::{Handshake, handshake, pong, status_answer};
pub use opening::{Judgement, judge};
pub use proxy_header::{Carries, Ends, ProxyHeader, proxy_header, take_proxy_header};
