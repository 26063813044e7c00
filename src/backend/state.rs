//! The words of the machine: states, events, actions, and what follows from a state.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Attempt,
    elapsed::{idle_deadline, stop_after},
};
use crate::{
    model::{ContainerState, IdlePolicy, Running, SleepMethod, format_duration},
    provider::Changed,
};

/// Where a backend is in its life.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Not yet looked at, or the engine did not tell. With the reason, once there is one.
    Unknown {
        /// Why the engine could not tell; absent: it has not answered yet.
        away: Option<Arc<str>>,
        /// When it is asked again.
        again: Option<Instant>,
        /// Somebody wants it meanwhile.
        wanted: bool,
        /// What it was before this run of the program.
        before: Option<Before>,
    },
    /// Down.
    Asleep(Down),
    /// On its way up.
    Waking(Waking),
    /// Up; the gate is open.
    Awake(Awake),
    /// Closed, and waiting for the last one to leave.
    Draining {
        /// What it was.
        awake: Awake,
        /// Why.
        why: Drain,
        /// Somebody wants it meanwhile.
        wanted: bool,
    },
    /// On its way down.
    Stopping {
        /// How.
        method: SleepMethod,
        /// Somebody wants it meanwhile.
        wanted: bool,
        /// It is let down because its wake failed so.
        failed: Option<Failed>,
        /// It was awake before.
        was: Option<Awake>,
        /// The engine's call failed: the engine is asked what it does now. Until then only the call's answer counts.
        call_failed: bool,
    },
    /// Cooling down after a failure.
    Failed(Failed),
    /// The engine knows no such unit.
    Gone,
}

/// What it was before this run of the program, as far as that is known. Where its engine tells the same now, it goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Before {
    /// Up: as [`Awake`], whatever it is reached by.
    Awake {
        /// Since when.
        since: Instant,
        /// Dormouse started it.
        ours: bool,
        /// A busy check said so at this moment.
        busy_at: Option<Instant>,
        /// Sleep failed so often, and is not tried before.
        sleep_again: Option<(u32, Instant)>,
        /// Starts that failed or lives that were short before this one.
        tries: u32,
    },
    /// Down.
    Asleep(Down),
    /// Cooling down after a failure.
    Failed(Failed),
}

/// How it is down.
#[derive(Debug, Clone, PartialEq)]
pub struct Down {
    /// Its memory is kept.
    pub paused: Option<Paused>,
    /// Callers are held until then before it is woken (a pause by another hand).
    pub respected_until: Option<Instant>,
    /// It stays down until a person orders otherwise.
    pub stays_down: bool,
}

/// Frozen, with its memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Paused {
    /// Since when.
    pub since: Instant,
    /// How it is reached once it is thawed, where that is known: a pause changes nothing about it.
    pub at: Option<Arc<Running>>,
}

/// On the way up.
#[derive(Debug, Clone, PartialEq)]
pub struct Waking {
    /// How far.
    pub stage: Stage,
    /// When the wake began.
    pub since: Instant,
    /// Failed starts before this one.
    pub tries: u32,
    /// Somebody else started it: it is not ours to stop when it does not get ready.
    pub foreign: bool,
}

/// The stages of a wake.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stage {
    /// Waits for dependencies and for its turn on the node.
    Gathering,
    /// The start call is under way; the wake ends at that moment at the latest.
    Starting(Instant),
    /// The engine has answered; waits until it is ready, at most until then.
    Probing(Instant),
}

/// Up.
#[derive(Debug, Clone, PartialEq)]
pub struct Awake {
    /// How it is reached.
    pub at: Arc<Running>,
    /// Since when.
    pub since: Instant,
    /// Dormouse started it.
    pub ours: bool,
    /// A busy check said so at this moment: counts as activity.
    pub busy_at: Option<Instant>,
    /// A busy check is under way.
    pub asking: bool,
    /// Sleep failed so often, and is not tried before.
    pub sleep_again: Option<(u32, Instant)>,
    /// Starts that failed or lives that were short before this one.
    pub tries: u32,
}

/// Why it drains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Drain {
    /// Nobody used it for its idle time.
    Idle,
    /// A person said so; ends then.
    Ordered {
        /// When the drain is given up.
        until: Instant,
        /// It is to be woken again at once.
        restart: bool,
    },
}

/// A failure and its cool-down.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    /// What failed.
    pub why: Failure,
    /// No new try before.
    pub until: Instant,
    /// Failures in a row.
    pub tries: u32,
}

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The engine refused the start, with its words.
    Start(Arc<str>),
    /// It ended before it was ready, with its exit code.
    ExitedEarly(Option<i64>),
    /// It did not get ready in time; what was tried last, where anything was.
    TimedOut(Duration, Option<Arc<str>>),
    /// A dependency did not come up.
    Dependency(Arc<str>),
    /// It ended while awake, with its exit code.
    Died(Option<i64>),
    /// The engine is away.
    EngineAway(Arc<str>),
    /// It runs, and nothing leads to it from here, with the reason.
    Barred(Arc<str>),
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Somebody wants it up.
    Wanted,
    /// A person or a schedule wants it up, cool-down or not.
    Ordered(Order),
    /// Dependencies are up and it is its turn.
    Gathered(Result<(), Arc<str>>),
    /// The engine answered the start call.
    Started(Result<Changed, CallFailed>),
    /// It is ready, and reached so.
    Ready(Arc<Running>),
    /// The engine answered the call that lets it down.
    Stopped(Result<(), CallFailed>),
    /// The engine says what it does now; `Err` when it is away.
    Seen(Result<ContainerState, Arc<str>>),
    /// A dial to the awake backend failed, and the engine says that it runs.
    Unreachable(Arc<Running>),
    /// It runs, and nothing leads to it from here, with the reason.
    Barred(Arc<str>),
    /// The busy check answered.
    Busy(bool),
    /// It is another unit from now on, or is started otherwise.
    Renewed,
    /// Time has passed, or the last one has left: look again.
    Tick,
}

/// Orders that change the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Up.
    Wake,
    /// Down, after a drain.
    Sleep,
    /// Down, whoever is inside.
    SleepNow,
    /// Down after a drain, and up again.
    Restart,
}

/// An engine call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFailed {
    /// The engine as a whole is away.
    pub away: bool,
    /// In words, for an administrator.
    pub why: Arc<str>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Enter the dependencies and wait for a turn on the node.
    Gather,
    /// Have the engine bring it up.
    Start,
    /// Find out when it is ready.
    Probe,
    /// Have the engine let it down.
    Stop(SleepMethod),
    /// Ask the engine what it does now.
    Look,
    /// Ask the busy check.
    AskBusy,
}

/// All of the outside that a decision may see.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Now.
    pub now: Instant,
    /// How many are inside.
    pub inside: u64,
    /// How many wait to get in.
    pub waiting: usize,
    /// When somebody last left.
    pub quiet_since: Instant,
    /// A pin or a schedule keeps it up until then.
    pub kept_until: Option<Instant>,
    /// What was tried last in vain to find it ready.
    pub tried: Option<Attempt>,
}

/// What is answered to callers.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Come in.
    Admit,
    /// Wait.
    Wait,
    /// Not now.
    Refuse(Refusal),
}

/// Why not now.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// A failure, cooling down until then.
    Failed(Failure, Instant),
    /// It stays down until a person orders otherwise.
    StaysDown,
    /// There is no such unit.
    Gone,
}

/// The settings that a decision may see.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The idle policy.
    pub policy: &'a IdlePolicy,
    /// It needs other backends, or a turn on its node is rationed: gather before starting.
    pub gathers: bool,
}

impl Before {
    /// What goes on of a state in another run; nothing where the engine alone can tell.
    pub(super) fn of(state: &State) -> Option<Self> {
        match state {
            State::Unknown { before, .. } => before.clone(),
            State::Awake(awake) | State::Draining { awake, .. } => {
                let Awake { since, ours, busy_at, sleep_again, tries, .. } = *awake;
                Some(Self::Awake { since, ours, busy_at, sleep_again, tries })
            }
            State::Asleep(down) => {
                let paused = down.paused.as_ref().map(|paused| Paused { at: None, ..*paused });
                Some(Self::Asleep(Down { paused, ..*down }))
            }
            State::Failed(failed) => Some(Self::Failed(failed.clone())),
            State::Waking(_) | State::Stopping { .. } | State::Gone => None,
        }
    }
}

impl Failed {
    /// Its engine was away: nothing is known of the backend itself.
    pub(super) fn is_by_engine(&self) -> bool {
        matches!(self.why, Failure::EngineAway(_))
    }
}

impl State {
    /// When to look again if nothing happens.
    pub fn deadline(&self, facts: Facts, policy: &IdlePolicy) -> Option<Instant> {
        match self {
            Self::Unknown { again, .. } => *again,
            Self::Asleep(down) if facts.waiting > 0 || self.is_wanted_from_inside(facts) => down.respected_until,
            Self::Asleep(down) => stop_after(down, policy),
            Self::Waking(waking) => match waking.stage {
                Stage::Gathering => None,
                Stage::Starting(until) | Stage::Probing(until) => Some(until),
            },
            Self::Awake(awake) if awake.asking || facts.inside > 0 => None,
            Self::Awake(awake) => idle_deadline(awake, facts, policy),
            Self::Draining { why: Drain::Ordered { until, .. }, .. } => Some(*until),
            Self::Draining { why: Drain::Idle, .. } => None,
            Self::Failed(failed) if facts.waiting > 0 => Some(failed.until),
            Self::Stopping { .. } | Self::Failed(_) | Self::Gone => None,
        }
    }

    /// Whether those who were inside when another hand paused it have it thawed: their answers are frozen with it.
    pub(super) fn is_wanted_from_inside(&self, facts: Facts) -> bool {
        let Self::Asleep(down) = self else { return false };
        facts.inside > 0 && down.respected_until.is_some() && !down.stays_down
    }

    /// The failure that it cools down from, or is being let down for.
    pub fn failed(&self) -> Option<&Failed> {
        match self {
            Self::Failed(failed) => Some(failed),
            Self::Stopping { failed, .. } => failed.as_ref(),
            Self::Unknown { .. }
            | Self::Asleep(_)
            | Self::Waking(_)
            | Self::Awake(_)
            | Self::Draining { .. }
            | Self::Gone => None,
        }
    }

    /// Whether callers may enter.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Awake(_))
    }

    /// What is answered to those who wait.
    pub fn verdict(&self, now: Instant) -> Verdict {
        match self {
            Self::Awake(_) => Verdict::Admit,
            Self::Unknown { away: Some(why), again, .. } => {
                Verdict::Refuse(Refusal::Failed(Failure::EngineAway(Arc::clone(why)), again.unwrap_or(now)))
            }
            Self::Asleep(down) if down.stays_down => Verdict::Refuse(Refusal::StaysDown),
            Self::Stopping { failed: Some(failed), wanted: false, .. } => {
                Verdict::Refuse(Refusal::Failed(failed.why.clone(), failed.until))
            }
            Self::Failed(failed) if now < failed.until => {
                Verdict::Refuse(Refusal::Failed(failed.why.clone(), failed.until))
            }
            Self::Gone => Verdict::Refuse(Refusal::Gone),
            Self::Unknown { .. }
            | Self::Asleep(_)
            | Self::Waking(_)
            | Self::Draining { .. }
            | Self::Stopping { .. }
            | Self::Failed(_) => Verdict::Wait,
        }
    }
}

impl Failure {
    /// Whether it did not end by that: it runs on, as it did not get ready or is not reached.
    pub(super) fn is_of_running(&self) -> bool {
        match self {
            Self::TimedOut(..) | Self::Barred(_) => true,
            Self::Start(_) | Self::ExitedEarly(_) | Self::Dependency(_) | Self::Died(_) | Self::EngineAway(_) => false,
        }
    }
}

/// That it was not ready in time, and what was tried last.
pub(super) fn not_ready(after: Duration, tried: Option<&str>) -> String {
    let tried = tried.map_or_else(String::new, |tried| format!(": {tried}"));
    format!("it was not ready within {}{tried}", format_duration(after))
}

impl fmt::Display for Failure {
    /// For an administrator.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = |code: &Option<i64>| code.map_or_else(String::new, |code| format!(" with exit code {code}"));
        match self {
            Self::Start(why) | Self::EngineAway(why) | Self::Barred(why) => f.write_str(why),
            Self::ExitedEarly(exit) => write!(f, "it ended before it was ready{}", code(exit)),
            Self::TimedOut(after, tried) => write!(f, "{}", not_ready(*after, tried.as_deref())),
            Self::Dependency(why) => write!(f, "a dependency did not come up: {why}"),
            Self::Died(exit) => write!(f, "it ended by itself{}", code(exit)),
        }
    }
}
