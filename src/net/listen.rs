//! Listeners and the accept loop.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener as StdListener, UdpSocket},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::handed::handed_tcp;

/// Connections that wait for an accept.
const BACKLOG: i32 = 4096;

/// Bytes of datagrams that wait to be read.
const DATAGRAM_QUEUE: usize = 4 << 20;

/// How long all permits may be taken before those who wait are turned away: a burst passes in less, a hoard does not.
const FULL: Duration = Duration::from_secs(1);

/// How long until room is asked for again: somebody may have become quiet for long enough.
const LOOK: Duration = Duration::from_millis(50);

/// The first and the longest pause after an accept that failed for want of something.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// Finds out whether an address is free, also of programs that share their ports: another Dormouse would take a part of
/// our connections, and we of its. The port 0 always is. Nobody listens meanwhile, so that nobody is cut off.
pub fn check_free(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    take_families(&socket, address)?;
    socket.bind(&address.into())
}

/// All addresses are those of both families, whatever this system takes them for by itself.
fn take_families(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() { socket.set_only_v6(!address.ip().is_unspecified()) } else { Ok(()) }
}

/// What to do about an address that can not be listened on.
pub fn listen_advice(address: SocketAddr, error: &io::Error) -> String {
    let (port, kind) = (address.port(), error.kind());
    if kind == io::ErrorKind::AddrInUse {
        format!("`ss -ltnp 'sport = :{port}'` as root tells who has it")
    } else if kind == io::ErrorKind::PermissionDenied && port < 1024 {
        "ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned()
    } else if kind == io::ErrorKind::AddrNotAvailable {
        "`ip address` tells which addresses this machine has".to_owned()
    } else {
        "write another address".to_owned()
    }
}

/// Binds a listener that shares its port with the other workers' (`SO_REUSEPORT`).
fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    take_families(&socket, address)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Listeners on one address for each of so many workers: those that were handed over for it, spread over them, or new
/// ones. A port that is free may be taken by nobody else meanwhile.
pub fn bind_for(address: SocketAddr, workers: usize) -> io::Result<Vec<Vec<StdListener>>> {
    let workers = workers.max(1);
    let mut sets: Vec<Vec<StdListener>> = (0..workers).map(|_| Vec::new()).collect();
    let handed = handed_tcp(address)?;
    if handed.is_empty() {
        check_free(address)?;
        let first = bind(address)?;
        let bound = first.local_addr()?;
        for set in sets.iter_mut().skip(1) {
            set.push(bind(bound)?);
        }
        if let Some(set) = sets.first_mut() {
            set.push(first);
        }
        return Ok(sets);
    }
    // Each of them has a queue of its own, which somebody must serve; one may be served by several.
    let last = handed.len().max(workers);
    for (index, listener) in handed.iter().cycle().take(last).enumerate() {
        if let Some(set) = sets.get_mut(index % workers) {
            set.push(listener.try_clone()?);
        }
    }
    Ok(sets)
}

/// Binds a socket for datagrams, alone on its address. It tells for each of them where it was sent to.
pub fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    take_families(&socket, address)?;
    socket.set_nonblocking(true)?;
    // A crowd that comes while the backend wakes is kept here until it is looked at; the system grants what it allows.
    if setsockopt(&socket, sockopt::RcvBufForce, &DATAGRAM_QUEUE).is_err() {
        let _ = socket.set_recv_buffer_size(DATAGRAM_QUEUE);
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// Permits.
    Places,
    /// Descriptors of the process, or memory.
    Descriptors,
}

/// Accepts until `shutdown`, at most as many connections at once as there are `permits`. Each connection is handed
/// over with its permit. While there is none, `make_room` is asked to have one given back, and says whether one will
/// be; where it can not, and there has been none for a second, connections are handed over to be turned away. Never
/// ends because an accept failed.
pub async fn accept(
    listener: TcpListener,
    permits: Arc<Semaphore>,
    shutdown: CancellationToken,
    mut take: impl FnMut(TcpStream, SocketAddr, OwnedSemaphorePermit),
    (mut make_room, mut turn_away): (impl FnMut(Lack) -> bool, impl FnMut(TcpStream)),
) {
    let mut pause = PAUSES.0;
    loop {
        let next = async {
            let permit = permit(&listener, &permits, &mut make_room, &mut turn_away).await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            next = next => next,
        };
        let Ok(permit) = permit else { return };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSES.0;
                take(stream, peer, permit);
            }
            Err(error) if is_scarcity(&error) => {
                if make_room(Lack::Descriptors) {
                    pause = PAUSES.0;
                } else {
                    tracing::warn!(%error, "accepting connections pauses for {pause:?}");
                }
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(PAUSES.1);
            }
            // That one connection failed before it was taken; the next may be well.
            Err(error) => tracing::debug!(%error, "a connection was lost before it was accepted"),
        }
    }
}

/// A permit. Who comes while there is none for too long is turned away meanwhile.
async fn permit(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    make_room: &mut impl FnMut(Lack) -> bool,
    turn_away: &mut impl FnMut(TcpStream),
) -> Result<OwnedSemaphorePermit, AcquireError> {
    let mut permit = pin!(Arc::clone(permits).acquire_owned());
    if let Some(permit) = permit.as_mut().now_or_never() {
        return permit;
    }
    let since = Instant::now();
    while since.elapsed() < FULL {
        make_room(Lack::Places);
        if let Ok(permit) = tokio::time::timeout(LOOK, &mut permit).await {
            return permit;
        }
    }
    let mut told = false;
    loop {
        if make_room(Lack::Places) {
            if let Ok(permit) = tokio::time::timeout(LOOK, &mut permit).await {
                return permit;
            }
            continue;
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("all places for connections are taken: new ones are turned away until some are free");
        }
        tokio::select! {
            biased;
            permit = &mut permit => return permit,
            never = turn_all_away(listener, turn_away) => match never {},
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn turn_all_away(listener: &TcpListener, turn_away: &mut impl FnMut(TcpStream)) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => turn_away(stream),
            Err(error) if is_scarcity(&error) => tokio::time::sleep(PAUSES.1).await,
            Err(error) => tracing::debug!(%error, "a connection was lost before it was accepted"),
        }
    }
}

/// Whether the error says that something ran out (descriptors, memory), so that trying again at once is in vain.
pub fn is_scarcity(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_failure_to_listen_has_its_own_advice() {
        let advice = |port: u16, kind: io::ErrorKind| listen_advice(([127, 0, 0, 1], port).into(), &kind.into());
        assert!(advice(80, io::ErrorKind::AddrInUse).contains("ss -ltnp 'sport = :80'"));
        assert!(advice(80, io::ErrorKind::PermissionDenied).contains("CAP_NET_BIND_SERVICE"));
        assert!(!advice(8080, io::ErrorKind::PermissionDenied).contains("CAP_NET_BIND_SERVICE"));
        assert!(advice(80, io::ErrorKind::AddrNotAvailable).contains("ip address"));
    }
    use crate::net::handed::take_over_sockets;

    #[test]
    fn two_listeners_share_a_port() {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let second = bind(first.local_addr().unwrap()).unwrap();
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
    }

    #[test]
    fn want_of_descriptors_is_told_from_a_lost_connection() {
        assert!(is_scarcity(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(!is_scarcity(&io::Error::from_raw_os_error(libc::ECONNABORTED)));
    }

    #[test]
    fn every_listener_of_the_process_before_is_served_and_each_worker_has_one() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let inode = |listener: &StdListener| nix::sys::stat::fstat(listener).unwrap().st_ino;
        for (count, workers) in [(1, 3), (3, 2), (2, 2)] {
            let handed: Vec<_> = (0..count).map(|_| bind(address).unwrap()).collect();
            // However often one is handed over, it is one.
            let twice = handed.iter().chain(&handed).map(|listener| listener.try_clone().unwrap().into());
            take_over_sockets(Vec::new(), twice.collect());
            let sets = bind_for(address, workers).unwrap();
            assert!(sets.len() == workers && sets.iter().all(|set| !set.is_empty()), "{sets:?}");
            let served: BTreeSet<_> = sets.iter().flatten().map(inode).collect();
            assert_eq!(served, handed.iter().map(inode).collect());
            assert!(handed_tcp(address).unwrap().is_empty(), "those that were taken are gone");
        }
    }

    #[tokio::test]
    async fn no_more_connections_are_taken_than_permits_exist() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, mut taken) = tokio::sync::mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(accept(
            TcpListener::from_std(listener).unwrap(),
            Arc::new(Semaphore::new(1)),
            shutdown.clone(),
            move |stream, _, permit| {
                let _ = sender.send((stream, permit));
            },
            (|_| false, drop),
        ));
        let _first = TcpStream::connect(address).await.unwrap();
        let second = TcpStream::connect(address).await.unwrap();
        let held = taken.recv().await.unwrap();
        assert!(taken.try_recv().is_err());
        drop(held);
        let (stream, _) = taken.recv().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), second.local_addr().unwrap());
        shutdown.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn who_comes_while_all_places_are_taken_is_turned_away_until_one_is_free() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (taken_in, mut taken) = tokio::sync::mpsc::unbounded_channel();
        let (turned_in, mut turned) = tokio::sync::mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(accept(
            TcpListener::from_std(listener).unwrap(),
            Arc::new(Semaphore::new(1)),
            shutdown.clone(),
            move |stream, _, permit| drop(taken_in.send((stream, permit))),
            (|_| false, move |stream| drop(turned_in.send(stream))),
        ));
        let _first = TcpStream::connect(address).await.unwrap();
        let held = taken.recv().await.unwrap();
        let second = TcpStream::connect(address).await.unwrap();
        assert_eq!(turned.recv().await.unwrap().peer_addr().unwrap(), second.local_addr().unwrap());
        drop(held);
        // The place is given to who comes next.
        let third = TcpStream::connect(address).await.unwrap();
        assert_eq!(taken.recv().await.unwrap().0.peer_addr().unwrap(), third.local_addr().unwrap());
        shutdown.cancel();
        task.await.unwrap();
    }
}
