//! The server: one small HTTP/1.1 server over a TCP listener and a Unix socket.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{fs::PermissionsExt, net::UnixStream as StdUnixStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Connection;

/// Connections at once, for both listeners together.
const MOST: usize = 256;
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long requests in hand may take to end when the program ends.
const LAST: Duration = Duration::from_secs(2);
/// The pause after a failed accept.
const AGAIN: Duration = Duration::from_millis(100);

/// Listens on a Unix socket that only its owner may use. A socket that nobody answers on is replaced.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if StdUnixStream::connect(path).is_ok() {
        let what = format!("another Dormouse listens on `{}`", path.display());
        return Err(io::Error::new(ErrorKind::AddrInUse, what));
    }
    // Made under another name and moved when its mode is right: it is never there for others.
    let new = path.with_extension("sock.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

/// Serves until the token ends it; requests in hand get a little time to end.
pub async fn serve(
    router: Router,
    tcp: Option<std::net::TcpListener>,
    unix: UnixListener,
    end: CancellationToken,
) -> io::Result<()> {
    let tcp = match tcp {
        Some(listener) => {
            listener.set_nonblocking(true)?;
            Some(TcpListener::from_std(listener)?)
        }
        None => None,
    };
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        tokio::select! {
            () = end.cancelled() => break,
            accepted = accept_tcp(tcp.as_ref()) => match accepted {
                Ok(stream) => {
                    let from = Connection::tcp(end.clone());
                    connections.spawn(converse(stream, router.clone(), from, place));
                }
                Err(error) => pause(&error).await,
            },
            accepted = unix.accept() => match accepted {
                Ok((stream, _)) => {
                    let from = Connection::unix(stream.peer_cred().ok().map(|peer| peer.uid()), end.clone());
                    connections.spawn(converse(stream, router.clone(), from, place));
                }
                Err(error) => pause(&error).await,
            },
        }
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn accept_tcp(listener: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "the management interface can not accept");
    tokio::time::sleep(AGAIN).await;
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    from: Connection,
    _place: OwnedSemaphorePermit,
) {
    let end = from.end.clone();
    let service = TowerToHyperService::new(router.layer(Extension(from)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection to the management interface broke");
    }
}
