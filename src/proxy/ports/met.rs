//! A client of a stream route, wherever it was met.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::{entry::Caller, first::First};
use crate::control::LiveRoute;

/// A client whose route is known.
pub(in crate::proxy) struct Met {
    pub(in crate::proxy) tcp: TcpStream,
    pub(in crate::proxy) caller: Caller,
    pub(in crate::proxy) route: Arc<LiveRoute>,
    /// What was read of it.
    pub(in crate::proxy) first: First,
}
