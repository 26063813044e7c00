//! Keys of a route whose machinery comes in a later version: refused where they restrict access or nothing works
//! without them, served with a warning otherwise.

use super::{
    tree::{Fields, Node},
    values,
};
use crate::model::{Problem, Problems};

/// Keys of a route that only concern who gets in: refused while their machinery is missing.
const RESTRICTING: [&str; 2] = ["rules", "rule_file"];

/// Keys without which a route can not work at all.
const NEEDED: [&str; 5] = ["agent", "proxmox", "root", "spa", "index"];

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
}
