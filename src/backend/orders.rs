//! Orders from people, and what is answered to them.

use std::sync::atomic::Ordering;

use jiff::Timestamp;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Answer, Refused,
    driver::Driver,
    state::{Event, Order, Stage, State, Verdict, Waking},
};
use crate::{model::Cause, telemetry::Happening};

#[derive(Debug)]
pub(super) struct PendingOrder {
    pub(super) order: Order,
    pub(super) reply: oneshot::Sender<Answer>,
    /// It has been on its way down.
    pub(super) went_down: bool,
}

impl Driver {
    pub(super) fn ordered(&mut self, order: Order, person: String, reply: oneshot::Sender<Answer>) {
        let answer = match (order, &self.state) {
            (Order::Wake, State::Awake(_)) | (Order::Sleep | Order::SleepNow, State::Asleep(_)) => Answer::AlreadySo,
            (_, State::Gone) => Answer::Denied("the engine knows no such unit".to_owned()),
            (Order::Sleep | Order::SleepNow, _) if self.is_pinned() => {
                Answer::Denied("it is pinned awake; unpin it first".to_owned())
            }
            (Order::Sleep | Order::SleepNow, State::Failed(failed)) => {
                Answer::Denied(format!("it is not up: {}", failed.why))
            }
            (Order::Sleep | Order::SleepNow | Order::Restart, State::Unknown { .. }) => {
                Answer::Denied("its engine is away".to_owned())
            }
            _ => {
                self.cause = Some(Cause::Person(person));
                match (order, &self.state) {
                    (Order::Sleep | Order::SleepNow, State::Waking(_)) => self.call_off(),
                    (Order::SleepNow, State::Awake(_) | State::Draining { .. }) => {
                        self.shared.ordered_out.store(self.generation, Ordering::Release);
                        self.call_off();
                    }
                    _ => {}
                }
                self.orders.push(PendingOrder { order, reply, went_down: false });
                return self.advance(Event::Ordered(order));
            }
        };
        let _ = reply.send(answer);
    }

    /// Whoever waits for it to be up is told that it is called off. Who comes from now on meets a stop.
    fn call_off(&mut self) {
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(Err(Refused::PutToSleep));
        }
        let wants_it_up = |pending: &mut PendingOrder| matches!(pending.order, Order::Wake | Order::Restart);
        for pending in self.orders.extract_if(.., wants_it_up) {
            let _ = pending.reply.send(Answer::Denied(Refused::PutToSleep.to_string()));
        }
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pinned_until.is_some_and(|until| until > Timestamp::now())
    }

    pub(super) fn pin(&mut self, until: Option<Timestamp>, person: String, reply: oneshot::Sender<Answer>) {
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
        if until.is_some() && !self.state.is_open() {
            self.cause = Some(Cause::Person(person));
            self.advance(Event::Ordered(Order::Wake));
        } else {
            self.advance(Event::Tick);
        }
        // Last: who is answered may read and keep what is published.
        let _ = reply.send(answer);
    }

    pub(super) fn answer_orders(&mut self) {
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
        self.answer_starts();
    }

    fn answer_starts(&mut self) {
        let called = match &self.state {
            State::Waking(Waking { stage: Stage::Gathering | Stage::Starting(_), .. }) | State::Stopping { .. } => {
                return;
            }
            State::Waking(_) | State::Awake(_) => true,
            State::Unknown { .. } | State::Asleep(_) | State::Draining { .. } | State::Failed(_) | State::Gone => false,
        };
        for reply in self.starts.drain(..) {
            let _ = reply.send(called);
        }
    }

    pub(super) fn answer_to(&self, pending: &PendingOrder) -> Option<Answer> {
        let refusal = match self.state.verdict(Instant::now()) {
            Verdict::Refuse(refusal) => {
                let words_at = self.state.failed().and_then(|failed| self.words_at(failed)).unwrap_or_default();
                Some(format!("{}{words_at}", Refused::of(&refusal, Instant::now(), false)))
            }
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
}
