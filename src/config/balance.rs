//! What a route says of its group (`load_balance`), and several targets of one route (`endpoints`).

use super::{
    idle::Author,
    route::{self, RouteDraft},
    tree::{Fields, Node, Value},
    values,
};
use crate::model::{Alias, BalanceMode, Link, Place, Problem, Problems, Scheme};

/// Every key of `load_balance`.
const KEYS: &[&str] = &["link", "mode", "weight", "sticky", "sticky_max_age", "options", "wake_more_at"];

/// Those of them that could be taken for keys of the route.
pub(super) const OF_ROUTES: &[&str] = &["link", "mode", "weight", "sticky", "sticky_max_age", "wake_more_at"];

/// Every key of an endpoint.
const ENDPOINT_KEYS: &[&str] = &["backend", "host", "port", "scheme", "weight"];

/// `load_balance` as written.
#[derive(Debug, Clone)]
pub(super) struct Balance {
    link: Option<Alias>,
    names_link: bool,
    weight: Option<u16>,
    mode: Option<BalanceMode>,
    sticky: Option<bool>,
    sticky_max_age: Option<std::time::Duration>,
    wake_more_at: Option<u32>,
    place: Place,
}

/// One of several targets.
#[derive(Debug, Clone)]
pub(super) struct EndpointDraft {
    target: Box<RouteDraft>,
    weight: Option<u16>,
    place: Place,
}

/// Reads both keys.
pub(super) fn read(fields: &mut Fields<'_>, draft: &mut RouteDraft, author: Author, problems: &mut Problems) {
    draft.balance = fields.get("load_balance").and_then(|node| balance(node, problems));
    let Some(node) = fields.get("endpoints") else { return };
    if author == Author::Labels {
        let what = "a label can not lead to other backends: `endpoints` is for the configuration file";
        let problem = Problem::error(node.place.clone(), what);
        problems.0.push(problem.with_hint("give each of the containers the same `load_balance.link`"));
        return;
    }
    draft.endpoints = endpoints(node, problems);
    draft.names_target = true;
    if let Some((_, place)) = &draft.host {
        excluded("host", place, problems);
    }
    if let Some((_, place)) = &draft.backend {
        excluded("backend", place, problems);
    }
}

fn excluded(key: &str, place: &Place, problems: &mut Problems) {
    let what = format!("`{key}` and `endpoints` exclude each other: name all targets below `endpoints`");
    problems.0.push(Problem::error(place.clone(), what));
}

fn balance(node: &Node, problems: &mut Problems) -> Option<Balance> {
    let opened = values::mapping(node, "`load_balance`", problems)?;
    let mut fields = Fields::open(&opened, "load_balance", problems);
    let number = |node: &Node, most: u64, problems: &mut Problems| values::number(node, 1..=most, problems);
    let balance = Balance {
        names_link: fields.entry("link").is_some(),
        link: fields.get("link").and_then(|node| values::parsed(node, problems)),
        weight: fields.get("weight").and_then(|node| weight(node, problems)),
        mode: fields.get("mode").and_then(|node| mode(node, problems)),
        sticky: fields.get("sticky").and_then(|node| values::boolean(node, problems)),
        sticky_max_age: fields.get("sticky_max_age").and_then(|node| values::positive(node, problems)),
        wake_more_at: fields
            .get("wake_more_at")
            .and_then(|node| number(node, 1_000_000, problems))
            .and_then(|number| u32::try_from(number).ok()),
        place: node.place.clone(),
    };
    if let Some(node) = fields.get("options").filter(|node| !node.is_null()) {
        let what =
            "`options` has no effect: the address of a client is the one that `trusted_proxies` and `real_ip` tell";
        problems.0.push(Problem::warning(node.place.clone(), what));
    }
    let is_sticky = balance.sticky.unwrap_or(fields.entry("sticky").is_some());
    if let Some(node) = fields.get("sticky_max_age").filter(|_| !is_sticky) {
        let what = "`sticky_max_age` has no effect without `sticky: true`";
        problems.0.push(Problem::warning(node.place.clone(), what));
    }
    fields.finish(KEYS, problems);
    Some(balance)
}

fn weight(node: &Node, problems: &mut Problems) -> Option<u16> {
    let weight = values::number(node, 0..=u64::from(Link::MOST_WEIGHT), problems)?;
    u16::try_from(weight).ok()
}

fn mode(node: &Node, problems: &mut Problems) -> Option<BalanceMode> {
    let text = values::text(node, problems)?;
    let found = BalanceMode::WORDS.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    if found.is_none() {
        let words: Vec<&str> = BalanceMode::WORDS.iter().take(4).map(|(word, _)| *word).collect();
        problems.0.push(super::tree::unknown(&node.place, "mode", text, &words));
    }
    found.map(|(_, mode)| mode)
}

fn endpoints(node: &Node, problems: &mut Problems) -> Vec<EndpointDraft> {
    let items = values::items(node, problems);
    if items.is_empty() {
        problems.0.push(Problem::error(node.place.clone(), "`endpoints` names no target"));
    }
    items.iter().filter_map(|item| endpoint(item, problems)).collect()
}

/// A mapping, or `host:port`, or `node/name:port`.
fn endpoint(node: &Node, problems: &mut Problems) -> Option<EndpointDraft> {
    let mut opened = Node::empty_map(node.place.clone());
    let node = match &node.value {
        Value::Text(text) => {
            let Some((target, port)) = text.trim().rsplit_once(':') else {
                problems.0.push(node.wrong("is no target: write `node/name:port` or `host:port`"));
                return None;
            };
            let key = if target.contains('/') { "backend" } else { "host" };
            for (key, value) in [(key, target), ("port", port)] {
                let value = Value::Text(value.to_owned());
                let value = Node { place: node.place.clone(), value, hidden: node.hidden };
                if let Err(problem) = opened.put(&[key], value) {
                    problems.0.push(problem);
                }
            }
            &opened
        }
        Value::Map(_) | Value::List(_) | Value::Null => node,
    };
    let node = values::mapping(node, "an endpoint", problems)?;
    let mut fields = Fields::open(&node, "endpoint", problems);
    let mut target = RouteDraft::default();
    route::target(&mut fields, &mut target, Author::File, problems);
    let weight = fields.get("weight").and_then(|node| weight(node, problems));
    fields.finish(ENDPOINT_KEYS, problems);
    if let Some(place) = target.port.as_ref().map(|(_, place)| place).filter(|_| target.listen_port.is_some()) {
        problems
            .0
            .push(Problem::error(place.clone(), "an endpoint has no listening port: write the target port alone"));
    }
    if !target.names_target {
        let problem = Problem::error(node.place.clone(), "an endpoint leads nowhere");
        problems.0.push(problem.with_hint("name a `backend: node/name` with a `port`, or a `host`"));
        return None;
    }
    Some(EndpointDraft { target: Box::new(target), weight, place: node.place.clone() })
}

/// The name under which a route is reached: that of its group, where it has one.
pub(super) fn public_name<'a>(draft: &'a RouteDraft, alias: &'a Alias) -> &'a Alias {
    draft.link.as_ref().map_or(alias, |link| &link.name)
}

/// Decides which group a route of this name is a member of: one for each of its endpoints, with where that stands.
pub(super) fn spread(
    mut draft: RouteDraft,
    alias: &Alias,
    place: &Place,
    problems: &mut Problems,
) -> Vec<(RouteDraft, Place)> {
    let balance = draft.balance.take();
    let endpoints = std::mem::take(&mut draft.endpoints);
    let name = balance.as_ref().and_then(|balance| balance.link.clone());
    let name = name.or_else(|| (!endpoints.is_empty()).then(|| alias.clone()));
    let Some(name) = name else {
        if let Some(balance) = balance.filter(|balance| !balance.names_link) {
            let what = "`load_balance` names no `link`: the route shares its name with no other";
            problems.0.push(Problem::warning(balance.place, what));
        }
        return vec![(draft, place.clone())];
    };
    let link = match &balance {
        None => Link::to(name),
        Some(balance) => Link {
            name,
            weight: balance.weight.unwrap_or(1),
            mode: balance.mode,
            sticky: balance.sticky,
            sticky_max_age: balance.sticky_max_age,
            wake_more_at: balance.wake_more_at,
        },
    };
    if endpoints.is_empty() {
        draft.link = Some(Box::new(link));
        return vec![(draft, place.clone())];
    }
    let one = |endpoint: EndpointDraft| {
        let EndpointDraft { target, weight, place } = endpoint;
        let mut draft = draft.clone();
        draft.link = Some(Box::new(Link { weight: weight.unwrap_or(link.weight), ..link.clone() }));
        (draft.host, draft.backend, draft.names_target) = (target.host, target.backend, target.names_target);
        draft.port = target.port.or(draft.port);
        draft.scheme = target.scheme.or(draft.scheme);
        (draft, place)
    };
    endpoints.into_iter().map(one).collect()
}

/// Streams have no cookies to know a client by.
pub(super) fn check(scheme: Scheme, draft: &RouteDraft, place: &Place, problems: &mut Problems) {
    let is_sticky = draft.link.as_ref().is_some_and(|link| link.sticky == Some(true));
    if scheme.is_stream() && is_sticky {
        let what = format!("`sticky` knows clients by a cookie, and a `{scheme}` route has none");
        let problem = Problem::error(place.clone(), what);
        problems.0.push(problem.with_hint("write `mode: ip_hash`: a client stays with its member by its address"));
    }
}
