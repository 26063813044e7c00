//! A request or a stream of a group, whatever the number of its tries.

use std::{fmt, net::IpAddr, time::Duration};

use tokio::time::Instant;

use crate::{
    backend::{Backend, Pass},
    control::{LiveGroup, LiveMember, LiveRoute, UnderWay},
    model::Cause,
    proxy::worker::{Shared, causes_wake},
    routing::{Members, Step, mixed},
};

/// Who asks, and whom it may wake.
pub(in crate::proxy) struct Asker<'a> {
    pub(in crate::proxy) shared: &'a Shared,
    pub(in crate::proxy) client: IpAddr,
    /// Whether it may not wake this one, whatever the bounds of the client.
    pub(in crate::proxy) is_barred: &'a dyn Fn(&LiveRoute, &Backend) -> bool,
}

impl Asker<'_> {
    /// Within the bounds of this client.
    fn may_wake(&self, backend: &Backend) -> bool {
        !causes_wake(backend) || self.shared.may_wake(self.client)
    }
}

/// See the module.
pub(in crate::proxy) struct Turn<'a> {
    pub(in crate::proxy) group: &'a LiveGroup,
    /// The member that it is at.
    pub(in crate::proxy) at: Option<usize>,
    /// Members that did not take it.
    pub(in crate::proxy) tried: Members,
    /// Each had its try.
    all_tried: bool,
    /// Counts it at its member.
    load: Option<UnderWay>,
    /// The end of its patience, once it was held.
    held_until: Option<Instant>,
    /// It has entered the member that it is at.
    pub(in crate::proxy) entered: Option<Pass>,
    /// The member that the client asked for, once that was looked at.
    asked: Option<Option<usize>>,
}

impl fmt::Debug for Turn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("at", &self.at).field("tried", &self.tried).finish_non_exhaustive()
    }
}

impl<'a> Turn<'a> {
    pub(in crate::proxy) fn new(group: &'a LiveGroup) -> Box<Self> {
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
    pub(in crate::proxy) fn member(&self) -> Option<&'a LiveMember> {
        self.group.members.get(self.at?)
    }

    /// How much of this patience is left: all that it is held shares one.
    pub(in crate::proxy) fn patience(&mut self, whole: Duration) -> Duration {
        let until = *self.held_until.get_or_insert_with(|| Instant::now() + whole);
        until.saturating_duration_since(Instant::now())
    }

    /// Nobody is woken for those who do not wait for it.
    pub(in crate::proxy) fn is_out_of_patience(&self) -> bool {
        self.held_until.is_some_and(|until| until <= Instant::now())
    }

    /// What is done for the client to stay with the member that it asks for.
    pub(in crate::proxy) fn stay(&mut self, asks: impl FnOnce() -> Option<usize>) -> Option<Step> {
        let asked = *self.asked.get_or_insert_with(asks);
        self.group.stay(asked?, self.tried)
    }

    /// Whether the client asked for another member than the one that it is at, or for none.
    pub(in crate::proxy) fn is_elsewhere(&self) -> bool {
        self.asked.flatten() != self.at
    }

    /// The members that are left to be asked, as a plan.
    pub(in crate::proxy) fn plan(&self) -> Step {
        self.group.plan(self.tried)
    }

    /// The member that is to be asked next. What keeps the client with one goes before the plan.
    pub(in crate::proxy) fn next(&mut self, stay: Option<Step>, asker: &Asker<'_>) -> Option<usize> {
        let plan = self.plan();
        if let Step::Among(_, Some(more)) = plan {
            self.wake_another(more, asker);
        }
        match stay.unwrap_or(plan) {
            Step::Among(among, _) => self.group.choose(among, number(asker.client), self.tried.is_empty()),
            Step::Wait(at) => Some(at),
            Step::Nobody => None,
        }
    }

    /// Wakes a member for the sake of those that follow, once, and within the bounds of this client.
    fn wake_another(&self, at: usize, asker: &Asker<'_>) {
        let Some(member) = self.group.members.get(at) else { return };
        let Some(backend) = &member.route.backend else { return };
        if (asker.is_barred)(&member.route, backend) || !member.is_to_be_told() {
            return;
        }
        if asker.may_wake(backend) {
            backend.knock(Cause::Dormouse("more requests than the awake members of its group take".into()));
        }
    }

    /// Goes to this member.
    pub(in crate::proxy) fn go(&mut self, at: usize) -> Option<&'a LiveMember> {
        let member = self.group.members.get(at)?;
        if self.at != Some(at) || self.load.is_none() {
            self.load = Some(member.under_way());
            self.at = Some(at);
        }
        Some(member)
    }

    /// Leaves the member that it is at, which is not held against it.
    pub(in crate::proxy) fn step_back(&mut self) {
        (self.at, self.load) = (None, None);
    }

    /// Gives up the member that it is at.
    pub(in crate::proxy) fn give_up(&mut self) {
        self.load = None;
        if let Some(at) = self.at.take() {
            self.tried = self.tried.with(at);
        }
    }

    /// Goes on without the member that it is at. Says whether there is another. Once each has had its try, all may be
    /// asked again, for as long as a route with one backend would be.
    pub(in crate::proxy) fn leave(&mut self) -> bool {
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

    /// The member that it is at took no connection.
    pub(in crate::proxy) fn refused(&self, why: &dyn fmt::Debug) {
        if let Some(member) = self.member() {
            tell(member, why, member.refused());
        }
    }

    /// The member that it is at gave no proper answer.
    pub(in crate::proxy) fn failed(&self, why: &dyn fmt::Debug) {
        if let Some(member) = self.member() {
            tell(member, why, member.failed());
        }
    }
}

/// One that is left out is a matter for its owner.
fn tell(member: &LiveMember, why: &dyn fmt::Debug, is_out: bool) {
    if is_out {
        let (route, to) = (&member.route.spec.alias, member.route.spec.leads_to());
        tracing::warn!(%route, to, fault = ?why, "a member of the group is left out for a while");
    }
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
