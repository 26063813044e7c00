//! Which addresses are those of this machine.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// Whether an address is one of this machine: what leaves for it comes from it. Nothing is sent.
pub fn is_own(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || source_towards(ip).is_ok_and(|source| source == ip)
}

fn source_towards(ip: IpAddr) -> io::Result<IpAddr> {
    let any = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    // Any port does: the system only looks for the way.
    socket.connect(SocketAddr::new(ip, 9))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_others_are_spoken_to_from_is_own_and_theirs_is_not() {
        let other = IpAddr::from([198, 51, 100, 7]);
        assert!(!is_own(other));
        // A machine without a way there has no such address to be tried.
        for ours in [source_towards(other).unwrap_or(other), Ipv4Addr::LOCALHOST.into(), [127, 0, 0, 9].into()] {
            assert!(ours == other || is_own(ours), "{ours}");
        }
    }
}
