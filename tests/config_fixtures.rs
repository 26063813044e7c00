//! Labels and files against fixtures, one file for each case.
//!
//! `tests/config/labels/*.yaml` describe containers with labels and the routes, backends and problems they must make;
//! `tests/config/files` holds configuration files that must load, and such that must not, with the words and places of
//! their problems beside them; `files/credentials` such whose secrets have a wrong form. In expected lines `…` stands for any text.

// The helpers of tests may end a test as the tests themselves do.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "config/properties.rs"]
mod properties;
#[path = "config/render.rs"]
mod render;
#[path = "config/unit.rs"]
mod unit;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use dormouse::{
    acme::check_dns,
    catalog::{Catalog, FilePart, discover},
    config::{Loaded, check_text, from_container, load},
    model::{Container, Problems, Settings, Severity},
    net::use_one_provider,
};
use render::{backend, problem, route};
use serde::Deserialize;
use unit::Unit;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// A configuration file's text.
    #[serde(default)]
    settings: String,
    /// Networks of Dormouse's own container.
    #[serde(default)]
    own_networks: Vec<String>,
    /// One container, alone.
    container: Option<Unit>,
    /// Several, checked together.
    #[serde(default)]
    containers: Vec<Unit>,
    /// Whether the choices made are compared too.
    #[serde(default)]
    with_notes: bool,
    /// Whether those without routes are compared too, with the reasons.
    #[serde(default)]
    with_excluded: bool,
    /// The id of Dormouse's own container: `id-` and its name.
    own_container: Option<String>,
    expect: String,
}

#[test]
fn labels_make_what_each_fixture_expects() {
    let mut failures = String::new();
    let mut seen = 0;
    for path in fixtures("labels", "yaml") {
        let text = fs::read_to_string(&path).unwrap();
        let case: Case = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        seen += 1;
        let mut rendered = render_case(&case);
        if !case.with_notes {
            rendered.retain(|line| !line.starts_with("note "));
        }
        let expected: Vec<&str> = case.expect.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        difference(&path, &expected, &rendered, &mut failures);
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(seen >= 200, "only {seen} fixtures were found");
}

fn render_case(case: &Case) -> Vec<String> {
    let loaded = check_text(&case.settings, "settings.yaml", &|_| None).unwrap();
    let mut lines = Vec::new();
    if let Some(unit) = &case.container {
        let made = from_container(&unit.container(), &loaded.settings, &case.own_networks);
        lines.extend(made.routes.iter().map(route));
        lines.extend(made.backend.iter().map(backend));
        lines.extend(made.excluded.iter().map(|reason| format!("excluded {reason}")));
        lines.extend(made.problems.0.iter().map(|p| problem(p, true)));
        lines.extend(made.notes.iter().map(|note| format!("note {note}")));
        return lines;
    }
    let catalog = together("settings.yaml", &loaded, &case.containers, case.own_container.as_deref());
    lines.extend(catalog.routes.values().map(|spec| route(spec)));
    lines.extend(catalog.backends.values().map(backend));
    lines.extend(catalog.problems.0.iter().map(|p| problem(p, false)));
    if case.with_excluded {
        lines.extend(catalog.excluded.iter().map(|(container, reason)| format!("excluded {container} {reason}")));
    }
    lines
}

/// A file and containers, merged as the running program does.
fn together(name: &str, loaded: &Loaded, units: &[Unit], own: Option<&str>) -> Catalog {
    let containers: Vec<Container> = units.iter().map(Unit::container).collect();
    let parts = discover(&containers.iter().collect::<Vec<_>>(), &loaded.settings, own);
    Catalog::merge(FilePart::new(name, loaded), parts)
}

/// Reads a file, and merges it as the running program does before it knows of any container.
fn load_alone(path: &Path) -> Result<Loaded, Problems> {
    let loaded = load(path, &env)?;
    let catalog = together(&path.display().to_string(), &loaded, &[], None);
    if catalog.file_errors().next().is_some() { Err(catalog.problems) } else { Ok(loaded) }
}

/// Every fixture of a folder, sorted.
fn fixtures(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(folder);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

/// Adds what is expected but missing (`-`) and what is there but unexpected (`+`).
fn difference(path: &Path, expected: &[&str], rendered: &[String], failures: &mut String) {
    let same = expected.len() == rendered.len() && expected.iter().zip(rendered).all(|(e, r)| like(e, r));
    if same {
        return;
    }
    writeln!(failures, "{}", path.display()).unwrap();
    for line in expected.iter().filter(|line| !rendered.iter().any(|r| like(line, r))) {
        writeln!(failures, "  - {line}").unwrap();
    }
    for line in rendered.iter().filter(|line| !expected.iter().any(|e| like(e, line))) {
        writeln!(failures, "  + {line}").unwrap();
    }
    if expected.iter().all(|line| rendered.iter().any(|r| like(line, r))) {
        writeln!(failures, "  rendered, in this order:\n    {}", rendered.join("\n    ")).unwrap();
    }
}

/// Whether a text is as expected; `…` stands for any text.
fn like(expected: &str, text: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        last = Some(part);
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty() || last.is_some_and(str::is_empty) || last.is_some_and(|last| text.ends_with(last))
}

#[test]
fn every_valid_file_loads() {
    let paths = fixtures("files/valid", "yaml");
    assert!(!paths.is_empty());
    for path in paths {
        let loaded = load_alone(&path).unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()));
        assert!(loaded.files.contains(&path));
        let expected = fs::read_to_string(path.with_extension("expect")).unwrap();
        let folder = format!("{}/", path.parent().unwrap().display());
        let mut lines: Vec<String> = loaded.routes.iter().map(|spec| route(spec)).collect();
        lines.extend(loaded.backends.iter().map(backend));
        lines.extend(loaded.problems.0.iter().map(|p| problem(p, false).replace(&folder, "")));
        let mut failures = String::new();
        let expected: Vec<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
        difference(&path, &expected, &lines, &mut failures);
        assert!(failures.is_empty(), "\n{failures}");
    }
}

#[test]
fn every_invalid_file_tells_all_its_problems_with_places() {
    let paths = fixtures("files/invalid", "yaml");
    assert!(paths.len() >= 30, "only {} files were found", paths.len());
    let mut failures = String::new();
    for path in paths {
        let expected = fs::read_to_string(path.with_extension("expect")).unwrap();
        let folder = format!("{}/", path.parent().unwrap().display());
        let problems = match load_alone(&path) {
            Ok(_) => {
                writeln!(failures, "{} was accepted", path.display()).unwrap();
                continue;
            }
            Err(problems) => problems,
        };
        let lines: Vec<String> = problems.0.iter().map(|p| problem(p, false).replace(&folder, "")).collect();
        let expected: Vec<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
        difference(&path, &expected, &lines, &mut failures);
    }
    assert!(failures.is_empty(), "\n{failures}");
}

#[test]
fn credentials_of_a_wrong_form_are_told_with_their_place_and_nothing_of_them() {
    use_one_provider();
    let paths = fixtures("files/credentials", "yaml");
    assert!(paths.len() >= 8, "only {} files were found", paths.len());
    let mut failures = String::new();
    for path in paths {
        let expected = fs::read_to_string(path.with_extension("expect")).unwrap();
        let folder = format!("{}/", path.parent().unwrap().display());
        let loaded = load_alone(&path).unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()));
        let problems = check_dns(&loaded.settings.tls.acme.unwrap());
        // Whether others can read the files of a checkout is not told alike everywhere.
        let errors = problems.0.iter().filter(|problem| problem.severity == Severity::Error);
        let lines: Vec<String> = errors.map(|p| problem(p, false).replace(&folder, "")).collect();
        assert!(lines.iter().all(|line| !line.contains("my-secret")), "{lines:?}");
        let expected: Vec<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
        difference(&path, &expected, &lines, &mut failures);
    }
    assert!(failures.is_empty(), "\n{failures}");
}

fn env(name: &str) -> Option<String> {
    match name {
        "DOMAIN" => Some("example.com".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

#[test]
fn settings_without_anything_are_the_defaults() {
    let loaded = check_text("", "empty.yaml", &|_| None).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    assert!(loaded.routes.is_empty());
}
