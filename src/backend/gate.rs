//! The gate: one word that says whether the backend may be entered and how many are inside.
//!
//! Entering an awake backend is one atomic addition, leaving one stamp and one subtraction; no lock, no message.
//! The driver alone opens and closes it. Whoever slips in between a decision and the closing is counted, and the
//! driver counts after closing, so nobody is overlooked.

// Named through the parent, so that the interleaving test can put its own in their place.
use super::atomics::{AtomicI64, AtomicU64, Ordering};

/// Callers are admitted.
const OPEN: u64 = 1 << 63;
/// The driver wants to hear when the last one leaves.
const WATCHED: u64 = 1 << 62;
const COUNT: u64 = WATCHED - 1;

/// See the module.
#[derive(Debug)]
pub struct Gate {
    word: AtomicU64,
    /// When somebody last left, in microseconds after (or before) the owner's epoch.
    last_left: AtomicI64,
}

impl Gate {
    /// A closed and empty gate that was last left at this moment.
    pub fn closed(last_left: i64) -> Self {
        Self { word: AtomicU64::new(0), last_left: AtomicI64::new(last_left) }
    }

    /// Enters if the gate is open. Whoever gets `true` must leave exactly once.
    pub fn enter(&self) -> Entered {
        let before = self.word.fetch_add(1, Ordering::AcqRel);
        if before & OPEN != 0 {
            return Entered::Inside;
        }
        if self.go() { Entered::ClosedAndEmptied } else { Entered::Closed }
    }

    /// Leaves, and says whether the driver is to be told that the last one has gone.
    /// `stamp` is the moment of leaving; absent for those whose use does not count as activity.
    pub fn leave(&self, stamp: Option<i64>) -> bool {
        if let Some(moment) = stamp {
            // Stamped before the count falls: whoever sees nobody inside also sees when the last one left.
            self.last_left.store(moment, Ordering::Release);
        }
        self.go()
    }

    fn go(&self) -> bool {
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        before & COUNT == 1 && before & WATCHED != 0
    }

    /// Stamps activity without leaving.
    pub fn stamp(&self, moment: i64) {
        self.last_left.store(moment, Ordering::Release);
    }

    /// Admits callers from now on.
    pub fn open(&self) {
        self.word.fetch_and(!WATCHED, Ordering::AcqRel);
        self.word.fetch_or(OPEN, Ordering::AcqRel);
    }

    /// Admits nobody from now on; the last one who leaves is reported. Returns how many are inside.
    pub fn close(&self) -> u64 {
        self.word.fetch_or(WATCHED, Ordering::AcqRel);
        self.word.fetch_and(!OPEN, Ordering::AcqRel) & COUNT
    }

    /// Asks to hear when the last one leaves, without closing. Returns how many are inside.
    pub fn watch(&self) -> u64 {
        self.word.fetch_or(WATCHED, Ordering::AcqRel) & COUNT
    }

    /// Whether callers are admitted.
    pub fn is_open(&self) -> bool {
        self.word.load(Ordering::Acquire) & OPEN != 0
    }

    /// How many are inside.
    pub fn inside(&self) -> u64 {
        self.word.load(Ordering::Acquire) & COUNT
    }

    /// When somebody last left.
    pub fn last_left(&self) -> i64 {
        self.last_left.load(Ordering::Acquire)
    }
}

/// What became of an attempt to enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// Inside.
    Inside,
    /// The gate is closed.
    Closed,
    /// The gate is closed, and this attempt hid the leaving of the last one: the driver is to be told.
    ClosedAndEmptied,
}
