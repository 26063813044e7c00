//! A connection to the upstream for one try.

use std::io;

use tokio::net::TcpStream;

use crate::{
    backend::FORWARDER_PROOF,
    net::{NoUpstreamTls, Stream},
    proxy::dialling::is_down,
};

use super::{
    attempt::{Fault, Job, Way},
    dial,
    leaving::gone,
    pool::{Connection, Slot},
};

/// A fresh connection.
pub(super) async fn connect(job: &mut Job<'_>, way: &Way) -> Result<Connection, Fault> {
    let (stream, slot) = tokio::select! {
        biased;
        opened = open(job, way) => opened?,
        () = gone(job.client.stream.beneath(), false) => return Err(Fault::ClientLeft),
    };
    // A forwarder accepts before the app listens, and closes then: what may not be repeated is sent only to a
    // connection that stays open. One with TLS has proved itself.
    if !way.own
        && !job.head.may_be_repeated()
        && let Stream::Plain(tcp) = &stream
        && tokio::time::timeout(FORWARDER_PROOF, tcp.readable()).await.is_ok()
    {
        return Err(Fault::Dial(io::ErrorKind::ConnectionReset.into()));
    }
    Ok(Connection::new(stream, slot))
}

/// A connection to the upstream, with its place where the route bounds them.
async fn open(job: &Job<'_>, way: &Way) -> Result<(Stream, Option<Slot>), Fault> {
    let upstream = &job.route.spec.options.upstream;
    let patience = upstream.connect_timeout;
    let slot = match upstream.max_conns {
        Some(bound) => Some(job.client.worker.pool.place(way.address, bound, patience).await.ok_or(Fault::Crowded)?),
        None => None,
    };
    // Nobody answers at the address of a container that has ended, not even to say no.
    let stream = tokio::select! {
        biased;
        stream = dial::connect(way.address, patience) => stream.map_err(Fault::Dial)?,
        () = is_down(job.route.backend.as_ref()) => return Err(Fault::Dial(io::ErrorKind::HostUnreachable.into())),
    };
    Ok((secured(job, way, stream).await?, slot))
}

/// Speaks TLS on it, where the endpoint does.
async fn secured(job: &Job<'_>, way: &Way, tcp: TcpStream) -> Result<Stream, Fault> {
    let Some(target) = &way.tls else { return Ok(Stream::Plain(tcp)) };
    let clients = &job.client.worker.shared.tls_clients;
    match Box::pin(clients.connect(tcp, target, &job.route.spec.options.upstream.tls)).await {
        Ok(tls) => Ok(Stream::Tls(tls)),
        // An app that is starting may still end connections.
        Err(NoUpstreamTls::Failed(error)) => Err(Fault::Dial(error)),
        Err(error) => Err(Fault::Tls(error)),
    }
}
