//! The clients of one listener of HTTP or HTTPS.

use std::{io, net::TcpListener as StdListener, rc::Rc, sync::Arc};

use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    net,
    proxy::http::{self, HttpWorker, Https},
    telemetry::TurnedAway,
};

/// Serves a listener until `shutdown`, then lets the requests in flight end, up to the deadline in the settings.
/// Runs inside a current-thread runtime on which local tasks can be spawned.
pub(super) async fn serve(
    worker: Rc<HttpWorker>,
    listener: StdListener,
    https: Option<Rc<Https>>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let tasks = TaskTracker::new();
    let permits = Arc::clone(&worker.permits);
    let take = |stream, peer, permit| {
        worker.guests.add(|guest| {
            let (worker, https, shutdown) = (Rc::clone(&worker), https.clone(), shutdown.clone());
            let task = tasks.spawn_local(async move {
                http::connection(worker, stream, https, (peer, guest), shutdown).await;
                drop(permit);
            });
            task.abort_handle()
        });
    };
    let make_room = |lack| worker.make_room(lack);
    // So many are waited for at once; a hoard of more is told and cut.
    let lobby = Arc::new(Semaphore::new((permits.available_permits() / 8).clamp(4, 64)));
    let linger = worker.shared.settings.load().limits.linger;
    let is_secure = https.is_some();
    let counters = Arc::clone(worker.shared.connections());
    let turn_away = |stream| {
        counters.turned_away(TurnedAway::Full);
        let Ok(place) = Arc::clone(&lobby).try_acquire_owned() else {
            return http::turn_away_at_once(stream, is_secure, TurnedAway::Full);
        };
        tasks.spawn_local(async move {
            http::turn_away(stream, is_secure, linger).await;
            drop(place);
        });
    };
    net::accept(listener, permits, shutdown.clone(), take, (make_room, turn_away)).await;
    tasks.close();
    if !worker.shared.ended_in_peace(&tasks).await {
        tracing::warn!(cut = tasks.len(), "connections were still in use at the end of the shutdown time");
    }
    Ok(())
}
