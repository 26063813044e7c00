//! What systemd, or whoever started us like it, is told (`sd_notify`); nobody where `NOTIFY_SOCKET` names nobody.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::control::Reload;

/// It serves.
pub(super) fn ready() {
    tell("READY=1\n");
}

/// It reads its configuration again, until [`ready`] is told.
fn reloading() {
    let micros = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1000);
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
}

/// It ends.
pub(super) fn stopping() {
    tell("STOPPING=1\n");
}

/// Another process is the one to be watched from now on.
pub(super) fn main_pid(pid: u32) {
    tell(&format!("MAINPID={pid}\n"));
}

/// Tells of each reload, whoever wanted it, until the end.
pub(super) async fn follow_reloads(mut reloads: broadcast::Receiver<Reload>, end: CancellationToken) {
    while let Some(told) = end.run_until_cancelled(reloads.recv()).await {
        match told {
            Ok(Reload::Begun) => reloading(),
            Ok(Reload::Over) => ready(),
            // So many that some were missed: what comes next says where they stand.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn tell(text: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, text) {
        tracing::warn!(%error, socket = %socket.display(), "the service manager could not be told");
    }
}

fn send(socket: &OsStr, text: &str) -> io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let from = UnixDatagram::unbound()?;
    // It is told, and never waited for.
    from.set_nonblocking(true)?;
    from.send_to_addr(text.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let told = |listens: UnixDatagram, socket: &OsStr| {
            send(socket, "READY=1\n").unwrap();
            let mut room = [0; 100];
            let count = listens.recv(&mut room).unwrap();
            assert_eq!(&room[..count], b"READY=1\n");
        };
        told(UnixDatagram::bind(&path).unwrap(), path.as_os_str());
        let name = format!("dormouse-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        told(UnixDatagram::bind_addr(&address).unwrap(), OsStr::new(&format!("@{name}")));
        assert!(send(OsStr::new("/nobody/is/there"), "x").is_err());
    }
}
