//! The driver: one task per backend that carries out what the machine decides.
//!
//! It awaits only its inbox: letters from handles, jobs that come back (engine calls, probes), the gate's word that
//! the last one has left, and the one deadline that follows from the state. No lock is held across an engine call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Backend, Refused, WakeStats,
    attempt::Attempts,
    birth::Surroundings,
    handle::Shared,
    lent::Over,
    letter::Letter,
    machine::step,
    orders::PendingOrder,
    pass::{Pass, Reach, Waiter, Woke},
    state::{Event, Facts, Order, Rules, Stage, State, Verdict, Waking},
};
use crate::{
    model::{BackendId, BackendSpec, Cause, Condition, Running},
    telemetry::Phases,
};

/// A job that came back.
#[derive(Debug)]
pub(super) enum Done {
    Gathered(Result<(Vec<Pass>, OwnedSemaphorePermit), Arc<str>>),
    Event(Event),
    /// It is ready, and reached so; the port that proved it, where one did.
    Ready(Arc<Running>, Option<u16>),
    /// It was let down, or not; before it used so much memory.
    LetDown(Option<u64>, Event),
    /// Dependencies of a backend that was found running.
    Adopted(Vec<Pass>),
    /// A job has run to its end, or not.
    Completed(Result<(), Arc<str>>),
}

#[derive(Debug)]
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) spec: Arc<BackendSpec>,
    pub(super) around: Surroundings,
    pub(super) dependencies: Vec<(Backend, Condition)>,
    pub(super) state: State,
    /// Those who wait to get in.
    pub(super) waiters: Vec<Waiter>,
    pub(super) orders: Vec<PendingOrder>,
    /// Those who have it started at once, until its start call has been answered.
    pub(super) starts: Vec<oneshot::Sender<bool>>,
    /// Dependants that wait for its end; while there are any, it runs as a job.
    pub(super) completions: Vec<oneshot::Sender<Result<(), Arc<str>>>>,
    /// Whose job it was started as, until that run has ended.
    pub(super) job_of: Option<BackendId>,
    pub(super) jobs: JoinSet<(u64, Done)>,
    /// Counts the engine calls that change something: what was asked before them is stale.
    pub(super) epoch: u64,
    pub(super) looking: bool,
    pub(super) look_again: bool,
    /// The engine told of a start since the last start call.
    pub(super) start_told: bool,
    /// A dial failed: the next look decides whether it must prove itself again.
    pub(super) suspected: bool,
    /// The port that proved it ready when it was woken last.
    pub(super) proven: Option<u16>,
    pub(super) probe: Option<AbortHandle>,
    /// What the probe of this wake has tried last.
    pub(super) attempts: Arc<Attempts>,
    /// What it needs is being woken, or its turn awaited.
    pub(super) gathering: Option<AbortHandle>,
    pub(super) kick: Arc<Notify>,
    /// Passes of dependencies, held from before the start until it is down.
    pub(super) held: Vec<Pass>,
    /// The turn on the node, held while waking.
    pub(super) turn: Option<OwnedSemaphorePermit>,
    pub(super) adopted: bool,
    /// It runs, and what it needs is being entered.
    pub(super) adopting: bool,
    /// Those who are to be told when it has what it needs.
    pub(super) settling: Vec<oneshot::Sender<()>>,
    pub(super) cause: Option<Cause>,
    pub(super) since: (Timestamp, Instant),
    pub(super) phases: Phases,
    pub(super) mark: Instant,
    /// Its present sleep is our doing.
    pub(super) put_to_sleep: bool,
    pub(super) pinned_until: Option<Timestamp>,
    pub(super) generation: u64,
    pub(super) woke: Option<Woke>,
    pub(super) thawing: bool,
    /// How it was reached when it was frozen: where the next probe begins.
    pub(super) frozen_at: Option<Arc<Running>>,
    pub(super) stats: WakeStats,
    pub(super) last_error: Option<Arc<str>>,
    pub(super) version: u64,
}

impl Driver {
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Letter>, end: CancellationToken) {
        self.look();
        loop {
            let deadline = self.deadline();
            tokio::select! {
                biased;
                () = end.cancelled() => break,
                Some(done) = self.jobs.join_next() => self.job_done(done),
                Some(letter) = inbox.recv() => {
                    if let Letter::Lend(lender, reply) = letter {
                        if self.lend(&mut inbox, (lender, reply), &end).await == Over::End {
                            break;
                        }
                    } else {
                        self.letter(letter);
                    }
                }
                () = self.shared.emptied.notified() => self.advance(Event::Tick),
                () = sleep_until(deadline) => self.time_passed(),
            }
        }
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            now: Instant::now(),
            inside: self.shared.gate.inside(),
            waiting: self.waiters.iter().filter(|waiter| !waiter.is_closed()).count(),
            quiet_since: self.shared.quiet_since(),
            kept_until: self.kept_until(),
            tried: self.attempts.last(),
        }
    }

    /// A pin or a schedule window, moved from the wall clock to the monotonic one.
    fn kept_until(&self) -> Option<Instant> {
        let wall = Timestamp::now();
        let schedule = &self.spec.policy.schedule;
        let window = if schedule.holds(wall) { schedule.next_change(wall) } else { None };
        let kept = [self.pinned_until, window].into_iter().flatten().filter_map(|until| instant_of(until, wall));
        // A job that is waited for is in use.
        let job = (!self.completions.is_empty()).then(|| Instant::now() + self.spec.policy.wake_timeout);
        kept.chain(job).max()
    }

    fn deadline(&self) -> Option<Instant> {
        let mut facts = self.facts();
        if self.state.is_open() && facts.inside > 0 {
            // The idle clock starts when the last one leaves: ask to be told. Nobody tells if it left just now.
            facts.inside = self.shared.gate.watch();
        }
        let by_state = self.state.deadline(facts, &self.spec.policy);
        let wall = Timestamp::now();
        let schedule = self.spec.policy.schedule.next_change(wall).and_then(|change| instant_of(change, wall));
        [by_state, schedule].into_iter().flatten().min()
    }

    fn time_passed(&mut self) {
        let begins = self.spec.policy.schedule.holds(Timestamp::now());
        let down = matches!(self.state, State::Asleep(_) | State::Failed(_));
        if begins && down {
            self.cause = Some(Cause::Schedule);
            return self.advance(Event::Ordered(Order::Wake));
        }
        self.advance(Event::Tick);
    }

    /// One step, and everything that follows from it.
    pub(super) fn advance(&mut self, event: Event) {
        let mut event = event;
        loop {
            let facts = self.facts();
            let before = self.state.clone();
            let rules = Rules { policy: &self.spec.policy, gathers: true };
            // Looked at a moment ago, when a dial to it had failed.
            let known = if let Event::Unreachable(at) = &event { Some(Arc::clone(at)) } else { None };
            let (state, action) = step(before.clone(), event, facts, rules);
            self.state = state;
            self.note_change(&before);
            // Who comes in looks at the status: it says awake before the gate opens.
            if self.state.is_open() {
                self.publish(&before);
            }
            self.follow_gate();
            if let Some(action) = action {
                self.act(action, known);
            }
            self.answer_waiters(&before);
            self.release();
            self.tell_if_settled();
            if !self.state.is_open() {
                self.publish(&before);
            }
            // Last: who is answered may read and keep what is published.
            self.answer_orders();
            let newly_draining =
                matches!(self.state, State::Draining { .. }) && !matches!(before, State::Draining { .. });
            event = if newly_draining {
                // Closed first; now count.
                Event::Tick
            } else if !self.starts.is_empty() && self.gathers() {
                Event::Gathered(Ok(()))
            } else {
                break;
            };
        }
    }

    /// Whether it waits for its dependencies, or for its turn.
    fn gathers(&self) -> bool {
        matches!(self.state, State::Waking(Waking { stage: Stage::Gathering, .. }))
    }

    fn follow_gate(&mut self) {
        let State::Awake(awake) = &self.state else {
            self.shared.gate.close();
            if !matches!(self.state, State::Draining { .. }) {
                // The next wake is another generation, also at the same address.
                self.shared.reach.store(None);
                self.shared.moved.notify_waiters();
            }
            return;
        };
        let same = self
            .shared
            .reach
            .load()
            .as_ref()
            .is_some_and(|reach| reach.at == awake.at && reach.generation == self.generation);
        if !same {
            self.generation = next_generation();
            let reach = Reach { at: Arc::clone(&awake.at), generation: self.generation, woke: self.woke };
            self.shared.reach.store(Some(Arc::new(reach)));
            self.shared.moved.notify_waiters();
        }
        self.shared.gate.open();
    }

    fn answer_waiters(&mut self, before: &State) {
        let now = Instant::now();
        // Who comes after the failure meets the cool-down; who waited through it is told the failure itself.
        let cooling = matches!(before.verdict(now), Verdict::Refuse(_));
        match self.state.verdict(now) {
            Verdict::Wait => {}
            Verdict::Admit => {
                for waiter in std::mem::take(&mut self.waiters) {
                    match self.shared.try_enter(true, true) {
                        Some(pass) => {
                            let _ = waiter.send(Ok(pass));
                        }
                        None => self.waiters.push(waiter),
                    }
                }
            }
            Verdict::Refuse(refusal) => {
                for waiter in self.waiters.drain(..) {
                    let _ = waiter.send(Err(Refused::of(&refusal, now, cooling)));
                }
            }
        }
        self.waiters.retain(|waiter| !waiter.is_closed());
    }

    /// Dependencies are let go once it is down, the turn on the node once it no longer wakes.
    fn release(&mut self) {
        if !matches!(self.state, State::Waking(_)) {
            self.turn = None;
        }
        if matches!(self.state, State::Asleep(_) | State::Failed(_) | State::Gone) {
            self.held.clear();
            self.adopted = false;
        }
        if self.gathers() && self.dependencies.iter().any(|(needed, _)| needed.is_on_its_way_down()) {
            // It waits for us to leave, while we wait for it to come up again.
            self.held.clear();
        }
        if !matches!(self.state, State::Waking(Waking { stage: Stage::Starting(_) | Stage::Probing(_), .. }))
            && let Some(probe) = self.probe.take()
        {
            probe.abort();
        }
        if !self.gathers()
            && let Some(gathering) = self.gathering.take()
        {
            gathering.abort();
        }
        let found_up = matches!(self.state, State::Awake(_)) && self.held.is_empty() && !self.adopted;
        if found_up && !self.dependencies.is_empty() {
            (self.adopted, self.adopting) = (true, true);
            // What runs already needs no job done before it, and nobody healthy.
            let gather = self.gather(false);
            self.job(Done::Adopted(Vec::new()), async move { Done::Adopted(gather.await.unwrap_or_default()) });
        }
    }

    /// Whether what it needs is kept awake for it, or need not be.
    pub(super) fn tell_if_settled(&mut self) {
        let settled = match &self.state {
            State::Unknown { .. } | State::Waking(Waking { stage: Stage::Gathering, .. }) => false,
            State::Awake(_) | State::Draining { .. } => !self.adopting,
            State::Waking(_) | State::Asleep(_) | State::Stopping { .. } | State::Failed(_) | State::Gone => true,
        };
        if settled {
            for told in self.settling.drain(..) {
                let _ = told.send(());
            }
        }
    }
}

/// Ends without touching the engine, also where a fault of ours ends it: nobody gets in any more, those inside finish,
/// and whoever waits is told that it is gone, since nobody is left who would answer.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.gate.close();
        if std::thread::panicking() {
            tracing::error!(backend = %self.spec.id, "its driver has ended by a fault: it is not served until Dormouse is started again");
            self.publish_fault();
        }
    }
}

/// Counts wakes and addresses over all backends: an address may pass from one backend to another, a generation never.
pub(super) fn next_generation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn instant_of(at: Timestamp, wall: Timestamp) -> Option<Instant> {
    let ahead = Duration::try_from(at.duration_since(wall)).ok()?;
    Instant::now().checked_add(ahead)
}
