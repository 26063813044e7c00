//! Who a client is, and which route it wants.

use tokio::net::TcpStream;

use crate::{
    model::Transport,
    net::{Ends, Hello, UNRECOGNIZED_NAME, reset_when_dropped, say_last},
    proxy::{
        listening::Port,
        ports::{Caller, First, Met},
        worker::Worker,
    },
};

/// Meets a client on a port of stream routes. Who wants none of them is turned away.
pub(super) async fn meet(worker: &Worker, tcp: TcpStream, ends: Ends, port: &Port) -> Option<Met> {
    let settings = worker.shared.settings.load_full();
    let mut first = First::default();
    let hello = if port.needs_hello() {
        first.hello(&tcp, settings.limits.header_timeout).await?
    } else {
        // It is all one what it says.
        Hello::Not
    };
    let name = match &hello {
        Hello::Whole { name, .. } => name.as_deref(),
        Hello::Not | Hello::More => None,
    };
    let caller = Caller { transport: Transport::Tcp, ends };
    if let Some(route) = port.route(name).filter(|route| caller.may_use(route)) {
        return Some(Met { tcp, caller, route, first });
    }
    tracing::debug!(client = %ends.source, ?name, "a connection that no route takes was closed");
    match hello {
        Hello::Whole { .. } => say_last(tcp, &UNRECOGNIZED_NAME, settings.limits.linger).await,
        Hello::Not | Hello::More => reset_when_dropped(&tcp),
    }
    None
}
