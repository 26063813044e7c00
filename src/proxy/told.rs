//! Who a connection comes from, where a proxy in front tells it.

use std::{io, net::SocketAddr};

use tokio::net::TcpStream;

use super::worker::ProxySettings;
use crate::net::{Ends, take_proxy_header};

/// The ends of a connection. From the networks of the settings a header of the PROXY protocol must come first, which
/// is taken; from others none is looked for. An error means that there was none: the connection is not to be served.
pub(super) async fn ends(stream: &TcpStream, peer: SocketAddr, settings: &ProxySettings) -> io::Result<Ends> {
    let own = Ends { source: peer, destination: stream.local_addr()? };
    if !settings.proxy_protocol.iter().any(|network| network.contains(&peer.ip().to_canonical())) {
        return Ok(own);
    }
    match Box::pin(take_proxy_header(stream, settings.limits.header_timeout)).await {
        Ok(told) => Ok(told.unwrap_or(own)),
        Err(error) => {
            tracing::debug!(client = %peer, %error, "a connection without a PROXY header was closed");
            Err(error)
        }
    }
}
