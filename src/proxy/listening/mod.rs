//! What listens: open ports with the routes behind each, which of them HTTPS has, and how workers are told of them.
//!
//! - `port` is one that is open, and chooses among its routes; `beside` are those on a port that HTTPS has;
//! - `post` hands each worker its socket, and knows all that are open.
//!
//! Nothing here opens, accepts or serves: `ports` keeps open what the routes want, and `serve` serves it.

mod beside;
mod port;
mod post;

pub(super) use beside::Beside;
pub(super) use port::{Port, PortKey, PortRoutes};
pub(super) use post::{Opened, PortPost, PortPosts, Socket};
