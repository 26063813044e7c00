//! The server: one small HTTP/1.1 server over a TCP listener and a Unix socket.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{fs::PermissionsExt, net::UnixStream as StdUnixStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};

use super::Connection;

/// The name of the Unix socket in the state directory.
pub const SOCKET: &str = "dormouse.sock";
/// Connections at once over TCP.
const MOST_TCP: usize = 256;
/// Connections at once through the Unix socket: places of its own, so that nobody on the network can take them.
const MOST_UNIX: usize = 128;
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
    let house = House { router, connections: TaskTracker::new(), end };
    let by_tcp = async {
        if let Some(listener) = tcp {
            house.admit(Door::Tcp(listener), MOST_TCP).await;
        }
    };
    tokio::join!(by_tcp, house.admit(Door::Unix(unix), MOST_UNIX));
    house.connections.close();
    house.connections.wait().await;
    Ok(())
}

/// A way in.
enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Door {
    async fn accept(&self, end: &CancellationToken) -> io::Result<(Either<TcpStream, UnixStream>, Connection)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Either::Left(stream), Connection::tcp(end.clone())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred().ok().map(|peer| peer.uid());
                Ok((Either::Right(stream), Connection::unix(user, end.clone())))
            }
        }
    }
}

/// What both doors share.
struct House {
    router: Router,
    connections: TaskTracker,
    end: CancellationToken,
}

impl House {
    /// Lets in so many at once, until the end.
    async fn admit(&self, door: Door, most: usize) {
        let places = Arc::new(Semaphore::new(most));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            tokio::select! {
                () = self.end.cancelled() => return,
                accepted = door.accept(&self.end) => match accepted {
                    Ok((stream, from)) => {
                        self.connections.spawn(converse(stream, self.router.clone(), from, place));
                    }
                    Err(error) => pause(&error).await,
                },
            }
        }
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
    // The router is shared: who asks goes with each request, rather than into a router of each connection.
    let shared = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(from.clone());
        shared.call(request)
    });
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
