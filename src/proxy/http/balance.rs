//! A request of a group: which member it goes to, who is woken for it, and who gets it when that one fails.

use std::{sync::Arc, time::Duration};

use crate::{
    backend::{Backend, Pass},
    control::{LiveMember, LiveRoute},
    model::Cause,
    proxy::group::{Asker, Door, Turn},
};

use super::{
    answer::Answer,
    attempt::{Failure, Fault, Job, Way},
    leaving::left,
    wake::{self, Entry},
    way_in,
};

/// The member has answered. Returns the cookie for a client that did not come with the one of this member.
pub(super) fn answered(turn: &Turn<'_>, job: &Job<'_>) -> Option<String> {
    turn.member()?.answered();
    let cookie = turn.group.cookie.as_ref().filter(|_| turn.is_elsewhere())?;
    cookie.set(turn.at?, job.client.peer.is_secure(job.head))
}

/// Does something with who asks.
fn asking<T>(job: &Job<'_>, with: impl FnOnce(&Asker<'_>) -> T) -> T {
    let is_barred = |route: &LiveRoute, backend: &Backend| {
        let policy = backend.policy();
        let elsewhere = policy.start_endpoint.as_deref().is_some_and(|only| only != job.head.path());
        elsewhere || wake::is_ignored(job, route, &policy)
    };
    let shared = &job.client.worker.shared;
    with(&Asker { shared, client: wake::client(job), is_barred: &is_barred })
}

/// The door for a request of a group, which may wake the member that it is at.
pub(super) fn door<'a>(job: &Job<'a>) -> Option<Door<'a>> {
    let turn = job.turn.as_ref()?;
    Some(asking(job, |asker| Door::new(turn, asker, Arc::clone(&job.client.worker.shared))))
}

/// The way to a member, which is awake then. Of those that fail to wake each is tried once.
pub(super) async fn enter(job: &mut Job<'_>) -> Result<Way, Entry> {
    let mut refusal = None;
    loop {
        let Some(turn) = &mut job.turn else { return Err(nobody()) };
        // Where it was before, only the connection was at fault.
        let stays = |member: &&LiveMember| turn.entered.is_some() || member.is_awake();
        let before = turn.member().filter(stays).and(turn.at);
        let at = match before {
            Some(at) => Some(at),
            None => next(job),
        };
        let member = at.and_then(|at| job.turn.as_mut()?.go(at));
        let Some(member) = member else { return Err(refusal.unwrap_or_else(nobody)) };
        job.route = &member.route;
        note(job);
        match way_in::directly(job).await {
            Err(Entry::Refused(refused)) => {
                let Some(turn) = job.turn.as_mut().filter(|turn| !turn.is_out_of_patience()) else {
                    return Err(Entry::Refused(refused));
                };
                refusal = Some(Entry::Refused(refused));
                turn.give_up();
            }
            // It was awake before its page was needed, or another one was.
            Err(Entry::Again) => {
                if let Some(turn) = job.turn.as_mut().filter(|turn| turn.entered.is_none()) {
                    turn.step_back();
                }
            }
            outcome => return outcome,
        }
    }
}

/// The member that is to be asked next.
fn next(job: &mut Job<'_>) -> Option<usize> {
    let mut turn = job.turn.take()?;
    let cookie = turn.group.cookie.as_ref();
    let stay = cookie.and_then(|cookie| turn.stay(|| cookie.member(job.head.values("cookie"))));
    let next = asking(job, |asker| turn.next(stay, asker));
    job.turn = Some(turn);
    next
}

/// Holds the request until a member is awake: the one that it is at, unless another one is sooner.
pub(super) async fn hold(job: &mut Job<'_>, cause: Cause, patience: Duration) -> Result<Pass, Entry> {
    let Some(mut door) = door(job) else { return Err(nobody()) };
    let entered = tokio::select! {
        biased;
        entered = door.enter(cause, patience) => entered,
        () = left(job.client, job.head) => return Err(Entry::Left),
    };
    let Some(turn) = &mut job.turn else { return Err(nobody()) };
    match entered {
        Ok((at, pass)) if turn.at == Some(at) => Ok(pass),
        Ok((at, pass)) => {
            turn.go(at);
            turn.entered = Some(pass);
            Err(Entry::Again)
        }
        Err(refused) => {
            turn.tried = door.tried();
            Err(Entry::Refused(Box::new(refused)))
        }
    }
}

fn nobody() -> Entry {
    let answer = Answer::new(503, "The service is down, and no request starts it.");
    Entry::Answer(answer.retry_after(Duration::from_secs(30)))
}

fn note(job: &mut Job<'_>) {
    let backend = &job.route.backend;
    job.client.note(|notes| notes.backend.clone_from(backend));
}

/// What a failed try says of its member, and whether the request goes to another one.
pub(super) fn elsewhere(job: &mut Job<'_>, failure: &Failure, way: &Way) -> bool {
    let Some(turn) = job.turn.as_ref().filter(|turn| turn.at.is_some()) else { return false };
    let backend = job.route.backend.as_ref();
    let settling = backend.is_some_and(|backend| way.settles_at(backend.policy().settle).is_some());
    let safe = failure.written == 0 || job.head.may_be_repeated();
    let leaves = match &failure.fault {
        // What woke a moment ago may still be starting: it has its time.
        Fault::Dial(_) | Fault::Silent if settling => false,
        Fault::Dial(_) => {
            job.client.worker.pool.forget(way.at);
            match backend {
                Some(backend) => backend.suspect(),
                None => job.client.worker.names.forget(),
            }
            turn.refused(&failure.fault);
            true
        }
        Fault::Silent if failure.reused => false,
        Fault::Tls(_) | Fault::Silent => {
            turn.failed(&failure.fault);
            safe
        }
        Fault::Late | Fault::Cut | Fault::Bad(_) => {
            turn.failed(&failure.fault);
            false
        }
        Fault::Crowded => true,
        Fault::Unwanted(_) => {
            // Its route wants it tried again: by whoever's turn it is.
            if let Some(turn) = &mut job.turn {
                turn.step_back();
            }
            return false;
        }
        Fault::NoUpgrade
        | Fault::Refused
        | Fault::HalfStarted
        | Fault::ClientLeft
        | Fault::ClientBad
        | Fault::ClientTooMuch
        | Fault::ClientSlow
        | Fault::HeadTooLarge => false,
    };
    if !leaves || !job.turn.as_mut().is_some_and(|turn| turn.leave()) {
        return false;
    }
    tracing::debug!(route = %job.route.spec.alias, fault = ?failure.fault, "another member of the group is asked");
    // Its head names the member that it was written for.
    if !job.head.has_body() {
        job.body = None;
    }
    true
}
