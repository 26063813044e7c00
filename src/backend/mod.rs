//! The life of one backend: asleep to awake and back.
//!
//! Used by `control`, which creates and retires backends, and by every data plane, which enters them.
//!
//! ```text
//!            looked at            wanted            ready
//!   Unknown ──────────▶ Asleep ──────────▶ Waking ──────────▶ Awake
//!                          ▲                 │ ▲                │ idle, or ordered
//!                          │          failed │ │ wanted later   ▼
//!                          │                 ▼ │             Draining ──▶ Awake (traffic found)
//!                          │               Failed               │ nobody inside
//!                          │                                    ▼
//!                          └───────────────────────────────  Stopping ──▶ Waking (wanted meanwhile)
//! ```
//!
//! A wake that is called off by an order to sleep goes by Stopping to Asleep; one whose command has changed meanwhile,
//! or that is to be restarted, goes by Stopping to Waking.
//!
//! Who may cause each move: callers and dependants (`wanted`), the policy by its clock (`idle`), a person or a
//! schedule (orders), the engine and whoever works on it by hand (`seen`), and the answers to our own engine calls.
//!
//! What always holds:
//! - The decisions are in the `machine`, pure (`found`: what its engine tells; `elapsed`: what time does); one driver task per backend acts; it awaits only its inbox.
//! - A pass is proof that the backend is awake; a backend is never let down while a pass is out, but by an order
//!   that says `now`.
//! - Timer, gate, answers to those who wait and the published status follow from the state after each step.
//! - One start for each wake, whoever and however many want it.

/// What the gate is made of.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
}
mod attempt;
#[cfg(test)]
mod attempt_tests;
#[cfg(test)]
mod barred_tests;
mod birth;
mod chronicle;
#[cfg(test)]
mod dependency_tests;
mod driver;
mod elapsed;
mod found;
#[cfg(test)]
mod found_tests;
mod gate;
#[cfg(test)]
mod gate_tests;
mod handle;
mod inbox;
mod jobs;
mod lent;
#[cfg(test)]
mod lent_tests;
mod letter;
mod machine;
mod once;
#[cfg(test)]
mod order_tests;
mod orders;
#[cfg(test)]
mod panic_tests;
mod pass;
mod readiness;
mod refused;
#[cfg(test)]
mod sleep_tests;
mod state;
mod status;
#[cfg(test)]
mod test_world;
#[cfg(test)]
mod wake_tests;

pub use attempt::Attempt;
pub use birth::{Restored, Surroundings};
pub use gate::{Entered, Gate};
pub use handle::Backend;
pub use lent::{Ask, Lender, Lent};
pub use letter::Answer;
pub use machine::step;
pub use pass::{Pass, Waiter, Woke};
pub use readiness::FORWARDER_PROOF;
pub use refused::Refused;
pub use state::{
    Action, Awake, Before, CallFailed, Down, Drain, Event, Facts, Failed, Failure, Order, Paused, Refusal, Rules,
    Stage, State, Verdict, Waking,
};
pub use status::{Status, StatusState, WakeStats};
