//! A request of a group: which member it goes to, who is woken for it, and who gets it when that one fails.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use crate::{
    backend::Pass,
    control::{LiveGroup, LiveMember, LiveRoute, UnderWay},
    model::Cause,
    routing::{Members, Step, mixed},
};

use super::{
    answer::Answer,
    attempt::{Failure, Fault, Job, Way},
    door::Door,
    exchange,
    leaving::left,
    request_head::RequestHead,
    wake::{self, Entry},
};

/// A request of a group, whatever the number of tries.
pub(super) struct Turn<'a> {
    pub(super) group: &'a LiveGroup,
    /// The member that it is at.
    pub(super) at: Option<usize>,
    /// Members that did not take it.
    pub(super) tried: Members,
    /// Each had its try.
    all_tried: bool,
    /// Counts it at its member.
    load: Option<UnderWay>,
    /// The end of its patience, once it was held.
    held_until: Option<Instant>,
    /// It has entered the member that it is at.
    pub(super) entered: Option<Pass>,
    /// The member that the client asked for by its cookie, once that was looked at.
    asked: Option<Option<usize>>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(group: &'a LiveGroup) -> Box<Self> {
        Box::new(Self {
            group,
            at: None,
            tried: Members::default(),
            all_tried: false,
            load: None,
            held_until: None,
            entered: None,
            asked: None,
        })
    }

    /// The member that it is at.
    pub(super) fn member(&self) -> Option<&'a LiveMember> {
        self.group.members.get(self.at?)
    }

    /// How much of this patience is left: all that it is held shares one.
    pub(super) fn patience(&mut self, whole: Duration) -> Duration {
        let until = *self.held_until.get_or_insert_with(|| Instant::now() + whole);
        until.saturating_duration_since(Instant::now())
    }

    /// Nobody is woken for those who do not wait for it.
    fn is_out_of_patience(&self) -> bool {
        self.held_until.is_some_and(|until| until <= Instant::now())
    }

    /// The member has answered. Returns the cookie for a client that did not come with the one of this member.
    pub(super) fn answered(&self, job: &Job<'_>) -> Option<String> {
        self.member()?.answered();
        let cookie = self.group.cookie.as_ref().filter(|_| self.asked.flatten() != self.at)?;
        cookie.set(self.at?, job.client.peer.is_secure(job.head))
    }

    /// What is done for the client to stay with the member that it asked for.
    fn stay(&mut self, head: &RequestHead) -> Option<Step> {
        let cookie = self.group.cookie.as_ref()?;
        let asked = *self.asked.get_or_insert_with(|| cookie.member(head.values("cookie")));
        self.group.stay(asked?, self.tried)
    }

    /// The members that are left to be asked, as a plan.
    pub(super) fn plan(&self) -> Step {
        self.group.plan(self.tried)
    }

    /// Goes to this member.
    fn go(&mut self, at: usize) -> Option<&'a LiveRoute> {
        let member = self.group.members.get(at)?;
        if self.at != Some(at) || self.load.is_none() {
            self.load = Some(member.under_way());
            self.at = Some(at);
        }
        Some(&member.route)
    }

    /// Gives up the member that it is at.
    fn give_up(&mut self) {
        self.load = None;
        if let Some(at) = self.at.take() {
            self.tried = self.tried.with(at);
        }
    }

    /// Goes on without the member that it is at. Says whether there is another. Once each has had its try, all may be
    /// asked again, for as long as a route with one backend would be.
    fn leave(&mut self) -> bool {
        if self.all_tried {
            return false;
        }
        self.give_up();
        self.all_tried = self.plan() == Step::Nobody;
        if self.all_tried {
            self.tried = Members::default();
        }
        !self.all_tried
    }
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
        job.route = member;
        note(job);
        match exchange::directly(job).await {
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
                    (turn.at, turn.load) = (None, None);
                }
            }
            outcome => return outcome,
        }
    }
}

/// The member that is to be asked next.
fn next(job: &mut Job<'_>) -> Option<usize> {
    let turn = job.turn.as_mut()?;
    let (stay, plan) = (turn.stay(job.head), turn.plan());
    if let Step::Among(_, Some(more)) = plan {
        wake_another(job, more);
    }
    match stay.unwrap_or(plan) {
        Step::Among(among, _) => choose(job, among),
        Step::Wait(at) => Some(at),
        Step::Nobody => None,
    }
}

/// Holds the request until a member is awake: the one that it is at, unless another one is sooner.
pub(super) async fn hold(job: &mut Job<'_>, cause: Cause, patience: Duration) -> Result<Pass, Entry> {
    let Some(mut door) = Door::of(job) else { return Err(nobody()) };
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

fn choose(job: &Job<'_>, among: Members) -> Option<usize> {
    let turn = job.turn.as_ref()?;
    turn.group.choose(among, number(wake::client(job)), turn.tried.is_empty())
}

/// A number that stands for a client.
fn number(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(client) => mixed(u64::from(client.to_bits())),
        IpAddr::V6(client) => {
            let bits = client.to_bits();
            mixed((bits >> 64) as u64 ^ mixed(bits as u64))
        }
    }
}

/// Wakes a member for the sake of those that follow, once, and within the bounds of this client.
fn wake_another(job: &Job<'_>, at: usize) {
    let Some(member) = job.turn.as_ref().and_then(|turn| turn.group.members.get(at)) else { return };
    let Some(backend) = &member.route.backend else { return };
    let policy = backend.policy();
    let elsewhere = policy.start_endpoint.as_deref().is_some_and(|only| only != job.head.path());
    if elsewhere || wake::is_ignored(job, &member.route, &policy) || !member.is_to_be_told() {
        return;
    }
    if !wake::causes_wake(backend) || job.client.worker.shared.may_wake(wake::client(job)) {
        backend.knock(Cause::Dormouse("more requests than the awake members of its group take".into()));
    }
}

fn note(job: &mut Job<'_>) {
    let backend = job.route.backend.as_ref();
    job.client.note(|notes| notes.backend = backend.map(|backend| backend.id().to_string()));
}

/// What a failed try says of its member, and whether the request goes to another one.
pub(super) fn elsewhere(job: &mut Job<'_>, failure: &Failure, way: &Way) -> bool {
    let Some(member) = job.turn.as_ref().and_then(|turn| turn.member()) else { return false };
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
            tell(job, failure, member.refused());
            true
        }
        Fault::Silent if failure.reused => false,
        Fault::Tls(_) | Fault::Silent => {
            tell(job, failure, member.failed());
            safe
        }
        Fault::Late | Fault::Cut | Fault::Bad(_) => {
            tell(job, failure, member.failed());
            false
        }
        Fault::Crowded => true,
        Fault::Unwanted(_) => {
            // Its route wants it tried again: by whoever's turn it is.
            if let Some(turn) = &mut job.turn {
                (turn.at, turn.load) = (None, None);
            }
            return false;
        }
        Fault::NoUpgrade
        | Fault::Refused
        | Fault::HalfStarted
        | Fault::ClientLeft
        | Fault::ClientBad
        | Fault::ClientTooMuch
        | Fault::ClientSlow => false,
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

/// One that is left out is a matter for its owner.
fn tell(job: &Job<'_>, failure: &Failure, is_out: bool) {
    if is_out {
        let (route, to) = (&job.route.spec.alias, job.route.spec.leads_to());
        tracing::warn!(%route, to, fault = ?failure.fault, "a member of the group is left out for a while");
    }
}
