//! What addresses have in common, as far as they tell it themselves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Whether a connection to one listening address could be one to the other.
pub fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// Where a host and a port are; absent where the host is a name that must be looked up.
pub fn literal_address(host: &str, port: u16) -> Option<SocketAddr> {
    let ip = if host == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { host.parse::<IpAddr>().ok() };
    ip.map(|ip| SocketAddr::new(ip, port))
}

/// Whether what is sent to an address arrives at a listening one. All that is on this machine counts as one.
pub fn arrives(to: SocketAddr, listens: SocketAddr) -> bool {
    let is_here = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    to.port() == listens.port() && (to.ip() == listens.ip() || (is_here(to.ip()) && is_here(listens.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_here_arrives_at_every_local_address_of_the_port() {
        let cases = [
            ("localhost", "127.0.0.1:80", true),
            ("localhost", "0.0.0.0:80", true),
            ("::1", "[::]:80", true),
            ("0.0.0.0", "127.0.0.1:80", true),
            ("192.0.2.1", "192.0.2.1:80", true),
            ("192.0.2.1", "0.0.0.0:80", false),
            ("127.0.0.1", "192.0.2.1:80", false),
            ("127.0.0.1", "127.0.0.1:81", false),
            ("db.test", "127.0.0.1:80", false),
        ];
        for (host, listens, expected) in cases {
            let to = literal_address(host, 80);
            assert_eq!(to.is_some_and(|to| arrives(to, listens.parse().unwrap())), expected, "{host}, {listens}");
        }
    }

    #[test]
    fn listening_addresses_overlap_on_one_port() {
        let overlap = |a: &str, b: &str| overlap(a.parse().unwrap(), b.parse().unwrap());
        assert!(overlap("0.0.0.0:80", "192.0.2.1:80") && overlap("192.0.2.1:80", "192.0.2.1:80"));
        assert!(!overlap("192.0.2.1:80", "192.0.2.2:80") && !overlap("0.0.0.0:80", "0.0.0.0:81"));
    }
}
