//! The rooms of `src` and the arrows between them. The tables below are the law; the test names file and room.

// What can not be read fails the test, with the place.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Every room and its level. A room uses rooms of lower levels only. A room may be missing until something builds it.
const LEVELS: &[(&str, u8)] = &[
    ("model", 0),
    ("telemetry", 1),
    ("config", 2),
    ("net", 2),
    ("provider", 2),
    ("routing", 2),
    ("store", 2),
    ("web", 2),
    ("acme", 3),
    ("backend", 3),
    ("catalog", 3),
    ("ocsp", 3),
    ("control", 4),
    ("manage", 4),
    ("api", 5),
    ("proxy", 5),
    ("ssh", 5),
    ("app", 6),
    ("cli", 6),
    ("demo", 5),
    ("main", 6),
];

/// The rooms of the data plane, and their levels. The same law holds: what speaks HTTP, TCP and UDP uses what is beneath
/// all of them and knows nothing of each other; what hands clients to them is above.
const IN_PROXY: &[(&str, u8)] = &[
    ("carry", 0),
    ("dialling", 0),
    ("listening", 0),
    ("worker", 1),
    ("group", 2),
    ("ports", 2),
    ("told", 2),
    ("access", 3),
    ("http", 4),
    ("tcp", 4),
    ("udp", 4),
    ("health", 5),
    ("serve", 5),
];

/// Outer crates that have a home, and where it is. The others may be used anywhere.
const HOMES: &[(&str, &[&str])] = &[
    ("arc_swap", &["api", "app", "backend", "control", "net", "proxy"]),
    ("axum", &["api", "demo"]),
    ("bumpalo", &["proxy"]),
    ("clap", &["app", "cli", "demo", "main"]),
    ("clap_complete", &["app", "cli", "main"]),
    ("clap_mangen", &["app", "cli", "main"]),
    ("dashmap", &["backend", "control", "proxy"]),
    ("dns_update", &["acme"]),
    ("h2", &["net", "proxy"]),
    ("hickory_proto", &["acme"]),
    ("http_body_util", &["api", "app", "cli", "demo", "net", "ocsp", "provider", "proxy"]),
    ("httparse", &["net", "proxy"]),
    ("hyper", &["api", "app", "cli", "demo", "net", "ocsp", "provider", "proxy"]),
    ("hyper_util", &["api", "app", "cli", "demo", "net", "ocsp", "provider", "proxy"]),
    ("instant_acme", &["acme"]),
    ("notify", &["app", "control"]),
    ("pingora_limits", &["proxy"]),
    ("prometheus_client", &["telemetry"]),
    ("serde", &["api", "app", "cli", "config", "provider", "store"]),
    ("serde_saphyr", &["config"]),
    ("socket2", &["backend", "net", "proxy"]),
    ("sqlx", &["store"]),
    ("strsim", &["api", "catalog", "config"]),
    ("tracing_subscriber", &["telemetry"]),
    ("utoipa", &["api"]),
    ("utoipa_axum", &["api"]),
];

/// Rooms that compute and do nothing else: no runtime, no sockets.
const PURE: &[&str] = &["catalog", "config", "model", "routing", "web"];
const NOT_IN_PURE: &[&str] = &["socket2", "tokio", "tokio_util"];

#[test]
fn arrows_between_rooms_point_downward() {
    let levels: BTreeMap<&str, u8> = LEVELS.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(own) = levels.get(source.room.as_str()) else {
            wrong.push(format!("{}: room `{}` is not in the table of levels", source.path, source.room));
            continue;
        };
        for used in named_behind(&source.code, "crate::") {
            match levels.get(used.as_str()) {
                _ if used == source.room => {}
                None => wrong.push(format!("{} uses `crate::{used}`, which is no room", source.path)),
                Some(level) if level < own => {}
                Some(_) => wrong.push(format!("{} must not use room `{used}`", source.path)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn arrows_inside_the_data_plane_point_downward() {
    let levels: BTreeMap<&str, u8> = IN_PROXY.iter().copied().collect();
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for source in sources().into_iter().filter(|source| source.room == "proxy" && source.path != "src/proxy/mod.rs") {
        let room = source.path.split('/').nth(2).unwrap().trim_end_matches(".rs").to_owned();
        let Some(own) = levels.get(room.as_str()) else {
            wrong.push(format!("{}: `{room}` is not in the table of the data plane", source.path));
            continue;
        };
        // What is not in the table is a file of the room itself, or the face of the data plane.
        let used = ["proxy::", "super::"].map(|word| named_behind(&source.code, word));
        for used in used.into_iter().flatten().filter(|used| *used != room) {
            if levels.get(used.as_str()).is_some_and(|level| level >= own) {
                wrong.push(format!("{} must not use `{used}` of the data plane", source.path));
            }
        }
        seen.insert(room);
    }
    wrong.extend(levels.keys().filter(|room| !seen.contains(**room)).map(|room| format!("there is no `{room}`")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn outer_crates_stay_at_home() {
    let mut wrong = Vec::new();
    for source in sources() {
        let room = source.room.as_str();
        for (name, homes) in HOMES {
            if !homes.contains(&room) && uses_crate(&source.code, name) {
                wrong.push(format!("{}: crate `{name}` must not be used in room `{room}`", source.path));
            }
        }
        for name in NOT_IN_PURE {
            if PURE.contains(&room) && uses_crate(&source.code, name) {
                wrong.push(format!("{}: room `{room}` is pure and must not use `{name}`", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_of_crates_names_dependencies_that_exist() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in HOMES.iter().map(|(name, _)| name).chain(NOT_IN_PURE) {
        let line = |line: &str| line.split(' ').next().is_some_and(|key| key.replace('-', "_") == *name);
        assert!(manifest.lines().any(line), "`{name}` is in the table but not in Cargo.toml");
    }
}

#[test]
fn every_room_says_what_it_is() {
    let rooms: BTreeSet<String> = sources().into_iter().map(|source| source.room).collect();
    assert!(rooms.contains("model") && rooms.contains("telemetry"), "only {rooms:?} were found");
    for room in rooms {
        let file = root().join("src").join(&room).join("mod.rs");
        if file.parent().is_some_and(Path::is_dir) {
            let text = fs::read_to_string(&file).unwrap_or_default();
            assert!(text.starts_with("//! "), "{} does not begin with what the room is", file.display());
        }
    }
}

#[test]
fn every_file_of_the_wiring_tests_is_part_of_them() {
    let folder = root().join("tests/it");
    let Ok(entries) = fs::read_dir(&folder) else { return };
    let names: Vec<String> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("mod.rs").exists() || path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "main")
        .collect();
    assert!(!names.is_empty(), "no test was found in {}", folder.display());
    let main = without_comments_and_texts(&fs::read_to_string(folder.join("main.rs")).unwrap());
    for name in names {
        let declared = |line: &str| line.trim() == format!("mod {name};");
        assert!(main.lines().any(declared), "tests/it/{name}.rs is not declared in tests/it/main.rs");
    }
}

/// A source file: what room it belongs to, and its text without comments and literals.
struct Source {
    path: String,
    room: String,
    code: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files of `src` but `lib.rs`, which is the map of the rooms.
fn sources() -> Vec<Source> {
    let base = root().join("src");
    let mut open = vec![base.clone()];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let inside = path.strip_prefix(&base).unwrap();
                let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
                let room = first.trim_end_matches(".rs").to_owned();
                let code = without_comments_and_texts(&fs::read_to_string(&path).unwrap());
                found.push(Source { path: format!("src/{}", inside.display()), room, code });
            }
        }
    }
    assert!(found.len() > 10, "only {} files were found in {}", found.len(), base.display());
    found.retain(|source| source.room != "lib");
    found
}

/// What follows each of such words, groups opened.
fn named_behind(code: &str, word: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices(word) {
        if code[..at].ends_with(is_word) {
            continue;
        }
        let rest = &code[at + word.len()..];
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(heads(group)),
            None => rooms.extend([first_word(rest)]),
        }
    }
    rooms
}

/// The first word of each member of a group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut begins) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return heads,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && is_word(c) => {
                heads.push(first_word(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    heads
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| is_word(*c)).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether the code names the crate at the beginning of a path.
fn uses_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let whole = !before.ends_with(is_word) && !after.starts_with(is_word);
        let first = !before.trim_end().ends_with("::") && !before.ends_with('.');
        let imported = before.trim_end().ends_with("use") && after.trim_start().starts_with(';');
        whole && first && (after.starts_with("::") || imported)
    })
}

/// The code with comments and the insides of literals left out, so that words there are not taken for arrows.
fn without_comments_and_texts(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = literal_or_comment(rest, code.ends_with(is_word)).unwrap_or(0);
        if length > 0 {
            let skipped = &rest[..length];
            code.push(' ');
            code.extend(skipped.chars().filter(|c| *c == '\n'));
            rest = &rest[length..];
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

/// The length of the comment or literal that the text begins with.
fn literal_or_comment(text: &str, in_word: bool) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(text.find("*/").map_or(text.len(), |end| end + 2));
    }
    if !in_word && let Some(raw) = text.strip_prefix("br").or(text.strip_prefix('r')) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if let Some(inside) = raw[hashes..].strip_prefix('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let begins = text.len() - inside.len();
            return Some(inside.find(&end).map_or(text.len(), |at| begins + at + end.len()));
        }
    }
    if text.starts_with('"') {
        return Some(until(text, '"'));
    }
    // A quote is a character when another follows it, and a lifetime otherwise.
    let inside = text.strip_prefix('\'')?;
    let mut chars = inside.chars();
    let first = chars.next()?;
    (first == '\\' || chars.next() == Some('\'')).then(|| until(text, '\''))
}

/// The length of a literal between two such marks, escapes heeded.
fn until(text: &str, mark: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == mark => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

#[test]
fn the_scanner_sees_arrows_and_nothing_else() {
    let code = without_comments_and_texts(
        r##"
        use crate::{backend::{Backend, Pass}, model::{self, Alias}, telemetry::chain};
        pub(crate) fn a<'a>(x: &'a crate::routing::Host) { let c = '"'; let d = '\''; let e = "crate::api"; }
        // crate::proxy
        /* crate::ssh */ let raw = r#"crate::store "quoted" "#; let other_crate::config = b"\"crate::net";
        "##,
    );
    let rooms: Vec<String> = named_behind(&code, "crate::").into_iter().collect();
    assert_eq!(rooms, ["backend", "model", "routing", "telemetry"]);
    let inside = named_behind("use crate::{model, proxy::{http::{Inner, gone}, tcp}}; super::udp::serve()", "proxy::");
    assert_eq!(inside.into_iter().collect::<Vec<_>>(), ["http", "tcp"]);
}

#[test]
fn the_scanner_sees_outer_crates_and_nothing_else() {
    for code in ["use hyper::Request;", "let x = hyper::body::new();", "use hyper;", "f(hyper::X)"] {
        assert!(uses_crate(code, "hyper"), "{code}");
    }
    for code in ["use hyper_util::X;", "my::hyper::X", "let hyper = 1;", "x.hyper::<u8>()", "nohyper::X"] {
        assert!(!uses_crate(code, "hyper"), "{code}");
    }
}
