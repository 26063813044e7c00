//! The way into a backend: at once when it is awake; otherwise who may wake it, who waits, and who is told what.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use crate::{
    backend::{Backend, Pass, Refused},
    control::LiveRoute,
    model::{AsleepResponse, Cause, IdlePolicy, IgnoreCase, RequestFacts, Waiting},
    proxy::{
        carry::Buf,
        worker::{Shared, causes_wake},
    },
    web,
};

use super::{
    answer::Answer,
    attempt::{Job, Way},
    balance,
    begun_body::BegunBody,
    front::Next,
    leaving::left,
    navigation,
    request_head::RequestHead,
    waiting,
};

/// Why there is no way in.
pub(super) enum Entry {
    /// The client is told so.
    Answer(Answer),
    /// It was answered, at length.
    Done(Next),
    /// It left.
    Left,
    /// The backend did not let it in.
    Refused(Box<Refused>),
    /// Something is awake by now.
    Again,
}

impl From<Answer> for Entry {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// Enters the backend of the route.
pub(super) async fn enter(job: &mut Job<'_>, port: u16) -> Result<Way, Entry> {
    let Some(backend) = &job.route.backend else {
        return Err(Entry::Answer(Answer::new(503, "The service has been switched off by its owner.")));
    };
    let policy = backend.policy();
    let ignored = is_ignored(job, job.route, &policy);
    let entered = job.turn.as_mut().and_then(|turn| turn.entered.take());
    let at_once = || if ignored { backend.try_enter_quietly() } else { backend.try_enter() };
    let awake = entered.or_else(at_once);
    let pass = match awake {
        Some(pass) => pass,
        None if ignored => return Err(Entry::Answer(asleep(job, &policy))),
        // Kept apart, so that the requests that need no wake do not carry its room.
        None => {
            let since = Instant::now();
            let woken = Box::pin(wake(job, backend, &policy)).await;
            job.client.note(|notes| notes.waited += since.elapsed());
            woken?
        }
    };
    if pass.waited() {
        job.wake = pass.woke().map(|woke| woke.took);
    }
    let (at, own) =
        pass.dial(port).ok_or_else(|| Entry::Answer(Answer::new(502, "The service can not be reached.")))?;
    Ok(Way { at, own, generation: pass.generation(), h2c: false, tls: None, pass: Some(pass) })
}

/// Whether a request neither wakes nor keeps awake what this route leads to.
pub(super) fn is_ignored(job: &Job<'_>, route: &LiveRoute, policy: &IdlePolicy) -> bool {
    let rules = [&route.spec.options.ignore, &policy.ignore];
    if rules.iter().all(|rules| rules.is_empty()) {
        return false;
    }
    let case = IgnoreCase {
        method: job.head.method(),
        path: job.head.path(),
        agent: job.head.get("user-agent").unwrap_or_default(),
        client: client(job),
    };
    rules.iter().any(|rules| rules.matches(case))
}

/// Who asks.
pub(super) fn client(job: &Job<'_>) -> IpAddr {
    job.client.peer.client(job.head, &job.client.settings.trusted_proxies)
}

/// What those get who neither wake nor wait.
fn asleep(job: &Job<'_>, policy: &IdlePolicy) -> Answer {
    let AsleepResponse { status, body } =
        job.route.spec.options.asleep_response.as_ref().unwrap_or(&policy.asleep_response);
    let mut answer = Answer::new(*status, "The service sleeps.");
    answer.body.clone_from(body);
    if *status == 503 { answer.retry_after(Duration::from_secs(30)) } else { answer }
}

/// For a request that met a backend that is not awake. The bounds come first, then those who get an answer at once,
/// and only then the wait.
async fn wake(job: &mut Job<'_>, backend: &Backend, policy: &IdlePolicy) -> Result<Pass, Entry> {
    let path = job.head.path();
    if path.starts_with(web::RESERVED_PREFIX) {
        return Err(Entry::Done(waiting::resource(job, backend).await));
    }
    if navigation::is_prefetch(job.head) {
        return Err(Entry::Answer(asleep(job, policy)));
    }
    if policy.start_endpoint.as_deref().is_some_and(|only| only != path) {
        return Err(Entry::Answer(Answer::new(403, "The service sleeps and is started under another address.")));
    }
    if let Some(answer) = begun_body(job).refusal() {
        return Err(Entry::Answer(answer));
    }
    let patience = match &mut job.turn {
        None => policy.patience(),
        Some(turn) => turn.patience(policy.patience()),
    };
    let (shared, who) = (&job.client.worker.shared, client(job));
    // What `waiting` says is for page loads; whatever else comes is held.
    let page_load = navigation::is_navigation(job.head);
    match job.route.spec.options.waiting.unwrap_or(policy.waiting) {
        Waiting::Reject if page_load => {
            backend.knock(cause(shared, job.head, who, backend)?);
            let usual = backend.status().borrow().wakes.quantile(0.5).unwrap_or(Duration::from_secs(5));
            Err(Entry::Answer(Answer::new(503, "The service is starting.").retry_after(usual)))
        }
        Waiting::Page if page_load => {
            let cause = cause(shared, job.head, who, backend)?;
            waiting::page(job, backend, cause, patience).await
        }
        // The body stays unread meanwhile.
        Waiting::Page | Waiting::Reject | Waiting::Hold if job.turn.is_some() => {
            let cause = cause(shared, job.head, who, backend)?;
            balance::hold(job, cause, patience).await
        }
        Waiting::Page | Waiting::Reject | Waiting::Hold => tokio::select! {
            biased;
            held = wait(shared, job.head, who, backend, patience) => Ok(held?),
            () = left(job.client, job.head) => Err(Entry::Left),
        },
    }
}

/// What of its body is there already.
fn begun_body(job: &Job<'_>) -> BegunBody {
    let begun = job.client.input.as_ref().map_or(&[][..], Buf::filled);
    let most = job.route.spec.options.middlewares.as_ref().and_then(|all| all.max_body());
    BegunBody::of(job.head.framing, begun, most.unwrap_or(u64::MAX))
}

/// Why a request wakes a backend, unless its client has caused too many wakes.
fn cause(shared: &Shared, head: &RequestHead, who: IpAddr, backend: &Backend) -> Result<Cause, Answer> {
    if causes_wake(backend) && !shared.may_wake(who) {
        backend.count_refusal("too_many_wakes");
        let answer = Answer::new(429, "Too many services were started from your address.");
        return Err(answer.retry_after(Duration::from_secs(60)));
    }
    Ok(Cause::Request(RequestFacts {
        method: head.method().to_owned(),
        host: head.host().to_owned(),
        path: head.path().to_owned(),
        client: who,
        agent: head.get("user-agent").map(|agent| agent.chars().take(200).collect()),
    }))
}

/// Why a wait came to nothing.
enum Unheld {
    /// The client has caused too many wakes.
    Bound(Answer),
    /// The backend did not let it in.
    Refused(Refused),
}

impl From<Unheld> for Entry {
    fn from(unheld: Unheld) -> Self {
        match unheld {
            Unheld::Bound(answer) => Self::Answer(answer),
            Unheld::Refused(refused) => Self::Refused(Box::new(refused)),
        }
    }
}

async fn wait(
    shared: &Shared,
    head: &RequestHead,
    who: IpAddr,
    backend: &Backend,
    patience: Duration,
) -> Result<Pass, Unheld> {
    let cause = cause(shared, head, who, backend).map_err(Unheld::Bound)?;
    backend.enter(cause, patience).await.map_err(Unheld::Refused)
}

/// Waits until a backend is awake or refused. An error is what the client is told. Dropping the future gives the place
/// up.
pub(super) async fn hold(
    shared: &Shared,
    head: &RequestHead,
    who: IpAddr,
    backend: &Backend,
    patience: Duration,
) -> Result<Pass, Answer> {
    wait(shared, head, who, backend, patience).await.map_err(|unheld| match unheld {
        Unheld::Bound(answer) => answer,
        Unheld::Refused(refused) => refusal(&refused),
    })
}

/// What a refused caller is told.
pub(super) fn refusal(refused: &Refused) -> Answer {
    let status = if matches!(refused, Refused::TimedOut { .. }) { 504 } else { 503 };
    Answer::new(status, refused.reason()).retry_after(refused.retry_after())
}
