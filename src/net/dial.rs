//! Sockets towards the spots where endpoints are dialled.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::{inside, refuse_itself};
use crate::model::Spot;

/// A connection to a spot. One that met nobody but itself is refused.
pub async fn connect_tcp(to: Spot) -> io::Result<TcpStream> {
    let stream = match to {
        Spot::Network(address) => TcpStream::connect(address).await?,
        // Rare, so that what is not does not carry its room.
        Spot::Inside(..) => Box::pin(connect_inside(to)).await?,
    };
    refuse_itself(stream, to.address())
}

async fn connect_inside(to: Spot) -> io::Result<TcpStream> {
    let socket = socket_to(to, Type::STREAM).await?;
    TcpSocket::from_std_stream(socket.into()).connect(to.address()).await
}

/// A socket for datagrams to a spot, and from there.
pub async fn connect_udp(to: Spot) -> io::Result<UdpSocket> {
    let address = to.address();
    let socket = match to {
        Spot::Network(_) => {
            let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            UdpSocket::bind(SocketAddr::new(any, 0)).await?
        }
        Spot::Inside(..) => UdpSocket::from_std(socket_to(to, Type::DGRAM).await?.into())?,
    };
    socket.connect(address).await?;
    Ok(socket)
}

/// A socket that does not block, to be connected to the address of a spot: in the network that the spot is in.
pub async fn socket_to(to: Spot, kind: Type) -> io::Result<Socket> {
    match to {
        Spot::Network(address) => {
            let socket = Socket::new(Domain::for_address(address), kind, None)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        }
        Spot::Inside(process, _) => inside::socket(process, kind).await,
    }
}
