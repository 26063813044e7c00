//! From the keeper of ports to the workers: sockets to be served.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener, UdpSocket as StdUdpSocket},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    beside::Beside,
    port::{Port, PortKey},
};
use crate::{model::Transport, net};

/// A socket of an open port.
pub(in crate::proxy) enum Socket {
    Tcp(StdListener),
    Udp(StdUdpSocket),
}

/// A port that was opened, with this worker's socket.
pub(in crate::proxy) struct Opened {
    pub(in crate::proxy) port: Arc<Port>,
    pub(in crate::proxy) socket: Socket,
}

/// Where one worker is told of ports.
pub(in crate::proxy) type PortPost = UnboundedReceiver<Opened>;

/// Where all workers are told of ports.
#[derive(Default)]
pub(in crate::proxy) struct PortPosts {
    /// A std mutex: held for a look, at the start of a worker and when a port is opened.
    workers: Mutex<Vec<UnboundedSender<Opened>>>,
    pub(in crate::proxy) turns: AtomicUsize,
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

    pub(in crate::proxy) fn workers(&self) -> usize {
        self.lock().len()
    }

    /// Keeps copies of the sockets of a port, for a process that takes over.
    pub(in crate::proxy) fn keep<'a, S: AsFd + 'a>(
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
    pub(in crate::proxy) fn let_go(&self, key: PortKey) {
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
    pub(in crate::proxy) fn hand_over(&self, worker: usize, opened: Opened) {
        if let Some(sender) = self.lock().get(worker) {
            let _ = sender.send(opened);
        }
    }

    /// These are open from now on.
    pub(in crate::proxy) fn are_open<'a>(&self, keys: impl Iterator<Item = &'a PortKey>) {
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
