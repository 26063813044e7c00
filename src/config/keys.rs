//! What a file says of the settings, key by key: by it is told which of them another file changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::tree::{Node, Value, normal};
use crate::model::Place;

/// What makes routes and backends: changes to those are told as such.
const NOT_SETTINGS: [&str; 3] = ["routes", "backends", "include"];

/// The keys of the settings in a file. Of their values nothing but whether they are the same.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WrittenKeys(BTreeMap<Vec<String>, WrittenKey>);

#[derive(Debug, Clone, PartialEq)]
struct WrittenKey {
    /// Its path as it is written, with dots.
    path: String,
    /// Equal where the values are.
    value: u64,
    place: Place,
}

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was not there before.
    Added,
    /// It has another value.
    Changed,
    /// It is no longer there.
    Removed,
}

/// A key that differs between two files.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyChange {
    /// Its path in the file, such as `tls.hsts`.
    pub path: String,
    /// What became of it.
    pub fate: Fate,
    /// Where it is; absent: it is no longer there.
    pub place: Option<Place>,
}

impl KeyChange {
    /// Whether it is this key of the file, or one beneath it.
    pub fn is_of(&self, key: &str) -> bool {
        normal(self.path.split('.').next().unwrap_or_default()) == normal(key)
    }
}

impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let did = match self.fate {
            Fate::Added => "add",
            Fate::Changed => "change",
            Fate::Removed => "remove",
        };
        write!(f, "{did} setting `{}`", self.path)
    }
}

impl WrittenKeys {
    /// The keys of a file.
    pub(super) fn of(file: &Node) -> Self {
        let mut keys = Self::default();
        keys.add(file, &[], "");
        keys
    }

    /// The deepest keys, each with its value. What is a list counts as one value.
    fn add(&mut self, node: &Node, above: &[String], path: &str) {
        let Value::Map(entries) = &node.value else { return };
        for entry in entries {
            let key = normal(&entry.key);
            let is_none = entry.node.is_null() || entry.key.starts_with("x-");
            if is_none || (above.is_empty() && NOT_SETTINGS.contains(&key.as_str())) {
                continue;
            }
            let keys: Vec<String> = above.iter().cloned().chain([key]).collect();
            let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            if matches!(entry.node.value, Value::Map(_)) && !entry.node.is_empty() {
                self.add(&entry.node, &keys, &path);
            } else {
                let mut value = DefaultHasher::new();
                hash(&entry.node, &mut value);
                self.0.insert(keys, WrittenKey { path, value: value.finish(), place: entry.place.clone() });
            }
        }
    }

    /// What differs from the file before, in the order of the keys.
    pub fn changes_since(&self, before: &Self) -> Vec<KeyChange> {
        let all: BTreeSet<&Vec<String>> = before.0.keys().chain(self.0.keys()).collect();
        let mut told: Vec<&Vec<String>> = Vec::new();
        let mut changes = Vec::new();
        for keys in all {
            let (was, is) = (before.0.get(keys), self.0.get(keys));
            let (fate, key) = match (was, is) {
                (Some(was), Some(is)) if was.value == is.value => continue,
                (Some(_), Some(is)) => (Fate::Changed, is),
                (None, Some(is)) => (Fate::Added, is),
                (Some(was), None) => (Fate::Removed, was),
                (None, None) => continue,
            };
            // Of `off` that becomes a mapping, or the other way, the key alone is told.
            if told.iter().any(|above| keys.starts_with(above)) {
                continue;
            }
            let turned =
                |keys: &WrittenKeys, of: &[String]| keys.0.keys().any(|k| k.len() > of.len() && k.starts_with(of));
            let fate = if turned(before, keys) || turned(self, keys) { Fate::Changed } else { fate };
            told.push(keys);
            changes.push(KeyChange { path: key.path.clone(), fate, place: is.map(|is| is.place.clone()) });
        }
        changes
    }

    /// These keys of the file, and all beneath them, are as they were before.
    pub fn keep(&mut self, keys: &[&str], before: &Self) {
        let is_of = |path: &[String]| path.first().is_some_and(|first| keys.iter().any(|key| normal(key) == *first));
        self.0.retain(|path, _| !is_of(path));
        let kept = before.0.iter().filter(|(path, _)| is_of(path));
        self.0.extend(kept.map(|(path, key)| (path.clone(), key.clone())));
    }
}

/// What the value is, wherever it stands.
fn hash(node: &Node, into: &mut impl Hasher) {
    match &node.value {
        Value::Null => 0_u8.hash(into),
        Value::Text(text) => (1_u8, text).hash(into),
        Value::List(items) => {
            (2_u8, items.len()).hash(into);
            items.iter().for_each(|item| hash(item, into));
        }
        Value::Map(entries) => {
            (3_u8, entries.len()).hash(into);
            for entry in entries {
                normal(&entry.key).hash(into);
                hash(&entry.node, into);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::yaml, model::Problems};

    fn keys(text: &str) -> WrittenKeys {
        let at = |line, column| Place::File { path: "d.yaml".into(), line: Some(line), column: Some(column) };
        WrittenKeys::of(&yaml::parse(text, &at, None, &mut Problems::default()).unwrap())
    }

    fn check(before: &str, now: &str, expected: &[&str]) {
        let told: Vec<String> = keys(now).changes_since(&keys(before)).iter().map(ToString::to_string).collect();
        assert_eq!(told, expected, "{before:?} to {now:?}");
    }

    #[test]
    fn each_key_that_differs_is_told_by_its_path() {
        check("max_connections: 5", "maxConnections: 5", &[]);
        check("a: 1\ndomains: [x]", "domains:\n- x\n\na: 1", &[]);
        check("max_connections: 5", "max_connections: 6", &["change setting `max_connections`"]);
        check("{}", "tls: { hsts: { max_age: 1d } }", &["add setting `tls.hsts.max_age`"]);
        check("tls: { hsts: { max_age: 1d } }", "tls:", &["remove setting `tls.hsts.max_age`"]);
        check("domains: [a, b]", "domains: [b, a]", &["change setting `domains`"]);
        check("nodes: { a: docker, b: docker }", "nodes: { b: docker }", &["remove setting `nodes.a`"]);
        check(
            "listen: { http: 1, api: off }\non_exit: leave",
            "listen: { http: 2, api: off }\nshutdown_timeout: 1s",
            &["change setting `listen.http`", "remove setting `on_exit`", "add setting `shutdown_timeout`"],
        );
    }

    #[test]
    fn a_value_that_becomes_a_mapping_is_one_change() {
        let mapping = "access_log: { path: /a, format: json }";
        check("access_log: off", mapping, &["change setting `access_log`"]);
        check(mapping, "access_log: off", &["change setting `access_log`"]);
    }

    #[test]
    fn routes_backends_and_anchors_are_no_settings() {
        check("{}", "x-a: 1\nroutes: { a: 1 }\nbackends: { a: 1 }\ninclude: [a]", &[]);
    }

    #[test]
    fn what_is_kept_differs_again_the_next_time() {
        let before = keys("listen: { http: 1 }\ndomains: a");
        let mut now = keys("listen: { http: 2, https: 3 }\ndomains: b");
        now.keep(&["listen"], &before);
        let again = keys("listen: { http: 2, https: 3 }\ndomains: b").changes_since(&now);
        let told: Vec<_> = again.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["change setting `listen.http`", "add setting `listen.https`"]);
    }

    #[test]
    fn no_value_can_be_read_from_it() {
        assert!(!format!("{:?}", keys("acme: { token: geheim }")).contains("geheim"));
    }
}
