//! Labels that were meant for us, and do not begin as ours do.

use strsim::osa_distance;

use super::{
    idle::IDLE_KEYS,
    labels::{CONTAINER_KEYS, SHORTCUTS},
    route::ROUTE_KEYS,
    tree::normal,
};
use crate::model::{Container, Place, Problem, Problems};

/// Warns of labels whose first word is nearly one of our prefixes, and whose key is one of ours: others' labels have
/// other keys, and are left alone.
pub(super) fn warn_of_misspelt(container: &Container, prefixes: &[String], problems: &mut Problems) {
    for label in container.labels.keys().filter(|label| !prefixes.iter().any(|prefix| begins_with(label, prefix))) {
        let Some(meant) = prefixes.iter().find_map(|prefix| meant(label, prefix)) else { continue };
        let place =
            Place::Label { container: format!("{}/{}", container.node, container.name), label: Some(label.clone()) };
        let problem = Problem::warning(place, "it has no effect: it does not begin as a label of Dormouse does");
        problems.0.push(problem.with_hint(format!("did you mean `{meant}`?")));
    }
}

/// Whether it is one of ours. A prefix may have dots and hyphens in it.
fn begins_with(label: &str, prefix: &str) -> bool {
    let (word, rest) = label.split_at_checked(prefix.len()).unwrap_or_default();
    word.eq_ignore_ascii_case(prefix) && rest.starts_with('.')
}

/// The label that was probably meant by one that is not ours.
fn meant(label: &str, prefix: &str) -> Option<String> {
    let at = label.find(['.', '-', '_', ':', '/'])?;
    let (word, rest) = (label.get(..at)?.to_ascii_lowercase(), label.get(at + 1..)?);
    // Of a short word another may be meant that is two letters away.
    let bound = if prefix.len() > 6 { 2 } else { 1 };
    let is_near = osa_distance(&word, prefix) <= bound;
    (is_near && is_key(rest)).then(|| format!("{prefix}.{rest}"))
}

/// Whether it is a setting of a container, or that of a route behind an alias.
fn is_key(text: &str) -> bool {
    let is = |text: &str, key: &str| normal(key) == normal(text);
    match text.split_once('.') {
        None => {
            let keys = CONTAINER_KEYS.iter().chain(IDLE_KEYS).copied();
            keys.chain(SHORTCUTS.iter().map(|(many, _)| *many)).any(|key| is(text, key))
        }
        Some((_, field)) => {
            let field = field.split('.').next().unwrap_or_default();
            ROUTE_KEYS.iter().any(|key| is(field, key))
        }
    }
}
