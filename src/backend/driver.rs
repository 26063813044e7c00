//! The driver: one task per backend that carries out what the machine decides.
//!
//! It awaits only its inbox: letters from handles, jobs that come back (engine calls, probes), the gate's word that
//! the last one has left, and the one deadline that follows from the state. No lock is held across an engine call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Backend, Refused, Status, StatusState, WakeStats,
    gate::Gate,
    handle::{Letter, Pass, Reach, Shared, Woke},
    machine::step,
    orders::PendingOrder,
    state::{Event, Facts, Failed, Order, Rules, Stage, State, Verdict, Waking},
};
use crate::{
    model::{BackendSpec, Cause, Condition, ContainerState, Running},
    provider::SharedProvider,
    telemetry::{Journal, Phases},
};

/// What a backend lives in.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The engine it runs on.
    pub provider: SharedProvider,
    /// Wakes at once on its node, first come first served.
    pub turns: Arc<Semaphore>,
    /// Where its changes are written.
    pub journal: Journal,
}

/// What is known of it from before this run of the program.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// How long nobody had used it.
    pub idle_for: Duration,
    /// A person's pin.
    pub pinned_until: Option<Timestamp>,
    /// Wakes and sleeps.
    pub stats: WakeStats,
    /// Dormouse had put it to sleep.
    pub put_to_sleep: bool,
    /// A cool-down that is not yet over.
    pub cooling: Option<Failed>,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) reply: oneshot::Sender<Result<Pass, Refused>>,
}

/// A job that came back.
#[derive(Debug)]
pub(super) enum Done {
    Gathered(Result<(Vec<Pass>, OwnedSemaphorePermit), Arc<str>>),
    Event(Event),
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
    pub(super) waiters: Vec<Waiter>,
    pub(super) orders: Vec<PendingOrder>,
    /// Dependants that wait for its end; while there are any, it runs as a job.
    pub(super) completions: Vec<oneshot::Sender<Result<(), Arc<str>>>>,
    pub(super) jobs: JoinSet<(u64, Done)>,
    /// Counts the engine calls that change something: what was asked before them is stale.
    pub(super) epoch: u64,
    pub(super) looking: bool,
    pub(super) look_again: bool,
    /// The engine told of a start since the last start call.
    pub(super) start_told: bool,
    /// A dial failed: the next look decides whether it must prove itself again.
    pub(super) suspected: bool,
    pub(super) probe: Option<AbortHandle>,
    /// How it is reached by the engine's word of this very moment: where the next probe begins.
    pub(super) known: Option<Arc<Running>>,
    pub(super) kick: Arc<Notify>,
    /// Passes of dependencies, held from before the start until it is down.
    pub(super) held: Vec<Pass>,
    /// The turn on the node, held while waking.
    pub(super) turn: Option<OwnedSemaphorePermit>,
    pub(super) adopted: bool,
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
    pub(super) stats: WakeStats,
    pub(super) last_error: Option<Arc<str>>,
    pub(super) version: u64,
}

impl Backend {
    /// Creates a backend and its driver, which ends with the token. Must be called inside a runtime. The engine is
    /// asked at once what it does.
    pub fn spawn(
        spec: BackendSpec,
        dependencies: Vec<(Backend, Condition)>,
        around: Surroundings,
        restored: Restored,
        end: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (letters, inbox) = mpsc::channel(1024);
        let now = Instant::now();
        let idle = i64::try_from(restored.idle_for.as_micros()).unwrap_or(i64::MAX);
        let status = Status {
            version: 0,
            state: StatusState::Unknown,
            since: Timestamp::now(),
            since_instant: now,
            cause: None,
            failure: None,
            refusal: None,
            retry_at: None,
            tries: 0,
            waits_for: Vec::new(),
            put_to_sleep: restored.put_to_sleep,
            pinned_until: restored.pinned_until,
            wakes: restored.stats.clone(),
        };
        let shared = Arc::new(Shared {
            id: spec.id.clone(),
            gate: Gate::closed(-idle),
            epoch: now,
            emptied: Notify::new(),
            reach: ArcSwapOption::empty(),
            moved: Notify::new(),
            policy: ArcSwap::from_pointee(spec.policy.clone()),
            held: AtomicUsize::new(0),
            letters,
            metrics: around.journal.metrics().clone(),
            status: watch::Sender::new(Arc::new(status)),
        });
        let driver = Driver {
            shared: Arc::clone(&shared),
            spec: Arc::new(spec),
            around,
            dependencies,
            state: State::Unknown { away: None, again: None, wanted: false, cooling: restored.cooling },
            waiters: Vec::new(),
            orders: Vec::new(),
            completions: Vec::new(),
            jobs: JoinSet::new(),
            epoch: 0,
            looking: false,
            look_again: false,
            start_told: false,
            suspected: false,
            probe: None,
            known: None,
            kick: Arc::new(Notify::new()),
            held: Vec::new(),
            turn: None,
            adopted: false,
            cause: None,
            since: (Timestamp::now(), now),
            phases: Phases::default(),
            mark: now,
            put_to_sleep: restored.put_to_sleep,
            pinned_until: restored.pinned_until,
            generation: 0,
            woke: None,
            thawing: false,
            stats: restored.stats,
            last_error: None,
            version: 0,
        };
        let task = tokio::spawn(driver.run(inbox, end));
        (Self { shared }, task)
    }
}

impl Driver {
    async fn run(mut self, mut inbox: mpsc::Receiver<Letter>, end: CancellationToken) {
        self.look();
        loop {
            let deadline = self.deadline();
            tokio::select! {
                biased;
                () = end.cancelled() => break,
                Some(done) = self.jobs.join_next() => self.job_done(done),
                Some(letter) = inbox.recv() => self.letter(letter),
                () = self.shared.emptied.notified() => self.advance(Event::Tick),
                () = sleep_until(deadline) => self.time_passed(),
            }
        }
        self.retire();
    }

    /// Ends without touching the engine: whoever waits is told, those inside finish.
    fn retire(mut self) {
        self.shared.gate.close();
        for waiter in self.waiters.drain(..) {
            let _ = waiter.reply.send(Err(Refused::Gone));
        }
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            now: Instant::now(),
            inside: self.shared.gate.inside(),
            waiting: self.waiters.iter().filter(|waiter| !waiter.reply.is_closed()).count(),
            quiet_since: self.shared.quiet_since(),
            kept_until: self.kept_until(),
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

    fn letter(&mut self, letter: Letter) {
        match letter {
            Letter::Knock(cause, reply) => self.knocked(cause, reply),
            Letter::Order(order, person, reply) => self.ordered(order, person, reply),
            Letter::Pin(until, person, reply) => self.pin(until, person, reply),
            Letter::Hint => self.hinted(),
            Letter::Complete(reply) => self.complete(reply),
            Letter::Started => {
                self.start_told |=
                    matches!(self.state, State::Waking(Waking { stage: Stage::Starting(_) | Stage::Probing(_), .. }));
                self.hinted();
            }
            Letter::Ended(exit_code) => self.ended(exit_code),
            Letter::Seen(state) => self.listed(&state),
            Letter::Suspect => {
                if self.state.is_open() {
                    self.suspected = true;
                    self.look();
                }
            }
            Letter::Configure(spec, dependencies) => {
                self.shared.policy.store(Arc::new(spec.policy.clone()));
                let reached_otherwise = spec.unit != self.spec.unit || spec.ports != self.spec.ports;
                self.spec = Arc::from(spec);
                self.dependencies = dependencies;
                self.advance(Event::Tick);
                if reached_otherwise {
                    self.reach_anew();
                }
            }
        }
    }

    fn hinted(&mut self) {
        self.kick.notify_one();
        self.look();
    }

    /// Events come in order, though late: an end after the start of this wake is the end of what it started. One
    /// before may be that of an earlier life.
    fn ended(&mut self, exit_code: i64) {
        let probing = matches!(self.state, State::Waking(Waking { stage: Stage::Probing(_), .. }));
        if std::mem::take(&mut self.start_told) && probing {
            let exit_code = Some(exit_code);
            self.advance(Event::Seen(Ok(ContainerState::Stopped { exit_code, error: None })));
        }
    }

    /// It is reached by another network or port from now on: what was begun with the old ones would never end.
    fn reach_anew(&mut self) {
        if self.probe.is_some() {
            self.probe();
        } else {
            self.look();
        }
    }

    fn knocked(&mut self, cause: Cause, reply: Option<oneshot::Sender<Result<Pass, Refused>>>) {
        if matches!(self.state, State::Unknown { .. } | State::Asleep(_) | State::Failed(_) | State::Stopping { .. }) {
            self.cause = Some(cause);
        }
        if let Some(reply) = reply {
            self.waiters.push(Waiter { reply });
        }
        self.advance(Event::Wanted);
    }

    /// A list was taken before it reached us: only a look of our own decides where it differs.
    fn listed(&mut self, seen: &ContainerState) {
        let agrees = match (&self.state, seen) {
            (State::Awake(awake), ContainerState::Running(at)) => *awake.at == *at,
            (State::Asleep(down), ContainerState::Paused(_)) => down.paused.is_some(),
            (State::Asleep(down), ContainerState::Stopped { .. }) => down.paused.is_none(),
            (State::Failed(_), ContainerState::Stopped { .. }) | (State::Gone, ContainerState::Gone) => true,
            (State::Waking(_) | State::Stopping { .. }, _) => true,
            _ => false,
        };
        if !agrees {
            self.look();
        }
    }

    fn job_done(&mut self, done: Result<(u64, Done), tokio::task::JoinError>) {
        let Ok((epoch, done)) = done else { return };
        match done {
            Done::Adopted(passes) => {
                if matches!(self.state, State::Awake(_) | State::Draining { .. }) {
                    self.held = passes;
                }
            }
            Done::Completed(result) => {
                for reply in self.completions.drain(..) {
                    let _ = reply.send(result.clone());
                }
                self.hinted();
            }
            Done::Gathered(result) if epoch == self.epoch => {
                let result = result.map(|(passes, turn)| {
                    self.held = passes;
                    self.turn = Some(turn);
                    self.phases.dependencies = self.mark.elapsed();
                });
                self.advance(Event::Gathered(result));
            }
            Done::LetDown(memory, event) if epoch == self.epoch => {
                self.stats.memory = memory.or(self.stats.memory);
                self.advance(event);
            }
            Done::Event(event @ (Event::Seen(_) | Event::Unreachable(_))) => {
                self.looking = false;
                let again = std::mem::take(&mut self.look_again) || epoch != self.epoch;
                if epoch == self.epoch {
                    self.engine_said(event);
                }
                if again {
                    self.look();
                }
            }
            Done::Event(event) if epoch == self.epoch => {
                if matches!(event, Event::Started(_)) {
                    self.phases.engine = self.mark.elapsed();
                    self.mark = Instant::now();
                }
                if matches!(event, Event::Ready(_)) {
                    self.phases.ready = self.mark.elapsed();
                }
                self.advance(event);
            }
            Done::Gathered(_) | Done::Event(_) | Done::LetDown(..) => {}
        }
    }

    fn engine_said(&mut self, event: Event) {
        let suspected = std::mem::take(&mut self.suspected);
        if let Event::Seen(Ok(ContainerState::Changing)) = event {
            // Between two states: asked again soon.
            let (shared, pause) = (Arc::clone(&self.shared), Duration::from_millis(100));
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                let _ = shared.letters.send(Letter::Hint).await;
            });
            return;
        }
        if let (true, Event::Seen(Ok(ContainerState::Running(at)))) = (suspected, &event) {
            let at = Arc::new(at.clone());
            self.known = Some(Arc::clone(&at));
            self.advance(Event::Unreachable(at));
            self.known = None;
            return;
        }
        self.advance(event);
    }

    /// One step, and everything that follows from it.
    pub(super) fn advance(&mut self, event: Event) {
        let mut event = event;
        loop {
            let facts = self.facts();
            let before = self.state.clone();
            let rules = Rules { policy: &self.spec.policy, gathers: true };
            let (state, action) = step(before.clone(), event, facts, rules);
            self.state = state;
            self.note_change(&before);
            // Who comes in looks at the status: it says awake before the gate opens.
            if self.state.is_open() {
                self.publish(&before);
            }
            self.follow_gate();
            if let Some(action) = action {
                self.act(action);
            }
            self.answer_waiters(&before);
            self.answer_orders();
            self.release();
            if !self.state.is_open() {
                self.publish(&before);
            }
            let newly_draining =
                matches!(self.state, State::Draining { .. }) && !matches!(before, State::Draining { .. });
            if !newly_draining {
                break;
            }
            // Closed first; now count.
            event = Event::Tick;
        }
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
                            let _ = waiter.reply.send(Ok(pass));
                        }
                        None => self.waiters.push(waiter),
                    }
                }
            }
            Verdict::Refuse(refusal) => {
                for waiter in self.waiters.drain(..) {
                    let _ = waiter.reply.send(Err(Refused::of(&refusal, now, cooling)));
                }
            }
        }
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
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
        if !matches!(self.state, State::Waking(Waking { stage: Stage::Starting(_) | Stage::Probing(_), .. }))
            && let Some(probe) = self.probe.take()
        {
            probe.abort();
        }
        let found_up = matches!(self.state, State::Awake(_)) && self.held.is_empty() && !self.adopted;
        if found_up && !self.dependencies.is_empty() {
            self.adopted = true;
            // What runs already needs no job done before it.
            let (epoch, gather) = (self.epoch, self.gather(false));
            self.jobs.spawn(async move { (epoch, Done::Adopted(gather.await.unwrap_or_default())) });
        }
    }
}

/// Counts wakes and addresses over all backends: an address may pass from one backend to another, a generation never.
fn next_generation() -> u64 {
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
