//! The handle: what the rest of the program holds of a backend.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    Lender, Lent, Order, Refused, Status, StatusState,
    gate::Gate,
    letter::{Answer, Letter},
    pass::{Pass, Reach},
};
use crate::{
    model::{BackendId, BackendSpec, Cause, Condition, ContainerState, IdlePolicy},
    telemetry::Metrics,
};

/// A backend. Clones are handles to the same one; its driver ends when it is retired.
#[derive(Debug, Clone)]
pub struct Backend {
    pub(super) shared: Arc<Shared>,
}

/// What handles, passes and the driver share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: BackendId,
    pub(super) gate: Gate,
    /// The zero of the gate's stamps.
    pub(super) epoch: Instant,
    /// Told when the last one leaves a watched gate.
    pub(super) emptied: Notify,
    /// How the backend is reached while awake; swapped by the driver before the gate opens.
    pub(super) reach: ArcSwapOption<Reach>,
    /// Told when that is swapped.
    pub(super) moved: Notify,
    /// The last generation that was let down by an order, whoever was inside.
    pub(super) ordered_out: AtomicU64,
    pub(super) policy: ArcSwap<IdlePolicy>,
    /// Callers who wait to get in.
    pub(super) held: AtomicUsize,
    pub(super) letters: mpsc::Sender<Letter>,
    /// Where waits and refusals are counted; not touched by those who find it awake.
    pub(super) metrics: Metrics,
    pub(super) status: watch::Sender<Arc<Status>>,
}

impl Shared {
    pub(super) fn suspect(&self) {
        let _ = self.letters.try_send(Letter::Suspect);
    }

    pub(super) fn stamp(&self, at: Instant) -> i64 {
        stamp(self.epoch, at)
    }

    pub(super) fn quiet_since(&self) -> Instant {
        let stamp = self.gate.last_left();
        let distance = Duration::from_micros(stamp.unsigned_abs());
        if stamp < 0 { self.epoch.checked_sub(distance).unwrap_or(self.epoch) } else { self.epoch + distance }
    }
}

/// A moment as the gate keeps it.
pub(super) fn stamp(epoch: Instant, at: Instant) -> i64 {
    match at.checked_duration_since(epoch) {
        Some(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        None => -i64::try_from((epoch - at).as_micros()).unwrap_or(i64::MAX),
    }
}

/// A place among the held, given back on drop.
#[derive(Debug)]
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(held: &'a AtomicUsize, most: usize) -> Option<Self> {
        held.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < most).then_some(now + 1)).ok()?;
        Some(Self(held))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Backend {
    /// Its name.
    pub fn id(&self) -> &BackendId {
        &self.shared.id
    }

    /// Its idle policy now.
    pub fn policy(&self) -> Arc<IdlePolicy> {
        self.shared.policy.load_full()
    }

    /// Enters if it is awake: one atomic step, no lock, no message.
    pub fn try_enter(&self) -> Option<Pass> {
        self.shared.try_enter(true, false)
    }

    /// Enters if it is awake, without counting as activity (ignored requests, health checks). It is not put to
    /// sleep under such a pass either.
    pub fn try_enter_quietly(&self) -> Option<Pass> {
        self.shared.try_enter(false, false)
    }

    /// Enters, waking it if need be and waiting at most so long. Dropping the future gives the place up and cancels
    /// nothing that others or the policy want.
    pub async fn enter(&self, cause: Cause, patience: Duration) -> Result<Pass, Refused> {
        if let Some(pass) = self.try_enter() {
            return Ok(pass);
        }
        // One backend that waits for another is no request.
        let counts = !matches!(cause, Cause::Dependant(_));
        let since = Instant::now();
        let outcome = self.wait(cause, patience).await;
        if counts {
            match &outcome {
                Ok(_) => self.shared.metrics.held(self.id(), since.elapsed()),
                Err(refused) => self.count_refusal(refused.kind()),
            }
        }
        outcome
    }

    /// Counts a request that was not let in, by a word of a closed set.
    pub fn count_refusal(&self, reason: &'static str) {
        self.shared.metrics.refused(self.id(), reason);
    }

    async fn wait(&self, cause: Cause, patience: Duration) -> Result<Pass, Refused> {
        let Some(_place) = Place::take(&self.shared.held, self.shared.policy.load().max_held) else {
            return Err(Refused::TooManyHeld { retry_after: Duration::from_secs(5) });
        };
        let (reply, answer) = oneshot::channel();
        let wait = async {
            self.shared.letters.send(Letter::Knock(cause, Some(reply))).await.map_err(|_| Refused::Gone)?;
            answer.await.unwrap_or(Err(Refused::Gone))
        };
        match tokio::time::timeout(patience, wait).await {
            Ok(answer) => answer,
            Err(_) => Err(Refused::TimedOut { after: patience, tried: None }),
        }
    }

    /// Wakes it and does not wait.
    pub fn knock(&self, cause: Cause) {
        // A full box means that others knock already.
        let _ = self.shared.letters.try_send(Letter::Knock(cause, None));
    }

    /// Its status, and a way to follow it.
    pub fn status(&self) -> watch::Receiver<Arc<Status>> {
        self.shared.status.subscribe()
    }

    /// Whether it can be entered at once: one look, and no promise.
    pub fn is_open(&self) -> bool {
        self.shared.gate.is_open()
    }

    /// Whether it falls asleep when nobody uses it.
    pub fn falls_asleep(&self) -> bool {
        self.shared.policy.load().idle_timeout.is_some()
    }

    /// Whether it only waits for those inside to leave, or is being let down.
    pub(super) fn is_on_its_way_down(&self) -> bool {
        matches!(self.shared.status.borrow().state, StatusState::Draining | StatusState::Stopping)
    }

    /// How many passes are out.
    pub fn passes(&self) -> u64 {
        self.shared.gate.inside()
    }

    /// How many wait to get in.
    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::Acquire)
    }

    /// How long nobody has used it; zero while somebody does.
    pub fn quiet_for(&self) -> Duration {
        if self.passes() > 0 {
            return Duration::ZERO;
        }
        Instant::now().saturating_duration_since(self.shared.quiet_since())
    }

    /// When somebody last used it. Only to be compared with an earlier answer.
    pub fn last_used(&self) -> Instant {
        self.shared.quiet_since()
    }

    /// When it sleeps if nobody comes: zero when it is due. Absent while it is in use, not awake, or never sleeps by
    /// itself. A busy check or a sleep that failed before may put it off.
    pub fn sleeps_in(&self) -> Option<Duration> {
        let policy = self.policy();
        let status = Arc::clone(&self.shared.status.borrow());
        if status.state != StatusState::Awake || self.passes() > 0 {
            return None;
        }
        let awake_for = status.since_instant.elapsed();
        let woken = self.shared.reach.load().as_ref().is_some_and(|reach| reach.woke.is_some());
        let quiet_for = if woken { self.quiet_for().min(awake_for) } else { self.quiet_for() };
        let idle = policy.idle_timeout?.saturating_sub(quiet_for);
        let fresh = policy.min_uptime.saturating_sub(awake_for);
        let now = Timestamp::now();
        let window = policy.schedule.holds(now).then(|| policy.schedule.next_change(now)).flatten();
        let kept = [status.pinned_until, window];
        let kept = kept.into_iter().flatten().filter_map(|until| Duration::try_from(until.duration_since(now)).ok());
        Some(kept.fold(idle.max(fresh), Duration::max))
    }

    /// Resolves when connections of this generation are of no more use: it was let down, is reached otherwise, or has
    /// been retired.
    pub async fn outlives(&self, generation: u64) {
        loop {
            let mut moved = pin!(self.shared.moved.notified());
            // From here on it hears of a move, also of one before it waits.
            moved.as_mut().enable();
            if self.shared.reach.load().as_ref().is_none_or(|reach| reach.generation != generation) {
                return;
            }
            tokio::select! {
                () = moved => {}
                () = self.shared.letters.closed() => return,
            }
        }
    }

    /// A dial to it failed while it was thought awake: the engine is asked at once.
    pub fn suspect(&self) {
        self.shared.suspect();
    }

    /// Something may have changed at the engine: it is asked.
    pub async fn hint(&self) {
        let _ = self.shared.letters.send(Letter::Hint).await;
    }

    /// Waits until it has run to its end with exit code 0, and has it run if it has not. The error says why not.
    pub(super) async fn completed(&self, dependant: BackendId) -> Result<(), Arc<str>> {
        let (reply, answer) = oneshot::channel();
        let gone = || Arc::from("there is no such backend any more");
        self.shared.letters.send(Letter::Complete(dependant, reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The engine told that it was started: it is asked.
    pub async fn started(&self) {
        let _ = self.shared.letters.send(Letter::Started).await;
    }

    /// The engine told that it has ended, with this exit code. A wake that waits for that very start fails at once;
    /// everything else is found out by the hint that follows.
    pub async fn ended(&self, exit_code: i64) {
        let _ = self.shared.letters.send(Letter::Ended(exit_code)).await;
    }

    /// What a list of the engine said of it.
    pub async fn seen(&self, state: ContainerState) {
        let _ = self.shared.letters.send(Letter::Seen(state)).await;
    }

    /// Gives it a changed specification and its dependencies.
    pub async fn configure(&self, spec: BackendSpec, dependencies: Vec<(Backend, Condition)>) {
        let _ = self.shared.letters.send(Letter::Configure(Box::new(spec), dependencies)).await;
    }

    /// Carries out an order of this person and waits for the outcome.
    pub async fn order(&self, order: Order, person: &str) -> Answer {
        self.ask(|reply| Letter::Order(order, person.to_owned(), reply)).await
    }

    /// Has a wake that is under way go on at once, without waiting for its turn and for what it needs. Resolves when its
    /// start call has been answered; says whether it is on its way up then, or up.
    pub async fn start_now(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.shared.letters.send(Letter::Start(reply)).await.is_ok() && answer.await.unwrap_or(false)
    }

    /// Keeps it awake until then, waking it if need be.
    pub async fn pin(&self, until: Timestamp, person: &str) -> Answer {
        self.ask(|reply| Letter::Pin(Some(until), person.to_owned(), reply)).await
    }

    /// Ends a pin.
    pub async fn unpin(&self, person: &str) -> Answer {
        self.ask(|reply| Letter::Pin(None, person.to_owned(), reply)).await
    }

    /// Resolves when it is known what it does, and where it is up, whatever it needs is kept awake for it.
    pub async fn has_settled(&self) {
        let (reply, answer) = oneshot::channel();
        if self.shared.letters.send(Letter::Settle(reply)).await.is_ok() {
            // One that has ended, or is in other hands, needs nothing.
            let _ = answer.await;
        }
    }

    /// Gives it into the hands of another process, which wakes it and lets it sleep from now on, unless it is on its way
    /// up or down.
    pub async fn lend(&self, lender: Lender) -> Lent {
        let (reply, answer) = oneshot::channel();
        // One that has ended is nobody's.
        if self.shared.letters.send(Letter::Lend(lender, reply)).await.is_err() {
            return Lent::Given { in_use: false, known: Box::default() };
        }
        answer.await.unwrap_or_else(|_| Lent::Given { in_use: false, known: Box::default() })
    }

    async fn ask(&self, letter: impl FnOnce(oneshot::Sender<Answer>) -> Letter) -> Answer {
        let (reply, answer) = oneshot::channel();
        let gone = || Answer::Denied("there is no such backend any more".to_owned());
        if self.shared.letters.send(letter(reply)).await.is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }
}
