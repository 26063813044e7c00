//! A connection to the endpoint.

use std::io;

use tokio::{net::TcpStream, time::Instant};

use super::connection::{End, Session};
use crate::{
    backend::FORWARDER_PROOF,
    control::LiveRoute,
    proxy::{
        carry::gone,
        dialling::{DIAL_PATIENCE, dial_pause, is_down},
        ports::{Closed, Way},
        worker::Worker,
    },
    telemetry::UpstreamError,
};

/// Connects, unless the client leaves or the backend goes down meanwhile.
pub(super) async fn dial(session: &Session<'_>, way: &Way) -> Result<io::Result<TcpStream>, End> {
    let patience = session.route.spec.options.upstream.connect_timeout;
    let dialled = tokio::select! {
        biased;
        dialled = session.worker.connect(way.at, patience) => dialled,
        () = is_down(session.route.backend.as_ref()) => Err(io::ErrorKind::HostUnreachable.into()),
        () = gone(session.stream.beneath(), session.first.is_empty()) => return Err(End::Left),
    };
    match dialled {
        // A forwarder accepts before the app listens, and closes then.
        Ok(upstream) if !way.own && way.is_settling(&session.route) => Ok(stays_open(upstream).await),
        dialled => Ok(dialled),
    }
}

async fn stays_open(upstream: TcpStream) -> io::Result<TcpStream> {
    match tokio::time::timeout(FORWARDER_PROOF, upstream.peek(&mut [0])).await {
        Err(_) | Ok(Ok(1..)) => Ok(upstream),
        Ok(Ok(0)) => Err(io::ErrorKind::ConnectionReset.into()),
        Ok(Err(error)) => Err(error),
    }
}

/// What was tried so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    count: u32,
    since: Option<Instant>,
}

impl Tries {
    /// Pauses before the next try, or tells that there is none. Nothing was written yet, so trying again is safe.
    pub(super) async fn after(
        &mut self,
        worker: &Worker,
        route: &LiveRoute,
        settling: bool,
        error: io::Error,
    ) -> Result<(), End> {
        self.count += 1;
        let since = *self.since.get_or_insert_with(Instant::now);
        match &route.backend {
            Some(backend) => {
                backend.suspect();
                if settling || since.elapsed() < DIAL_PATIENCE {
                    tokio::time::sleep(dial_pause(self.count)).await;
                    return Ok(());
                }
            }
            None => worker.names.forget(),
        }
        let late = error.kind() == io::ErrorKind::TimedOut;
        route.counters.upstream_failed(if late { UpstreamError::Timeout } else { UpstreamError::Connect });
        Err(End::Closed(Closed(format!("the endpoint can not be reached: {error}"))))
    }
}
