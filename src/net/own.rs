//! Which addresses are those of this machine, and connections that met themselves.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
};

use tokio::net::TcpStream;

use super::reset_when_dropped;

/// Whether an address is of a loopback, private or link-local network.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Whether an address is one of this machine: it can speak to itself. Nothing is sent.
pub fn is_own(ip: IpAddr) -> bool {
    let from = match ip {
        // Of several addresses on one network the system would choose the first to speak to the others. Where it lets
        // anybody take addresses that are not there, it still finds no way from them.
        IpAddr::V4(_) => ip,
        // From the address itself, where it is there at all.
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    ip.is_unspecified() || source(from, ip).is_ok_and(|source| source == ip)
}

/// Where what leaves for an address comes from.
fn source(from: IpAddr, to: IpAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
    // Any port does: the system only looks for the way.
    socket.connect(SocketAddr::new(to, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Takes a connection to an address for refused where nobody but itself is at the other end: to a port of this machine
/// that nobody listens on, the system may choose that very port to connect from, and then both ends meet (simultaneous
/// open, RFC 9293 section 3.5). It is reset, so that the port is free at once for whom it is meant.
pub fn refuse_itself(stream: TcpStream, to: SocketAddr) -> io::Result<TcpStream> {
    if stream.local_addr()? != to {
        return Ok(stream);
    }
    reset_when_dropped(&stream);
    Err(io::Error::from(io::ErrorKind::ConnectionRefused))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_meets_itself_is_refused_and_leaves_the_port_free() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let to = socket.local_addr().unwrap();
        let itself = socket.connect(to).await.unwrap();
        assert_eq!(refuse_itself(itself, to).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let listener = TcpListener::bind(to).await.unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(refuse_itself(other, to).is_ok());
    }

    #[test]
    fn the_address_that_others_are_spoken_to_from_is_own_and_theirs_is_not() {
        let other = IpAddr::from([198, 51, 100, 7]);
        assert!(!is_own(other));
        // A machine without a way there has no such address to be tried.
        let towards = source(Ipv4Addr::UNSPECIFIED.into(), other).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        // The last is spoken to from another address of this machine, if nobody says from which.
        for ours in [towards, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into(), [127, 0, 0, 9].into()] {
            assert!(is_own(ours), "{ours}");
        }
    }
}
