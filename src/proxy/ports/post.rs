//! From the keeper of ports to the workers: sockets to be served.

use std::{
    net::{TcpListener as StdListener, UdpSocket as StdUdpSocket},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Port;
use crate::{
    net,
    proxy::{Worker, tcp, udp},
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
}

impl PortPosts {
    /// For one more worker.
    pub(in crate::proxy) fn worker(&self) -> PortPost {
        let (sender, receiver) = unbounded_channel();
        self.lock().push(sender);
        receiver
    }

    pub(super) fn workers(&self) -> usize {
        self.lock().len()
    }

    /// A worker that has ended takes nothing: its socket closes.
    pub(super) fn hand_over(&self, worker: usize, opened: Opened) {
        if let Some(sender) = self.lock().get(worker) {
            let _ = sender.send(opened);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<UnboundedSender<Opened>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    let turn_away = |stream| net::reset_when_dropped(&stream);
    net::accept(listener, permits, shutdown, take, (|| false, turn_away)).await;
}
