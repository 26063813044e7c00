//! A stream of a group: which member it goes to, and who gets it when that one fails.

use std::{io, sync::Arc};

use super::connection::{End, Session};
use crate::{
    backend::Backend,
    control::LiveRoute,
    proxy::{
        carry::gone,
        group::{Asker, Door},
        ports::{Closed, Way, entered_by, is_ignored, may_wake},
    },
};

impl Session<'_> {
    /// Goes to the member whose turn it is; one that has room. Does nothing where there is no group. `refusal` is why
    /// the member before did not take it.
    pub(super) fn choose(&mut self, refusal: Option<Closed>) -> Result<(), End> {
        let Some(mut turn) = self.turn.take() else { return refusal.map_or(Ok(()), |why| Err(End::Closed(why))) };
        let mut why = refusal.unwrap_or_else(|| Closed("it is down, and nobody wakes it".to_owned()));
        let found = loop {
            if turn.at.is_some_and(|_| turn.member().is_some_and(|member| member.is_awake())) {
                break turn.member();
            }
            let next = self.asking(|asker| turn.next(None, asker));
            let Some(member) = next.and_then(|at| turn.go(at)) else { break None };
            let bound = member.route.spec.options.upstream.max_conns;
            if bound.is_none_or(|most| member.load() as usize <= most) {
                break Some(member);
            }
            why = Closed("all members have as many connections as they may".to_owned());
            turn.give_up();
        };
        self.turn = Some(turn);
        let Some(member) = found else { return Err(End::Closed(why)) };
        self.route = Arc::clone(&member.route);
        Ok(())
    }

    /// The member that it is at did not let it in: it goes to another one, if there is one.
    pub(super) fn turned_away(&mut self, why: Closed) -> Result<(), End> {
        if let Some(turn) = self.turn.as_mut().filter(|turn| !turn.is_out_of_patience()) {
            turn.give_up();
            return self.choose(Some(why));
        }
        Err(End::Closed(why))
    }

    fn asking<T>(&self, with: impl FnOnce(&Asker<'_>) -> T) -> T {
        let is_barred = |route: &LiveRoute, backend: &Backend| is_ignored(route, backend, self.caller);
        let client = self.caller.ends.source.ip().to_canonical();
        with(&Asker { shared: &self.worker.shared, client, is_barred: &is_barred })
    }

    /// Waits until a member is awake: the one that it is at, unless another one is sooner.
    pub(super) async fn wait_for_any(&mut self, backend: &Backend) -> Result<Way, End> {
        may_wake(&self.worker, backend, self.caller).map_err(End::Closed)?;
        let Some(mut turn) = self.turn.take() else { return Err(End::Closed(Closed("it has no group".to_owned()))) };
        let mut door = self.asking(|asker| Door::new(&turn, asker, Arc::clone(&self.worker.shared)));
        let patience = turn.patience(backend.policy().patience());
        let entered = tokio::select! {
            biased;
            entered = door.enter(self.caller.cause(), patience) => entered,
            () = gone(self.stream.beneath(), self.first.is_empty()) => return Err(End::Left),
        };
        let way = match entered {
            Ok((at, pass)) => {
                if let Some(member) = turn.go(at) {
                    self.route = Arc::clone(&member.route);
                }
                entered_by(&self.worker, &self.route, pass, self.caller)
            }
            Err(refused) => Err(Closed(refused.reason().to_owned())),
        };
        self.turn = Some(turn);
        way.map_err(End::Closed)
    }

    /// Whether another member is asked after one took no connection. What woke a moment ago has its time.
    pub(super) fn goes_elsewhere(&mut self, settling: bool, error: &io::Error) -> bool {
        let Some(turn) = self.turn.as_mut().filter(|_| !settling) else { return false };
        match &self.route.backend {
            Some(backend) => backend.suspect(),
            None => self.worker.names.forget(),
        }
        turn.refused(error);
        turn.leave()
    }
}
