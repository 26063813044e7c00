//! Middlewares that change the path, or send the client elsewhere.

use regex::Regex;

use super::{
    middlewares::{finish, is_nothing, options},
    tree::{Fields, Node, Value},
    values,
};
use crate::model::{Middleware, Problem, Problems, Replacement};

/// Ours: `/api`, several, or a mapping with `prefixes`.
pub(super) fn strip_prefix(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let opened = values::structured(node);
    let list = |node: &Node, problems: &mut Problems| -> Vec<String> {
        values::items(node, problems).iter().filter_map(|item| prefix(item, problems)).collect()
    };
    let prefixes = if matches!(opened.value, Value::Map(_)) {
        let mut fields = options(&opened, "`strip_prefix`", problems);
        let node = fields.get("prefixes");
        finish(fields, &["prefixes"], problems);
        node.map(|node| list(node, problems))
    } else {
        Some(list(&opened, problems)).filter(|_| !is_nothing(&opened))
    };
    match prefixes {
        None => {
            problems.0.push(Problem::error(node.place.clone(), "`strip_prefix` names no prefix"));
            None
        }
        Some(prefixes) => Some(Middleware::StripPrefix(prefixes)),
    }
}

/// Ours: `/api`, or a mapping with `prefix`.
pub(super) fn add_prefix(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let opened = values::structured(node);
    if !matches!(opened.value, Value::Map(_)) {
        return prefix(&opened, problems).map(Middleware::AddPrefix);
    }
    let mut fields = options(&opened, "`add_prefix`", problems);
    let own = fields.get("prefix");
    finish(fields, &["prefix"], problems);
    let Some(own) = own else {
        problems.0.push(Problem::error(node.place.clone(), "`add_prefix` lacks its `prefix`"));
        return None;
    };
    prefix(own, problems).map(Middleware::AddPrefix)
}

fn prefix(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = values::text(node, problems)?.trim_end_matches('/');
    if !text.starts_with('/') || !sound_path(text) {
        problems.0.push(node.wrong("is no prefix: write for example `/api`"));
        return None;
    }
    Some(text.to_owned())
}

/// Whether a path means the same to every reader: no dot segments, and nothing that ends it.
pub(super) fn sound_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !b"#?<>`\"\\{}|^".contains(&b);
    let dots = |segment: &str| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        matches!(segment.as_str(), "." | "..")
    };
    path.bytes().all(plain) && !path.split('/').any(dots)
}

/// Ours: the path is rewritten from a pattern to a text.
pub(super) fn rewrite(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let node = values::mapping(node, "`rewrite`", problems)?;
    let mut fields = options(&node, "`rewrite`", problems);
    let from = fields.get("from").and_then(|node| pattern(node, problems));
    let to = text(&mut fields, "`rewrite`", &node, problems);
    if from.is_none() && fields.entry("from").is_none_or(|entry| entry.node.is_null()) {
        problems.0.push(Problem::error(node.place.clone(), "`rewrite` lacks `from`"));
    }
    finish(fields, &["from", "to"], problems);
    let (from, (to, to_node)) = (from?, to?);
    let (path, query) = to.split_once('?').unwrap_or((to, ""));
    if !path.starts_with(['/', '$']) || !sound_text(path) || !sound_text(query) {
        problems.0.push(to_node.wrong("is no path: write for example `/new/$1`"));
        return None;
    }
    replacement(from, to, to_node, problems).map(Middleware::Rewrite)
}

/// Ours: the client is sent to an address, or from a pattern to one.
pub(super) fn redirect(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let opened = values::structured(node);
    // An address is no mapping, for all its colon.
    let short = node.as_text().filter(|text| !text.trim().is_empty() && !text.contains([' ', '{', '\n']));
    if short.is_some() {
        let to = target(node, problems)?;
        let to = replacement(Regex::new("^.*$").ok()?, to, node, problems)?;
        return Some(Middleware::Redirect { to, status: 302 });
    }
    let node = values::mapping(&opened, "`redirect`", problems)?;
    let mut fields = options(&node, "`redirect`", problems);
    let from = match fields.get("from") {
        Some(node) => pattern(node, problems),
        None => Regex::new("^.*$").ok(),
    };
    let permanent = fields.get("permanent").and_then(|node| values::boolean(node, problems)).unwrap_or(false);
    let status = fields.get("status").and_then(|node| {
        let known = [("301", 301), ("302", 302), ("303", 303), ("307", 307), ("308", 308)];
        values::word(node, "status of a redirect", &known, problems)
    });
    let to = text(&mut fields, "`redirect`", &node, problems);
    finish(fields, &["from", "to", "status", "permanent"], problems);
    let (from, (_, to_node)) = (from?, to?);
    let to = replacement(from, target(to_node, problems)?, to_node, problems)?;
    Some(Middleware::Redirect { to, status: status.unwrap_or(if permanent { 308 } else { 302 }) })
}

fn text<'a>(fields: &mut Fields<'a>, kind: &str, at: &Node, problems: &mut Problems) -> Option<(&'a str, &'a Node)> {
    let Some(node) = fields.get("to") else {
        problems.0.push(Problem::error(at.place.clone(), format!("{kind} lacks `to`")));
        return None;
    };
    Some((values::text(node, problems)?, node))
}

fn pattern(node: &Node, problems: &mut Problems) -> Option<Regex> {
    let text = values::text(node, problems)?;
    match Regex::new(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            problems.0.push(node.wrong(format!("is no pattern: {why}")));
            None
        }
    }
}

/// Where a client is sent: a path, or an address whose host no request can change.
fn target<'a>(node: &'a Node, problems: &mut Problems) -> Option<&'a str> {
    let text = values::text(node, problems)?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let sound = match rest {
        Some(rest) => {
            let host = rest.split(['/', '?']).next().unwrap_or_default();
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
            // What stands for a part of the path must not lengthen the host.
            !host.is_empty() && host.bytes().all(plain) && sound_text(rest)
        }
        None => text.starts_with('/') && !text.starts_with("//") && sound_text(text),
    };
    if !sound {
        let what =
            "is no place to send a client to: write `/path` or `https://host/path`, with `$1` behind the host alone";
        problems.0.push(node.wrong(what));
        return None;
    }
    Some(text)
}

fn sound_text(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && !b"#<>`\"\\|^".contains(&b))
}

/// The text may only name parts that the pattern finds.
fn replacement(from: Regex, to: &str, node: &Node, problems: &mut Problems) -> Option<Replacement> {
    let known: Vec<Option<&str>> = from.capture_names().collect();
    let mut rest = to;
    while let Some((_, behind)) = rest.split_once('$') {
        if let Some(behind) = behind.strip_prefix('$') {
            rest = behind;
            continue;
        }
        let name = match behind.strip_prefix('{') {
            Some(inner) => inner.split_once('}').map_or("", |(name, _)| name),
            None => behind.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default(),
        };
        let is_known = match name.parse::<usize>() {
            Ok(number) => number < known.len(),
            Err(_) => !name.is_empty() && known.contains(&Some(name)),
        };
        if !is_known {
            problems.0.push(node.wrong(format!("names `${name}`, which the pattern does not find")));
            return None;
        }
        rest = behind;
    }
    Some(Replacement { from, to: to.to_owned() })
}
