//! The common draft of file, labels and API bodies: a tree of texts in which every node knows its place.

use std::{borrow::Cow, collections::HashMap};

use super::values;
use crate::model::{Place, Problem, Problems};

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
    /// It came out of a secret file: no message may quote it.
    pub(super) hidden: bool,
}

/// Scalars stay texts until a field says what they are, so that `1.10` and `on` are never guessed at.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

/// Keys match without regard to case and underscores.
pub(super) fn normal(key: &str) -> String {
    key.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

impl Node {
    pub(super) fn new(place: Place, value: Value) -> Self {
        Self { place, value, hidden: false }
    }

    pub(super) fn text(place: Place, text: impl Into<String>) -> Self {
        Self::new(place, Value::Text(text.into()))
    }

    pub(super) fn empty_map(place: Place) -> Self {
        Self::new(place, Value::Map(Vec::new()))
    }

    /// Whether it is a mapping with nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.value, Value::Map(entries) if entries.is_empty())
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The text, when it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// How messages name the value: texts in backticks, the rest by kind.
    pub(super) fn shown(&self) -> String {
        match &self.value {
            Value::Text(_) if self.hidden => "the secret".to_owned(),
            Value::Text(text) if text.chars().count() > 80 => {
                format!("`{}…`", text.chars().take(80).collect::<String>())
            }
            Value::Text(text) => format!("`{text}`"),
            Value::Null => "nothing".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// An error at this value: `<the value> <what>`.
    pub(super) fn wrong(&self, what: impl AsRef<str>) -> Problem {
        Problem::error(self.place.clone(), format!("{} {}", self.shown(), what.as_ref()))
    }

    /// Lays `over` on top: mappings are merged key by key, also such as stand in a text; anything else is replaced.
    pub(super) fn overlay(&mut self, mut over: Self) {
        if matches!(over.value, Value::Map(_)) {
            self.open();
        } else if matches!(self.value, Value::Map(_)) {
            over.open();
        }
        match (&mut self.value, over.value) {
            (Value::Map(entries), Value::Map(more)) => {
                for entry in more {
                    match entries.iter_mut().find(|e| normal(&e.key) == normal(&entry.key)) {
                        Some(old) => {
                            old.node.overlay(entry.node);
                            old.place = entry.place;
                        }
                        None => entries.push(entry),
                    }
                }
            }
            (_, value) => {
                self.value = value;
                self.place = over.place;
                self.hidden = over.hidden;
            }
        }
    }

    /// Turns a text that holds a YAML mapping or list into it.
    fn open(&mut self) {
        if let Cow::Owned(opened) = values::structured(self) {
            *self = opened;
        }
    }

    /// Puts a value under a path of keys, making mappings on the way. Fails where a text or list is in the way, or
    /// where a text would replace a mapping.
    pub(super) fn put(&mut self, path: &[&str], mut node: Self) -> Result<(), Problem> {
        let Some((key, deeper)) = path.split_first() else {
            if matches!(self.value, Value::Map(ref old) if !old.is_empty()) {
                node.open();
                if matches!(node.value, Value::Text(_) | Value::List(_)) {
                    return Err(node.wrong("stands where other labels make a mapping"));
                }
            }
            self.overlay(node);
            return Ok(());
        };
        self.open();
        if self.is_null() || self.as_text().is_some_and(|text| text.trim().is_empty()) {
            self.value = Value::Map(Vec::new());
        }
        let at = node.place.clone();
        let Value::Map(entries) = &mut self.value else {
            let what = format!("`{key}` can not be set below {}, which is no mapping", self.shown());
            return Err(Problem::error(at, what));
        };
        if let Some(entry) = entries.iter_mut().find(|entry| normal(&entry.key) == normal(key)) {
            return entry.node.put(deeper, node);
        }
        let mut below = Self::new(at.clone(), Value::Null);
        if deeper.is_empty() {
            below = node;
        } else {
            below.put(deeper, node)?;
        }
        entries.push(Entry { key: (*key).to_owned(), place: at, node: below });
        Ok(())
    }
}

/// The known word nearest to a misspelt one, if any is near.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = normal(word);
    let bound = (word.chars().count() / 3).clamp(1, 5);
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &normal(candidate)), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// An error about a word that is not in a list of known ones, with the nearest of them.
pub(super) fn unknown(place: &Place, kind: &str, word: &str, known: &[&str]) -> Problem {
    let problem = Problem::error(place.clone(), format!("{kind} `{word}` is unknown"));
    match nearest(word, known.iter().copied()) {
        Some(near) => problem.with_hint(format!("did you mean `{near}`?")),
        None if known.is_empty() => problem,
        None if known.len() <= 12 => problem.with_hint(format!("known: `{}`", known.join("`, `"))),
        None => problem,
    }
}

/// A mapping that is read key by key; what was not read is reported.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    entries: Vec<(&'a Entry, bool)>,
    kind: &'static str,
}

impl<'a> Fields<'a> {
    /// Opens a mapping. Nothing is an empty mapping; other kinds and doubled keys are problems.
    pub(super) fn open(node: &'a Node, kind: &'static str, problems: &mut Problems) -> Self {
        let mut entries: Vec<(&Entry, bool)> = Vec::new();
        let mut known: HashMap<String, &Entry> = HashMap::new();
        match &node.value {
            Value::Null => {}
            Value::Map(all) => {
                for entry in all.iter().filter(|entry| !entry.key.starts_with("x-")) {
                    let first = *known.entry(normal(&entry.key)).or_insert(entry);
                    if !std::ptr::eq(first, entry) {
                        let what = format!("`{}` and `{}` are the same key", first.key, entry.key);
                        problems.0.push(Problem::error(entry.place.clone(), what));
                    } else {
                        entries.push((entry, false));
                    }
                }
            }
            Value::Text(_) | Value::List(_) => {
                problems.0.push(node.wrong(format!("is no mapping, as {kind} must be")));
            }
        }
        Self { entries, kind }
    }

    /// The entry of a key, marked as read.
    pub(super) fn entry(&mut self, key: &str) -> Option<&'a Entry> {
        let wanted = normal(key);
        let (entry, read) = self.entries.iter_mut().find(|(entry, _)| normal(&entry.key) == wanted)?;
        *read = true;
        Some(entry)
    }

    /// The value of a key, marked as read; absent when it is null.
    pub(super) fn get(&mut self, key: &str) -> Option<&'a Node> {
        self.entry(key).map(|entry| &entry.node).filter(|node| !node.is_null())
    }

    /// Reports those of these keys that nobody has read: they have their place below another key.
    pub(super) fn below(
        &mut self,
        key: &str,
        keys: impl IntoIterator<Item = &'static str, IntoIter: Clone>,
        problems: &mut Problems,
    ) {
        let keys = keys.into_iter();
        for (entry, read) in self.entries.iter_mut().filter(|(_, read)| !read) {
            let Some(known) = keys.clone().find(|known| normal(known) == normal(&entry.key)) else { continue };
            *read = true;
            let what = format!("`{}` is no key of a {}: it belongs below `{key}`", entry.key, self.kind);
            problems
                .0
                .push(Problem::error(entry.place.clone(), what).with_hint(format!("write `{key}: {{{known}: …}}`")));
        }
    }

    /// Reports every key that nobody has read.
    pub(super) fn finish(self, known: &[&str], problems: &mut Problems) {
        for (entry, read) in self.entries {
            if !read {
                problems.0.push(unknown(&entry.place, &format!("{} key", self.kind), &entry.key, known));
            }
        }
    }
}
