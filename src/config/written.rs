//! What a file wrote of a backend itself, and where: the rest of its settings are defaults.

use std::collections::BTreeSet;

use crate::model::Place;

/// What a file wrote of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where the backend is named first.
    pub place: Place,
    /// Where its dependencies are named.
    pub depends_on: Option<Place>,
    /// The idle settings that are written, by their keys, also those that equal the default.
    pub keys: BTreeSet<&'static str>,
}

impl Written {
    /// Whether this idle setting is written.
    pub fn has(&self, key: &str) -> bool {
        self.keys.contains(key)
    }
}
