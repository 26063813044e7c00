//! One request: find its route, enter the backend, forward, and try again where that is safe.

use std::{rc::Rc, sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use crate::{
    backend::{Pass, Refused},
    control::LiveRoute,
    model::{Middlewares, RouteTarget},
    proxy::{access, group::Turn},
    telemetry::{RouteCounters, UpstreamError},
};

use super::{
    answer::Answer,
    arena::Arena,
    attempt::{Failure, Fault, Job, Way, attempt},
    balance,
    find::{Unserved, find},
    front::{Client, Next},
    leaving::left,
    middleware::{self, Again, Asker, Edits},
    noting::Noting,
    request_head::RequestHead,
    secure,
    tell::tell,
    tries::{Tries, Verdict},
    wake::{self, Entry},
    way_in::enter,
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
pub(super) async fn run(client: &mut Client, head: &RequestHead, arena: &Arena) -> Next {
    let route = match secure::challenge(client, head).map_or_else(|| find(client, head), |answer| Err(answer.into())) {
        Ok(route) => route,
        Err(unserved) => return Box::pin(refuse(client, head, unserved)).await,
    };
    let log = access::of(&client.worker.shared, Some(&route));
    let noting = Noting::begin(client, head, Some(&route), log);
    let next = serve(noting.client, head, &route, arena).await;
    noting.end(next)
}

/// Answers a request that has come to no route, or not into it.
async fn refuse(client: &mut Client, head: &RequestHead, unserved: Box<Unserved>) -> Next {
    let Unserved { answer, route } = *unserved;
    let log = access::of(&client.worker.shared, route.as_deref());
    let noting = Noting::begin(client, head, route.as_deref(), log);
    let next = match &route {
        Some(route) => tell(noting.client, head, route, &answer).await,
        None => noting.client.answer(Some(head), &answer).await,
    };
    noting.end(next)
}

/// Does a request of a route.
async fn serve(client: &mut Client, head: &RequestHead, route: &LiveRoute, arena: &Arena) -> Next {
    let _in_flight = InFlight::new(&route.counters);
    match &route.spec.options.middlewares {
        None => forward(client, head, route, None).await,
        Some(chain) => arena.hold(|| through(client, head, route, chain)).await,
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
        let way = match way(&mut job).await {
            Ok(way) => way,
            Err(Some(next)) => return next,
            Err(None) => continue,
        };
        let at_once = came_at_once(&job, &tries);
        job.client.note(|notes| notes.asks(at_once));
        let failure = match attempt(&mut job, &way, tries.fresh).await {
            Ok(next) => return next,
            Err(failure) => failure,
        };
        if let Some(next) = Box::pin(fail(&mut job, &mut tries, way, failure)).await {
            return next;
        }
    }
}

/// When a request came whose service is asked without any wait before.
fn came_at_once(job: &Job<'_>, tries: &Tries) -> Option<Instant> {
    // The name of an address may have to be looked up.
    let is_known = matches!(job.route.spec.target, RouteTarget::Backend { .. });
    let at_once = is_known && tries.is_first() && job.edits.is_none() && job.turn.is_none() && job.client.prompt;
    at_once.then_some(job.client.arrived)
}

/// The way of a request to an endpoint that is awake, or what becomes of it otherwise; nothing: it may try again.
async fn way(job: &mut Job<'_>) -> Result<Way, Option<Next>> {
    match enter(job).await {
        Ok(way) => Ok(way),
        Err(entry) => Err(Box::pin(stay_out(job, entry)).await),
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
