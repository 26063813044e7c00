//! The addresses that are listened on, bound or taken over.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::net::UnixListener;

use crate::{api, model::Settings, net};

/// An address that is in use may be that of a process before this one, which lets it go so soon.
const LEAVING: Duration = Duration::from_secs(5);

/// The usual address of HTTPS, where it can be had.
pub(super) fn usual_https() -> Option<SocketAddr> {
    let address = SocketAddr::from(([0, 0, 0, 0], 443));
    (net::is_handed(address) || net::check_free(address).is_ok()).then_some(address)
}

/// Binds. Where this process succeeds others, one of them may be about to let an address go: that is waited for.
pub(super) async fn until_free<T>(succeeds: bool, bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let since = Instant::now();
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && succeeds && since.elapsed() < LEAVING => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bound => return bound,
        }
    }
}

/// Binds the management interface: the Unix socket in the state directory, and a loopback address.
pub(super) fn bind_api(settings: &Settings, state_dir: &Path) -> anyhow::Result<(Option<TcpListener>, UnixListener)> {
    let socket = state_dir.join(api::SOCKET);
    let unix = bind_socket(&socket).with_context(|| format!("listen on `{}`", socket.display()))?;
    let tcp = match settings.listen.api {
        Some(address) => {
            let bound = net::handed_tcp(address)
                .and_then(|handed| handed.into_iter().next().map_or_else(|| TcpListener::bind(address), Ok));
            let listener = bound.map_err(|error| {
                let advice = net::listen_advice(address, &error);
                let what = "for the management interface (`listen: api` in the configuration)";
                anyhow::Error::from(error).context(format!("listen on `{address}` {what} ({advice})"))
            })?;
            tracing::info!(address = %listener.local_addr()?, "serving the management interface");
            Some(listener)
        }
        None => None,
    };
    Ok((tcp, unix))
}

/// The socket of the command line: the one that was handed over, or a new one.
fn bind_socket(path: &Path) -> std::io::Result<UnixListener> {
    match net::handed_unix(path)? {
        Some(handed) => UnixListener::from_std(handed),
        None => api::bind_unix(path),
    }
}
