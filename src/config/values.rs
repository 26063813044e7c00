//! What texts mean: booleans, durations, numbers, lists, mappings inside a text.

use std::{borrow::Cow, fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

use super::{
    tree::{Node, Value, unknown},
    yaml,
};
use crate::model::{BadDuration, Problem, Problems, parse_duration};

const TRUE: [&str; 6] = ["true", "yes", "on", "y", "t", "1"];
const FALSE: [&str; 6] = ["false", "no", "off", "n", "f", "0"];

/// The usual spellings of YAML 1.1 and Go, in any case.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    let word = text.trim().to_ascii_lowercase();
    if TRUE.contains(&word.as_str()) {
        Some(true)
    } else if FALSE.contains(&word.as_str()) {
        Some(false)
    } else {
        None
    }
}

pub(super) fn boolean(node: &Node, problems: &mut Problems) -> Option<bool> {
    let value = node.as_text().and_then(parse_bool);
    if value.is_none() {
        problems.0.push(node.wrong("is no boolean: use `true` or `false`"));
    }
    value
}

/// A scalar as text; lists and mappings are problems.
pub(super) fn text<'a>(node: &'a Node, problems: &mut Problems) -> Option<&'a str> {
    let text = node.as_text().map(str::trim);
    if text.is_none() {
        problems.0.push(node.wrong("stands where a text is expected"));
    }
    text
}

pub(super) fn duration(node: &Node, problems: &mut Problems) -> Option<Duration> {
    let text = text(node, problems)?;
    match parse_duration(text) {
        Ok(duration) => Some(duration),
        Err(error) => {
            problems.0.push(bad(node, &error));
            None
        }
    }
}

/// A duration that may well be less than a second.
pub(super) fn brief(node: &Node, problems: &mut Problems) -> Option<Duration> {
    let text = text(node, problems)?;
    if let Err(BadDuration::NoUnit(number)) = parse_duration(text)
        && !node.hidden
    {
        // Nobody writes down hundreds of seconds where a few are meant.
        let is_large = number.parse::<u64>().is_ok_and(|number| number >= 50);
        let (likely, other) = if is_large { ("ms", "s") } else { ("s", "ms") };
        let what = format!("`{number}` has no unit: write `{number}{likely}` or `{number}{other}`");
        problems.0.push(Problem::error(node.place.clone(), what));
        return None;
    }
    duration(node, problems)
}

/// The same, and not zero.
pub(super) fn brief_positive(node: &Node, problems: &mut Problems) -> Option<Duration> {
    brief(node, problems).and_then(|duration| not_zero(duration, node, problems))
}

/// A duration that is not zero.
pub(super) fn positive(node: &Node, problems: &mut Problems) -> Option<Duration> {
    duration(node, problems).and_then(|duration| not_zero(duration, node, problems))
}

fn not_zero(duration: Duration, node: &Node, problems: &mut Problems) -> Option<Duration> {
    if duration.is_zero() {
        problems.0.push(node.wrong("is too short: it must be longer than zero"));
        return None;
    }
    Some(duration)
}

/// A whole number within bounds.
pub(super) fn number(node: &Node, bounds: RangeInclusive<u64>, problems: &mut Problems) -> Option<u64> {
    let text = text(node, problems)?;
    match text.parse::<u64>() {
        Ok(number) if bounds.contains(&number) => Some(number),
        Ok(_) | Err(_) => {
            problems.0.push(node.wrong(format!("is no whole number from {} to {}", bounds.start(), bounds.end())));
            None
        }
    }
}

pub(super) fn count(node: &Node, bounds: RangeInclusive<u64>, problems: &mut Problems) -> Option<usize> {
    number(node, bounds, problems).and_then(|n| usize::try_from(n).ok())
}

/// A size: `10 MB`, `512KiB`, `8m` or a bare number of bytes.
pub(super) fn bytes(node: &Node, problems: &mut Problems) -> Option<u64> {
    let text = text(node, problems)?;
    let found = parse_bytes(text);
    if found.is_none() {
        let what = match number_and_unit(text).filter(|(_, unit)| !node.hidden && !unit.is_empty()) {
            // Its number is as it should be.
            Some((number, unit)) => {
                let unit = unit.to_owned();
                format!(
                    "is no size: `{unit}` is no unit; write for example `{number}KB`, `{number}KiB` or `{number}MB`"
                )
            }
            None => "is no size: write for example `512KiB` or `10MB`".to_owned(),
        };
        problems.0.push(node.wrong(what));
    }
    found
}

pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 11] = [
        ("", 1),
        ("b", 1),
        ("k", 1 << 10),
        ("kb", 1000),
        ("kib", 1 << 10),
        ("m", 1 << 20),
        ("mb", 1_000_000),
        ("mib", 1 << 20),
        ("g", 1 << 30),
        ("gb", 1_000_000_000),
        ("gib", 1 << 30),
    ];
    let (number, unit) = number_and_unit(text)?;
    let scale = UNITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name)).map(|(_, scale)| *scale)?;
    number.checked_mul(scale)
}

/// The digits at the beginning, and what stands behind them.
pub(super) fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim()))
}

/// Whatever can be made of a text, with its own words when it can not.
pub(super) fn parsed<T: FromStr<Err: Display>>(node: &Node, problems: &mut Problems) -> Option<T> {
    let text = text(node, problems)?;
    match text.parse::<T>() {
        Ok(value) => Some(value),
        Err(error) => {
            problems.0.push(bad(node, &error));
            None
        }
    }
}

/// An error of a parser that quotes the text itself; a secret is not quoted.
fn bad(node: &Node, error: &dyn Display) -> Problem {
    let what = if node.hidden { "the secret is not of the expected form".to_owned() } else { error.to_string() };
    Problem::error(node.place.clone(), what)
}

/// One of a few words.
pub(super) fn word<T: Copy>(node: &Node, kind: &str, known: &[(&str, T)], problems: &mut Problems) -> Option<T> {
    let text = text(node, problems)?;
    let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    if found.is_none() {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        problems.0.push(unknown(&node.place, kind, text, &names));
    }
    found.map(|(_, value)| *value)
}

/// The items of a list: a YAML list, `[a, b]`, or `a, b` with commas or spaces.
pub(super) fn items(node: &Node, problems: &mut Problems) -> Vec<Node> {
    let structured = structured(node);
    match &structured.value {
        Value::Null => Vec::new(),
        Value::List(items) => items.iter().filter(|item| !item.is_null()).cloned().collect(),
        Value::Text(text) => text
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|word| !word.is_empty())
            .map(|word| Node { place: node.place.clone(), value: Value::Text(word.to_owned()), hidden: node.hidden })
            .collect(),
        Value::Map(_) => {
            problems.0.push(structured.wrong("stands where a list is expected"));
            Vec::new()
        }
    }
}

/// The items of a list of texts.
pub(super) fn texts(node: &Node, problems: &mut Problems) -> Vec<String> {
    let items = items(node, problems);
    items.iter().filter_map(|item| text(item, problems).map(str::to_owned)).collect()
}

/// The items of a list, each parsed.
pub(super) fn list_of<T: FromStr<Err: Display>>(node: &Node, problems: &mut Problems) -> Vec<T> {
    let items = items(node, problems);
    items.iter().filter_map(|item| parsed(item, problems)).collect()
}

/// A text that holds a YAML list or mapping, opened; anything else as it is.
pub(super) fn structured(node: &Node) -> Cow<'_, Node> {
    let Some(text) = node.as_text() else {
        return Cow::Borrowed(node);
    };
    // A lone word is itself, also where YAML would see a list in it (`-`).
    if !text.contains([' ', '\n', '[', '{', ':']) {
        return Cow::Borrowed(node);
    }
    let mut silent = Problems::default();
    match block(text, node, &mut silent) {
        Some(opened) if matches!(opened.value, Value::List(_) | Value::Map(_)) && silent.0.is_empty() => {
            Cow::Owned(opened)
        }
        _ => Cow::Borrowed(node),
    }
}

/// A mapping, also one inside a text. Other kinds are problems.
pub(super) fn mapping<'a>(node: &'a Node, kind: &str, problems: &mut Problems) -> Option<Cow<'a, Node>> {
    let opened = match node.as_text() {
        Some(text) => Cow::Owned(block(text, node, problems)?),
        None => Cow::Borrowed(node),
    };
    if matches!(opened.value, Value::Map(_) | Value::Null) {
        return Some(opened);
    }
    problems.0.push(opened.wrong(format!("is no mapping, as {kind} must be")));
    None
}

/// A mapping that may stand for itself in a word: `true` or nothing for one without options, `false` for none. What is
/// neither is told with the `other` forms that it may have.
pub(super) fn switch<'a>(node: &'a Node, kind: &str, other: &str, problems: &mut Problems) -> Option<Switch<'a>> {
    let Some(text) = node.as_text() else { return mapping(node, kind, problems).map(Switch::Mapping) };
    match parse_bool(text) {
        Some(is_on) => Some(if is_on { Switch::On } else { Switch::Off }),
        None if text.trim().is_empty() => Some(Switch::On),
        None => {
            // Labels hold mappings in a text.
            let mut silent = Problems::default();
            let opened = block(text, node, &mut silent).filter(|opened| matches!(opened.value, Value::Map(_)));
            match opened {
                Some(opened) => Some(Switch::Mapping(Cow::Owned(opened))),
                None if text.contains([':', '{']) => mapping(node, kind, problems).map(Switch::Mapping),
                None => {
                    let what =
                        format!("is no form of {kind}: write {other}`true`, `false` or a mapping of its options");
                    problems.0.push(node.wrong(what));
                    None
                }
            }
        }
    }
}

/// What a mapping stands for, or the word in its place.
pub(super) enum Switch<'a> {
    On,
    Off,
    Mapping(Cow<'a, Node>),
}

/// The YAML inside a text; tabs count as two spaces, every value stands where the text stands.
pub(super) fn block(text: &str, at: &Node, problems: &mut Problems) -> Option<Node> {
    let spaced = text.replace('\t', "  ");
    let before = problems.0.len();
    let parsed = yaml::parse(&spaced, &|_, _| at.place.clone(), None, problems);
    let lines = spaced.lines().count();
    if lines > 1
        && let Some(problem) = problems.0.get_mut(before)
        && problem.what.starts_with("no YAML")
    {
        problem.what.push_str(&format!(" (in the {lines} lines of the block)"));
    }
    let mut parsed = parsed?;
    if at.hidden {
        hide(&mut parsed);
    }
    Some(parsed)
}

fn hide(node: &mut Node) {
    node.hidden = true;
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(hide),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| hide(&mut entry.node)),
        Value::Null | Value::Text(_) => {}
    }
}
