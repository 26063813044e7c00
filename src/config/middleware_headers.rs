//! Middlewares that change header fields: what they come to is known before any request.

use super::{
    middlewares::{finish, is_nothing, options},
    tree::{Fields, Node, Value, nearest, normal, unknown},
    values::{self, Switch},
};
use crate::model::{
    Cors, FieldValue, HeaderEdits, MiddlewareSet, NoVariable, Problem, Problems, Variable, is_token, variable_names,
};

/// Header fields that no middleware may touch: the framing of messages hangs on them, or they are about one
/// connection alone.
const FRAMING: [&str; 13] = [
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "expect",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "http2-settings",
    "dormouse-hop",
];

/// Whose fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Response,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Set,
    Add,
    Hidden,
}

pub(super) fn modify_request(node: &Node, set: &mut MiddlewareSet, problems: &mut Problems) {
    let Some(node) = values::mapping(node, "a middleware", problems) else { return };
    let mut fields = options(&node, "middleware", problems);
    if let Some(node) = fields.get("add_prefix") {
        set.steps.extend(super::middleware_paths::add_prefix(node, problems));
    }
    modify(&mut fields, Way::Request, &mut set.request, problems);
    finish(fields, &["set_headers", "add_headers", "hide_headers", "add_prefix"], problems);
}

pub(super) fn modify_response(node: &Node, set: &mut MiddlewareSet, problems: &mut Problems) {
    let Some(node) = values::mapping(node, "a middleware", problems) else { return };
    let mut fields = options(&node, "middleware", problems);
    modify(&mut fields, Way::Response, &mut set.response, problems);
    finish(fields, &["set_headers", "add_headers", "hide_headers"], problems);
}

fn modify(fields: &mut Fields<'_>, way: Way, edits: &mut HeaderEdits, problems: &mut Problems) {
    if let Some(node) = fields.get("set_headers") {
        headers(node, Fate::Set, way, edits, problems);
    }
    if let Some(node) = fields.get("add_headers") {
        headers(node, Fate::Add, way, edits, problems);
    }
    if let Some(node) = fields.get("hide_headers") {
        hide(node, edits, problems);
    }
}

/// Ours: a flat mapping sets request fields; `request` and `response` below it set those.
pub(super) fn set_headers(node: &Node, set: &mut MiddlewareSet, problems: &mut Problems) {
    both(node, "set_headers", Fate::Set, set, problems);
}

/// Ours, in the same way.
pub(super) fn add_headers(node: &Node, set: &mut MiddlewareSet, problems: &mut Problems) {
    both(node, "add_headers", Fate::Add, set, problems);
}

fn both(node: &Node, own: &str, fate: Fate, set: &mut MiddlewareSet, problems: &mut Problems) {
    let Some(node) = values::mapping(node, &format!("`{own}`"), problems) else { return };
    let Value::Map(entries) = &node.value else { return };
    for entry in entries {
        let nested = values::structured(&entry.node);
        match (normal(&entry.key).as_str(), &nested.value) {
            ("request", Value::Map(_)) => headers(&nested, fate, Way::Request, &mut set.request, problems),
            ("response", Value::Map(_)) => headers(&nested, fate, Way::Response, &mut set.response, problems),
            // No value of a field is a mapping.
            (_, Value::Map(_)) => {
                let kind = format!("`{own}` key");
                problems.0.push(unknown(&entry.place, &kind, &entry.key, &["request", "response"]));
            }
            _ => header(&entry.key, &entry.node, fate, Way::Request, &mut set.request, problems),
        }
    }
}

fn headers(node: &Node, fate: Fate, way: Way, edits: &mut HeaderEdits, problems: &mut Problems) {
    let Some(node) = values::mapping(node, "`set_headers`", problems) else { return };
    if let Value::Map(entries) = &node.value {
        entries.iter().for_each(|entry| header(&entry.key, &entry.node, fate, way, edits, problems));
    }
}

/// Ours: a list hides fields of both ways; `request` and `response` below it hide those.
pub(super) fn hide_headers(node: &Node, set: &mut MiddlewareSet, problems: &mut Problems) {
    let opened = values::structured(node);
    if !matches!(opened.value, Value::Map(_)) {
        hide(&opened, &mut set.request, problems);
        set.request.hide.iter().for_each(|name| set.response.hide(name));
        return;
    }
    let mut fields = options(&opened, "`hide_headers`", problems);
    if let Some(node) = fields.get("request") {
        hide(node, &mut set.request, problems);
    }
    if let Some(node) = fields.get("response") {
        hide(node, &mut set.response, problems);
    }
    finish(fields, &["request", "response"], problems);
}

fn hide(node: &Node, edits: &mut HeaderEdits, problems: &mut Problems) {
    for item in values::items(node, problems) {
        if let Some(name) = values::text(&item, problems)
            && names_field(name, &item, Fate::Hidden, problems)
        {
            edits.hide(name);
        }
    }
}

/// Whether this is a header field that a middleware may touch, which is told when it is not.
fn names_field(name: &str, node: &Node, fate: Fate, problems: &mut Problems) -> bool {
    let lower = name.to_ascii_lowercase();
    let what = if !is_token(name) {
        format!("`{name}` is no name of a header field")
    } else if FRAMING.contains(&lower.as_str()) {
        let fate = match fate {
            Fate::Set => "set",
            Fate::Add => "added",
            Fate::Hidden => "hidden",
        };
        format!("header field `{name}` frames the message and can not be {fate}")
    } else if fate == Fate::Add && lower == "host" {
        "a request has one `Host`: it can be set, but none can be added".to_owned()
    } else {
        return true;
    };
    problems.0.push(Problem::error(node.place.clone(), what));
    false
}

/// Whether a middleware may set this header field, which is told when it may not.
pub(super) fn may_be_set(name: &str, node: &Node, problems: &mut Problems) -> bool {
    names_field(name, node, Fate::Set, problems)
}

fn header(name: &str, node: &Node, fate: Fate, way: Way, edits: &mut HeaderEdits, problems: &mut Problems) {
    if !names_field(name, node, fate, problems) {
        return;
    }
    let Some(value) = values::text(node, problems) else { return };
    if !is_value(name, value, node, problems) {
        return;
    }
    let value = match FieldValue::read(value) {
        Ok(value) => value,
        Err(why) => return problems.0.push(no_variable(&why, name, node)),
    };
    match (value.as_text(), fate) {
        (Some(text), Fate::Set | Fate::Hidden) => edits.set(name, text),
        (Some(text), Fate::Add) => edits.add(name, text),
        (None, _) if name.eq_ignore_ascii_case("host") => {
            problems.0.push(Problem::error(node.place.clone(), "`Host` is set to one value: it takes no variables"));
        }
        (None, _) if !is_known(&value, (way, name), node, problems) => {}
        (None, Fate::Set | Fate::Hidden) => edits.set_varied(name, value),
        (None, Fate::Add) => edits.add_varied(name, value),
    }
}

/// Whether all its variables are known when it is written, which is told where they are not.
fn is_known(value: &FieldValue, (way, name): (Way, &str), node: &Node, problems: &mut Problems) -> bool {
    let find = |is: fn(&Variable) -> bool| value.variables().find(|variable| is(variable));
    let (variable, why) = match way {
        Way::Request => (find(Variable::is_of_answer), "tells of the answer, which is not there yet"),
        Way::Response => {
            (find(Variable::is_of_way), "tells where requests go, which those who get the answer are not told")
        }
    };
    let Some(variable) = variable else { return true };
    let what = format!("the value of `{name}` has `{variable}` in it, which {why}");
    problems.0.push(Problem::error(node.place.clone(), what));
    false
}

fn no_variable(why: &NoVariable, name: &str, node: &Node) -> Problem {
    let (what, hint) = match why {
        NoVariable::Unknown(variable) => {
            let itself = format!("write `$${variable}` for the text `${variable}` itself");
            let hint = match nearest(variable, variable_names()) {
                Some(near) => format!("did you mean `${near}`? Otherwise {itself}"),
                None => itself,
            };
            (format!("has `${variable}` in it, which is no variable"), hint)
        }
        NoVariable::Digit(text) => {
            let hint = format!(
                "write `$${text}` for the text `${text}` itself; a `$` at the end, or before anything but a letter, a \
                 digit or `_`, needs no second one"
            );
            (format!("has `${text}` in it, and no variable begins with a digit"), hint)
        }
        NoVariable::Argument(variable) => {
            let hint = format!("write for example `${variable}(name)`");
            (format!("has `${variable}` in it without the name of one in parentheses"), hint)
        }
    };
    Problem::error(node.place.clone(), format!("the value of `{name}` {what}")).with_hint(hint)
}

fn is_value(name: &str, value: &str, node: &Node, problems: &mut Problems) -> bool {
    let sound = !value.chars().any(|c| c.is_control() && c != '\t');
    if !sound {
        problems.0.push(Problem::error(node.place.clone(), format!("the value of `{name}` holds control characters")));
    }
    sound
}

/// Fields that browsers heed, by the option that changes them, with what they are otherwise.
const SECURE: &[(&str, &str, Option<&str>)] = &[
    ("content_type_options", "X-Content-Type-Options", Some("nosniff")),
    ("frame_options", "X-Frame-Options", Some("SAMEORIGIN")),
    ("referrer_policy", "Referrer-Policy", Some("strict-origin-when-cross-origin")),
    ("content_security_policy", "Content-Security-Policy", None),
    ("permissions_policy", "Permissions-Policy", None),
    ("cross_origin_opener_policy", "Cross-Origin-Opener-Policy", None),
    ("cross_origin_resource_policy", "Cross-Origin-Resource-Policy", None),
];

/// Sets what makes browsers careful; `off` leaves one as the service has it.
pub(super) fn secure_headers(node: &Node, set: &mut MiddlewareSet, problems: &mut Problems) {
    let Some(node) = switched_on(node, "`secure_headers`", problems) else { return };
    let mut fields = options(&node, "`secure_headers`", problems);
    for (option, name, usual) in SECURE {
        let value = match fields.get(option) {
            None => *usual,
            Some(node) => match values::text(node, problems) {
                Some(text) if values::parse_bool(text) == Some(false) => None,
                Some(text) if values::parse_bool(text) == Some(true) => *usual,
                Some(text) if is_value(name, text, node, problems) => Some(text),
                Some(_) | None => None,
            },
        };
        if let Some(value) = value {
            set.response.set(name, value);
        }
    }
    let known: Vec<&str> = SECURE.iter().map(|(option, _, _)| *option).collect();
    finish(fields, &known, problems);
}

/// Nothing is kept, neither by browsers nor on the way, and nobody asks whether something has changed.
pub(super) fn cache_nothing(node: &Node, set: &mut MiddlewareSet, problems: &mut Problems) {
    let Some(node) = switched_on(node, "`cache_nothing`", problems) else { return };
    finish(options(&node, "`cache_nothing`", problems), &[], problems);
    ["If-None-Match", "If-Modified-Since"].into_iter().for_each(|name| set.request.hide(name));
    ["ETag", "Last-Modified", "Expires", "Pragma", "Age"].into_iter().for_each(|name| set.response.hide(name));
    set.response.set("Cache-Control", "no-store");
}

/// A middleware that may be written as a boolean; `None`: it is switched off.
pub(super) fn switched_on(node: &Node, kind: &str, problems: &mut Problems) -> Option<Node> {
    switched_on_or(node, kind, "", problems)
}

/// The same, for one that has more forms.
pub(super) fn switched_on_or(node: &Node, kind: &str, other: &str, problems: &mut Problems) -> Option<Node> {
    let nothing = Node::empty_map(node.place.clone());
    if is_nothing(node) {
        return Some(nothing);
    }
    match values::switch(node, kind, other, problems)? {
        Switch::On => Some(nothing),
        Switch::Off => None,
        Switch::Mapping(options) => Some(options.into_owned()),
    }
}

const CORS: &[&str] =
    &["allow_origins", "allow_methods", "allow_headers", "expose_headers", "allow_credentials", "max_age"];

/// What pages of other origins may. The service's own words on that are not passed on.
pub(super) fn cors(node: &Node, response: &mut HeaderEdits, problems: &mut Problems) -> Option<Cors> {
    let before = problems.0.len();
    let node = values::mapping(node, "`cors`", problems)?;
    let mut fields = options(&node, "`cors`", problems);
    let origins = fields.get("allow_origins").map(|node| origins(node, problems)).unwrap_or_default();
    let methods = fields.get("allow_methods").map(|node| tokens(node, "method", problems));
    let headers = fields.get("allow_headers").map(|node| tokens(node, "name of a header field", problems));
    let exposed = fields.get("expose_headers").map(|node| tokens(node, "name of a header field", problems));
    let credentials = fields.get("allow_credentials");
    let with_credentials = credentials.and_then(|node| values::boolean(node, problems)).unwrap_or(false);
    let max_age = fields.get("max_age").and_then(|node| values::duration(node, problems));
    finish(fields, CORS, problems);
    let any = origins.iter().any(|origin| origin == "*");
    if origins.is_empty() && !problems.has_errors_since(before) {
        let problem = Problem::error(node.place.clone(), "`cors` names no origin");
        problems.0.push(problem.with_hint("write `allow_origins: [https://app.example.com]`"));
    }
    if let Some(node) = credentials.filter(|_| any && with_credentials) {
        let what = "any origin together with credentials would let every page act for whoever visits it";
        problems.0.push(Problem::error(node.place.clone(), what).with_hint("name the origins"));
    }
    if problems.has_errors_since(before) {
        return None;
    }
    for name in ["Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers"] {
        response.hide(name);
    }
    if !any {
        response.add("Vary", "Origin");
    }
    let field = |name: &str, value: String| (format!("Access-Control-{name}"), value);
    let methods = methods.unwrap_or_else(|| "GET, HEAD, POST, PUT, PATCH, DELETE".to_owned());
    let mut preflight = vec![field("Allow-Methods", methods)];
    preflight.extend(headers.map(|headers| field("Allow-Headers", headers)));
    preflight.extend(max_age.map(|age| field("Max-Age", age.as_secs().to_string())));
    if with_credentials {
        response.set("Access-Control-Allow-Credentials", "true");
        preflight.push(field("Allow-Credentials", "true".to_owned()));
    }
    if let Some(exposed) = exposed {
        response.set("Access-Control-Expose-Headers", &exposed);
    }
    Some(Cors { origins, preflight })
}

fn origins(node: &Node, problems: &mut Problems) -> Vec<String> {
    let mut origins = Vec::new();
    for item in values::items(node, problems) {
        let Some(text) = values::text(&item, problems) else { continue };
        let origin = text.trim_end_matches('/').to_ascii_lowercase();
        let (scheme, host) = origin.split_once("://").unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]+".contains(&b);
        if origin == "*" || (!scheme.is_empty() && !host.is_empty() && scheme.bytes().chain(host.bytes()).all(plain)) {
            origins.push(origin);
        } else {
            problems.0.push(item.wrong("is no origin: write for example `https://app.example.com`, or `*`"));
        }
    }
    origins
}

/// Words of one kind, as they stand in a header field.
fn tokens(node: &Node, kind: &str, problems: &mut Problems) -> String {
    let mut words = Vec::new();
    for item in values::items(node, problems) {
        match values::text(&item, problems) {
            Some(word) if is_token(word) => words.push(word.to_owned()),
            Some(_) => problems.0.push(item.wrong(format!("is no {kind}"))),
            None => {}
        }
    }
    words.join(", ")
}
