//! Random walks of the machine against a shadow model of engine and callers.
//!
//! Each walk has its own seed; a failure prints it, and `SEED=<number> cargo test --test simulation` replays that
//! walk alone, printing every step. `WALKS` sets how many there are.

#![allow(missing_docs, clippy::print_stderr, clippy::wildcard_enum_match_arm, reason = "a test that tells its steps")]

use std::{sync::Arc, time::Duration};

use dormouse::{
    backend::{Action, CallFailed, Drain, Event, Facts, Order, Rules, Stage, State, Verdict, step},
    model::{ContainerState, IdlePolicy, OnWakeTimeout, Running, SleepMethod},
    provider::Changed,
};
use tokio::time::Instant;

/// A small generator of our own, so that a seed means the same walk for ever (xorshift64*).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Truth {
    Stopped,
    Running,
    Paused,
}

/// What the driver has under way, as the shadow model counts it.
#[derive(Debug, Default)]
struct Jobs {
    gather: bool,
    start: bool,
    probe: bool,
    stop: Option<SleepMethod>,
    look: bool,
    ask: bool,
}

impl Jobs {
    fn any(&self) -> bool {
        self.gather || self.start || self.probe || self.stop.is_some() || self.look || self.ask
    }
}

struct Walk {
    dice: Dice,
    policy: IdlePolicy,
    state: State,
    now: Instant,
    inside: u64,
    waiting: usize,
    quiet_since: Instant,
    truth: Truth,
    jobs: Jobs,
    /// An order to cut those inside was given and not yet carried out.
    may_cut: bool,
    /// Starts asked of the engine since it was last seen down.
    starts: u32,
    loud: bool,
}

fn policy(dice: &mut Dice) -> IdlePolicy {
    let methods = [SleepMethod::Stop, SleepMethod::Pause, SleepMethod::Kill];
    IdlePolicy {
        idle_timeout: dice.chance(90).then(|| Duration::from_secs(1 + dice.below(60))),
        dependency_only: dice.chance(10),
        stop_method: methods[dice.below(3) as usize],
        stop_after: dice.chance(30).then(|| Duration::from_secs(60 + dice.below(60))),
        wake_timeout: Duration::from_secs(5 + dice.below(60)),
        min_uptime: Duration::from_secs(dice.below(10)),
        busy: dice.chance(20).then(|| "check".to_owned()),
        on_wake_timeout: if dice.chance(80) { OnWakeTimeout::Stop } else { OnWakeTimeout::Leave },
        wake_after_manual_stop: dice.chance(80),
        ..IdlePolicy::default()
    }
}

impl Walk {
    fn new(seed: u64, loud: bool) -> Self {
        let mut dice = Dice::new(seed);
        let policy = policy(&mut dice);
        let now = Instant::now() + Duration::from_secs(3600);
        let truth = if dice.chance(50) { Truth::Running } else { Truth::Stopped };
        Self {
            dice,
            policy,
            state: State::Unknown { away: None, again: None, wanted: false, before: None },
            now,
            inside: 0,
            waiting: 0,
            quiet_since: now,
            truth,
            jobs: Jobs { look: true, ..Jobs::default() },
            may_cut: false,
            starts: 0,
            loud,
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            now: self.now,
            inside: self.inside,
            waiting: self.waiting,
            quiet_since: self.quiet_since,
            kept_until: None,
            tried: None,
        }
    }

    /// What the driver does for one event: step, follow the gate, act, answer, and count again after a closing.
    fn advance(&mut self, event: Event) {
        let mut event = event;
        loop {
            let before = self.state.clone();
            self.note(|walk| format!("{event:?} inside={} waiting={}", walk.inside, walk.waiting));
            let rules = Rules { policy: &self.policy, gathers: true };
            let (state, action) = step(before.clone(), event, self.facts(), rules);
            self.note(|_| format!("  -> {state:?} {action:?}"));
            self.check_action(&before, &state, action);
            self.state = state;
            if let Some(action) = action {
                self.act(action);
            }
            self.settle();
            let draining = |state: &State| matches!(state, State::Draining { .. });
            if !draining(&self.state) || draining(&before) {
                break;
            }
            // Somebody slipped in between the decision and the closing.
            if self.dice.chance(20) {
                self.inside += 1;
            }
            event = Event::Tick;
        }
        self.check_state();
    }

    fn check_action(&mut self, before: &State, after: &State, action: Option<Action>) {
        match action {
            Some(Action::Stop(_)) => {
                let gave_up_waking = matches!(before, State::Waking(_));
                assert!(
                    self.inside == 0 || self.may_cut || gave_up_waking || matches!(before, State::Asleep(_)),
                    "let down with {} inside",
                    self.inside
                );
                assert!(matches!(after, State::Stopping { .. }));
            }
            Some(Action::Start) => {
                assert!(!self.jobs.start, "a second start while one is under way");
                assert!(matches!(after, State::Waking(w) if matches!(w.stage, Stage::Starting(_))));
                self.starts += 1;
            }
            _ => {}
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Gather => self.jobs.gather = true,
            Action::Start => (self.jobs.gather, self.jobs.start) = (false, true),
            Action::Probe => self.jobs.probe = true,
            Action::Stop(method) => {
                // Results of calls that changed something before are stale from here on.
                self.jobs = Jobs { stop: Some(method), look: self.jobs.look, ..Jobs::default() };
                self.may_cut = false;
            }
            Action::Look => self.jobs.look = true,
            Action::AskBusy => self.jobs.ask = true,
        }
    }

    fn settle(&mut self) {
        match self.state.verdict(self.now) {
            Verdict::Admit => {
                self.inside += self.waiting as u64;
                self.waiting = 0;
            }
            Verdict::Refuse(_) => self.waiting = 0,
            Verdict::Wait => {}
        }
        if !matches!(&self.state, State::Waking(_)) {
            self.jobs.gather = false;
            self.jobs.start = false;
            self.jobs.probe = false;
        }
    }

    fn check_state(&self) {
        assert_eq!(self.state.is_open(), matches!(self.state, State::Awake(_)));
        if self.waiting > 0 {
            let deadline = self.state.deadline(self.facts(), &self.policy);
            assert!(self.jobs.any() || deadline.is_some() || self.inside > 0, "callers wait for nothing");
        }
        let drains = matches!(self.state, State::Draining { why: Drain::Idle, .. });
        assert!(!drains, "an idle drain must end in the step that closes the gate");
        if let State::Waking(waking) = &self.state {
            let under_way = match waking.stage {
                Stage::Gathering => self.jobs.gather,
                Stage::Starting(_) => self.jobs.start,
                Stage::Probing(_) => self.jobs.probe,
            };
            assert!(under_way, "a wake with nothing under way");
        }
        match self.state {
            State::Stopping { call_failed: false, .. } => {
                assert!(self.jobs.stop.is_some(), "stopping, and nobody asked")
            }
            State::Stopping { call_failed: true, .. } => assert!(self.jobs.look, "the stop failed, and nobody looks"),
            _ => assert!(self.jobs.stop.is_none(), "a stop is under way, and nobody waits for it"),
        }
    }

    fn turn(&mut self) {
        match self.dice.below(12) {
            0 | 1 => self.caller_comes(),
            2 | 3 if self.inside > 0 => {
                self.inside -= 1;
                self.quiet_since = self.now;
                self.advance(Event::Tick);
            }
            4 if self.waiting > 0 => self.waiting -= 1,
            5 | 6 => self.time_passes(),
            7 => self.other_hand(),
            8 if self.dice.chance(30) => self.order(),
            9 if self.dice.chance(20) => self.advance(Event::Wanted),
            _ => self.job_ends(),
        }
    }

    fn caller_comes(&mut self) {
        if self.state.is_open() {
            self.inside += 1;
            return;
        }
        self.waiting += 1;
        self.advance(Event::Wanted);
    }

    fn time_passes(&mut self) {
        let deadline = self.state.deadline(self.facts(), &self.policy);
        let wait = Duration::from_millis(self.dice.below(20_000));
        self.now = match deadline {
            Some(at) if self.dice.chance(60) => at.max(self.now),
            Some(at) => (self.now + wait).min(at.max(self.now)),
            None => self.now + wait,
        };
        self.advance(Event::Tick);
    }

    fn other_hand(&mut self) {
        self.truth = [Truth::Stopped, Truth::Running, Truth::Paused][self.dice.below(3) as usize];
        if self.dice.chance(70) && !self.jobs.look {
            self.jobs.look = true;
        }
    }

    fn order(&mut self) {
        if self.dice.chance(20) {
            return self.advance(Event::Renewed);
        }
        let order = [Order::Wake, Order::Sleep, Order::SleepNow, Order::Restart][self.dice.below(4) as usize];
        self.may_cut |= order == Order::SleepNow;
        self.advance(Event::Ordered(order));
        self.may_cut = false;
    }

    fn seen(&mut self) -> Event {
        let running = Running::default();
        Event::Seen(Ok(match self.truth {
            Truth::Running => ContainerState::Running(running),
            Truth::Paused => ContainerState::Paused(running),
            Truth::Stopped => {
                let exit_code = [Some(0), Some(1), Some(143), None][self.dice.below(4) as usize];
                ContainerState::Stopped { exit_code, error: None }
            }
        }))
    }

    fn job_ends(&mut self) {
        let fails = self.dice.chance(15);
        let failed = CallFailed { away: self.dice.chance(30), why: "it says no".into() };
        if self.jobs.look && self.dice.chance(50) {
            self.jobs.look = false;
            let event = if fails { Event::Seen(Err("away".into())) } else { self.seen() };
            return self.advance(event);
        }
        if self.jobs.gather {
            self.jobs.gather = false;
            let result = if fails { Err(Arc::from("the other one failed")) } else { Ok(()) };
            return self.advance(Event::Gathered(result));
        }
        if self.jobs.start {
            self.jobs.start = false;
            let changed = if self.truth == Truth::Running { Changed::Already } else { Changed::Done };
            if !fails {
                self.truth = Truth::Running;
            }
            return self.advance(Event::Started(if fails { Err(failed) } else { Ok(changed) }));
        }
        if self.jobs.probe {
            self.jobs.probe = false;
            let event = match self.truth {
                Truth::Running => Event::Ready(Arc::new(Running::default())),
                Truth::Paused | Truth::Stopped => self.seen(),
            };
            return self.advance(event);
        }
        if let Some(method) = self.jobs.stop.take() {
            if !fails {
                self.truth = if method == SleepMethod::Pause { Truth::Paused } else { Truth::Stopped };
            }
            return self.advance(Event::Stopped(if fails { Err(failed) } else { Ok(()) }));
        }
        if self.jobs.ask {
            self.jobs.ask = false;
            let busy = self.dice.chance(50);
            self.advance(Event::Busy(busy));
        }
    }

    /// Lines are written only by the walk that is replayed.
    fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.loud {
            eprintln!("{}", line(self));
        }
    }
}

fn run(seed: u64, loud: bool) {
    let result = std::panic::catch_unwind(|| {
        let mut walk = Walk::new(seed, loud);
        for _ in 0..60 {
            walk.turn();
        }
    });
    assert!(result.is_ok(), "a walk failed; SEED={seed} replays it with every step");
}

#[test]
fn random_walks_keep_every_invariant() {
    if let Ok(seed) = std::env::var("SEED") {
        return run(seed.parse().expect("SEED is a number"), true);
    }
    let walks: u64 = std::env::var("WALKS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    for seed in 0..walks {
        run(seed, false);
    }
}
