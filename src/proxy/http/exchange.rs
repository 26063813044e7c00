//! One request: find its route, enter the backend, forward, and try again where that is safe.

use std::{borrow::Cow, rc::Rc, sync::Arc, sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use crate::{
    backend::{Pass, Refused, StatusState},
    control::LiveRoute,
    model::{Audience, Middlewares, RouteTarget, Scheme},
    net,
    proxy::{
        access,
        dialling::{DIAL_PATIENCE, dial_pause},
        group::Turn,
    },
    routing::{Query, plain_path},
    telemetry::{RouteCounters, UpstreamError},
    web,
};

use super::{
    answer::{Answer, MALFORMED, TOO_LARGE},
    attempt::{Failure, Fault, Job, Way, attempt},
    balance,
    field::{HOP_MARK, Known},
    front::{Client, Next},
    leaving::left,
    middleware::{self, Again, Asker, Edits},
    noting::{self, Notes, Noting},
    request_head::RequestHead,
    request_target::hides_slash,
    secure,
    tell::tell,
    waiting,
    wake::{self, Entry},
};

/// Counts a request while it is worked on.
struct InFlight<'a>(&'a RouteCounters);

impl<'a> InFlight<'a> {
    fn new(counters: &'a RouteCounters) -> Self {
        counters.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(counters)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does a request, from its head to the end of its answer.
pub(super) async fn run(client: &mut Client, head: &RequestHead) -> Next {
    let route = match secure::challenge(client, head).map_or_else(|| find(client, head), |answer| Err(answer.into())) {
        Ok(route) => route,
        Err(unserved) => return Box::pin(refuse(client, head, unserved)).await,
    };
    match access::of(&client.worker.shared, Some(&route)) {
        None => serve(client, head, &route).await,
        Some(log) => {
            let noting = Noting::begin(client, head, &route, log);
            let next = Box::pin(serve(noting.client, head, &route)).await;
            noting.end(next)
        }
    }
}

/// Answers a request that has come to no route, or not into it.
async fn refuse(client: &mut Client, head: &RequestHead, unserved: Box<Unserved>) -> Next {
    let Unserved { answer, route } = *unserved;
    let next = match route {
        Some(route) => tell(client, head, &route, &answer).await,
        None => client.answer(Some(head), &answer).await,
    };
    noting::unrouted(client, Some(head), answer.status);
    next
}

/// Does a request of a route.
async fn serve(client: &mut Client, head: &RequestHead, route: &LiveRoute) -> Next {
    let _in_flight = InFlight::new(&route.counters);
    match &route.spec.options.middlewares {
        None => forward(client, head, route, None).await,
        Some(chain) => Box::pin(through(client, head, route, chain)).await,
    }
}

/// Does a request of a route that has middlewares. Who is refused by them wakes nothing.
async fn through(client: &mut Client, head: &RequestHead, route: &LiveRoute, chain: &Middlewares) -> Next {
    let mut asker = Asker::new(client, head);
    let admitted = tokio::select! {
        biased;
        admitted = middleware::admit(&mut asker, route, chain) => Some(admitted),
        // Whatever it had and waited for is given back at once.
        () = left(client, head) => None,
    };
    let found = asker.peer;
    let peer = std::mem::replace(&mut client.peer, found);
    let next = match admitted {
        Some(Ok(edits)) => forward(client, head, route, Some(&edits)).await,
        Some(Err(answer)) => {
            route.counters.answered(answer.status);
            let next = Box::pin(tell(client, head, route, &answer)).await;
            route.counters.took(client.ended());
            next
        }
        None => {
            route.counters.client_left.fetch_add(1, Ordering::Relaxed);
            Next::Close
        }
    };
    // What one request says of its client holds for no other.
    let said = std::mem::replace(&mut client.peer, peer);
    if !Rc::ptr_eq(&said, &client.peer) {
        client.note(|notes| notes.client = Some(said.address));
    }
    next
}

/// Does a request that may be done.
async fn forward(client: &mut Client, head: &RequestHead, route: &LiveRoute, edits: Option<&Edits>) -> Next {
    let turn = route.group.as_deref().map(Turn::new);
    let mut job =
        Job { client, head, route, body: None, edits, wake: None, turn, again: Again::default(), ended_by: (None, 0) };
    let mut tries = Tries::default();
    loop {
        let way = match enter(&mut job).await {
            Ok(way) => way,
            Err(entry) => match Box::pin(stay_out(&mut job, entry)).await {
                Some(next) => return next,
                None => continue,
            },
        };
        job.client.note(Notes::asks);
        let failure = match attempt(&mut job, &way, tries.fresh).await {
            Ok(next) => return next,
            Err(failure) => failure,
        };
        if let Some(next) = Box::pin(fail(&mut job, &mut tries, way, failure)).await {
            return next;
        }
    }
}

/// What becomes of a request that did not enter; nothing: it may try again.
async fn stay_out(job: &mut Job<'_>, entry: Entry) -> Option<Next> {
    match entry {
        Entry::Answer(answer) => Some(say(job, &answer).await),
        Entry::Refused(refused) => Some(say(job, &wake::refusal(&refused)).await),
        Entry::Again => None,
        Entry::Done(next) => {
            job.took();
            Some(next)
        }
        Entry::Left => {
            job.route.counters.client_left.fetch_add(1, Ordering::Relaxed);
            Some(Next::Close)
        }
    }
}

/// What becomes of a request after a try that failed; nothing: it is tried again, after the wait that it had here. The
/// pass is given back meanwhile: what has died can be seen as such, and woken.
async fn fail(job: &mut Job<'_>, tries: &mut Tries, way: Way, failure: Failure) -> Option<Next> {
    if let Some(next) = Box::pin(ordered_out(job, &failure, &way)).await {
        return Some(next);
    }
    if job.is_deadly(&failure, &way) {
        if let Some(backend) = &job.route.backend {
            backend.suspect();
        }
        drop(way);
        job.route.counters.upstream_failed(UpstreamError::Closed);
        return Some(
            say(job, &Answer::new(502, "The service ended again and again while it worked on this request.")).await,
        );
    }
    if job.turn.is_some() && balance::elsewhere(job, &failure, &way) {
        *tries = Tries::default();
        return None;
    }
    let verdict = tries.after(&failure, job, &way);
    drop(way);
    match verdict {
        Verdict::Again(pause) if pause.is_zero() => None,
        Verdict::Again(pause) => {
            tokio::time::sleep(pause).await;
            None
        }
        Verdict::Say(answer) => match again_after(job, &failure) {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                None
            }
            None => Some(say(job, &answer).await),
        },
        Verdict::Left => {
            job.route.counters.client_left.fetch_add(1, Ordering::Relaxed);
            Some(Next::Reset)
        }
    }
}

/// What becomes of a request that was cut by an order to sleep. Another try would wake what was put to sleep; only
/// another member of its group that is awake may still answer.
async fn ordered_out(job: &mut Job<'_>, failure: &Failure, way: &Way) -> Option<Next> {
    if failure.fault.is_of_client() || !way.pass.as_ref().is_some_and(Pass::is_ordered_out) {
        return None;
    }
    let others = job.turn.as_ref().is_some_and(|turn| turn.group.is_awake());
    if others && balance::elsewhere(job, failure, way) {
        return None;
    }
    if let Some(backend) = &job.route.backend {
        backend.count_refusal(Refused::PutToSleep.kind());
    }
    Some(say(job, &wake::refusal(&Refused::PutToSleep)).await)
}

/// How long until a request that failed is tried again because its route wants that, where that is safe. What took
/// too long is not: it would take as long again.
fn again_after(job: &mut Job<'_>, failure: &Failure) -> Option<Duration> {
    let of_service = matches!(failure.fault, Fault::Dial(_) | Fault::Silent | Fault::Refused | Fault::Cut);
    let safe = failure.written == 0 || job.head.may_be_repeated();
    if of_service && safe { job.again() } else { None }
}

/// Says something ourselves. A request whose body was begun is not read on.
async fn say(job: &mut Job<'_>, answer: &Answer) -> Next {
    job.route.counters.answered(answer.status);
    let next = tell(job.client, job.head, job.route, answer).await;
    job.took();
    next
}

/// Why a request has come to no route, or not into the one that it has come to.
struct Unserved {
    answer: Answer,
    /// The one that has a word in how that is told.
    route: Option<Arc<LiveRoute>>,
}

impl From<Answer> for Box<Unserved> {
    fn from(answer: Answer) -> Self {
        Self::new(Unserved { answer, route: None })
    }
}

/// The route of a request that may use it.
fn find(client: &Client, head: &RequestHead) -> Result<Arc<LiveRoute>, Box<Unserved>> {
    let shared = &client.worker.shared;
    let marked = head.fields().iter().any(|field| field.known == Known::HopMark);
    if marked && head.all(HOP_MARK).flat_map(|value| value.split(',')).any(|mark| mark.trim() == shared.mark) {
        return Err(Answer::new(508, "This request came back to where it had been sent from.").into());
    }
    let unknown = || match shared.ports.names_beside_https(head.host()) {
        // The certificate of this connection may be good for a host that is a stream's.
        true if client.secured.is_some() => Answer::new(421, "This connection was made for another host."),
        true | false => Answer::new(404, "Nothing is served under this address."),
    };
    let written = if head.target() == "*" { "/" } else { head.path() };
    // Nearly every path is as plain as it can be, which one look tells.
    let is_odd = memchr::memchr2(b'%', b'\\', written.as_bytes()).is_some();
    let path = if is_odd { plain_path(written) } else { Cow::Borrowed(written) };
    let table = shared.table.load();
    let find = |path: &str| {
        table.by_host.find(&Query { host: head.host(), path, method: head.method(), headers: &|name| head.get(name) })
    };
    let page = reserved(head).and_then(|page| find(&page)).filter(|route| is_not_awake(route));
    let route = page.or_else(|| find(&path)).ok_or_else(unknown)?;
    if route.spec.audience == Audience::PrivateNetworks
        && !net::is_private(client.peer.client(head, &client.settings.trusted_proxies))
    {
        return Err(unknown().into());
    }
    let unserved = |answer| Box::new(Unserved { answer, route: Some(Arc::clone(route)) });
    secure::check(client, head, route).map_err(unserved)?;
    // Where routes differ by path, a slash that is hidden from us must not be one to the backend: it could be found
    // under the path of one route by way of another. So it could where what follows two slashes is read as a host.
    let begins_twice = written.starts_with("//");
    if (begins_twice || (is_odd && hides_slash(&path)))
        && table.by_host.of_host(head.host()).iter().any(|route| !route.spec.matches.paths.is_empty())
    {
        let why = if begins_twice { "The path begins with two slashes." } else { "The path hides a slash." };
        return Err(unserved(Answer::new(400, why)));
    }
    Ok(Arc::clone(route))
}

/// The path of the waiting page whose resource is asked for: it is served by the page's own route.
fn reserved(head: &RequestHead) -> Option<String> {
    if head.path().starts_with(web::RESERVED_PREFIX) { waiting::page_path(head.target()) } else { None }
}

fn is_not_awake(route: &LiveRoute) -> bool {
    match &route.group {
        Some(group) => !group.is_awake(),
        None => route.backend.as_ref().is_some_and(|backend| backend.status().borrow().state != StatusState::Awake),
    }
}

/// The way to the route's endpoint, or to one of several, which is awake then.
async fn enter(job: &mut Job<'_>) -> Result<Way, Entry> {
    if job.turn.is_none() { directly(job).await } else { Box::pin(balance::enter(job)).await }
}

/// The way to the route's only endpoint.
pub(super) async fn directly(job: &mut Job<'_>) -> Result<Way, Entry> {
    let way = reach(job).await?;
    if let RouteTarget::Backend { endpoint, .. } | RouteTarget::Address { endpoint, .. } = &job.route.spec.target {
        match endpoint.scheme {
            Scheme::Https => {
                let tls = secure::target(&job.route.spec, way.at).map_err(Entry::Answer)?;
                return Ok(Way { tls: Some(tls), ..way });
            }
            Scheme::H2c => return Ok(Way { h2c: true, ..way }),
            Scheme::Http | Scheme::Tcp | Scheme::Udp | Scheme::TcpUdp => {}
        }
    }
    Ok(way)
}

async fn reach(job: &mut Job<'_>) -> Result<Way, Entry> {
    if let RouteTarget::Backend { endpoint, .. } | RouteTarget::Address { endpoint, .. } = &job.route.spec.target
        && endpoint.scheme.is_stream()
    {
        // Plain HTTP on a port that speaks something else would only look like an answer.
        return Err(Entry::Answer(Answer::new(502, "The service speaks a protocol that is not supported yet.")));
    }
    match &job.route.spec.target {
        RouteTarget::Address { host, endpoint } => {
            let found = job.client.worker.names.resolve(host, endpoint.port).await;
            let address = found.map_err(|_| Entry::Answer(Answer::new(502, "The service can not be reached.")))?;
            Ok(Way { at: address.into(), own: true, generation: 0, h2c: false, tls: None, pass: None })
        }
        RouteTarget::Down { .. } | RouteTarget::Group(_) => Err(Entry::Answer(
            Answer::new(503, "The service is down, and no request starts it.").retry_after(Duration::from_secs(30)),
        )),
        RouteTarget::Backend { endpoint, .. } => wake::enter(job, endpoint.port).await,
    }
}

/// A request that the service refuses unseen is sent once more so often.
const REFUSALS: u32 = 5;

/// What was tried so far.
#[derive(Debug, Default)]
struct Tries {
    /// The next connection must be a fresh one.
    fresh: bool,
    /// A dead pooled connection was met.
    stale: bool,
    /// A fresh connection ended without an answer.
    silent: bool,
    /// So often the service has refused it unseen.
    refused: u32,
    /// Since when no connection comes about.
    dialling: Option<Instant>,
    count: u32,
}

enum Verdict {
    Again(Duration),
    Say(Answer),
    Left,
}

impl Tries {
    fn after(&mut self, failure: &Failure, job: &Job<'_>, way: &Way) -> Verdict {
        let safe = failure.written == 0 || job.head.may_be_repeated();
        let settling =
            job.route.backend.as_ref().is_some_and(|backend| way.settles_at(backend.policy().settle).is_some());
        self.count += 1;
        let pause = dial_pause(self.count);
        if !failure.fault.is_of_client() {
            tracing::debug!(route = %job.route.spec.alias, fault = ?failure.fault, reused = failure.reused, "try failed");
        }
        let counted = |kind, answer| {
            job.route.counters.upstream_failed(kind);
            Verdict::Say(answer)
        };
        match &failure.fault {
            Fault::ClientLeft => Verdict::Left,
            Fault::ClientBad => Verdict::Say(Answer::new(400, "The request's body is malformed.")),
            Fault::ClientTooMuch => Verdict::Say(Answer::new(413, TOO_LARGE)),
            Fault::ClientSlow => Verdict::Say(Answer::new(408, "The request's body did not come in time.")),
            Fault::Dial(error) => {
                let since = *self.dialling.get_or_insert_with(Instant::now);
                job.client.worker.pool.forget(way.at);
                if let Some(backend) = &job.route.backend {
                    backend.suspect();
                    if settling || since.elapsed() < DIAL_PATIENCE {
                        return Verdict::Again(pause);
                    }
                } else {
                    job.client.worker.names.forget();
                }
                let late = error.kind() == std::io::ErrorKind::TimedOut;
                counted(
                    UpstreamError::Connect,
                    Answer::new(if late { 504 } else { 502 }, "The service can not be reached."),
                )
            }
            Fault::Tls(error) => {
                tracing::warn!(
                    route = %job.route.spec.alias,
                    "no TLS to the service: {error} (hint: {})", error.hint()
                );
                counted(UpstreamError::Connect, Answer::new(502, "The service can not be reached safely."))
            }
            Fault::Silent if failure.reused && safe && !self.stale => {
                (self.stale, self.fresh) = (true, true);
                Verdict::Again(Duration::ZERO)
            }
            Fault::Silent if safe && settling => Verdict::Again(pause),
            Fault::Silent if safe && !self.silent && job.route.backend.is_some() => {
                if let Some(backend) = &job.route.backend {
                    backend.suspect();
                }
                (self.silent, self.fresh) = (true, true);
                Verdict::Again(pause)
            }
            Fault::Refused if safe && (settling || self.refused < REFUSALS) => {
                self.refused += 1;
                Verdict::Again(if self.refused == 1 { Duration::ZERO } else { pause })
            }
            Fault::Refused => counted(UpstreamError::Closed, Answer::new(502, "The service refused the request.")),
            Fault::NoUpgrade => counted(
                UpstreamError::Malformed,
                Answer::new(502, "The service speaks HTTP/2, and takes no such upgrade over it."),
            ),
            Fault::Crowded => {
                Verdict::Say(Answer::new(503, "The service is busy.").retry_after(Duration::from_secs(1)))
            }
            Fault::HalfStarted => Verdict::Again(pause),
            Fault::Unwanted(pause) => Verdict::Again(*pause),
            Fault::Silent => {
                counted(UpstreamError::Closed, Answer::new(502, "The service ended the connection without an answer."))
            }
            Fault::Late => counted(UpstreamError::Timeout, Answer::new(504, "The service did not answer in time.")),
            Fault::Cut => counted(UpstreamError::Closed, Answer::new(502, MALFORMED)),
            Fault::Bad(_) => counted(UpstreamError::Malformed, Answer::new(502, MALFORMED)),
        }
    }
}
