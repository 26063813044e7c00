//! A connection to the upstream for one try.

use std::{io, rc::Rc};

use tokio::net::TcpStream;

use crate::{
    backend::FORWARDER_PROOF,
    net::{NoUpstreamTls, Offer, Stream},
    proxy::{carry::gone, dialling::is_down},
};

use super::{
    attempt::{Fault, Job, Way},
    pool::Slot,
};

/// A fresh connection.
pub(super) struct Opened {
    pub(super) stream: Stream,
    /// Its place among those that the route allows.
    pub(super) slot: Option<Slot>,
    /// HTTP/2 was chosen on it.
    pub(super) http2: bool,
}

/// Connects.
pub(super) async fn connect(job: &Job<'_>, way: &Way, offer: Offer) -> Result<Opened, Fault> {
    let opened = tokio::select! {
        biased;
        opened = open(job, way, offer) => opened?,
        () = gone(job.client.stream.beneath(), false) => return Err(Fault::ClientLeft),
    };
    // A forwarder accepts before the app listens, and closes then: what may not be repeated is sent only to a
    // connection that stays open. One with TLS has proved itself, and HTTP/2 has a proof of its own.
    let proved = way.own || (way.h2c && offer == Offer::Both);
    if !proved
        && !job.head.may_be_repeated()
        && let Stream::Plain(tcp) = &opened.stream
        && tokio::time::timeout(FORWARDER_PROOF, tcp.readable()).await.is_ok()
    {
        return Err(Fault::Dial(io::ErrorKind::ConnectionReset.into()));
    }
    Ok(opened)
}

/// A connection to the upstream, with its place where the route bounds them.
async fn open(job: &Job<'_>, way: &Way, offer: Offer) -> Result<Opened, Fault> {
    let upstream = &job.route.spec.options.upstream;
    let patience = upstream.connect_timeout;
    let slot = match upstream.max_conns {
        Some(bound) => Some(job.client.worker.pool.place(way.at, bound, patience).await.ok_or(Fault::Crowded)?),
        None => None,
    };
    // Nobody answers at the address of a container that has ended, not even to say no.
    let stream = tokio::select! {
        biased;
        stream = job.client.worker.connect(way.at, patience) => stream.map_err(Fault::Dial)?,
        () = is_down(job.route.backend.as_ref()) => return Err(Fault::Dial(io::ErrorKind::HostUnreachable.into())),
    };
    let (stream, http2) = secured(job, way, stream, offer).await?;
    Ok(Opened { stream, slot, http2 })
}

/// Speaks TLS on it, where the endpoint does; and whether HTTP/2 was chosen.
async fn secured(job: &Job<'_>, way: &Way, tcp: TcpStream, offer: Offer) -> Result<(Stream, bool), Fault> {
    let Some(target) = &way.tls else { return Ok((Stream::Plain(tcp), false)) };
    let clients = &job.client.worker.shared.tls_clients;
    match Box::pin(clients.connect(tcp, target, &job.route.spec.options.upstream.tls, offer)).await {
        Ok((tls, http2)) => Ok((Stream::Tls(tls), http2)),
        // An app that is starting may still end connections.
        Err(NoUpstreamTls::Failed(error)) => Err(Fault::Dial(error)),
        Err(error) => Err(Fault::Tls(Rc::new(error))),
    }
}
