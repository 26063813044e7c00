//! Which addresses are those of this machine.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
};

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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

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
