//! Middlewares of a route: those that set header fields work, those that restrict access are refused until they do.

use super::{
    tree::{Fields, Node, Value, nearest, normal},
    values,
};
use crate::model::{Problem, Problems};

/// What becomes of a middleware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It sets header fields of the request.
    Request,
    /// It sets header fields of the response.
    Response,
    /// Ours: both.
    Headers,
    /// It takes header fields away.
    Hide,
    /// It keeps somebody out: without it the route would be open.
    Restricts,
    /// It changes what is seen, not who sees it.
    Later,
}

/// Every middleware by name, GoDoxy's short names included.
const MIDDLEWARES: &[(&str, Fate)] = &[
    ("set_headers", Fate::Headers),
    ("hide_headers", Fate::Hide),
    ("modify_request", Fate::Request),
    ("request", Fate::Request),
    ("modify_response", Fate::Response),
    ("response", Fate::Response),
    ("cidr_whitelist", Fate::Restricts),
    ("allow", Fate::Restricts),
    ("deny", Fate::Restricts),
    ("rate_limit", Fate::Restricts),
    ("in_flight_limit", Fate::Restricts),
    ("basic_auth", Fate::Restricts),
    ("forward_auth", Fate::Restricts),
    ("oidc", Fate::Restricts),
    ("crowdsec", Fate::Restricts),
    ("hcaptcha", Fate::Restricts),
    ("max_body", Fate::Restricts),
    ("add_headers", Fate::Later),
    ("redirect_http", Fate::Later),
    ("set_x_forwarded", Fate::Later),
    ("hide_x_forwarded", Fate::Later),
    ("modify_html", Fate::Later),
    ("themed", Fate::Later),
    ("error_page", Fate::Later),
    ("custom_error_page", Fate::Later),
    ("real_ip", Fate::Later),
    ("cloudflare_real_ip", Fate::Later),
    ("strip_prefix", Fate::Later),
    ("add_prefix", Fate::Later),
    ("rewrite", Fate::Later),
    ("redirect", Fate::Later),
    ("compress", Fate::Later),
    ("retry", Fate::Later),
    ("cors", Fate::Later),
    ("secure_headers", Fate::Later),
    ("cache_nothing", Fate::Later),
];

/// Header fields to set, and to take away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HeaderSets {
    pub(super) request: Vec<(String, String)>,
    pub(super) response: Vec<(String, String)>,
    pub(super) hide_request: Vec<String>,
    pub(super) hide_response: Vec<String>,
}

/// The names of all middlewares.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    MIDDLEWARES.iter().map(|(name, _)| *name)
}

/// Reads `middlewares:`, a mapping of names to options.
pub(super) fn read(node: &Node, problems: &mut Problems) -> HeaderSets {
    let mut sets = HeaderSets::default();
    let Some(node) = values::mapping(node, "`middlewares`", problems) else { return sets };
    let Value::Map(entries) = &node.value else { return sets };
    for entry in entries {
        let Some((name, fate)) = MIDDLEWARES.iter().find(|(name, _)| normal(name) == normal(&entry.key)) else {
            let problem = Problem::error(entry.place.clone(), format!("middleware `{}` is unknown", entry.key));
            problems.0.push(match nearest(&entry.key, names()) {
                Some(near) => problem.with_hint(format!("did you mean `{near}`?")),
                None if entry.key.contains('@') => problem.with_hint("middleware files are not in this version yet"),
                None => problem,
            });
            continue;
        };
        match fate {
            Fate::Request => modify(&entry.node, name, &mut sets.request, &mut sets.hide_request, problems),
            Fate::Response => modify(&entry.node, name, &mut sets.response, &mut sets.hide_response, problems),
            Fate::Headers => set_headers(&entry.node, &mut sets, problems),
            Fate::Hide => hide_headers(&entry.node, &mut sets, problems),
            Fate::Restricts => {
                let what = format!("middleware `{name}` restricts access and is not in this version yet");
                problems.0.push(Problem::error(entry.place.clone(), what).with_hint(
                    "the route is refused, because without it the service would be open to those it keeps out",
                ));
            }
            Fate::Later => {
                let what = format!("middleware `{name}` is not in this version yet: the route works without it");
                problems.0.push(Problem::warning(entry.place.clone(), what));
            }
        }
    }
    sets
}

fn modify(node: &Node, name: &str, sets: &mut Vec<(String, String)>, hides: &mut Vec<String>, problems: &mut Problems) {
    const LATER: [&str; 3] = ["add_headers", "add_prefix", "bypass"];
    const KEYS: &[&str] = &["set_headers", "add_headers", "hide_headers", "add_prefix", "priority", "bypass"];
    let Some(node) = values::mapping(node, "a middleware", problems) else { return };
    let mut fields = Fields::open(&node, "middleware", problems);
    if let Some(node) = fields.get("set_headers") {
        headers(node, sets, problems);
    }
    if let Some(node) = fields.get("hide_headers") {
        hide(node, hides, problems);
    }
    fields.get("priority");
    for key in LATER {
        if let Some(node) = fields.get(key) {
            let what = format!("`{key}` of middleware `{name}` is not in this version yet");
            problems.0.push(Problem::warning(node.place.clone(), what));
        }
    }
    fields.finish(KEYS, problems);
}

/// Ours: a flat mapping sets request fields; `request` and `response` below it set those.
fn set_headers(node: &Node, sets: &mut HeaderSets, problems: &mut Problems) {
    let Some(node) = values::mapping(node, "`set_headers`", problems) else { return };
    let Value::Map(entries) = &node.value else { return };
    for entry in entries {
        let nested = values::structured(&entry.node);
        match (normal(&entry.key).as_str(), &nested.value) {
            ("request", Value::Map(_)) => headers(&nested, &mut sets.request, problems),
            ("response", Value::Map(_)) => headers(&nested, &mut sets.response, problems),
            _ => header(&entry.key, &entry.node, &mut sets.request, problems),
        }
    }
}

fn headers(node: &Node, sets: &mut Vec<(String, String)>, problems: &mut Problems) {
    let Some(node) = values::mapping(node, "`set_headers`", problems) else { return };
    if let Value::Map(entries) = &node.value {
        entries.iter().for_each(|entry| header(&entry.key, &entry.node, sets, problems));
    }
}

/// Ours: a list hides fields of both ways; `request` and `response` below it hide those.
fn hide_headers(node: &Node, sets: &mut HeaderSets, problems: &mut Problems) {
    let opened = values::structured(node);
    if !matches!(opened.value, Value::Map(_)) {
        hide(&opened, &mut sets.hide_request, problems);
        sets.hide_response.extend(sets.hide_request.iter().cloned());
        return;
    }
    let mut fields = Fields::open(&opened, "`hide_headers`", problems);
    if let Some(node) = fields.get("request") {
        hide(node, &mut sets.hide_request, problems);
    }
    if let Some(node) = fields.get("response") {
        hide(node, &mut sets.hide_response, problems);
    }
    fields.finish(&["request", "response"], problems);
}

fn hide(node: &Node, hides: &mut Vec<String>, problems: &mut Problems) {
    for item in values::items(node, problems) {
        if let Some(name) = values::text(&item, problems)
            && names_field(name, &item, "hidden", problems)
        {
            hides.push(name.to_owned());
        }
    }
}

/// Whether this is a header field that a middleware may touch, which is told when it is not.
fn names_field(name: &str, node: &Node, fate: &str, problems: &mut Problems) -> bool {
    let what = if !is_token(name) {
        format!("`{name}` is no name of a header field")
    } else if FRAMING.contains(&name.to_ascii_lowercase().as_str()) {
        format!("header field `{name}` frames the message and can not be {fate}")
    } else {
        return true;
    };
    problems.0.push(Problem::error(node.place.clone(), what));
    false
}

/// A header field that no middleware may touch, since the framing of messages hangs on it.
const FRAMING: [&str; 8] =
    ["connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "keep-alive", "expect"];

fn header(name: &str, node: &Node, sets: &mut Vec<(String, String)>, problems: &mut Problems) {
    if !names_field(name, node, "set", problems) {
        return;
    }
    let Some(value) = values::text(node, problems) else { return };
    if value.chars().any(|c| c.is_control() && c != '\t') {
        problems.0.push(Problem::error(node.place.clone(), format!("the value of `{name}` holds control characters")));
    } else if value.contains('$') {
        let what = format!("the value of `{name}` holds a `$`: variables in header fields are not in this version yet");
        problems.0.push(Problem::error(node.place.clone(), what));
    } else {
        sets.push((name.to_owned(), value.to_owned()));
    }
}

/// The characters of methods and field names.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
