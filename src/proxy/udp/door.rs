//! The socket of a port: each datagram tells where it was sent to, and the answer comes from there.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use nix::{
    cmsg_space,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use tokio::{io::Interest, net::UdpSocket};

/// A client and the address that it sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub(super) client: SocketAddr,
    /// Of several addresses of this machine, the one; absent where the port is on one alone.
    pub(super) local: Option<IpAddr>,
}

#[derive(Debug)]
pub(super) struct Door {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Door {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        if address.ip().is_unspecified() {
            if address.is_ipv4() {
                setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            } else {
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
        }
        Ok(Self { socket, address })
    }

    /// Where a client sends to.
    pub(super) fn destination(&self, pair: Pair) -> SocketAddr {
        SocketAddr::new(pair.local.unwrap_or(self.address.ip()), self.address.port())
    }

    /// The next datagram.
    pub(super) async fn receive(&self, room: &mut [u8]) -> io::Result<(usize, Pair)> {
        self.socket.async_io(Interest::READABLE, || receive(&self.socket, room)).await
    }

    /// Sends a datagram to a client.
    pub(super) fn try_send(&self, bytes: &[u8], to: Pair) -> io::Result<()> {
        self.socket.try_io(Interest::WRITABLE, || send(&self.socket, bytes, to))
    }

    /// Resolves when there is room to send.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }
}

fn receive(socket: &UdpSocket, room: &mut [u8]) -> io::Result<(usize, Pair)> {
    let mut space = cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(room)];
    let got = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty())?;
    let local = got.cmsgs()?.find_map(|message| {
        if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
            Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()))
        } else if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
            Some(IpAddr::from(info.ipi6_addr.s6_addr))
        } else {
            None
        }
    });
    let client = got.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
    Ok((got.bytes, Pair { client, local }))
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

fn send(socket: &UdpSocket, bytes: &[u8], to: Pair) -> io::Result<()> {
    let storage = SockaddrStorage::from(to.client);
    let slices = [IoSlice::new(bytes)];
    let send = |messages: &[ControlMessage<'_>]| {
        sendmsg(socket.as_raw_fd(), &slices, messages, MsgFlags::empty(), Some(&storage)).map(|_| ())
    };
    match to.local {
        None => send(&[])?,
        Some(IpAddr::V4(local)) => {
            let source = libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: source };
            send(&[ControlMessage::Ipv4PacketInfo(&info)])?;
        }
        Some(IpAddr::V6(local)) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: 0 };
            send(&[ControlMessage::Ipv6PacketInfo(&info)])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On Linux, all of 127.0.0.0/8 are addresses of this machine.
    #[tokio::test]
    async fn the_answer_comes_from_the_address_that_was_asked() {
        let door = Door::new(UdpSocket::bind("0.0.0.0:0").await.unwrap()).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for asked in ["127.0.0.1", "127.0.0.9"] {
            let asked = SocketAddr::new(asked.parse().unwrap(), door.address.port());
            client.send_to(b"hello", asked).await.unwrap();
            let mut room = [0; 100];
            let (count, pair) = door.receive(&mut room).await.unwrap();
            assert_eq!((&room[..count], door.destination(pair)), (&b"hello"[..], asked));
            door.try_send(b"there", pair).unwrap();
            let (count, from) = client.recv_from(&mut room).await.unwrap();
            assert_eq!((&room[..count], from), (&b"there"[..], asked));
        }
    }
}
