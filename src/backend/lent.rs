//! A backend in the hands of another process: this one's driver starts and stops nothing any more, and whoever still comes
//! in here does so only while the other process was asked to keep it awake.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Before, Refused, Restored, Status, StatusState,
    driver::{Driver, next_generation},
    letter::Letter,
    pass::Reach,
    state::{Event, State},
};
use crate::{
    model::{BackendId, ContainerState, Running},
    telemetry::chain,
};

/// What is asked of the process that has the backends.
#[derive(Debug)]
pub enum Ask {
    /// Wake it, and keep it awake until it is freed. The error says why not.
    Hold(BackendId, oneshot::Sender<Result<(), Arc<str>>>),
    /// Nobody uses it here any more.
    Free(BackendId),
}

/// The way to the process that has the backends.
#[derive(Debug, Clone)]
pub struct Lender {
    /// Where it is asked.
    pub asks: mpsc::UnboundedSender<Ask>,
    /// Cancelled when it has given all of them back.
    pub back: CancellationToken,
    /// Cancelled when it is certain that it keeps them.
    pub kept: CancellationToken,
}

/// What a driver says that is told to give its backend up.
#[derive(Debug, Clone)]
pub enum Lent {
    /// It has.
    Given {
        /// Somebody is inside: it must be kept awake until it is freed.
        in_use: bool,
        /// What the other one's driver begins with.
        known: Box<Restored>,
    },
    /// It is on its way up or down: not now.
    Busy,
}

/// What ended a time in other hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// It is ours again.
    Back,
    /// The program ends.
    End,
}

/// A backend that is in other hands.
struct Away {
    lender: Lender,
    /// The other process keeps it awake for us.
    granted: bool,
    /// The other process is being asked.
    asking: Option<AbortHandle>,
    jobs: JoinSet<Result<Arc<Running>, Arc<str>>>,
}

impl Driver {
    /// Gives it up, if that can be now, and lives on until it is over.
    pub(super) async fn lend(
        &mut self,
        inbox: &mut mpsc::Receiver<Letter>,
        (lender, reply): (Lender, oneshot::Sender<Lent>),
        end: &CancellationToken,
    ) -> Over {
        let lent = self.give_up();
        let given = if let Lent::Given { in_use, .. } = lent { Some(in_use) } else { None };
        let _ = reply.send(lent);
        let Some(in_use) = given else { return Over::Back };
        let over = self.away(inbox, lender, in_use, end).await;
        if over == Over::Back {
            self.say(self.status_state());
            self.is_back();
        }
        over
    }

    /// Whether it can be given up now; whoever is inside may go on.
    fn give_up(&mut self) -> Lent {
        let under_way = matches!(self.state, State::Waking(_) | State::Stopping { .. } | State::Draining { .. });
        if under_way || !self.completions.is_empty() || !self.starts.is_empty() {
            return Lent::Busy;
        }
        // Whoever waits for it to settle asks whoever has it.
        self.settling.clear();
        let in_use = self.shared.gate.close() > 0;
        Lent::Given { in_use, known: Box::new(self.known(in_use)) }
    }

    /// All that matters of it for another run.
    fn known(&self, in_use: bool) -> Restored {
        Restored {
            // When somebody last left says nothing of one that others are in.
            quiet_since: Some(if in_use { Instant::now() } else { self.shared.quiet_since() }),
            pinned_until: self.pinned_until,
            stats: self.stats.clone(),
            put_to_sleep: self.put_to_sleep,
            before: Before::of(&self.state),
            since: Some(self.since),
            cause: self.cause.clone(),
            woke: self.woke,
            proven: self.proven,
        }
    }

    /// Lives on in other hands.
    async fn away(
        &mut self,
        inbox: &mut mpsc::Receiver<Letter>,
        lender: Lender,
        in_use: bool,
        end: &CancellationToken,
    ) -> Over {
        let mut away = Away { lender, granted: in_use, asking: None, jobs: JoinSet::new() };
        if !in_use {
            self.is_out_of_reach();
        } else if self.state.is_open() {
            self.shared.gate.open();
        }
        self.seek(&mut away);
        let mut kept = false;
        loop {
            self.let_go(&mut away);
            tokio::select! {
                biased;
                () = end.cancelled() => return Over::End,
                () = away.lender.back.cancelled() => return Over::Back,
                () = away.lender.kept.cancelled(), if !kept => {
                    kept = true;
                    // Until now it could have come back and needed them.
                    self.held.clear();
                }
                // What was begun before is of no use any more, least of all a pass that comes of it.
                Some(done) = self.jobs.join_next(), if kept => drop(done),
                Some(done) = away.jobs.join_next() => {
                    // A look that is not needed any more was ended.
                    if let Ok(done) = done {
                        self.granted(&mut away, done);
                    }
                }
                Some(letter) = inbox.recv() => self.letter_away(&mut away, letter),
                () = self.shared.emptied.notified() => {}
            }
        }
    }

    /// The last one has left: from now on nobody gets in without asking first.
    fn let_go(&mut self, away: &mut Away) {
        if !away.granted || away.asking.is_some() || self.shared.gate.watch() > 0 {
            return;
        }
        if self.shared.gate.close() > 0 {
            self.shared.gate.open();
            // Asks to be told of the last one again; it may have gone meanwhile.
            self.shared.emptied.notify_one();
            return;
        }
        away.granted = false;
        self.is_out_of_reach();
        let _ = away.lender.asks.send(Ask::Free(self.spec.id.clone()));
    }

    /// It was in other hands: what it does now is looked up, and who came meanwhile is seen to.
    fn is_back(&mut self) {
        self.advance(if self.waiters.is_empty() { Event::Tick } else { Event::Wanted });
        self.look();
    }

    /// Publishes a state that is not this driver's doing.
    fn say(&mut self, state: StatusState) {
        let last = Arc::clone(&self.shared.status.borrow());
        if last.state != state {
            self.version += 1;
            let status = Status { version: self.version, state, ..Status::clone(&last) };
            self.shared.status.send_replace(Arc::new(status));
        }
    }

    /// It may be let down and woken meanwhile: connections of now are of no use later.
    fn is_out_of_reach(&self) {
        self.shared.reach.store(None);
        self.shared.moved.notify_waiters();
    }

    fn letter_away(&mut self, away: &mut Away, letter: Letter) {
        let denied = || Answer::Denied("Dormouse has just been upgraded: ask again".to_owned());
        match letter {
            Letter::Knock(_, Some(reply)) => {
                self.waiters.push(reply);
                self.seek(away);
            }
            // Nobody waits: it is freed again as soon as it is up.
            Letter::Knock(_, None) if !away.granted => self.ask(away),
            // It may be reached otherwise, or be down: the other process finds out, and is asked.
            Letter::Suspect if away.granted => self.ask(away),
            Letter::Order(_, _, reply) | Letter::Pin(_, _, reply) => drop(reply.send(denied())),
            Letter::Start(reply) => drop(reply.send(false)),
            Letter::Complete(_, reply) => drop(reply.send(Err("Dormouse has just been upgraded".into()))),
            Letter::Configure(..)
            | Letter::Knock(_, None)
            | Letter::Suspect
            | Letter::Hint
            | Letter::Started
            | Letter::Ended(_)
            | Letter::Seen(_)
            | Letter::Settle(_)
            | Letter::Lend(..) => {}
        }
    }

    /// Lets those who wait in, once the other process keeps it awake.
    fn seek(&mut self, away: &mut Away) {
        self.waiters.retain(|waiter| !waiter.is_closed());
        if self.waiters.is_empty() || away.asking.is_some() {
            return;
        }
        if !away.granted || !self.admit() {
            self.ask(away);
        }
    }

    fn ask(&mut self, away: &mut Away) {
        if away.asking.is_some() {
            return;
        }
        let (asks, provider, spec) =
            (away.lender.asks.clone(), Arc::clone(&self.around.provider), Arc::clone(&self.spec));
        away.asking = Some(away.jobs.spawn(async move {
            let (reply, answer) = oneshot::channel();
            let gone = || Arc::<str>::from("the process that took over has ended");
            asks.send(Ask::Hold(spec.id.clone(), reply)).map_err(|_| gone())?;
            answer.await.map_err(|_| gone())??;
            match provider.look(&spec.unit).await {
                Ok(ContainerState::Running(at)) => Ok(Arc::new(at)),
                Ok(_) => Err(Arc::from("it is not up")),
                Err(error) => Err(chain(&error).into()),
            }
        }));
    }

    fn granted(&mut self, away: &mut Away, done: Result<Arc<Running>, Arc<str>>) {
        away.asking = None;
        match done {
            Ok(at) => {
                away.granted = true;
                let same = self.shared.reach.load().as_ref().is_some_and(|reach| reach.at == at);
                if !same {
                    self.generation = next_generation();
                    let reach = Reach { at, generation: self.generation, woke: None };
                    self.shared.reach.store(Some(Arc::new(reach)));
                    self.shared.moved.notify_waiters();
                }
                // Who dials it gives up where it is said to be down.
                self.say(StatusState::Awake);
                self.shared.gate.open();
                self.admit();
            }
            Err(why) => {
                for waiter in self.waiters.drain(..) {
                    let (why, retry_after) = (Arc::clone(&why), std::time::Duration::from_secs(1));
                    let _ = waiter.send(Err(Refused::WakeFailed { why, retry_after }));
                }
            }
        }
    }

    /// Lets those who wait in, where the gate is open.
    fn admit(&mut self) -> bool {
        while let Some(waiter) = self.waiters.pop() {
            let Some(pass) = self.shared.try_enter(true, true) else {
                self.waiters.push(waiter);
                return false;
            };
            let _ = waiter.send(Ok(pass));
        }
        true
    }
}
