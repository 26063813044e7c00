//! From the keeper of ports to the workers: sockets to be served.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener, UdpSocket as StdUdpSocket},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
};

use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Beside, Port, port::PortKey};
use crate::{
    model::Transport,
    net,
    proxy::{Worker, tcp, udp},
    telemetry::TurnedAway,
};

/// A socket of an open port.
pub(super) enum Socket {
    Tcp(StdListener),
    Udp(StdUdpSocket),
}

/// A port that was opened, with this worker's socket.
pub(in crate::proxy) struct Opened {
    pub(super) port: Arc<Port>,
    pub(super) socket: Socket,
}

/// Where one worker is told of ports.
pub(in crate::proxy) type PortPost = UnboundedReceiver<Opened>;

/// Where all workers are told of ports.
#[derive(Default)]
pub(in crate::proxy) struct PortPosts {
    /// A std mutex: held for a look, at the start of a worker and when a port is opened.
    workers: Mutex<Vec<UnboundedSender<Opened>>>,
    pub(super) turns: AtomicUsize,
    /// The ports that are open, with the addresses that they are open on.
    open: ArcSwap<HashMap<(Transport, u16), Vec<IpAddr>>>,
    /// Where HTTPS listens, each with the stream routes that share its port.
    https: ArcSwap<HashMap<SocketAddr, Arc<Beside>>>,
    /// Copies of all sockets, for a process that takes over. A std mutex: held for a look.
    copies: Mutex<HashMap<PortKey, Vec<OwnedFd>>>,
}

impl PortPosts {
    /// For one more worker.
    pub(in crate::proxy) fn worker(&self) -> PortPost {
        let (sender, receiver) = unbounded_channel();
        self.lock().push(sender);
        receiver
    }

    /// HTTPS is served here. Told before ports are opened.
    pub(in crate::proxy) fn serves_https_at(&self, address: SocketAddr) {
        let mut all = HashMap::clone(&self.https.load());
        all.entry(address).or_default();
        self.https.store(Arc::new(all));
    }

    /// What shares this port with HTTPS; absent: HTTPS is not served there.
    pub(in crate::proxy) fn beside(&self, address: SocketAddr) -> Option<Arc<Beside>> {
        self.https.load().get(&address).cloned()
    }

    /// Whether HTTPS is served anywhere.
    pub(in crate::proxy) fn has_https(&self) -> bool {
        !self.https.load().is_empty()
    }

    /// Whether a stream route answers to this host on a port of HTTPS.
    pub(in crate::proxy) fn names_beside_https(&self, host: &str) -> bool {
        self.https.load().values().any(|beside| beside.names(host))
    }

    pub(super) fn workers(&self) -> usize {
        self.lock().len()
    }

    /// Keeps copies of the sockets of a port, for a process that takes over.
    pub(super) fn keep<'a, S: AsFd + 'a>(
        &self,
        key: PortKey,
        sockets: impl IntoIterator<Item = &'a S>,
    ) -> io::Result<()> {
        let copies = sockets.into_iter().map(|socket| socket.as_fd().try_clone_to_owned());
        let copies = copies.collect::<io::Result<Vec<_>>>()?;
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).insert(key, copies);
        Ok(())
    }

    /// A port is closed: nothing may hold it open.
    pub(super) fn let_go(&self, key: PortKey) {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Copies of all sockets.
    pub(in crate::proxy) fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        let copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.values().flatten().map(OwnedFd::try_clone).collect()
    }

    /// No port is held open any more but by those who serve it.
    pub(in crate::proxy) fn let_all_go(&self) {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A worker that has ended takes nothing: its socket closes.
    pub(super) fn hand_over(&self, worker: usize, opened: Opened) {
        if let Some(sender) = self.lock().get(worker) {
            let _ = sender.send(opened);
        }
    }

    /// These are open from now on.
    pub(super) fn are_open<'a>(&self, keys: impl Iterator<Item = &'a PortKey>) {
        let mut open: HashMap<_, Vec<_>> = HashMap::new();
        for PortKey { transport, address } in keys {
            open.entry((*transport, address.port())).or_default().push(address.ip());
        }
        self.open.store(Arc::new(open));
    }

    /// Whether what is sent there comes back to one of our own ports, and might for ever. Names may lead to any address
    /// of this machine, so this is known only once they were looked up.
    pub(in crate::proxy) fn listens_at(&self, transport: Transport, to: SocketAddr) -> bool {
        self.open.load().get(&(transport, to.port())).is_some_and(|open| open.iter().any(|at| is_at(*at, to.ip())))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<UnboundedSender<Opened>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what is sent to one address arrives at a listening one.
fn is_at(listens: IpAddr, to: IpAddr) -> bool {
    let (at, to) = (listens.to_canonical(), to.to_canonical());
    let takes_all = at.is_unspecified() && (at.is_ipv6() || to.is_ipv4());
    at == to || (takes_all && net::is_own(to)) || (to.is_unspecified() && at.is_loopback())
}

/// Serves each port that is handed over until it is closed, all of them until `shutdown`; then lets what is open end,
/// up to the deadline in the settings.
pub(in crate::proxy) async fn serve(worker: Worker, mut post: PortPost, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let opened = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            opened = post.recv() => opened,
        };
        let Some(Opened { port, socket }) = opened else { break };
        let (worker, shutdown, tasks_of_port) = (worker.clone(), shutdown.clone(), tasks.clone());
        tasks.spawn_local(async move {
            let closed = port.closed.clone();
            let serving = async {
                match socket {
                    Socket::Tcp(listener) => listen(worker, listener, port, shutdown, tasks_of_port).await,
                    Socket::Udp(socket) => match UdpSocket::from_std(socket) {
                        Ok(socket) => udp::serve(worker, socket, port, shutdown).await,
                        Err(error) => tracing::error!(%error, "a port can not be served"),
                    },
                }
            };
            tokio::select! {
                () = serving => {}
                () = closed.cancelled() => {}
            }
        });
    }
    tasks.close();
    if !worker.0.shared.ended_in_peace(&tasks).await {
        tracing::warn!(cut = tasks.len(), "streams were still open at the end of the shutdown time");
    }
}

async fn listen(
    worker: Worker,
    listener: StdListener,
    port: Arc<Port>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a port can not be served");
            return;
        }
    };
    let permits = Arc::clone(&worker.0.permits);
    let take = |stream, peer, permit| {
        let (worker, port) = (worker.clone(), Arc::clone(&port));
        tasks.spawn_local(async move {
            tcp::connection(worker, stream, peer, port).await;
            drop(permit);
        });
    };
    let counters = Arc::clone(worker.0.shared.connections());
    let turn_away = |stream| {
        counters.turned_away(TurnedAway::Full);
        net::reset_when_dropped(&stream);
    };
    let make_room = |lack| worker.0.make_room(lack);
    net::accept(listener, permits, shutdown, take, (make_room, turn_away)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_back_to_an_open_port_is_known_by_every_address_of_this_machine() {
        let to = |text: &str| text.parse::<SocketAddr>().unwrap();
        let posts = |listens: &str| {
            let posts = PortPosts::default();
            posts.are_open([PortKey { transport: Transport::Tcp, address: to(listens) }].iter());
            posts
        };
        let all = posts("0.0.0.0:5432");
        for ours in ["127.0.0.1:5432", "127.0.0.9:5432", "0.0.0.0:5432", "[::ffff:127.0.0.1]:5432"] {
            assert!(all.listens_at(Transport::Tcp, to(ours)), "{ours}");
            assert!(!all.listens_at(Transport::Udp, to(ours)), "{ours}");
            assert!(posts("[::]:5432").listens_at(Transport::Tcp, to(ours)), "{ours}");
        }
        for other in ["127.0.0.1:5433", "198.51.100.7:5432", "[::1]:5432"] {
            assert!(!all.listens_at(Transport::Tcp, to(other)), "{other}");
        }
        let one = posts("127.0.0.1:5432");
        assert!(one.listens_at(Transport::Tcp, to("0.0.0.0:5432")));
        assert!(!one.listens_at(Transport::Tcp, to("127.0.0.9:5432")));
    }
}
