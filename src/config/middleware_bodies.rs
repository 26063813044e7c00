//! Middlewares that look at answers: what is tried again, shown as a page of our own, or compressed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    expand::{SEALED, Sources},
    idle::Author,
    middleware_headers::{switched_on, switched_on_or},
    middlewares::{finish, is_nothing, options},
    tree::{Node, Value, unknown},
    values,
};
use crate::model::{Coding, Compress, ErrorPages, Middleware, MiddlewareSet, Place, Problem, Problems, Retry};

/// A page of our own has at most so many bytes: each is kept in memory.
const LARGEST_PAGE: usize = 256 * 1024;

/// Ours: `true`, how often, or a mapping.
pub(super) fn retry(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let mut retry = Retry {
        attempts: 2,
        statuses: vec![502, 503, 504],
        pause: Duration::from_millis(100),
        timeout: Duration::from_secs(10),
    };
    let attempts = |node: &Node, problems: &mut Problems| {
        values::number(node, 1..=10, problems).and_then(|n| u32::try_from(n).ok())
    };
    let opened = values::structured(node);
    // `1` is a number here, and no boolean.
    if opened.as_text().is_some_and(|text| text.trim().parse::<u64>().is_ok()) {
        retry.attempts = attempts(&opened, problems)?;
        return Some(Middleware::Retry(retry));
    }
    let node = switched_on_or(&opened, "`retry`", "how often (`2`), ", problems)?;
    let mut fields = options(&node, "`retry`", problems);
    if let Some(found) = fields.get("attempts").and_then(|node| attempts(node, problems)) {
        retry.attempts = found;
    }
    if let Some(node) = fields.get("statuses") {
        let items = values::items(node, problems);
        let numbers = items.iter().filter_map(|item| values::number(item, 500..=599, problems));
        retry.statuses = numbers.filter_map(|number| u16::try_from(number).ok()).collect();
    }
    if let Some(pause) = fields.get("pause").and_then(|node| values::brief(node, problems)) {
        retry.pause = pause.min(Duration::from_secs(10));
    }
    if let Some(timeout) = fields.get("timeout").and_then(|node| values::brief_positive(node, problems)) {
        retry.timeout = timeout;
    }
    finish(fields, &["attempts", "statuses", "pause", "timeout"], problems);
    Some(Middleware::Retry(retry))
}

/// What is compressed unless types are named: text, in all its forms.
const TYPES: [&str; 15] = [
    "text/*",
    "+json",
    "+xml",
    "+text",
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/xml",
    "application/wasm",
    "application/x-ndjson",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
    "image/bmp",
];

/// Ours: `true`, or a mapping.
pub(super) fn compress(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let before = problems.0.len();
    let node = switched_on(node, "`compress`", problems)?;
    let mut fields = options(&node, "`compress`", problems);
    let codings = match fields.get("encodings") {
        None => Coding::ALL.to_vec(),
        Some(node) => {
            let items = values::items(node, problems);
            if items.is_empty() {
                problems.0.push(Problem::error(node.place.clone(), "`compress` names no encoding"));
            }
            items.iter().filter_map(|item| coding(item, problems)).collect()
        }
    };
    let types = match fields.get("types") {
        None => TYPES.map(str::to_owned).to_vec(),
        Some(node) => values::items(node, problems).iter().filter_map(|item| media_type(item, problems)).collect(),
    };
    let min_size = fields.get("min_size").and_then(|node| values::bytes(node, problems)).unwrap_or(1024);
    finish(fields, &["encodings", "types", "min_size"], problems);
    (!problems.has_errors_since(before)).then_some(Middleware::Compress(Compress { codings, types, min_size }))
}

fn coding(node: &Node, problems: &mut Problems) -> Option<Coding> {
    const NAMES: [&str; 3] = ["zstd", "br", "gzip"];
    let text = values::text(node, problems)?;
    let found = match text.trim().to_ascii_lowercase().as_str() {
        "zstd" => Some(Coding::Zstd),
        "br" | "brotli" => Some(Coding::Brotli),
        "gzip" => Some(Coding::Gzip),
        _ => None,
    };
    if found.is_none() {
        problems.0.push(unknown(&node.place, "encoding", text, &NAMES));
    }
    found
}

fn media_type(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = values::text(node, problems)?.trim().to_ascii_lowercase();
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'+' | b'_'))
    };
    let sound = match (text.strip_prefix('+'), text.split_once('/')) {
        (Some(suffix), _) => plain(suffix),
        (None, Some((kind, "*"))) => plain(kind),
        (None, Some((kind, of))) => plain(kind) && plain(of),
        (None, None) => false,
    };
    if !sound {
        problems.0.push(node.wrong("is no type of a body: write for example `text/html`, `text/*` or `+json`"));
    }
    sound.then_some(text)
}

/// The folder of pages for errors: `true`, its path, or a mapping. Labels can not name files of this machine.
pub(super) fn error_page(node: &Node, author: Author, problems: &mut Problems) -> Option<(PathBuf, Place)> {
    const FOLDER: &str = "error_pages";
    let before = problems.0.len();
    let opened = values::structured(node);
    let is_path = opened.as_text().is_some_and(|text| !is_nothing(&opened) && values::parse_bool(text).is_none());
    let (path, place) = if is_path && !matches!(opened.value, Value::Map(_)) {
        (values::text(&opened, problems)?.to_owned(), opened.place.clone())
    } else {
        let node = switched_on(&opened, "`custom_error_page`", problems)?;
        let mut fields = options(&node, "`custom_error_page`", problems);
        let folder = fields.get("folder");
        finish(fields, &["folder"], problems);
        match folder {
            Some(folder) => (values::text(folder, problems)?.to_owned(), folder.place.clone()),
            None => {
                if matches!(&opened.value, Value::Map(entries) if entries.is_empty()) {
                    let what = format!("`custom_error_page` names no folder: `{FOLDER}` is meant");
                    problems.0.push(Problem::note(node.place.clone(), what));
                }
                (FOLDER.to_owned(), node.place.clone())
            }
        }
    };
    match author {
        _ if problems.has_errors_since(before) => None,
        Author::File => Some((PathBuf::from(path), place)),
        Author::Labels => {
            let what = "a label can not name a folder of Dormouse's machine: the route works without error pages";
            problems.0.push(Problem::warning(place, what).with_hint(
                "name it in the configuration file (`middlewares: {pages: {custom_error_page: {folder: …}}}`), and \
                 use that (`middlewares: pages`)",
            ));
            None
        }
    }
}

/// Reads the pages that a set names, with everything else that is read before it is used.
pub(super) fn read_pages(set: &mut MiddlewareSet, sources: &mut Sources<'_>, problems: &mut Problems) {
    let Some((folder, place)) = set.error_pages.take() else { return };
    let folder = sources.resolve(&folder);
    match pages(&folder, sources) {
        Ok((pages, strays)) => {
            let hint = "the name of a page is its status (`404.html`), or the class of statuses (`5xx.html`)";
            let mut warn = |what| problems.0.push(Problem::warning(place.clone(), what).with_hint(hint));
            for stray in strays {
                warn(format!("`{}` is the page of no error, and never shown", stray.display()));
            }
            if pages.is_empty() {
                warn(format!("`{}` holds no page of an error", folder.display()));
            } else {
                set.steps.push(Middleware::ErrorPages(Arc::new(ErrorPages(pages))));
            }
        }
        Err(what) => problems.0.push(Problem::error(place, what)),
    }
}

/// The pages of a folder, and those whose names tell of no error.
fn pages(folder: &Path, sources: &mut Sources<'_>) -> Result<(BTreeMap<String, String>, Vec<PathBuf>), String> {
    if sources.sealed {
        return Err(format!("`{}` is not read for those who ask over TCP: {SEALED}", folder.display()));
    }
    let told = |error: std::io::Error| format!("can not read `{}`: {error}", folder.display());
    let (mut pages, mut strays) = (BTreeMap::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".html"));
        let Some(name) = name.map(str::to_owned) else { continue };
        if !is_of_errors(&name) {
            // A name that begins like a status is one that was meant.
            if name.starts_with(|c: char| c.is_ascii_digit()) {
                strays.push(path);
            }
            continue;
        }
        if std::fs::metadata(&path).map_err(told)?.len() > LARGEST_PAGE as u64 {
            return Err(format!("`{}` is larger than a page may be, 256 KiB", path.display()));
        }
        pages.insert(name, sources.read(&path)?);
    }
    strays.sort();
    Ok((pages, strays))
}

/// Whether pages of this name are for errors: `404`, `5xx`.
fn is_of_errors(name: &str) -> bool {
    matches!(name, "4xx" | "5xx") || (name.len() == 3 && matches!(name.parse::<u16>(), Ok(400..=599)))
}
