//! When a started backend is ready.

use super::{
    idle::{Author, last_line, only_in_the_file},
    tree::{Fields, Node, nearest},
    values,
};
use crate::model::{Problem, Problems, Readiness};

/// `tcp`, `engine`, or a mapping with one of `http`, `log`, `command`, `delay`.
pub(super) fn read(node: &Node, author: Author, problems: &mut Problems) -> Option<Readiness> {
    const KEYS: &[&str] = &["tcp", "engine", "http", "log", "command", "delay"];
    let node = &*values::structured(node);
    if let Some(text) = node.as_text() {
        let known = [
            ("tcp", Readiness::Tcp),
            ("engine", Readiness::Engine),
            ("http", Readiness::Http { path: "/".to_owned(), status: 200..=499, host: None }),
        ];
        let word = text.trim().to_ascii_lowercase();
        if let Some((_, ready)) = known.into_iter().find(|(name, _)| *name == word) {
            return Some(ready);
        }
        let problem = node.wrong("is no readiness: use `tcp`, `engine`, `http: {path: /}`, `log: …`, `delay: …`");
        problems.0.push(match nearest(text, KEYS.iter().copied()) {
            Some(near) => problem.with_hint(format!("did you mean `{near}`?")),
            None => problem,
        });
        return None;
    }
    let mut fields = Fields::open(node, "`ready`", problems);
    let mut found = Vec::new();
    for key in KEYS {
        if let Some(entry) = fields.entry(key) {
            found.push(ready_kind(key, &entry.node, author, problems));
        }
    }
    fields.finish(KEYS, problems);
    if found.len() != 1 {
        problems.0.push(Problem::error(node.place.clone(), "`ready` must name exactly one kind of check"));
        return None;
    }
    found.pop().flatten()
}

fn ready_kind(key: &str, node: &Node, author: Author, problems: &mut Problems) -> Option<Readiness> {
    match key {
        "tcp" => Some(Readiness::Tcp),
        "engine" => Some(Readiness::Engine),
        "http" => ready_http(node, problems),
        "log" => {
            let pattern = values::text(node, problems)?;
            match regex::Regex::new(pattern) {
                Ok(pattern) => Some(Readiness::Log(pattern)),
                Err(error) => {
                    problems.0.push(node.wrong(format!("is no pattern: {}", last_line(&error.to_string()))));
                    None
                }
            }
        }
        "command" if author == Author::Labels => {
            problems.0.push(only_in_the_file(node, "`ready: command`"));
            None
        }
        "command" => {
            let argv = values::texts(node, problems);
            if argv.is_empty() {
                problems.0.push(node.wrong("names no command"));
                return None;
            }
            Some(Readiness::Command(argv))
        }
        _ => values::brief(node, problems).map(Readiness::Delay),
    }
}

fn ready_http(node: &Node, problems: &mut Problems) -> Option<Readiness> {
    let mut ready = (String::from("/"), 200..=499, None);
    let mut path = |node: &Node, problems: &mut Problems| {
        let path = values::text(node, problems)?;
        if !path.starts_with('/') || path.contains(char::is_whitespace) {
            problems.0.push(node.wrong("is no path: it must begin with `/`"));
            return None;
        }
        ready.0 = path.to_owned();
        Some(())
    };
    if node.as_text().is_some_and(|text| text.trim().starts_with('/')) {
        path(node, problems)?;
    } else {
        let node = values::mapping(node, "`http`", problems)?;
        let mut fields = Fields::open(&node, "`http`", problems);
        if let Some(node) = fields.get("path") {
            path(node, problems)?;
        }
        if let Some(node) = fields.get("status") {
            ready.1 = statuses(node, problems)?;
        }
        ready.2 = fields.get("host").and_then(|node| values::text(node, problems)).map(str::to_owned);
        fields.finish(&["path", "status", "host"], problems);
    }
    Some(Readiness::Http { path: ready.0, status: ready.1, host: ready.2 })
}

fn statuses(node: &Node, problems: &mut Problems) -> Option<std::ops::RangeInclusive<u16>> {
    let text = values::text(node, problems)?;
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let status = |word: &str| word.trim().parse::<u16>().ok().filter(|s| (100..=599).contains(s));
    match (status(from), status(to)) {
        (Some(from), Some(to)) if from <= to => Some(from..=to),
        _ => {
            problems.0.push(node.wrong("is no range of statuses: write for example `200` or `200-499`"));
            None
        }
    }
}
