//! The driver: one task per backend that carries out what the machine decides.
//!
//! It awaits only its inbox: letters from handles, jobs that come back (engine calls, probes), the gate's word that
//! the last one has left, and the one deadline that follows from the state. No lock is held across an engine call.

use std::{
    sync::{Arc, atomic::AtomicUsize},
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
    Answer, Backend, Refused, Status, StatusState, WakeStats,
    gate::Gate,
    handle::{Letter, Pass, Reach, Shared, Woke},
    machine::{
        Action, CallFailed, Drain, Event, Facts, Failed, Failure, Order, Refusal, Rules, Stage, State, Verdict, Waking,
        step,
    },
    readiness,
};
use crate::{
    model::{BackendId, BackendSpec, Cause, Condition, ContainerState, Health, SleepMethod},
    provider::{ProviderError, SharedProvider, StopOrder},
    telemetry::{Happening, Journal, Phases, chain},
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
    /// A cool-down that is not yet over.
    pub cooling: Option<Failed>,
}

#[derive(Debug)]
struct Waiter {
    reply: oneshot::Sender<Result<Pass, Refused>>,
}

#[derive(Debug)]
struct PendingOrder {
    order: Order,
    reply: oneshot::Sender<Answer>,
    /// It has been on its way down.
    went_down: bool,
}

/// A job that came back.
#[derive(Debug)]
enum Done {
    Gathered(Result<(Vec<Pass>, OwnedSemaphorePermit), Arc<str>>),
    Event(Event),
    /// Dependencies of a backend that was found running.
    Adopted(Vec<Pass>),
}

#[derive(Debug)]
struct Driver {
    shared: Arc<Shared>,
    spec: Arc<BackendSpec>,
    around: Surroundings,
    dependencies: Vec<(Backend, Condition)>,
    state: State,
    waiters: Vec<Waiter>,
    orders: Vec<PendingOrder>,
    jobs: JoinSet<(u64, Done)>,
    /// Counts the engine calls that change something: what was asked before them is stale.
    epoch: u64,
    looking: bool,
    look_again: bool,
    /// A dial failed: the next look decides whether it must prove itself again.
    suspected: bool,
    probe: Option<AbortHandle>,
    kick: Arc<Notify>,
    /// Passes of dependencies, held from before the start until it is down.
    held: Vec<Pass>,
    /// The turn on the node, held while waking.
    turn: Option<OwnedSemaphorePermit>,
    adopted: bool,
    cause: Option<Cause>,
    since: (Timestamp, Instant),
    phases: Phases,
    mark: Instant,
    pinned_until: Option<Timestamp>,
    generation: u64,
    woke: Option<Woke>,
    thawing: bool,
    stats: WakeStats,
    last_error: Option<Arc<str>>,
    version: u64,
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
            public_failure: None,
            retry_at: None,
            tries: 0,
            waits_for: Vec::new(),
            pinned_until: restored.pinned_until,
            wakes: restored.stats.clone(),
        };
        let shared = Arc::new(Shared {
            id: spec.id.clone(),
            gate: Gate::closed(-idle),
            epoch: now,
            emptied: Notify::new(),
            reach: ArcSwapOption::empty(),
            policy: ArcSwap::from_pointee(spec.policy.clone()),
            held: AtomicUsize::new(0),
            letters,
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
            jobs: JoinSet::new(),
            epoch: 0,
            looking: false,
            look_again: false,
            suspected: false,
            probe: None,
            kick: Arc::new(Notify::new()),
            held: Vec::new(),
            turn: None,
            adopted: false,
            cause: None,
            since: (Timestamp::now(), now),
            phases: Phases::default(),
            mark: now,
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

    fn facts(&self) -> Facts {
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
        [self.pinned_until, window].into_iter().flatten().filter_map(|until| instant_of(until, wall)).max()
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
            Letter::Hint => {
                self.kick.notify_one();
                self.look();
            }
            Letter::Seen(state) => self.listed(&state),
            Letter::Suspect => {
                if self.state.is_open() {
                    self.suspected = true;
                    self.look();
                }
            }
            Letter::Configure(spec, dependencies) => {
                self.shared.policy.store(Arc::new(spec.policy.clone()));
                self.spec = Arc::from(spec);
                self.dependencies = dependencies;
                self.advance(Event::Tick);
            }
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

    fn ordered(&mut self, order: Order, person: String, reply: oneshot::Sender<Answer>) {
        let answer = match (order, &self.state) {
            (Order::Wake, State::Awake(_)) | (Order::Sleep | Order::SleepNow, State::Asleep(_)) => Answer::AlreadySo,
            (_, State::Gone) => Answer::Denied("the engine knows no such unit".to_owned()),
            (Order::Sleep | Order::Restart, State::Waking(_)) => Answer::Denied("it is waking".to_owned()),
            (Order::SleepNow, State::Waking(Waking { stage: Stage::Gathering, .. })) => {
                Answer::Denied("it waits for its turn to wake".to_owned())
            }
            (Order::Sleep | Order::SleepNow, _) if self.is_pinned() => {
                Answer::Denied("it is pinned awake; unpin it first".to_owned())
            }
            (Order::Sleep | Order::SleepNow, State::Failed(failed)) => {
                Answer::Denied(format!("it is not up: {}", describe(&failed.why)))
            }
            (Order::Sleep | Order::SleepNow | Order::Restart, State::Unknown { .. }) => {
                Answer::Denied("its engine is away".to_owned())
            }
            _ => {
                self.cause = Some(Cause::Person(person));
                self.orders.push(PendingOrder { order, reply, went_down: false });
                return self.advance(Event::Ordered(order));
            }
        };
        let _ = reply.send(answer);
    }

    fn is_pinned(&self) -> bool {
        self.pinned_until.is_some_and(|until| until > Timestamp::now())
    }

    fn pin(&mut self, until: Option<Timestamp>, person: String, reply: oneshot::Sender<Answer>) {
        let answer = if self.pinned_until == until || (until.is_none() && !self.is_pinned()) {
            Answer::AlreadySo
        } else {
            Answer::Done
        };
        self.pinned_until = until;
        let happening = until.map_or(Happening::Unpinned, Happening::Pinned);
        if answer == Answer::Done {
            self.journal(happening, Cause::Person(person.clone()));
        }
        let _ = reply.send(answer);
        if until.is_some() && !self.state.is_open() {
            self.cause = Some(Cause::Person(person));
            return self.advance(Event::Ordered(Order::Wake));
        }
        self.advance(Event::Tick);
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
            Done::Gathered(result) if epoch == self.epoch => {
                let result = result.map(|(passes, turn)| {
                    self.held = passes;
                    self.turn = Some(turn);
                    self.phases.dependencies = self.mark.elapsed();
                });
                self.advance(Event::Gathered(result));
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
                match &event {
                    Event::Started(_) => {
                        self.phases.engine = self.mark.elapsed();
                        self.mark = Instant::now();
                    }
                    Event::Ready(_) => self.phases.ready = self.mark.elapsed(),
                    _ => {}
                }
                self.advance(event);
            }
            Done::Gathered(_) | Done::Event(_) => {}
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
        match event {
            Event::Seen(Ok(ContainerState::Running(at))) if suspected => self.advance(Event::Unreachable(Arc::new(at))),
            event => self.advance(event),
        }
    }

    /// One step, and everything that follows from it.
    fn advance(&mut self, event: Event) {
        let mut event = event;
        loop {
            let facts = self.facts();
            let before = self.state.clone();
            let rules = Rules { policy: &self.spec.policy, gathers: true };
            let (state, action) = step(before.clone(), event, facts, rules);
            self.state = state;
            self.note_change(&before);
            self.follow_gate();
            if let Some(action) = action {
                self.act(action);
            }
            self.answer_waiters(&before);
            self.answer_orders();
            self.release();
            self.publish(&before);
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
            return;
        };
        let same = self
            .shared
            .reach
            .load()
            .as_ref()
            .is_some_and(|reach| reach.at == awake.at && reach.generation == self.generation);
        if !same {
            self.generation += 1;
            let reach = Reach { at: Arc::clone(&awake.at), generation: self.generation, woke: self.woke };
            self.shared.reach.store(Some(Arc::new(reach)));
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
                    let _ = waiter.reply.send(Err(refused(&refusal, now, cooling)));
                }
            }
        }
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
    }

    fn answer_orders(&mut self) {
        let down = matches!(self.state, State::Stopping { .. } | State::Waking(_) | State::Asleep(_));
        let orders = std::mem::take(&mut self.orders);
        for mut pending in orders {
            pending.went_down |= down;
            match self.answer_to(&pending) {
                Some(answer) => {
                    let _ = pending.reply.send(answer);
                }
                None => self.orders.push(pending),
            }
        }
    }

    fn answer_to(&self, pending: &PendingOrder) -> Option<Answer> {
        let refusal = match self.state.verdict(Instant::now()) {
            Verdict::Refuse(refusal) => Some(refused(&refusal, Instant::now(), false).to_string()),
            Verdict::Admit | Verdict::Wait => None,
        };
        let inside = || format!("{} still use it", self.shared.gate.inside());
        match (pending.order, &self.state) {
            (Order::Wake, State::Awake(_)) => Some(Answer::Done),
            (Order::Sleep | Order::SleepNow, State::Asleep(_)) => Some(Answer::Done),
            (Order::Sleep | Order::SleepNow, State::Waking(_)) => {
                Some(Answer::Denied("somebody wanted it meanwhile: it is waking again".to_owned()))
            }
            (Order::Sleep | Order::SleepNow, State::Awake(_)) if pending.went_down => {
                Some(Answer::Denied(self.last_error.as_deref().unwrap_or("the engine did not let it down").to_owned()))
            }
            (Order::Sleep | Order::Restart, State::Awake(_)) if !pending.went_down => Some(Answer::Denied(inside())),
            (Order::Restart, State::Awake(_)) => Some(Answer::Done),
            _ => refusal.map(Answer::Denied),
        }
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
            let (epoch, gather) = (self.epoch, self.gather());
            self.jobs.spawn(async move { (epoch, Done::Adopted(gather.await.unwrap_or_default())) });
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Look => return self.look(),
            Action::Gather | Action::Start | Action::Probe | Action::Stop(_) | Action::AskBusy => {}
        }
        let (provider, spec) = (Arc::clone(&self.around.provider), Arc::clone(&self.spec));
        match action {
            Action::Gather => {
                self.epoch += 1;
                self.mark = Instant::now();
                self.phases = Phases::default();
                let (epoch, turns, gather) = (self.epoch, Arc::clone(&self.around.turns), self.gather());
                self.jobs.spawn(async move {
                    let gathered = async {
                        let passes = gather.await?;
                        let turn = turns.acquire_owned().await.map_err(|_| Arc::from("the program ends"))?;
                        Ok((passes, turn))
                    };
                    (epoch, Done::Gathered(gathered.await))
                });
            }
            Action::Start => {
                self.epoch += 1;
                self.mark = Instant::now();
                let epoch = self.epoch;
                let unit = Arc::clone(&spec);
                self.jobs.spawn(async move {
                    let result = provider.start(&unit.unit).await;
                    (epoch, Done::Event(Event::Started(result.map(|_| ()).map_err(|error| call_failed(&error)))))
                });
                if self.port_may_open_early() {
                    self.probe();
                }
            }
            Action::Probe => self.probe(),
            Action::Stop(method) => {
                self.epoch += 1;
                self.mark = Instant::now();
                let epoch = self.epoch;
                let order = StopOrder { method, signal: spec.policy.stop_signal, grace: spec.policy.stop_timeout };
                self.jobs.spawn(async move {
                    let result = provider.stop(&spec.unit, order).await;
                    (epoch, Done::Event(Event::Stopped(result.map(|_| ()).map_err(|error| call_failed(&error)))))
                });
            }
            Action::AskBusy => {
                let epoch = self.epoch;
                self.jobs.spawn(async move {
                    let check = spec.policy.busy.as_deref().unwrap_or_default();
                    (epoch, Done::Event(Event::Busy(readiness::is_busy(check).await)))
                });
            }
            Action::Look => {}
        }
    }

    /// Whether its port may open before the engine's start call answers, so that it is worth trying meanwhile. Not
    /// for what sits behind a bridge: a try before its network is up delays the first byte by a second.
    fn port_may_open_early(&self) -> bool {
        self.spec.unit.command.is_some() && !self.thawing
    }

    fn probe(&mut self) {
        if let Some(earlier) = self.probe.take() {
            earlier.abort();
        }
        let (epoch, thawed) = (self.epoch, self.thawing);
        let (provider, spec) = (Arc::clone(&self.around.provider), Arc::clone(&self.spec));
        let kick = Arc::clone(&self.kick);
        let early = matches!(self.state, State::Waking(Waking { stage: Stage::Starting(_), .. }));
        self.probe = Some(self.jobs.spawn(async move {
            loop {
                match readiness::until_ready(&*provider, &spec, thawed, &kick).await {
                    readiness::Outcome::Ready(at) => return (epoch, Done::Event(Event::Ready(at))),
                    // The start call has not answered: it is not up yet.
                    readiness::Outcome::Ended(_) if early => tokio::time::sleep(Duration::from_millis(1)).await,
                    readiness::Outcome::Ended(state) => return (epoch, Done::Event(Event::Seen(Ok(state)))),
                }
            }
        }));
    }

    fn look(&mut self) {
        if self.looking {
            self.look_again = true;
            return;
        }
        self.looking = true;
        let epoch = self.epoch;
        let (provider, spec) = (Arc::clone(&self.around.provider), Arc::clone(&self.spec));
        self.jobs.spawn(async move {
            let seen = provider.look(&spec.unit).await;
            (epoch, Done::Event(Event::Seen(seen.map_err(|error| chain(&error).into()))))
        });
    }

    /// Enters all dependencies, in parallel.
    fn gather(&self) -> impl Future<Output = Result<Vec<Pass>, Arc<str>>> + use<> {
        let id = self.spec.id.clone();
        let enter = self.dependencies.clone().into_iter().map(move |(backend, condition)| {
            let cause = Cause::Dependant(id.clone());
            async move {
                let pass = backend.enter(cause, Duration::from_secs(3600)).await;
                let pass = pass.map_err(|refused| Arc::from(format!("`{}`: {refused}", backend.id())))?;
                if condition == Condition::Healthy {
                    until_healthy(&backend).await;
                }
                Ok(pass)
            }
        });
        futures_util::future::try_join_all(enter)
    }

    fn note_change(&mut self, before: &State) {
        if std::mem::discriminant(before) == std::mem::discriminant(&self.state) {
            return;
        }
        let (spent_since, now) = (self.since.1, Instant::now());
        self.since = (Timestamp::now(), now);
        if matches!(before, State::Asleep(_)) {
            self.stats.asleep += now - spent_since;
        }
        self.stats.counted_since.get_or_insert_with(Timestamp::now);
        let cause = self.cause.clone().unwrap_or(Cause::Idle);
        match (before, &self.state) {
            (_, State::Waking(waking)) if waking.foreign => {
                self.thawing = false;
                self.woke = None;
                self.cause = Some(Cause::Engine("started by another hand".to_owned()));
                self.journal_now(Happening::FoundRunning);
            }
            (before, State::Waking(_)) => {
                self.thawing = matches!(before, State::Asleep(down) if down.paused.is_some())
                    || matches!(before, State::Stopping { method: SleepMethod::Pause, .. });
                self.stats.last_at = Some(Timestamp::now());
                self.stats.last_cause = Some(cause.to_string());
                self.journal(Happening::Waking, cause);
            }
            (State::Waking(waking), State::Awake(_)) => {
                self.phases.total = waking.since.elapsed();
                if !waking.foreign {
                    self.stats.woke(self.phases.total);
                    self.woke = Some(Woke { took: self.phases.total, at: now.into_std() });
                }
                self.journal(Happening::Woke(self.phases), cause);
            }
            (State::Unknown { .. }, State::Awake(_)) => {
                self.cause = Some(Cause::Engine("found running".to_owned()));
                self.journal_now(Happening::FoundRunning);
            }
            (State::Draining { why: Drain::Idle, .. }, State::Awake(_)) => self.journal_now(Happening::DrainEnded),
            (State::Draining { why: Drain::Ordered { .. }, .. }, State::Awake(_)) => {
                let inside = usize::try_from(self.shared.gate.inside()).unwrap_or(usize::MAX);
                self.journal(Happening::DrainDenied(inside), cause);
            }
            (State::Stopping { .. }, State::Awake(_)) => {
                let why = self.last_error.as_deref().unwrap_or("the engine still says that it runs").to_owned();
                self.journal(Happening::SleepFailed(why), cause);
            }
            (_, State::Draining { why, .. }) => {
                if *why == Drain::Idle {
                    self.cause = Some(Cause::Idle);
                }
                self.journal_now(Happening::Draining);
            }
            (_, State::Stopping { .. }) => self.journal_now(Happening::Stopping),
            (State::Stopping { .. }, State::Asleep(down)) => {
                let how = if down.paused.is_some() { "paused" } else { "stopped" };
                self.journal(Happening::Slept { how, took: self.mark.elapsed() }, cause);
            }
            (State::Awake(_) | State::Draining { .. }, State::Asleep(_)) => {
                self.cause = Some(Cause::Engine("let down by another hand".to_owned()));
                self.journal_now(Happening::Ended(None));
            }
            (State::Awake(_) | State::Draining { .. }, State::Failed(failed)) => {
                let code = if let Failure::Died(code) = failed.why { code } else { None };
                self.cause = Some(Cause::Engine("it ended".to_owned()));
                self.journal_now(Happening::Ended(code));
            }
            (_, State::Failed(failed)) => {
                self.stats.failed += 1;
                let why = describe(&failed.why);
                let retry_after = failed.until.saturating_duration_since(now);
                self.journal(Happening::WakeFailed { why, retry_after }, cause);
            }
            (State::Unknown { .. }, State::Gone) => {}
            (_, State::Gone) => self.journal_now(Happening::Gone),
            (_, State::Unknown { .. } | State::Asleep(_) | State::Awake(_)) => {}
        }
    }

    fn journal_now(&self, what: Happening) {
        self.journal(what, self.cause.clone().unwrap_or(Cause::Idle));
    }

    fn journal(&self, what: Happening, cause: Cause) {
        self.around.journal.record(Some(&self.spec.id), what, cause);
    }

    fn publish(&mut self, before: &State) {
        if *before == self.state && self.shared.status.borrow().pinned_until == self.pinned_until {
            return;
        }
        self.version += 1;
        let failed = match &self.state {
            State::Failed(failed) | State::Stopping { failed: Some(failed), .. } => Some(failed),
            _ => None,
        };
        let status = Status {
            version: self.version,
            state: self.status_state(),
            since: self.since.0,
            since_instant: self.since.1,
            cause: self.cause.clone(),
            failure: failed.map(|failed| describe(&failed.why).into()),
            public_failure: match self.state.verdict(Instant::now()) {
                Verdict::Refuse(refusal) => Some(refused(&refusal, Instant::now(), false).reason()),
                Verdict::Admit | Verdict::Wait => None,
            },
            retry_at: failed.map(|failed| failed.until),
            tries: failed.map_or(0, |failed| failed.tries),
            waits_for: self.waits_for(),
            pinned_until: self.pinned_until,
            wakes: self.stats.clone(),
        };
        self.shared.status.send_replace(Arc::new(status));
    }

    fn waits_for(&self) -> Vec<BackendId> {
        if !matches!(self.state, State::Waking(Waking { stage: Stage::Gathering, .. })) {
            return Vec::new();
        }
        let asleep = |backend: &&(Backend, Condition)| backend.0.shared.status.borrow().state != StatusState::Awake;
        self.dependencies.iter().filter(asleep).map(|(backend, _)| backend.id().clone()).collect()
    }

    fn status_state(&self) -> StatusState {
        match &self.state {
            State::Unknown { .. } => StatusState::Unknown,
            State::Asleep(down) if down.paused.is_some() => StatusState::Paused,
            State::Asleep(_) => StatusState::Stopped,
            State::Waking(_) => StatusState::Waking,
            State::Awake(_) => StatusState::Awake,
            State::Draining { .. } => StatusState::Draining,
            State::Stopping { .. } => StatusState::Stopping,
            State::Failed(_) => StatusState::Failed,
            State::Gone => StatusState::Gone,
        }
    }
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

/// Waits until the engine calls an awake backend healthy, where the engine checks it at all.
async fn until_healthy(backend: &Backend) {
    loop {
        let health = backend.shared.reach.load().as_ref().and_then(|reach| reach.at.health);
        match health {
            None | Some(Health::Healthy) => return,
            Some(Health::Starting | Health::Unhealthy) => {}
        }
        backend.hint().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn call_failed(error: &ProviderError) -> CallFailed {
    CallFailed { away: error.is_away(), why: chain(error).into() }
}

fn describe(failure: &Failure) -> String {
    let code = |code: &Option<i64>| code.map_or_else(String::new, |code| format!(" with exit code {code}"));
    match failure {
        Failure::Start(why) => why.to_string(),
        Failure::ExitedEarly(exit) => format!("it ended before it was ready{}", code(exit)),
        Failure::TimedOut(after) => format!("it was not ready within {}", crate::model::format_duration(*after)),
        Failure::Dependency(why) => format!("a dependency did not come up: {why}"),
        Failure::Died(exit) => format!("it ended by itself{}", code(exit)),
        Failure::EngineAway(why) => why.to_string(),
    }
}

fn refused(refusal: &Refusal, now: Instant, cooling: bool) -> Refused {
    let (failure, until) = match refusal {
        Refusal::StaysDown => return Refused::StaysDown,
        Refusal::Gone => return Refused::Gone,
        Refusal::Failed(failure, until) => (failure, until),
    };
    let retry_after = until.saturating_duration_since(now);
    match failure {
        Failure::TimedOut(after) if !cooling => Refused::TimedOut { after: *after },
        Failure::EngineAway(why) => Refused::EngineAway { why: Arc::clone(why), retry_after },
        _ if cooling => Refused::CoolingDown { why: describe(failure).into(), retry_after },
        _ => Refused::WakeFailed { why: describe(failure).into(), retry_after },
    }
}
