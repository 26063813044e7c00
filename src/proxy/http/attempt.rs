//! One try to get a request answered, on one connection to the upstream.

use std::{io, rc::Rc, time::Duration};

use crate::{
    backend::Pass,
    control::LiveRoute,
    model::Spot,
    net::{NoUpstreamTls, Offer, TlsTarget},
    proxy::group::Turn,
};

use super::{
    connect::connect,
    front::{Client, Next},
    h2_reach::reach,
    h2_upstream::Why,
    middleware::{Again, Edits},
    pool::{Connection, Key},
    relay::{Cut, Pump},
    request_head::RequestHead,
    respond::respond,
    rewrite,
    send::Run,
};

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) at: Spot,
    /// That is the backend's own, not a forwarder that accepts for it.
    pub(super) own: bool,
    pub(super) generation: u64,
    /// HTTP/2 is spoken there, in clear.
    pub(super) h2c: bool,
    /// TLS is spoken there, and to whom.
    pub(super) tls: Option<TlsTarget>,
    /// Keeps the backend awake as long as it lives.
    pub(super) pass: Option<Pass>,
}

impl Way {
    /// What connections on it are kept under.
    pub(super) fn key(&self) -> Key {
        Key { at: self.at, generation: self.generation, tls: self.tls.as_ref().map_or(0, |tls| tls.id) }
    }

    /// The end of the time after a wake in which the backend may still be starting.
    pub(super) fn settles_at(&self, settle: Duration) -> Option<std::time::Instant> {
        let woke = self.pass.as_ref()?.woke()?;
        woke.at.checked_add(settle).filter(|end| *end > std::time::Instant::now())
    }
}

/// One request, whatever the number of tries.
pub(super) struct Job<'a> {
    pub(super) client: &'a mut Client,
    pub(super) head: &'a RequestHead,
    pub(super) route: &'a LiveRoute,
    /// What of the request is under way; kept between tries while nothing of it was written.
    pub(super) body: Option<Box<Pump>>,
    /// What the middlewares want changed; absent: there are none.
    pub(super) edits: Option<&'a Edits>,
    /// Told to the client once.
    pub(super) wake: Option<Duration>,
    /// At which member of its group it is; absent: its route has no group.
    pub(super) turn: Option<Box<Turn<'a>>>,
    /// How often it was tried again because its route wants that.
    pub(super) again: Again,
    /// The last life of a service that ended it without a word, and how many have.
    pub(super) ended_by: (Option<(Spot, u64)>, u8),
}

/// A head as it goes to the service is at most so many times as large as one may be that a client sends: variables can
/// repeat what stands in that.
const LARGER: usize = 2;

/// A request is given to so many lives of services that end its connection without a word.
const LIVES: u8 = 2;

impl Job<'_> {
    /// Notes a failed try. Tells whether the request has ended one life after the other: what may be the end of whoever
    /// gets it is not taken to yet another. What waited in the pool may have ended for reasons of its own.
    pub(super) fn is_deadly(&mut self, failure: &Failure, way: &Way) -> bool {
        let ended = matches!(failure.fault, Fault::Silent | Fault::Cut);
        if !ended || failure.reused || failure.written == 0 || way.pass.is_none() {
            return false;
        }
        let life = Some((way.at, way.generation));
        let (last, count) = &mut self.ended_by;
        if *last != life {
            (*last, *count) = (life, *count + 1);
        }
        *count >= LIVES
    }

    /// How long until it is tried again because its route wants that; nothing: it is not.
    pub(super) fn again(&mut self) -> Option<Duration> {
        self.again.next(self.route.spec.options.middlewares.as_ref()?.retry()?)
    }

    /// The same, for what the service says itself.
    pub(super) fn again_after(&mut self, status: u16) -> Option<Duration> {
        let retry = self.route.spec.options.middlewares.as_ref()?.retry()?;
        let counts = retry.statuses.contains(&status) && self.head.may_be_repeated();
        if counts { self.again.next(retry) } else { None }
    }

    /// The answer has ended: counts how long it took.
    pub(super) fn took(&mut self) {
        let took = self.client.ended();
        self.route.counters.took(took);
    }
}

/// What went wrong in a try, before anything of the answer reached the client.
#[derive(Debug)]
pub(super) enum Fault {
    /// No connection.
    Dial(io::Error),
    /// No TLS on it that can be trusted.
    Tls(Rc<NoUpstreamTls>),
    /// All connections that the route allows are in use.
    Crowded,
    /// The service speaks HTTP/2 alone, and carries no such upgrade over it.
    NoUpgrade,
    /// The service says that it has not worked on the request.
    Refused,
    /// The connection ended before the first byte of an answer.
    Silent,
    /// A 502 or 503 of a backend that woke a moment ago.
    HalfStarted,
    /// An answer after which the route wants another try, after this time.
    Unwanted(Duration),
    /// No answer in time.
    Late,
    /// The connection ended within the head of an answer.
    Cut,
    /// The answer is not HTTP, or not an answer to this request.
    Bad(#[allow(dead_code, reason = "shown in logs")] &'static str),
    /// The client left.
    ClientLeft,
    /// The client's body broke the rules.
    ClientBad,
    /// The client's body is larger than the route takes.
    ClientTooMuch,
    /// The client's body did not come at the least rate.
    ClientSlow,
    /// What the route makes of the client's head is too large.
    HeadTooLarge,
}

impl Fault {
    /// Whether it is the client's.
    pub(super) fn is_of_client(&self) -> bool {
        matches!(self, Self::ClientLeft | Self::ClientBad | Self::ClientTooMuch | Self::ClientSlow | Self::HeadTooLarge)
    }
}

/// A try that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: Fault,
    /// Bytes of the request that were written upstream.
    pub(super) written: u64,
    /// The connection had waited in the pool.
    pub(super) reused: bool,
}

/// Tries.
pub(super) async fn attempt(job: &mut Job<'_>, way: &Way, fresh: bool) -> Result<Next, Failure> {
    let early = |fault| Failure { fault, written: 0, reused: false };
    let pool = &job.client.worker.pool;
    let pooled = if fresh || way.h2c { None } else { pool.take(way.key(), job.client.arrived) };
    let (mut upstream, reused) = match pooled {
        Some(connection) => (connection, true),
        None => Box::pin(open(job, way, fresh)).await.map_err(early)?,
    };
    let mut run = Run::new(pump(job, way).map_err(early)?);
    let mut head = match run.head(job, way, &mut upstream).await {
        Ok(head) => head,
        Err(fault) => return Err(failed(job, way, fault, &upstream, run, reused)),
    };
    Ok(respond(job, way, upstream, &mut run, &mut head).await)
}

/// A connection that is new, or a stream of one that was there before, which is told with it.
async fn open(job: &mut Job<'_>, way: &Way, fresh: bool) -> Result<(Box<Connection>, bool), Fault> {
    if way.h2c || way.tls.is_some() {
        return reach(job, way, way.key(), fresh).await;
    }
    let opened = connect(job, way, Offer::Http1).await?;
    Ok((Connection::new(opened.stream, opened.slot), false))
}

/// What is to be written, which may have been made ready for a try before this one.
fn pump(job: &mut Job<'_>, way: &Way) -> Result<Pump, Fault> {
    match job.body.take() {
        Some(pump) => Ok(*pump),
        None => start(job, way),
    }
}

/// Ends a try. What it has not begun to write is kept for the next.
fn failed(job: &mut Job<'_>, way: &Way, fault: Fault, upstream: &Connection, mut run: Run, reused: bool) -> Failure {
    let fault = explain(job, way, fault, upstream, &mut run.pump);
    let written = run.pump.sent;
    if written == 0 {
        job.body = Some(Box::new(run.pump));
    }
    Failure { fault, written, reused }
}

/// What a fault means where HTTP/2 is spoken. What the service has not seen is made ready to be written once more.
fn explain(job: &Job<'_>, way: &Way, fault: Fault, upstream: &Connection, pump: &mut Pump) -> Fault {
    let Some(record) = &upstream.record else {
        let speaks_other = matches!(fault, Fault::Silent | Fault::Cut | Fault::Bad(_));
        return if way.h2c && job.head.upgrade.is_some() && speaks_other { Fault::NoUpgrade } else { fault };
    };
    match (&fault, record.why()) {
        (Fault::Silent | Fault::Cut, Why::Malformed) => Fault::Bad("malformed"),
        (Fault::Silent | Fault::Cut, Why::Unseen) => {
            if let Some(written) = record.take_back() {
                pump.write_again(&written);
            }
            Fault::Refused
        }
        (Fault::Late, _) => {
            // The others on it may be waiting for nothing, too: new ones go elsewhere.
            record.retire();
            fault
        }
        _ => fault,
    }
}

/// The request's head, and what came of its body, ready to be written.
fn start(job: &mut Job<'_>, way: &Way) -> Result<Pump, Fault> {
    let worker = &job.client.worker;
    let mut out = worker.buffers.lend();
    let (mark, peer) =
        (&worker.shared.mark, (job.client.peer.as_ref(), job.client.settings.trusted_proxies.as_slice()));
    let cookie = job.turn.as_ref().and_then(|turn| turn.group.cookie.as_ref());
    let ours = (way.at, cookie, worker.shared.drawn_session_key());
    rewrite::request(job.head, &job.route.spec, job.edits, peer, mark, ours, &mut out);
    if out.len() > LARGER * job.client.settings.limits.head {
        return Err(Fault::HeadTooLarge);
    }
    let begun = if job.head.has_body() { job.client.input.take() } else { None };
    let most = job.route.spec.options.middlewares.as_ref().and_then(|all| all.max_body());
    let pump = Pump::request(job.head.framing, out, begun, &worker.buffers, most, &job.route.spec.options);
    let mut pump = pump.map_err(|cut| match cut {
        Cut::TooLarge => Fault::ClientTooMuch,
        Cut::Source(_) | Cut::Malformed | Cut::Sink(_) => Fault::ClientBad,
    })?;
    if let Some(surplus) = pump.take_surplus() {
        job.client.input = Some(surplus);
    }
    Ok(pump)
}
