//! The gate under every interleaving of a few threads.
//!
//! The gate's own file is compiled here once more, over atomics that try all orders.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod atomics {
    pub(crate) use loom::sync::atomic::{AtomicI64, AtomicU64, Ordering};
}

#[allow(dead_code, unreachable_pub, reason = "the program uses what this test does not")]
#[path = "../src/backend/gate.rs"]
mod gate;

use gate::{Entered, Gate};
use loom::{sync::Arc, thread};

/// Callers who enter and leave, each saying whether it was inside and whether it is to tell the driver.
fn callers(gate: &Arc<Gate>, count: usize) -> Vec<thread::JoinHandle<(bool, bool)>> {
    let caller = |_| {
        let gate = Arc::clone(gate);
        thread::spawn(move || match gate.enter() {
            Entered::Inside => (true, gate.leave(Some(5))),
            Entered::Closed => (false, false),
            Entered::ClosedAndEmptied => (false, true),
        })
    };
    (0..count).map(caller).collect()
}

#[test]
fn whoever_closes_counts_everybody_or_is_told() {
    loom::model(|| {
        let gate = Arc::new(Gate::closed(0));
        gate.open();
        let callers = callers(&gate, 2);
        let inside_at_close = gate.close();
        let told = callers.into_iter().map(|caller| caller.join().unwrap()).filter(|(_, told)| *told).count();
        assert_eq!(gate.inside(), 0);
        assert!(inside_at_close == 0 || told >= 1, "somebody was inside, and nobody tells when the last one leaves");
    });
}

#[test]
fn whoever_sees_nobody_inside_sees_when_the_last_one_left() {
    loom::model(|| {
        let gate = Arc::new(Gate::closed(0));
        gate.open();
        let callers = callers(&gate, 1);
        let nobody_inside = gate.close() == 0;
        let stamp = gate.last_left();
        let came_in = callers.into_iter().map(|caller| caller.join().unwrap()).any(|(inside, _)| inside);
        assert!(!(nobody_inside && came_in) || stamp == 5, "an idle clock that misses the last use");
    });
}

#[test]
fn whoever_watches_an_open_gate_is_told_of_the_last_one() {
    loom::model(|| {
        let gate = Arc::new(Gate::closed(0));
        gate.open();
        let callers = callers(&gate, 2);
        let inside_at_watch = gate.watch();
        let told = callers.into_iter().map(|caller| caller.join().unwrap()).filter(|(_, told)| *told).count();
        assert!(inside_at_watch == 0 || told >= 1);
    });
}
