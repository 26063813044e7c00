//! The ports of stream routes, as one worker serves them.

use std::{net::TcpListener as StdListener, rc::Rc, sync::Arc};

use tokio::net::{TcpListener, UdpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    net,
    proxy::{
        listening::{Opened, Port, PortPost, Socket},
        tcp, udp,
        worker::Worker,
    },
    telemetry::TurnedAway,
};

/// Serves each port that is handed over until it is closed, all of them until `shutdown`; then lets what is open end,
/// up to the deadline in the settings.
pub(super) async fn serve(worker: Rc<Worker>, mut post: PortPost, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let opened = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            opened = post.recv() => opened,
        };
        let Some(Opened { port, socket }) = opened else { break };
        let (worker, shutdown, tasks_of_port) = (Rc::clone(&worker), shutdown.clone(), tasks.clone());
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
    if !worker.shared.ended_in_peace(&tasks).await {
        tracing::warn!(cut = tasks.len(), "streams were still open at the end of the shutdown time");
    }
}

async fn listen(
    worker: Rc<Worker>,
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
    let permits = Arc::clone(&worker.permits);
    let take = |stream, peer, permit| {
        let (worker, port) = (Rc::clone(&worker), Arc::clone(&port));
        tasks.spawn_local(async move {
            tcp::connection(worker, stream, peer, port).await;
            drop(permit);
        });
    };
    let counters = Arc::clone(worker.shared.connections());
    let turn_away = |stream| {
        counters.turned_away(TurnedAway::Full);
        net::reset_when_dropped(&stream);
    };
    let make_room = |lack| worker.make_room(lack);
    net::accept(listener, permits, shutdown, take, (make_room, turn_away)).await;
}
