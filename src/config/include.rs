//! Which files `include` names.

use std::path::{Path, PathBuf};

use super::{
    expand::{SEALED, Sources},
    tree::Node,
    values,
};
use crate::model::{Place, Problem, Problems};

/// All files of all patterns, each once, sorted within a pattern. `*` and `?` stand in the last part of a path.
pub(super) fn files(node: &Node, sources: &Sources<'_>, problems: &mut Problems) -> Vec<(PathBuf, Place)> {
    let mut found: Vec<(PathBuf, Place)> = Vec::new();
    if sources.sealed {
        problems.0.push(node.wrong(format!("is not followed for those who ask over TCP: {SEALED}")));
        return found;
    }
    for item in values::items(node, problems) {
        let Some(text) = values::text(&item, problems) else { continue };
        let path = sources.resolve(Path::new(text));
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        if folder.to_string_lossy().contains(['*', '?']) {
            problems.0.push(item.wrong("has a `*` or `?` in a folder: they may stand in the file name only"));
        } else if name.contains(['*', '?']) {
            let matching = listing(&folder, &name);
            if matching.is_empty() {
                problems.0.push(Problem::warning(item.place.clone(), format!("`{text}` matches no file")));
            }
            matching.into_iter().for_each(|path| add(&mut found, path, &item.place));
        } else {
            add(&mut found, path, &item.place);
        }
    }
    found
}

fn add(found: &mut Vec<(PathBuf, Place)>, path: PathBuf, place: &Place) {
    if !found.iter().any(|(known, _)| *known == path) {
        found.push((path, place.clone()));
    }
}

fn listing(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(here)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_file())
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| !name.starts_with('.') && like(pattern, name)))
        .map(|entry| folder.join(entry.file_name()))
        .collect();
    paths.sort();
    paths
}

/// Whether a name is like a pattern of `*` (any text) and `?` (any character).
fn like(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn stars_stand_for_any_text() {
        assert!(like("*.yaml", "a.yaml"));
        assert!(like("a*b?c", "axxbyc"));
        assert!(like("*", ""));
        assert!(like("*a*a", "aaa"));
        assert!(!like("*.yaml", "a.yml"));
        assert!(!like("?", ""));
        assert!(!like("a", "ab"));
    }
}
