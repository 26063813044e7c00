//! Where an endpoint is dialled.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// A process of this machine. Its number goes to another one after its end; a number and a time of start do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was started, by the kernel's own count.
    pub started: u64,
}

/// The network namespace of a unit that is on no network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// That of this process: its ports are dialled from inside.
    Of(Process),
    /// It can not be entered from here. Why, and what to do.
    Closed(Arc<str>),
}

/// Where an endpoint is dialled. No larger than an address, since every connection is known by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spot {
    /// Where networks lead to.
    Network(SocketAddr),
    /// This port of the loopback inside the network namespace of a process.
    Inside(Process, u16),
}

impl Spot {
    /// Its address, where it is. Inside another namespace this is none of ours, even if it reads like one.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Network(address) => *address,
            Self::Inside(_, port) => SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
        }
    }
}

impl From<SocketAddr> for Spot {
    fn from(address: SocketAddr) -> Self {
        Self::Network(address)
    }
}

/// That of the address alone, where there is no more to it: it is asked for with each request.
impl Hash for Spot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Network(address) => address.hash(state),
            Self::Inside(process, port) => (process, port).hash(state),
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Inside(process, _) => write!(f, "{} in the network of process {}", self.address(), process.pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spot_is_as_small_as_an_address() {
        assert_eq!(size_of::<Spot>(), size_of::<SocketAddr>());
    }

    #[test]
    fn the_same_port_of_other_namespaces_or_lives_is_another_spot() {
        let inside = |pid, started| Spot::Inside(Process { pid, started }, 80);
        assert_eq!(inside(7, 1).address(), "127.0.0.1:80".parse().unwrap());
        for other in [inside(8, 1), inside(7, 2), inside(7, 1).address().into()] {
            assert_ne!(inside(7, 1), other);
        }
        assert_eq!(inside(7, 1).to_string(), "127.0.0.1:80 in the network of process 7");
    }
}
