//! Numbers of the connections of clients, whatever route they ask for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What is known of connections in all; written by the data plane, read at a scrape. Relaxed throughout: each number is
/// right by itself.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    /// Connections of clients that are open.
    pub open: AtomicUsize,
    refused: [AtomicU64; TurnedAway::ALL.len()],
}

/// Why somebody was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// All places were taken.
    Full,
    /// Its client had as many connections as one may have.
    Client,
    /// Its client had as many flows of UDP as one may have.
    ClientFlows,
}

impl TurnedAway {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Full, Self::Client, Self::ClientFlows];

    fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Client => "client",
            Self::ClientFlows => "client_flows",
        }
    }
}

impl ConnectionCounters {
    /// Counts one that was turned away.
    pub fn turned_away(&self, why: TurnedAway) {
        if let Some(counter) = self.refused.get(why as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those that were turned away, by the word for the reason.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.refused.iter().map(|counter| counter.load(Ordering::Relaxed));
        TurnedAway::ALL.map(TurnedAway::as_str).into_iter().zip(counts)
    }
}
