//! Sockets that were opened before the program began, by systemd or whoever speaks like it (`LISTEN_FDS`). They are
//! used for the addresses that they are bound to, and outlive the program: nobody is refused while it starts again. Or by
//! the process that is taken over from: those that nobody wants any more are closed then.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{Domain, SockRef, Type};

/// The first of the descriptors.
const FIRST: RawFd = 3;

/// So many are looked at.
const MOST: RawFd = 1024;

/// A std mutex: held for a look, when something is bound.
static HANDED: Mutex<Vec<Handed>> = Mutex::new(Vec::new());

/// What became of a descriptor, in words.
pub type HandedWords = Result<String, String>;

/// A socket that was handed over.
#[derive(Debug)]
struct Handed {
    name: String,
    /// Which socket it is, however many descriptors lead to it.
    inode: u64,
    /// Closed when nobody wants it, rather than kept for who may want it later.
    for_now: bool,
    socket: Kind,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener, Bound),
    Udp(UdpSocket, Bound),
    Unix(UnixListener),
    /// Of no use, and why.
    None(io::Error),
}

/// What a socket is bound to.
#[derive(Debug, Clone, Copy)]
struct Bound {
    address: SocketAddr,
    /// Nothing of IPv4 comes to it.
    only_v6: bool,
}

/// Takes the sockets that the environment tells of, once, and says what they are. To be called before anything else opens
/// descriptors.
pub fn take_handed(variable: impl Fn(&str) -> Option<String>) -> Vec<HandedWords> {
    let taken: Vec<_> = match count(&variable) {
        0 => Vec::new(),
        count => {
            let names = variable("LISTEN_FDNAMES").unwrap_or_default();
            let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
            (FIRST..FIRST + count).zip(names).map(|(descriptor, name)| adopt(descriptor, name)).collect()
        }
    };
    let words = taken.iter().map(Handed::words).collect();
    *all() = taken;
    words
}

/// Copies of the sockets that outlive this program, for one that takes over.
pub fn copies_of_kept() -> io::Result<Vec<OwnedFd>> {
    let all = all();
    let kept = all.iter().filter(|handed| !handed.for_now).filter_map(|handed| match &handed.socket {
        Kind::Tcp(listener, _) => Some(listener.as_fd()),
        Kind::Udp(socket, _) => Some(socket.as_fd()),
        Kind::Unix(listener) => Some(listener.as_fd()),
        Kind::None(_) => None,
    });
    kept.map(|socket| socket.try_clone_to_owned()).collect()
}

/// Takes sockets of a process that is taken over from: those that outlive it, and those that it made.
pub fn take_over_sockets(kept: Vec<OwnedFd>, made: Vec<OwnedFd>) {
    let mut all = all();
    let kept = kept.into_iter().map(|socket| (socket, false));
    for (descriptor, for_now) in kept.chain(made.into_iter().map(|socket| (socket, true))) {
        let socket = Handed::new(descriptor, String::new(), for_now);
        if let Kind::None(error) = &socket.socket {
            tracing::warn!(%error, "a socket that was handed over is of no use");
        } else if !all.iter().any(|known| known.inode == socket.inode) {
            all.push(socket);
        }
    }
}

/// Closes the sockets of the process before that nobody wanted, and says which they were: by their inodes, which are the
/// same in all processes.
pub fn close_unwanted() -> Vec<u64> {
    let unwanted: Vec<_> = all().extract_if(.., |handed| handed.for_now).collect();
    let mut told = Vec::new();
    for words in unwanted.iter().filter_map(|handed| handed.words().ok()) {
        // The workers had one each for an address.
        if !told.contains(&words) {
            tracing::info!("not listened on any more: {words}");
            told.push(words);
        }
    }
    unwanted.iter().map(|handed| handed.inode).collect()
}

/// Which socket it is, however many descriptors lead to it; 0: that can not be told.
pub fn inode_of(socket: impl AsFd) -> u64 {
    nix::sys::stat::fstat(socket).map_or(0, |stat| stat.st_ino)
}

/// How many there are; none when they are meant for another process.
fn count(variable: &impl Fn(&str) -> Option<String>) -> RawFd {
    let number = |name: &str| variable(name)?.parse::<u32>().ok();
    let ours = number("LISTEN_PID") == Some(std::process::id());
    if !ours {
        return 0;
    }
    number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok()).unwrap_or(0).min(MOST)
}

#[allow(unsafe_code, reason = "descriptors come as numbers")]
fn adopt(descriptor: RawFd, name: String) -> Handed {
    // SAFETY: who started this process gave it this descriptor to own, and nothing else was opened yet.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Handed::new(owned, name, false)
}

fn classify(descriptor: OwnedFd) -> io::Result<Kind> {
    // Not for our children.
    fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let socket = SockRef::from(&descriptor);
    let (domain, kind) = (socket.domain()?, socket.r#type()?);
    let listens = || match socket.is_listener()? {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen")),
    };
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    if domain == Domain::UNIX && kind == Type::STREAM {
        listens()?;
        return Ok(Kind::Unix(descriptor.into()));
    }
    let address = address.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    let bound = Bound { address, only_v6: address.is_ipv6() && socket.only_v6()? };
    if kind == Type::STREAM {
        listens()?;
        Ok(Kind::Tcp(descriptor.into(), bound))
    } else if kind == Type::DGRAM {
        Ok(Kind::Udp(descriptor.into(), bound))
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Copies of the listeners that were handed over for this address: one with systemd; of a process before, as many as
/// shared its port. All copies of one share its queue. They are taken for the first who asks.
pub fn handed_tcp(wanted: SocketAddr) -> io::Result<Vec<TcpListener>> {
    take_or_copy(|handed| match &handed.socket {
        Kind::Tcp(listener, bound) if bound.serves(wanted) => Some(listener.try_clone()),
        Kind::Tcp(..) | Kind::Udp(..) | Kind::Unix(_) | Kind::None(_) => None,
    })
}

/// Whether a listener was handed over for this address.
pub fn is_handed(wanted: SocketAddr) -> bool {
    all().iter().any(|handed| matches!(&handed.socket, Kind::Tcp(_, bound) if bound.serves(wanted)))
}

/// A copy of the socket for datagrams that was handed over for this address.
pub fn handed_udp(wanted: SocketAddr) -> io::Result<Option<UdpSocket>> {
    let found = take_or_copy(|handed| match &handed.socket {
        Kind::Udp(socket, bound) if bound.serves(wanted) => Some(socket.try_clone()),
        Kind::Tcp(..) | Kind::Udp(..) | Kind::Unix(_) | Kind::None(_) => None,
    });
    found.map(|found| found.into_iter().next())
}

/// A copy of the listener that was handed over for this path.
pub fn handed_unix(wanted: &Path) -> io::Result<Option<UnixListener>> {
    let is_there = |handed: &Handed, listener: &UnixListener| {
        let address = listener.local_addr().ok();
        let path = address.as_ref().and_then(|address| address.as_pathname());
        // The process before may have bound it under another name, and moved it when it was ready.
        path.is_some_and(|path| path == wanted || (handed.for_now && path.parent() == wanted.parent()))
    };
    let found = take_or_copy(|handed| match &handed.socket {
        Kind::Unix(listener) if is_there(handed, listener) => Some(listener.try_clone()),
        Kind::Tcp(..) | Kind::Udp(..) | Kind::Unix(_) | Kind::None(_) => None,
    });
    found.map(|found| found.into_iter().next())
}

fn take_or_copy<T>(wanted: impl Fn(&Handed) -> Option<io::Result<T>>) -> io::Result<Vec<T>> {
    let mut found = Vec::new();
    let mut failed = None;
    all().retain(|handed| match wanted(handed) {
        None => true,
        Some(Ok(copy)) => {
            found.push(copy);
            !handed.for_now
        }
        Some(Err(error)) => {
            failed = Some(error);
            true
        }
    });
    failed.map_or(Ok(found), Err)
}

fn all() -> MutexGuard<'static, Vec<Handed>> {
    HANDED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bound {
    /// Whether it is what somebody asks for. `[::]`, as systemd binds a bare port, takes what comes to every address,
    /// those of IPv4 too unless it was told not to.
    fn serves(self, wanted: SocketAddr) -> bool {
        let Self { address, only_v6 } = self;
        let both = address.is_ipv6() && address.ip().is_unspecified() && !only_v6;
        let everything = both && wanted.ip() == IpAddr::from([0; 4]);
        address.port() == wanted.port() && (address.ip() == wanted.ip() || everything)
    }
}

impl Handed {
    fn new(descriptor: OwnedFd, name: String, for_now: bool) -> Self {
        Self { name, inode: inode_of(&descriptor), for_now, socket: classify(descriptor).unwrap_or_else(Kind::None) }
    }

    fn words(&self) -> HandedWords {
        let what = match &self.socket {
            Kind::Tcp(_, bound) => format!("TCP {}", bound.address),
            Kind::Udp(_, bound) => format!("UDP {}", bound.address),
            Kind::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                format!("Unix {}", path.unwrap_or(Path::new("-")).display())
            }
            Kind::None(error) => return Err(format!("`{}`: {error}", self.name)),
        };
        Ok(if self.name.is_empty() { what } else { format!("{what} ({})", self.name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_that_are_meant_for_this_process_are_taken() {
        let own = std::process::id().to_string();
        let told = |pid: &str, fds: &str| {
            let (pid, fds) = (pid.to_owned(), fds.to_owned());
            count(&move |name: &str| match name {
                "LISTEN_PID" => Some(pid.clone()),
                "LISTEN_FDS" => Some(fds.clone()),
                _ => None,
            })
        };
        assert_eq!(told(&own, "2"), 2);
        assert_eq!(told("1", "2"), 0);
        assert_eq!(told(&own, "-1"), 0);
        assert_eq!(told(&own, "99999999"), MOST);
        assert_eq!(count(&|_: &str| None), 0);
    }

    #[test]
    fn what_is_bound_to_every_address_serves_a_bare_port() {
        let serves = |bound: &str, wanted: &str| {
            Bound { address: bound.parse().unwrap(), only_v6: false }.serves(wanted.parse().unwrap())
        };
        assert!(
            serves("[::]:80", "0.0.0.0:80") && serves("[::]:80", "[::]:80") && serves("127.0.0.1:80", "127.0.0.1:80")
        );
        assert!(!serves("[::]:80", "0.0.0.0:81") && !serves("0.0.0.0:80", "127.0.0.1:80"));
        assert!(!serves("[::]:80", "127.0.0.1:80"));
    }

    #[test]
    fn what_is_of_ipv6_alone_serves_no_ipv4() {
        for only_v6 in [true, false] {
            let socket = socket2::Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
            socket.set_only_v6(only_v6).unwrap();
            socket.bind(&SocketAddr::from(([0; 8], 0)).into()).unwrap();
            let port = socket.local_addr().unwrap().as_socket().unwrap().port();
            let Ok(Kind::Udp(_, bound)) = classify(socket.into()) else { panic!("it is one for datagrams") };
            assert!(bound.serves(SocketAddr::from(([0; 8], port))));
            assert_eq!(bound.serves(SocketAddr::from(([0; 4], port))), !only_v6);
        }
    }

    #[test]
    fn sockets_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(matches!(classify(listener.into()), Ok(Kind::Tcp(_, found)) if found.address == address));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(matches!(classify(socket.into()), Ok(Kind::Udp(..))));
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("a.sock")).unwrap();
        assert!(matches!(classify(listener.into()), Ok(Kind::Unix(_))));
        assert!(classify(std::fs::File::open("/dev/null").unwrap().into()).is_err());
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(one.local_addr().unwrap()).unwrap();
        assert!(classify(connected.into()).is_err(), "it does not listen");
    }
}
