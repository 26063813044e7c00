//! Middlewares of a route, and sets of them under a name: each by its name, in order.
//!
//! What restricts access and is not there yet refuses the route; what only changes what is seen is a warning.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use super::{
    idle::Author,
    middleware_access as access, middleware_bodies as bodies, middleware_headers as headers, middleware_oidc as oidc,
    middleware_paths as paths,
    tree::{Entry, Fields, Node, Value, nearest, normal},
    values,
};
use crate::model::{Middleware, MiddlewareSet, Place, Problem, Problems};

/// Middlewares by name.
pub(super) type Named = BTreeMap<String, MiddlewareSet>;

/// What becomes of a middleware.
#[derive(Clone, Copy)]
enum Fate {
    /// It changes header fields.
    Headers(fn(&Node, &mut MiddlewareSet, &mut Problems)),
    /// It looks at each request.
    Step(fn(&Node, &mut Problems) -> Option<Middleware>),
    /// It allows pages of other origins.
    Cors,
    /// It has a provider say who somebody is.
    Oidc,
    /// Its pages are read once all is known.
    ErrorPages,
    /// It keeps somebody out, and is not there yet: without it the route would be open.
    Restricts,
    /// It changes what is seen, not who sees it, and is not there yet.
    Later,
}

/// Every middleware by name, GoDoxy's short names included. In this order they are applied where labels name them,
/// which have no order of their own.
const MIDDLEWARES: &[(&str, Fate)] = &[
    ("real_ip", Fate::Step(access::real_ip)),
    ("cloudflare_real_ip", Fate::Later),
    ("redirect_http", Fate::Step(access::redirect_http)),
    ("cors", Fate::Cors),
    ("cidr_whitelist", Fate::Step(access::whitelist)),
    ("allow", Fate::Step(access::allow)),
    ("deny", Fate::Step(access::deny)),
    ("rate_limit", Fate::Step(access::rate_limit)),
    ("in_flight_limit", Fate::Step(access::in_flight_limit)),
    ("max_body", Fate::Step(access::max_body)),
    ("basic_auth", Fate::Step(access::basic_auth)),
    ("forward_auth", Fate::Step(access::forward_auth)),
    ("oidc", Fate::Oidc),
    ("crowdsec", Fate::Restricts),
    ("hcaptcha", Fate::Restricts),
    ("redirect", Fate::Step(paths::redirect)),
    ("strip_prefix", Fate::Step(paths::strip_prefix)),
    ("rewrite", Fate::Step(paths::rewrite)),
    ("add_prefix", Fate::Step(paths::add_prefix)),
    ("modify_request", Fate::Headers(headers::modify_request)),
    ("request", Fate::Headers(headers::modify_request)),
    ("modify_response", Fate::Headers(headers::modify_response)),
    ("response", Fate::Headers(headers::modify_response)),
    ("set_headers", Fate::Headers(headers::set_headers)),
    ("add_headers", Fate::Headers(headers::add_headers)),
    ("hide_headers", Fate::Headers(headers::hide_headers)),
    ("secure_headers", Fate::Headers(headers::secure_headers)),
    ("cache_nothing", Fate::Headers(headers::cache_nothing)),
    ("set_x_forwarded", Fate::Later),
    ("hide_x_forwarded", Fate::Later),
    ("modify_html", Fate::Later),
    ("themed", Fate::Later),
    ("error_page", Fate::ErrorPages),
    ("custom_error_page", Fate::ErrorPages),
    ("compress", Fate::Step(bodies::compress)),
    ("retry", Fate::Step(bodies::retry)),
];

/// Options that every middleware has.
pub(super) const COMMON: [&str; 2] = ["priority", "bypass"];

/// A middleware as it is named somewhere.
struct Use<'a> {
    name: String,
    place: Place,
    options: Cow<'a, Node>,
}

/// Reads the sets of the file.
pub(super) fn named(entry: &Entry, problems: &mut Problems) -> Named {
    let mut named = Named::new();
    if matches!(entry.node.value, Value::List(_)) {
        let what = "`middlewares` of all routes is not in this version yet, and may restrict access";
        let hint = "give them a name (`middlewares: {name: […]}`), and use that in each route (`middlewares: name`)";
        problems.0.push(Problem::error(entry.place.clone(), what).with_hint(hint));
        return named;
    }
    // Doubled names are told there.
    Fields::open(&entry.node, "`middlewares`", problems);
    let Value::Map(entries) = &entry.node.value else { return named };
    for entry in entries.iter().filter(|entry| !entry.key.starts_with("x-")) {
        if find(&entry.key).is_some() {
            let what = format!("`{}` is itself a middleware, and no name for some", entry.key);
            problems.0.push(Problem::error(entry.place.clone(), what).with_hint("give them another name"));
            continue;
        }
        let set = read(&entry.node, Author::File, &Named::new(), problems);
        named.insert(entry.key.clone(), set);
    }
    named
}

/// Reads the middlewares of a route: `a, b`, a list of names and mappings, or a mapping of names to options.
pub(super) fn read(node: &Node, author: Author, named: &Named, problems: &mut Problems) -> MiddlewareSet {
    let mut uses = uses(node, problems);
    let place_of = |name: &str| MIDDLEWARES.iter().position(|(known, _)| normal(known) == normal(name));
    let unordered = author == Author::Labels && matches!(values::structured(node).value, Value::Map(_));
    uses.sort_by_cached_key(|one| (priority(&one.options), if unordered { place_of(&one.name) } else { None }));
    let mut set = MiddlewareSet::default();
    for one in &uses {
        let known = named.iter().find(|(name, _)| normal(name) == normal(one.name.trim_end_matches("@file")));
        match (find(&one.name), known) {
            (Some((name, fate)), _) => apply(name, fate, (one, author), &mut set, problems),
            (None, Some((name, known))) => {
                if !is_nothing(&one.options) {
                    let what =
                        format!("the middlewares `{name}` take no options: they have those they were named with");
                    problems.0.push(Problem::error(one.place.clone(), what));
                }
                set.then(known);
            }
            (None, None) => problems.0.push(unknown(one, named)),
        }
    }
    set
}

/// Their names, but for those that could mean anything.
pub(super) fn names() -> impl Iterator<Item = &'static str> + Clone {
    MIDDLEWARES.iter().map(|(name, _)| *name).filter(|name| !matches!(*name, "request" | "response"))
}

/// Those that are there, without GoDoxy's short names.
#[cfg(test)]
pub(super) fn names_of_those_that_work() -> impl Iterator<Item = &'static str> {
    let works = |fate: &Fate| !matches!(fate, Fate::Restricts | Fate::Later);
    let all = MIDDLEWARES.iter().filter(move |(_, fate)| works(fate)).map(|(name, _)| *name);
    all.filter(|name| !matches!(*name, "request" | "response" | "error_page"))
}

fn find(name: &str) -> Option<(&'static str, Fate)> {
    MIDDLEWARES.iter().find(|(known, _)| normal(known) == normal(name)).copied()
}

fn unknown(one: &Use<'_>, named: &Named) -> Problem {
    let problem = Problem::error(one.place.clone(), format!("middleware `{}` is unknown", one.name));
    let names = MIDDLEWARES.iter().map(|(name, _)| *name).chain(named.keys().map(String::as_str));
    match nearest(&one.name, names) {
        Some(near) => problem.with_hint(format!("did you mean `{near}`?")),
        None if one.name.contains('@') => problem.with_hint("middleware files are not in this version yet"),
        None if named.is_empty() => problem.with_hint("the file names no sets of middlewares that could be meant"),
        None if named.len() <= 12 => {
            let sets: Vec<&str> = named.keys().map(String::as_str).collect();
            problem.with_hint(format!("sets that the file names: `{}`", sets.join("`, `")))
        }
        None => problem,
    }
}

/// Adds one. What the client says of itself is not what this says of it.
fn push(step: Middleware, set: &mut MiddlewareSet) {
    step.answers_for().into_iter().for_each(|name| set.request.hide(name));
    set.steps.push(step);
}

fn apply(
    name: &'static str,
    fate: Fate,
    (one, author): (&Use<'_>, Author),
    set: &mut MiddlewareSet,
    problems: &mut Problems,
) {
    let options = &*one.options;
    match fate {
        Fate::Headers(read) => {
            let mut own = MiddlewareSet::default();
            read(options, &mut own, problems);
            set.then(&own);
        }
        Fate::Step(read) => {
            if let Some(step) = read(options, problems) {
                push(step, set);
            }
        }
        Fate::Cors => {
            if let Some(cors) = headers::cors(options, &mut set.response, problems) {
                set.steps.push(Middleware::Cors(cors));
            }
        }
        Fate::Oidc => {
            if let Some(rule) = oidc::read(options, author, problems) {
                push(Middleware::Oidc(Arc::new(rule)), set);
            }
        }
        Fate::ErrorPages => {
            if let Some(folder) = bodies::error_page(options, author, problems) {
                set.error_pages = Some(folder);
            }
        }
        Fate::Restricts => {
            let what = format!("middleware `{name}` restricts access and is not in this version yet");
            problems.0.push(
                Problem::error(one.place.clone(), what).with_hint(
                    "the route is refused, because without it the service would be open to those it keeps out",
                ),
            );
        }
        Fate::Later => {
            let what = format!("middleware `{name}` is not in this version yet: the route works without it");
            problems.0.push(Problem::warning(one.place.clone(), what));
        }
    }
}

fn uses<'a>(node: &'a Node, problems: &mut Problems) -> Vec<Use<'a>> {
    let named = |node: &Node| Use {
        name: node.as_text().unwrap_or_default().trim().to_owned(),
        place: node.place.clone(),
        options: Cow::Owned(Node::new(node.place.clone(), Value::Null)),
    };
    let opened = match values::structured(node) {
        // A text that is neither a list of names nor YAML is told as such.
        Cow::Borrowed(text) if text.as_text().is_some_and(|text| text.contains([':', '{', '[', '\n'])) => {
            let Some(opened) = values::mapping(text, "`middlewares`", problems) else { return Vec::new() };
            opened
        }
        opened @ (Cow::Borrowed(_) | Cow::Owned(_)) => opened,
    };
    if matches!(opened.value, Value::Map(_)) {
        return entries(opened);
    }
    let mut uses = Vec::new();
    for item in values::items(&opened, problems) {
        let item_map = values::structured(&item).into_owned();
        match &item_map.value {
            Value::Map(own) => match own.iter().position(|entry| normal(&entry.key) == "use") {
                None => uses.extend(entries(Cow::Owned(item_map))),
                Some(at) => {
                    let mut rest = own.clone();
                    let used = rest.remove(at);
                    let options = Node::new(item.place.clone(), Value::Map(rest));
                    uses.push(Use { options: Cow::Owned(options), ..named(&used.node) });
                }
            },
            Value::Text(_) => uses.push(named(&item_map)),
            Value::List(_) | Value::Null => {
                problems.0.push(item.wrong("stands where a middleware is expected"));
            }
        }
    }
    uses
}

fn entries(node: Cow<'_, Node>) -> Vec<Use<'_>> {
    let of = |entry: &Entry| (entry.key.clone(), entry.place.clone());
    let is_ours = |entry: &&Entry| !entry.key.starts_with("x-");
    match node {
        Cow::Borrowed(Node { value: Value::Map(entries), .. }) => entries
            .iter()
            .filter(is_ours)
            .map(|entry| (of(entry), Cow::Borrowed(&entry.node)))
            .map(|((name, place), options)| Use { name, place, options })
            .collect(),
        Cow::Owned(Node { value: Value::Map(entries), .. }) => entries
            .into_iter()
            .filter(|entry| is_ours(&entry))
            .map(|entry| Use { name: entry.key, place: entry.place, options: Cow::Owned(entry.node) })
            .collect(),
        Cow::Borrowed(_) | Cow::Owned(_) => Vec::new(),
    }
}

/// Where in the order it stands: lower comes first.
fn priority(options: &Node) -> i64 {
    let opened = values::structured(options);
    let Value::Map(entries) = &opened.value else { return 10 };
    let own = entries.iter().find(|entry| normal(&entry.key) == "priority");
    own.and_then(|entry| entry.node.as_text()?.trim().parse().ok()).unwrap_or(10)
}

/// Whether nothing is said.
pub(super) fn is_nothing(node: &Node) -> bool {
    node.is_null() || node.is_empty() || node.as_text().is_some_and(|text| text.trim().is_empty())
}

/// The options of a middleware as a mapping, the common ones read.
pub(super) fn options<'a>(node: &'a Node, kind: &'static str, problems: &mut Problems) -> Fields<'a> {
    let mut fields = Fields::open(node, kind, problems);
    if let Some(node) = fields.get("priority")
        && node.as_text().is_none_or(|text| text.trim().parse::<i64>().is_err())
    {
        problems.0.push(node.wrong("is no whole number"));
    }
    if let Some(entry) = fields.entry("bypass") {
        let what = format!("`bypass` of {kind} is not in this version yet: it holds for every request");
        problems.0.push(Problem::warning(entry.place.clone(), what));
    }
    fields
}

/// Reports the options that nobody has read.
pub(super) fn finish(fields: Fields<'_>, known: &[&str], problems: &mut Problems) {
    let known: Vec<&str> = known.iter().copied().chain(COMMON).collect();
    fields.finish(&known, problems);
}
