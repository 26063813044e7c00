//! The door of a group: for those who wait for whichever of its members is awake first.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use crate::{
    backend::{Backend, Pass, Refused, StatusState},
    control::{LiveGroup, LiveMember},
    model::Cause,
    proxy::worker::{Shared, causes_wake},
    routing::{Members, Step, late_after},
};

use super::turn::{Asker, Turn};

/// Nobody is woken because another is late when less than this is left, or so soon after another.
const WORTH_A_WAKE: Duration = Duration::from_secs(1);

/// Every member of a group that is left to be asked, as one.
pub(in crate::proxy) struct Door<'a> {
    group: &'a LiveGroup,
    /// Where it begins.
    at: Option<usize>,
    tried: Members,
    /// Members that may not be woken.
    barred: Members,
    shared: Arc<Shared>,
    client: IpAddr,
}

impl<'a> Door<'a> {
    /// The door for whoever may wake the member that it is at.
    pub(in crate::proxy) fn new(turn: &Turn<'a>, asker: &Asker<'_>, shared: Arc<Shared>) -> Self {
        let is_barred = |member: &LiveMember| {
            member.route.backend.as_ref().is_none_or(|backend| (asker.is_barred)(&member.route, backend))
        };
        let members = turn.group.members.iter().enumerate();
        Self {
            group: turn.group,
            at: turn.at,
            tried: turn.tried,
            barred: members.filter_map(|(at, member)| is_barred(member).then_some(at)).collect(),
            shared,
            client: asker.client,
        }
    }

    /// Those that have been asked.
    pub(in crate::proxy) fn tried(&self) -> Members {
        self.tried
    }

    /// Waits until a member is awake. Each is tried once: when the one before has failed, or takes too long.
    pub(in crate::proxy) async fn enter(&mut self, cause: Cause, patience: Duration) -> Result<(usize, Pass), Refused> {
        let until = Instant::now() + patience;
        let mut refused = Refused::TimedOut { after: patience, tried: None };
        let (mut next, mut late) = (self.at, None);
        let mut entering = FuturesUnordered::new();
        loop {
            if let Some(at) = next.take() {
                self.tried = self.tried.with(at);
                let backend = self.group.members.get(at).and_then(|member| member.route.backend.as_ref());
                if let Some(backend) = backend {
                    let (cause, left) = (cause.clone(), until.saturating_duration_since(Instant::now()));
                    // However long this one may take, time is left for the next.
                    late = Some(late_at(backend).min(Instant::now() + (left / 2).max(WORTH_A_WAKE)));
                    entering.push(async move { (at, backend.enter(cause, left).await) });
                }
            }
            if entering.is_empty() {
                next = self.next().filter(|_| Instant::now() < until);
                if next.is_none() {
                    return Err(refused);
                }
                continue;
            }
            tokio::select! {
                biased;
                Some((at, entered)) = entering.next() => match entered {
                    Ok(pass) => return Ok((at, pass)),
                    Err(why) => {
                        refused = why;
                        // The others may take long: whoever is next does not wait for them. Nobody is woken when the
                        // time is up for all.
                        next = if Instant::now() < until { self.next() } else { None };
                    }
                },
                () = sleep_until(late.unwrap_or(until)), if late.is_some() => {
                    late = None;
                    next = self.next();
                    tracing::debug!(?next, "a member of a group takes long to wake");
                }
            }
        }
    }

    /// The member that is asked next: one that is awake, or that may be woken for this request.
    fn next(&mut self) -> Option<usize> {
        loop {
            let backend = |at: usize| self.group.members.get(at)?.route.backend.as_ref();
            let at = match self.group.plan(self.tried) {
                // One without a backend can not be entered: it is left to the request's next try.
                Step::Among(among, _) => return among.iter().find(|at| backend(*at).is_some()),
                Step::Wait(at) => at,
                Step::Nobody => return None,
            };
            let backend = backend(at);
            if !self.barred.has(at) && backend.is_some_and(|backend| self.may_wake(backend)) {
                return Some(at);
            }
            self.tried = self.tried.with(at);
        }
    }

    /// Within the bounds of this client.
    fn may_wake(&self, backend: &Backend) -> bool {
        !causes_wake(backend) || self.shared.may_wake(self.client)
    }
}

/// When a wake has taken so long that another member is worth waking, too.
fn late_at(backend: &Backend) -> Instant {
    let status = backend.status();
    let status = status.borrow();
    let begun = if status.state == StatusState::Waking { status.since_instant } else { Instant::now() };
    begun + late_after(status.wakes.quantile(0.5), backend.policy().wake_timeout)
}
