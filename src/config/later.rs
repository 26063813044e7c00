//! Keys of a route whose machinery comes in a later version: refused where they restrict access or nothing works
//! without them, served with a warning otherwise.

use super::{
    tree::{Fields, Node, unknown},
    values,
};
use crate::model::{Problem, Problems};

/// Keys of a route that only concern who gets in: refused while their machinery is missing.
const RESTRICTING: [&str; 2] = ["rules", "rule_file"];

/// Keys without which a route can not work at all.
const NEEDED: [&str; 7] = ["agent", "proxmox", "root", "spa", "index", "endpoints", "tls_termination"];

/// Checks and tells them all.
pub(super) fn read(fields: &mut Fields<'_>, problems: &mut Problems) {
    for key in RESTRICTING {
        if let Some(entry) = fields.entry(key) {
            let what = format!("`{key}` may restrict access and is not in this version yet");
            problems.0.push(
                Problem::error(entry.place.clone(), what)
                    .with_hint("the route is refused, because without it the service would be open"),
            );
        }
    }
    for key in NEEDED {
        let off = |node: &Node| node.is_null() || node.as_text().and_then(values::parse_bool) == Some(false);
        if let Some(entry) = fields.entry(key).filter(|entry| !off(&entry.node)) {
            let what = format!("`{key}` is not in this version yet, and the route can not work without it");
            problems.0.push(Problem::error(entry.place.clone(), what));
        }
    }
    for key in ["homepage", "webui"] {
        if let Some(entry) = fields.entry(key) {
            let what = format!("`{key}` is ignored: Dormouse has no start page");
            problems.0.push(Problem::note(entry.place.clone(), what));
        }
    }
    if let Some(node) = fields.get("load_balance") {
        load_balance(node, problems);
    }
}

fn load_balance(node: &Node, problems: &mut Problems) {
    const KEYS: &[&str] = &["link", "mode", "weight", "sticky", "sticky_max_age", "options", "wake_more_at"];
    const MODES: &[&str] = &["round_robin", "least_conn", "ip_hash", "random_two", "roundrobin", "leastconn", "iphash"];
    let Some(opened) = values::mapping(node, "`load_balance`", problems) else { return };
    let mut fields = Fields::open(&opened, "load_balance", problems);
    if let Some(mode) = fields.get("mode")
        && let Some(text) = values::text(mode, problems)
        && !MODES.contains(&text.to_ascii_lowercase().as_str())
    {
        problems.0.push(unknown(&mode.place, "mode", text, &MODES[..4]));
    }
    if let Some(node) = fields.get("weight") {
        values::number(node, 0..=10_000, problems);
    }
    if let Some(node) = fields.get("sticky") {
        values::boolean(node, problems);
    }
    if let Some(node) = fields.get("sticky_max_age") {
        values::duration(node, problems);
    }
    for key in ["link", "options", "wake_more_at"] {
        fields.get(key);
    }
    fields.finish(KEYS, problems);
    let what = "`load_balance` is not in this version yet: one container serves the route";
    problems.0.push(Problem::warning(node.place.clone(), what));
}
