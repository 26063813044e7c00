//! A way to an endpoint that may speak HTTP/2: a stream of a connection that is there, or of a fresh one; a connection of
//! HTTP/1.1 where that is what it chooses.

use std::{io, rc::Rc};

use tokio::time::Instant;

use crate::{
    net::{Offer, Stream},
    proxy::{carry::gone, dialling::is_down},
};

use super::{
    attempt::{Fault, Job, Way},
    connect::connect,
    h2_hub::Hub,
    h2_link::{Link, NoLink},
    h2_upstream::H2Upstream,
    pool::{Connection, Key},
};

/// A connection for one try, and whether others have used it.
pub(super) async fn reach(job: &Job<'_>, way: &Way, key: Key, fresh: bool) -> Result<(Box<Connection>, bool), Fault> {
    let hub = job.client.worker.pool.hub(key, job.route.backend.as_ref());
    match &job.head.upgrade {
        None => share(job, way, key, &hub, fresh).await,
        Some(protocol) => {
            let websocket = job.head.part(protocol).eq_ignore_ascii_case(b"websocket");
            upgrade(job, way, key, &hub, websocket).await
        }
    }
}

/// A connection on which a protocol can be changed: a stream that carries a WebSocket, where the service has them, or
/// a connection of HTTP/1.1.
async fn upgrade(
    job: &Job<'_>,
    way: &Way,
    key: Key,
    hub: &Rc<Hub>,
    websocket: bool,
) -> Result<(Box<Connection>, bool), Fault> {
    let worker = Rc::clone(&job.client.worker);
    if websocket
        && let Some(link) = worker.pool.room(hub, Instant::now())
        && link.takes_websockets()
    {
        return Ok((stream(job, link, hub), true));
    }
    if websocket && way.h2c {
        let (connection, reused) = share(job, way, key, hub, false).await?;
        if connection.record.as_ref().is_some_and(|record| record.takes_websockets()) {
            return Ok((connection, reused));
        }
    }
    if job.route.spec.options.upstream.max_conns.is_some() {
        // Its place may be needed.
        hub.forget(false);
    }
    match connect(job, way, Offer::Http1).await {
        Ok(opened) => Ok((Connection::new(opened.stream, opened.slot), false)),
        Err(Fault::Tls(error)) if error.is_of_protocol() && websocket => {
            let (connection, reused) = share(job, way, key, hub, false).await?;
            let takes = connection.record.as_ref().is_some_and(|record| record.takes_websockets());
            if takes { Ok((connection, reused)) } else { Err(Fault::NoUpgrade) }
        }
        Err(Fault::Tls(error)) if error.is_of_protocol() => Err(Fault::NoUpgrade),
        Err(fault) => Err(fault),
    }
}

/// A place on a connection of HTTP/2 that is shared, or a connection of HTTP/1.1 of its own.
async fn share(
    job: &Job<'_>,
    way: &Way,
    key: Key,
    hub: &Rc<Hub>,
    fresh: bool,
) -> Result<(Box<Connection>, bool), Fault> {
    let worker = Rc::clone(&job.client.worker);
    let failures = hub.failures();
    loop {
        let freed = hub.freed();
        // One that has died is not there any more: what is found is good, whatever the try before met.
        if let Some(link) = worker.pool.room(hub, Instant::now()) {
            return Ok((stream(job, link, hub), true));
        }
        if hub.plain.get() {
            if !fresh && let Some(pooled) = worker.pool.take(key, job.client.arrived) {
                return Ok((pooled, true));
            }
            return make(job, way, hub).await;
        }
        let turn = tokio::select! {
            biased;
            turn = hub.turn.lock() => turn,
            () = freed => continue,
            () = gone(job.client.stream.beneath(), false) => return Err(Fault::ClientLeft),
        };
        if let Some(fault) = hub.failed_since(failures) {
            return Err(fault);
        }
        if worker.pool.room(hub, Instant::now()).is_some() || hub.plain.get() {
            drop(turn);
            continue;
        }
        let made = tokio::select! {
            biased;
            made = make(job, way, hub) => made,
            // A place came free while one for another connection was waited for.
            () = room(job, hub) => continue,
        };
        if let Err(fault) = &made {
            hub.note_failure(fault);
        }
        return made;
    }
}

/// Resolves when there is room.
async fn room(job: &Job<'_>, hub: &Hub) {
    loop {
        let freed = hub.freed();
        if job.client.worker.pool.room(hub, Instant::now()).is_some() {
            return;
        }
        freed.await;
    }
}

/// Connects, and speaks what the endpoint chooses.
async fn make(job: &Job<'_>, way: &Way, hub: &Rc<Hub>) -> Result<(Box<Connection>, bool), Fault> {
    let opened = connect(job, way, Offer::Both).await?;
    if !(way.h2c || opened.http2) {
        hub.plain.set(true);
        hub.note_room();
        return Ok((Connection::new(opened.stream, opened.slot), false));
    }
    let patience = job.route.spec.options.upstream.response_header_timeout;
    let established = Link::establish(opened.stream, opened.slot, job.client.settings.limits.head, patience);
    let link = tokio::select! {
        biased;
        link = established => link,
        () = gone(job.client.stream.beneath(), false) => return Err(Fault::ClientLeft),
        () = is_down(job.route.backend.as_ref()) => return Err(Fault::Dial(io::ErrorKind::HostUnreachable.into())),
    };
    let link = link.map_err(|no_link| match no_link {
        // A forwarder without an app behind it, or an app that is starting.
        NoLink::Ended => Fault::Dial(io::ErrorKind::ConnectionReset.into()),
        NoLink::Late => Fault::Late,
        NoLink::Other => {
            tracing::warn!(
                route = %job.route.spec.alias,
                "the service does not speak HTTP/2 (hint: if it speaks plain HTTP, write `scheme: http`)"
            );
            Fault::Bad("not HTTP/2")
        }
    })?;
    if !link.is_good() {
        // It says goodbye with its first words: it is ending, or starting anew.
        return Err(Fault::Dial(io::ErrorKind::ConnectionReset.into()));
    }
    if !link.has_room() {
        // It takes no requests at all.
        return Err(Fault::Crowded);
    }
    hub.add(&link);
    Ok((stream(job, link, hub), false))
}

/// One more request on a connection.
fn stream(job: &Job<'_>, link: Rc<Link>, hub: &Rc<Hub>) -> Box<Connection> {
    let varied = job.route.spec.options.middlewares.as_ref().map_or(&[][..], |all| &all.vary_request_headers);
    // What an authority says of who asks is made for this request, too.
    let said = job.edits.map_or(&[][..], |edits| &edits.fields).iter().map(|(name, _)| name);
    let made = varied.iter().map(|(name, _)| name).chain(said).cloned().collect();
    let (upstream, record) = H2Upstream::new(link, Rc::clone(hub), made);
    Connection::shared(Stream::Within(Box::new(upstream)), record)
}
