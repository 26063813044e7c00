//! Which settings another file changes, and which of them only a new process can heed.

use std::fmt;

use crate::{
    catalog::Change,
    config::{KeyChange, Loaded},
    model::{Problem, Problems, Settings},
};

/// Keys of the file that are read at the start only: how to tell whether they mean the same, and how to keep them.
const AT_START: [AtStart; 3] = [
    AtStart {
        key: "listen",
        same: |before, now| before.listen == now.listen,
        keep: |before, now| now.listen = before.listen.clone(),
    },
    AtStart {
        key: "nodes",
        same: |before, now| before.nodes == now.nodes,
        keep: |before, now| now.nodes = before.nodes.clone(),
    },
    AtStart {
        key: "max_parallel_wakes",
        same: |before, now| before.max_parallel_wakes == now.max_parallel_wakes,
        keep: |before, now| now.max_parallel_wakes = before.max_parallel_wakes,
    },
];

struct AtStart {
    key: &'static str,
    same: fn(&Settings, &Settings) -> bool,
    keep: fn(&Settings, &mut Settings),
}

/// A setting that differs from what is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingChange {
    /// Its key in the file, and what became of it.
    pub key: KeyChange,
    /// Only a new process can heed it.
    pub waits: bool,
}

impl fmt::Display for SettingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)?;
        if self.waits {
            f.write_str(": only with `dormouse upgrade` (or a new start), the running process can not change to it")?;
        }
        Ok(())
    }
}

/// What a file changes, or would change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Taken {
    /// Settings, by their keys.
    pub settings: Vec<SettingChange>,
    /// Backends and routes, in the order in which they are changed.
    pub changes: Vec<Change>,
    /// What is wrong with it, or worth knowing.
    pub problems: Problems,
}

impl Taken {
    /// The journal's words for what was taken. Never a value.
    pub(super) fn note(&self) -> String {
        if self.settings.is_empty() && self.changes.is_empty() {
            return "configuration read again, nothing changed".to_owned();
        }
        let mut note = "configuration read again".to_owned();
        if !self.changes.is_empty() {
            note.push_str(&format!(", changes to routes and backends: {}", self.changes.len()));
        }
        let names = |waits: bool| {
            let those = self.settings.iter().filter(|change| change.waits == waits);
            those.map(|change| format!("`{}`", change.key.path)).collect::<Vec<_>>().join(", ")
        };
        for (waits, what) in
            [(false, "settings changed"), (true, "settings that only `dormouse upgrade` (or a new start) changes")]
        {
            let names = names(waits);
            if !names.is_empty() {
                note.push_str(&format!(", {what}: {names}"));
            }
        }
        note
    }
}

/// The settings that differ from those in force. What only is written in another way at the start's keys does not.
pub(super) fn setting_changes(before: &Loaded, now: &Loaded) -> Vec<SettingChange> {
    let changes = now.keys.changes_since(&before.keys).into_iter();
    let of = |change: &KeyChange| AT_START.iter().find(|at_start| change.is_of(at_start.key));
    changes
        .filter(|change| of(change).is_none_or(|at_start| !(at_start.same)(&before.settings, &now.settings)))
        .map(|key| SettingChange { waits: of(&key).is_some(), key })
        .collect()
}

/// What is read at the start only keeps its value; that it was changed is a problem as long as it is so.
pub(super) fn keep_for_this_process(before: &Loaded, now: &mut Loaded, changes: &[SettingChange]) {
    for change in changes.iter().filter(|change| change.waits) {
        let Some(place) = change.key.place.clone().or_else(|| now.place()) else { continue };
        let what = format!("`{}` was changed, which only a new process heeds", change.key.path);
        let problem = Problem::warning(place, what);
        now.problems.0.push(problem.with_hint("run `dormouse upgrade`, which cuts nobody, or start Dormouse again"));
    }
    for at_start in &AT_START {
        (at_start.keep)(&before.settings, &mut now.settings);
    }
    now.keys.keep(&AT_START.map(|at_start| at_start.key), &before.keys);
}
