//! A network that a test has to itself, with addresses of strangers: nothing leaves it, and it goes with the test.

use std::{future::Future, io, net::SocketAddr, process::Command, thread};

use nix::sched::{CloneFlags, unshare};
use tokio::net::{TcpSocket, TcpStream};

use super::not_run::not_run;

/// Runs a test on a thread that is alone in a network with these addresses, and with it all that the test starts.
pub(crate) fn alone_with<F: Future<Output = ()>>(addresses: &[&str], test: impl FnOnce() -> F + Send) {
    if !nix::unistd::geteuid().is_root() {
        return not_run("DORMOUSE_TEST_NO_TOOLS", "root, for a network of its own");
    }
    let alone = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own");
        ip(&["link", "set", "lo", "up"]);
        for address in addresses {
            ip(&["address", "add", address, "dev", "lo"]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
    };
    let ended = thread::scope(|scope| scope.spawn(alone).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {words:?}");
}

/// Connects from one of the addresses.
pub(crate) async fn connect_from(source: &str, to: SocketAddr) -> TcpStream {
    try_connect_from(source, to).await.expect("a connection")
}

/// The same of one who may be reset before it knows that it is connected.
pub(crate) async fn try_connect_from(source: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(source.parse().expect("an address"), 0)).expect("an address of this network");
    socket.connect(to).await
}
