//! Accept well: listeners that share a port, a bound on connections, and patience when descriptors run out.

mod listen;

pub use listen::{accept, bind, check_free};
