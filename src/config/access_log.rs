//! The access log as written, with GoDoxy's options where it has them.

use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use super::{
    idle::{self, Author},
    tree::{Fields, Node, Value},
    values,
};
use crate::model::{
    AccessFate, AccessFields, AccessFile, AccessFilter, AccessFilters, AccessFormat, AccessKeep, AccessLog,
    AccessOutput, AccessRules, HeaderMatch, Problem, Problems, RouteLog, is_token, parse_duration,
};

/// Every key.
pub(super) const KEYS: &[&str] = &[
    "path",
    "stdout",
    "format",
    "rotate_size",
    "rotate_interval",
    "keep",
    "retention",
    "filters",
    "fields",
    "buffer_size",
];

const FILTERS: &[&str] = &["status_codes", "method", "host", "headers", "cidr"];

const FORMATS: [(&str, AccessFormat); 3] =
    [("common", AccessFormat::Common), ("combined", AccessFormat::Combined), ("json", AccessFormat::Json)];

/// The access log of the whole program.
pub(super) fn read(node: &Node, problems: &mut Problems) -> Option<Arc<AccessLog>> {
    match route(node, Author::File, problems) {
        RouteLog::Own(log) => Some(log),
        RouteLog::Usual | RouteLog::Off => None,
    }
}

/// That of a route: `off`, `on`, a format, or a mapping.
pub(super) fn route(node: &Node, author: Author, problems: &mut Problems) -> RouteLog {
    let node = &*values::structured(node);
    if let Some(text) = node.as_text() {
        let format = match values::parse_bool(text) {
            Some(false) => return RouteLog::Off,
            Some(true) => AccessFormat::default(),
            None if text.contains('/') => {
                let problem = node.wrong("is no format of an access log");
                problems.0.push(problem.with_hint(format!("write `access_log: {{path: {text}}}`, if a file is meant")));
                AccessFormat::default()
            }
            None => values::word(node, "format of an access log", &FORMATS, problems).unwrap_or_default(),
        };
        return RouteLog::Own(Arc::new(AccessLog { format, ..AccessLog::default() }));
    }
    let mut log = AccessLog::default();
    let mut fields = Fields::open(node, "access_log", problems);
    if let Some(node) = fields.get("format") {
        log.format = values::word(node, "format", &FORMATS, problems).unwrap_or_default();
    }
    log.output = output(&mut fields, author, problems);
    if let Some(node) = fields.get("filters") {
        log.filters = filters(node, problems);
    }
    if let Some(node) = fields.get("fields") {
        log.fields = kept_fields(node, problems);
    }
    if let Some(entry) = fields.entry("buffer_size") {
        let what = "`buffer_size` has no effect: lines are written as they come";
        problems.0.push(Problem::note(entry.place.clone(), what));
    }
    fields.finish(KEYS, problems);
    RouteLog::Own(Arc::new(log))
}

fn output(fields: &mut Fields<'_>, author: Author, problems: &mut Problems) -> Option<Arc<AccessOutput>> {
    let stdout = fields.get("stdout").and_then(|node| values::boolean(node, problems));
    let written = fields.get("path");
    let path = written.and_then(|node| path(node, author, problems));
    let of_files = ["rotate_size", "rotate_interval", "keep", "retention"].map(|key| fields.entry(key));
    let [size, interval, keep, retention] = of_files.map(|entry| entry.map(|entry| &entry.node));
    if let (None, Some(entry)) = (written, of_files.into_iter().flatten().next()) {
        let what = format!("`{}` has no effect without `path`", entry.key);
        problems.0.push(Problem::warning(entry.place.clone(), what));
    }
    if let (Some(_), Some(node)) = (keep, retention) {
        problems.0.push(Problem::error(node.place.clone(), "`keep` and `retention` mean the same: write one of them"));
    }
    let rotate_size = size.and_then(|node| values::bytes(node, problems)).filter(|size| *size > 0);
    let rotate_interval = interval.and_then(|node| values::duration(node, problems)).filter(|time| !time.is_zero());
    let keep = keep.or(retention).and_then(|node| self::keep(node, problems));
    let place = written.map(|node| node.place.clone());
    let file = path.map(|path| AccessFile { path, rotate_size, rotate_interval, keep, place });
    if stdout.is_none() && file.is_none() {
        return None;
    }
    let stdout = stdout.unwrap_or(false);
    Some(Arc::new(AccessOutput { stdout, file }))
}

fn path(node: &Node, author: Author, problems: &mut Problems) -> Option<PathBuf> {
    let path = PathBuf::from(values::text(node, problems)?);
    if author == Author::Labels {
        let problem = Problem::error(node.place.clone(), "a label can not name a file of Dormouse's machine");
        problems.0.push(problem.with_hint("write `access_log: {path: …}` in the configuration file"));
        return None;
    }
    if !path.is_absolute() || path.file_name().is_none() {
        problems.0.push(node.wrong("is no absolute path of a file: write for example `/var/log/dormouse/access.log`"));
        return None;
    }
    Some(path)
}

/// `7` files, `30 days` of them, or `500 MB`.
fn keep(node: &Node, problems: &mut Problems) -> Option<AccessKeep> {
    let text = values::text(node, problems)?;
    let found = parse_keep(text);
    if found.is_none() {
        let problem = if text.starts_with("last ") {
            node.wrong("counts lines, and here whole files are kept")
        } else {
            node.wrong("does not say what is kept")
        };
        problems.0.push(problem.with_hint("write `7` for seven full files, `30 days`, or `500 MB`"));
    }
    found
}

fn parse_keep(text: &str) -> Option<AccessKeep> {
    const DAY: u64 = 24 * 60 * 60;
    let (number, unit) = values::number_and_unit(text)?;
    let days = |count: u64| Some(AccessKeep::Age(Duration::from_secs(number.checked_mul(count * DAY)?)));
    match unit.to_ascii_lowercase().as_str() {
        "" | "files" => usize::try_from(number).ok().map(AccessKeep::Count),
        "day" | "days" => days(1),
        "week" | "weeks" => days(7),
        "month" | "months" => days(30),
        // `30m` is a time here.
        _ => match parse_duration(text) {
            Ok(time) => (!time.is_zero()).then_some(AccessKeep::Age(time)),
            Err(_) => values::parse_bytes(text).map(AccessKeep::Bytes),
        },
    }
}

fn filters(node: &Node, problems: &mut Problems) -> AccessFilters {
    let mut filters = AccessFilters::default();
    let Some(opened) = values::mapping(node, "`filters`", problems) else { return filters };
    let mut fields = Fields::open(&opened, "`filters`", problems);
    if let Some(node) = fields.get("status_codes") {
        filters.status = filter(node, problems, |item, problems| {
            let found = values::text(item, problems).and_then(statuses);
            if found.is_none() {
                problems.0.push(item.wrong("is no status: write `404`, `200-299` or `5xx`"));
            }
            found
        });
    }
    if let Some(node) = fields.get("method") {
        filters.method = filter(node, problems, |item, problems| {
            let method = values::text(item, problems).filter(|method| is_token(method));
            if method.is_none() {
                problems.0.push(item.wrong("is no method"));
            }
            method.map(str::to_ascii_uppercase)
        });
    }
    if let Some(node) = fields.get("host") {
        filters.host = filter(node, problems, values::parsed);
    }
    if let Some(node) = fields.get("headers") {
        filters.headers = filter(node, problems, |item, problems| {
            let text = values::text(item, problems)?;
            let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
            if !is_token(name) {
                problems.0.push(item.wrong("is no header field: write `name` or `name=value`"));
                return None;
            }
            Some(HeaderMatch { name: name.to_ascii_lowercase(), value: value.map(str::to_owned) })
        });
    }
    if let Some(node) = fields.get("cidr") {
        filters.networks = filter(node, problems, |item, problems| idle::networks(item, problems).pop());
    }
    fields.finish(FILTERS, problems);
    filters
}

/// A list, or a mapping of `values` and `negative`.
fn filter<T>(
    node: &Node,
    problems: &mut Problems,
    each: impl Fn(&Node, &mut Problems) -> Option<T>,
) -> AccessFilter<T> {
    let opened = values::structured(node);
    let mut filter = AccessFilter::default();
    let items = if matches!(opened.value, Value::Map(_)) {
        let mut fields = Fields::open(&opened, "filter", problems);
        let items = fields.get("values").map(|node| values::items(node, problems)).unwrap_or_default();
        filter.negative = fields.get("negative").and_then(|node| values::boolean(node, problems)).unwrap_or(false);
        fields.finish(&["values", "negative"], problems);
        items
    } else {
        values::items(&opened, problems)
    };
    filter.values = items.iter().filter_map(|item| each(item, problems)).collect();
    filter
}

/// `404`, `200-299` or `5xx`.
fn statuses(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| u16::from_str(text.trim()).ok().filter(|status| (100..=999).contains(status));
    if let Some(class) = text.strip_suffix("xx") {
        let first = u16::from_str(class).ok().filter(|class| (1..=9).contains(class))? * 100;
        return Some((first, first + 99));
    }
    match text.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last),
        None => number(text).map(|status| (status, status)),
    }
}

fn kept_fields(node: &Node, problems: &mut Problems) -> AccessFields {
    let mut kept = AccessFields::default();
    let Some(opened) = values::mapping(node, "`fields`", problems) else { return kept };
    let mut fields = Fields::open(&opened, "`fields`", problems);
    let mut of_headers = None;
    let all = [
        ("headers", &mut kept.headers, &mut of_headers),
        ("query", &mut kept.query, &mut None),
        ("cookies", &mut kept.cookies, &mut None),
    ];
    for (key, rules, for_all) in all {
        if let Some(node) = fields.get(key) {
            *for_all = read_rules(node, rules, problems);
        }
    }
    // These have a place of their own in a line, and are there unless it is said what becomes of them.
    for name in ["referer", "user-agent"] {
        if let (Some(fate), None) = (of_headers, kept.headers.of(name)) {
            kept.headers.named.push((name.to_owned(), fate));
        }
    }
    fields.finish(&["headers", "query", "cookies"], problems);
    kept
}

/// A word for all, or a mapping of `default` and `config`. Returns what is said of all.
fn read_rules(node: &Node, rules: &mut AccessRules, problems: &mut Problems) -> Option<AccessFate> {
    const FATES: [(&str, AccessFate); 3] =
        [("keep", AccessFate::Keep), ("drop", AccessFate::Drop), ("redact", AccessFate::Redact)];
    let fate = |node: &Node, problems: &mut Problems| values::word(node, "fate of a field", &FATES, problems);
    let opened = values::structured(node);
    if opened.as_text().is_some() {
        let for_all = fate(&opened, problems);
        rules.default = for_all.unwrap_or(rules.default);
        return for_all;
    }
    let mut fields = Fields::open(&opened, "field rules", problems);
    let for_all = fields.get("default").and_then(|node| fate(node, problems));
    rules.default = for_all.unwrap_or(rules.default);
    if let Some(node) = fields.get("config")
        && let Some(named) = values::mapping(node, "`config`", problems)
        && let Value::Map(entries) = &named.value
    {
        for entry in entries {
            if let Some(fate) = fate(&entry.node, problems) {
                rules.named.push((entry.key.to_ascii_lowercase(), fate));
            }
        }
    }
    fields.finish(&["default", "config"], problems);
    for_all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::yaml, model::Place};

    #[test]
    fn sizes_and_times_to_keep() {
        for (text, expected) in [
            ("7", Some(AccessKeep::Count(7))),
            ("30 days", Some(AccessKeep::Age(Duration::from_secs(30 * 86_400)))),
            ("2 weeks", Some(AccessKeep::Age(Duration::from_secs(14 * 86_400)))),
            ("12h", Some(AccessKeep::Age(Duration::from_secs(12 * 3600)))),
            ("30m", Some(AccessKeep::Age(Duration::from_secs(1800)))),
            ("0s", None),
            ("8k", Some(AccessKeep::Bytes(8 << 10))),
            ("10 MB", Some(AccessKeep::Bytes(10_000_000))),
            ("1GiB", Some(AccessKeep::Bytes(1 << 30))),
            ("last 100", None),
            ("", None),
            ("99999999999999999999 days", None),
            ("18446744073709551615 months", None),
            ("5 apples", None),
        ] {
            assert_eq!(parse_keep(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_said_of_all_header_fields_holds_for_referer_and_user_agent_too() {
        use AccessFate::{Drop, Keep, Redact};
        for (text, referer, user_agent) in [
            ("query: drop", None, None),
            ("headers: redact", Some(Redact), Some(Redact)),
            ("headers: keep", Some(Keep), Some(Keep)),
            ("headers: { default: drop, config: { User-Agent: keep } }", Some(Drop), Some(Keep)),
            ("headers: { config: { User-Agent: redact } }", None, Some(Redact)),
        ] {
            let node = yaml::parse(text, &|_, _| Place::Body("x".into()), None, &mut Problems::default());
            let mut problems = Problems::default();
            let kept = kept_fields(&node.unwrap(), &mut problems);
            assert_eq!((kept.headers.of("Referer"), kept.headers.of("User-Agent")), (referer, user_agent), "{text}");
            assert!(problems.0.is_empty(), "{text}: {problems}");
        }
    }

    #[test]
    fn statuses_are_ranges() {
        for (text, expected) in [
            ("404", Some((404, 404))),
            ("200-299", Some((200, 299))),
            ("5xx", Some((500, 599))),
            ("299-200", None),
            ("xx", None),
            ("0", None),
            ("ok", None),
        ] {
            assert_eq!(statuses(text), expected, "{text}");
        }
    }
}
