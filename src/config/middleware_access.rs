//! Middlewares that say who is let in, and with how much.

use std::{collections::BTreeSet, time::Duration};

use ipnet::IpNet;

use super::{
    idle,
    middleware_headers::switched_on,
    middleware_paths::sound_path,
    middlewares::{finish, is_nothing, options},
    tree::{Fields, Node, Value},
    values,
};
use crate::model::{
    AuthServer, BasicAuth, ClientList, ForwardAuth, InFlightLimit, Middleware, Problem, Problems, RateLimit, RealIp,
    Secret, is_token,
};

pub(super) fn redirect_http(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let node = switched_on(node, "`redirect_http`", problems)?;
    finish(options(&node, "`redirect_http`", problems), &[], problems);
    Some(Middleware::RedirectHttp)
}

pub(super) fn real_ip(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let node = values::mapping(node, "`real_ip`", problems)?;
    let mut fields = options(&node, "`real_ip`", problems);
    let header = match fields.get("header") {
        None => "X-Real-IP".to_owned(),
        Some(node) => match values::text(node, problems)? {
            name if is_token(name) => name.to_owned(),
            name => {
                problems.0.push(Problem::error(node.place.clone(), format!("`{name}` is no name of a header field")));
                return None;
            }
        },
    };
    let from = fields.get("from").map(|node| idle::networks(node, problems)).unwrap_or_default();
    let recursive = fields.get("recursive").and_then(|node| values::boolean(node, problems)).unwrap_or(false);
    finish(fields, &["header", "from", "recursive"], problems);
    let from = some(from, &node, "`real_ip` lacks `from`, the networks of the proxies that are believed", problems)?;
    Some(Middleware::RealIp(RealIp { header, from, recursive }))
}

/// GoDoxy's list of those who are let in.
pub(super) fn whitelist(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let node = values::mapping(node, "`cidr_whitelist`", problems)?;
    clients(&node, "`cidr_whitelist`", "allow", true, problems)
}

/// Ours: the networks, or a mapping with them below `networks`.
pub(super) fn allow(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    networks_or_more(node, "`allow`", true, problems)
}

/// Ours: everybody but these.
pub(super) fn deny(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    networks_or_more(node, "`deny`", false, problems)
}

fn networks_or_more(node: &Node, kind: &'static str, allows: bool, problems: &mut Problems) -> Option<Middleware> {
    let opened = as_options(node);
    if matches!(opened.value, Value::Map(_)) {
        return clients(&opened, kind, "networks", allows, problems);
    }
    let networks = some(idle::networks(&opened, problems), node, &format!("{kind} names no network"), problems)?;
    Some(Middleware::Clients(ClientList { networks, allows, status: 403, message: NOT_ALLOWED.to_owned() }))
}

/// A mapping inside a text; other texts stay, since addresses have colons.
fn as_options(node: &Node) -> Node {
    match values::structured(node).into_owned() {
        Node { value: Value::Map(entries), .. } if entries.iter().any(|entry| entry.key.contains(':')) => node.clone(),
        opened => opened,
    }
}

const NOT_ALLOWED: &str = "IP not allowed";

fn clients(
    node: &Node,
    kind: &'static str,
    key: &'static str,
    allows: bool,
    problems: &mut Problems,
) -> Option<Middleware> {
    let mut fields = options(node, kind, problems);
    let networks = fields.get(key).map(|node| idle::networks(node, problems)).unwrap_or_default();
    let status = fields.get("status");
    let status = fields.get("status_code").or(status).and_then(|node| values::number(node, 400..=599, problems));
    let message = fields.get("message").and_then(|node| values::text(node, problems)).unwrap_or(NOT_ALLOWED).to_owned();
    finish(fields, &[key, "status_code", "status", "message"], problems);
    let networks = some(networks, node, &format!("{kind} lacks `{key}`, the networks of clients"), problems)?;
    let status = status.and_then(|status| u16::try_from(status).ok()).unwrap_or(403);
    Some(Middleware::Clients(ClientList { networks, allows, status, message }))
}

/// Networks, of which there must be one.
fn some(networks: Vec<IpNet>, node: &Node, what: &str, problems: &mut Problems) -> Option<Vec<IpNet>> {
    if networks.is_empty() {
        problems.0.push(Problem::error(node.place.clone(), what));
        return None;
    }
    Some(networks)
}

pub(super) fn rate_limit(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let node = values::mapping(node, "`rate_limit`", problems)?;
    let mut fields = options(&node, "`rate_limit`", problems);
    let mut required = |key: &str, problems: &mut Problems| match fields.get(key) {
        Some(node) => values::number(node, 1..=1_000_000, problems).and_then(|n| u32::try_from(n).ok()),
        None => {
            problems.0.push(Problem::error(node.place.clone(), format!("`rate_limit` lacks `{key}`")));
            None
        }
    };
    let (average, burst) = (required("average", problems), required("burst", problems));
    let period = match fields.get("period") {
        Some(node) => values::positive(node, problems),
        None => Some(Duration::from_secs(1)),
    };
    finish(fields, &["average", "burst", "period"], problems);
    let each = (period? / average?).max(Duration::from_nanos(1));
    Some(Middleware::RateLimit(RateLimit { each, burst: burst? }))
}

/// Ours: the number, or a mapping.
pub(super) fn in_flight_limit(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let number = |node: &Node, problems: &mut Problems| {
        values::number(node, 1..=1_000_000, problems).and_then(|n| u32::try_from(n).ok())
    };
    let opened = values::structured(node);
    if opened.as_text().is_some() && !is_nothing(&opened) {
        let amount = number(&opened, problems)?;
        return Some(Middleware::InFlightLimit(InFlightLimit { amount, per_client: false }));
    }
    let node = values::mapping(node, "`in_flight_limit`", problems)?;
    let mut fields = options(&node, "`in_flight_limit`", problems);
    let amount = fields.get("amount");
    let per_client = fields.get("per_client").and_then(|node| values::boolean(node, problems)).unwrap_or(false);
    finish(fields, &["amount", "per_client"], problems);
    let Some(amount) = amount else {
        problems.0.push(Problem::error(node.place.clone(), "`in_flight_limit` lacks `amount`"));
        return None;
    };
    Some(Middleware::InFlightLimit(InFlightLimit { amount: number(amount, problems)?, per_client }))
}

/// Ours: the size, or a mapping.
pub(super) fn max_body(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let opened = values::structured(node);
    if opened.as_text().is_some() && !is_nothing(&opened) {
        return values::bytes(&opened, problems).map(Middleware::MaxBody);
    }
    let node = values::mapping(node, "`max_body`", problems)?;
    let mut fields = options(&node, "`max_body`", problems);
    let size = fields.get("size");
    finish(fields, &["size"], problems);
    let Some(size) = size else {
        problems.0.push(Problem::error(node.place.clone(), "`max_body` lacks its `size`"));
        return None;
    };
    values::bytes(size, problems).map(Middleware::MaxBody)
}

pub(super) fn basic_auth(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    const REALM: &str = "Restricted";
    let before = problems.0.len();
    let node = values::mapping(node, "`basic_auth`", problems)?;
    let mut fields = options(&node, "`basic_auth`", problems);
    let users = fields.get("users").map(|node| users(node, problems)).unwrap_or_default();
    let realm = match fields.get("realm") {
        None => REALM.to_owned(),
        Some(node) => {
            let text = values::text(node, problems)?;
            if !text.bytes().all(|b| (b == b' ' || b.is_ascii_graphic()) && !matches!(b, b'"' | b'\\')) {
                problems.0.push(node.wrong("is no name of a realm: plain text without `\"` and `\\`"));
            }
            text.to_owned()
        }
    };
    let remove_header = fields.get("remove_header").and_then(|node| values::boolean(node, problems)).unwrap_or(false);
    finish(fields, &["users", "realm", "remove_header"], problems);
    if users.is_empty() && !problems.has_errors_since(before) {
        let problem = Problem::error(node.place.clone(), "`basic_auth` names no `users`");
        problems.0.push(problem.with_hint(HOW));
    }
    Some(Middleware::BasicAuth(BasicAuth { users, realm, remove_header }))
}

const HOW: &str = "write `NAME:HASH`, as `htpasswd -nB NAME` prints it";

/// `name:hash`, or a mapping of names to hashes. No message quotes what could be a password.
fn users(node: &Node, problems: &mut Problems) -> Vec<(String, Secret)> {
    let opened = values::structured(node);
    let mut pairs: Vec<(String, String, &Node)> = Vec::new();
    let items;
    if let Value::Map(entries) = &opened.value {
        let pair = |entry: &'_ super::tree::Entry| Some(entry.node.as_text()?.trim().to_owned());
        pairs.extend(entries.iter().map(|e| (e.key.clone(), pair(e).unwrap_or_default(), &e.node)));
    } else {
        items = values::items(&opened, problems);
        for item in &items {
            let text = item.as_text().unwrap_or_default();
            // An item that YAML took for a mapping.
            let text = match &item.value {
                Value::Map(entries) => match entries.as_slice() {
                    [one] => format!("{}:{}", one.key, one.node.as_text().unwrap_or_default()),
                    _ => String::new(),
                },
                Value::Null | Value::Text(_) | Value::List(_) => text.to_owned(),
            };
            let (name, hash) = text.split_once(':').unwrap_or((text.as_str(), ""));
            pairs.push((name.trim().to_owned(), hash.trim().to_owned(), item));
        }
    }
    let mut seen = BTreeSet::new();
    let mut users = Vec::new();
    for (index, (name, hash, node)) in pairs.into_iter().enumerate() {
        let number = index + 1;
        let what = if name.is_empty() || name.contains(|c: char| c.is_control() || c == ':') {
            format!("user {number} of `basic_auth` has no name")
        } else if !is_bcrypt(&hash) {
            format!("the password of user {number} of `basic_auth` is no bcrypt hash of cost 4 to 15")
        } else if !seen.insert(name.clone()) {
            format!("user {number} of `basic_auth` has the name of another")
        } else {
            users.push((name, Secret::new(hash)));
            continue;
        };
        problems.0.push(Problem::error(node.place.clone(), what).with_hint(HOW));
    }
    users
}

/// `$2b$12$` with 53 characters behind it. What costs more than 15 would take a second and more each time.
fn is_bcrypt(hash: &str) -> bool {
    let mut parts = hash.strip_prefix('$').unwrap_or_default().splitn(3, '$');
    let (version, cost, rest) = (parts.next(), parts.next(), parts.next());
    matches!(version, Some("2a" | "2b" | "2x" | "2y"))
        && cost.is_some_and(|cost| cost.len() == 2 && matches!(cost.parse::<u8>(), Ok(4..=15)))
        && rest.is_some_and(|rest| {
            rest.len() == 53 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/'))
        })
}

const FORWARD_AUTH: &[&str] = &["route", "address", "auth_endpoint", "headers", "timeout"];

pub(super) fn forward_auth(node: &Node, problems: &mut Problems) -> Option<Middleware> {
    let before = problems.0.len();
    let node = if is_nothing(node) { Node::empty_map(node.place.clone()) } else { node.clone() };
    let node = values::mapping(&node, "`forward_auth`", problems)?;
    let mut fields = options(&node, "`forward_auth`", problems);
    let at = server(&mut fields, problems);
    let path = match fields.get("auth_endpoint") {
        None => None,
        Some(node) => {
            let text = values::text(node, problems)?;
            if !text.starts_with('/') || !sound_path(text.split('?').next().unwrap_or_default()) {
                problems.0.push(node.wrong("is no path: write for example `/api/auth/traefik`"));
            }
            Some(text.to_owned())
        }
    };
    let headers = match fields.get("headers") {
        None => ["Remote-User", "Remote-Name", "Remote-Email", "Remote-Groups"].map(str::to_owned).to_vec(),
        Some(node) => values::items(node, problems).iter().filter_map(|item| field_name(item, problems)).collect(),
    };
    let timeout = fields.get("timeout").and_then(|node| values::brief_positive(node, problems));
    finish(fields, FORWARD_AUTH, problems);
    let (at, own_path) = at.filter(|_| !problems.has_errors_since(before))?;
    let path = path.or(own_path).unwrap_or_else(|| "/api/auth/traefik".to_owned());
    Some(Middleware::ForwardAuth(ForwardAuth { at, path, headers, timeout: timeout.unwrap_or(Duration::from_secs(5)) }))
}

/// The service that decides, and the path that its address names.
fn server(fields: &mut Fields<'_>, problems: &mut Problems) -> Option<(AuthServer, Option<String>)> {
    let route = fields.get("route");
    match (fields.get("address"), route) {
        (Some(node), Some(_)) => {
            problems.0.push(Problem::error(node.place.clone(), "`route` and `address` exclude each other"));
            None
        }
        (Some(node), None) => address(node, problems),
        (None, Some(node)) => values::parsed(node, problems).map(|alias| (AuthServer::Route(alias), None)),
        (None, None) => "tinyauth".parse().ok().map(|alias| (AuthServer::Route(alias), None)),
    }
}

/// `http://host:port/path`.
fn address(node: &Node, problems: &mut Problems) -> Option<(AuthServer, Option<String>)> {
    let text = values::text(node, problems)?;
    let found = text.strip_prefix("http://").and_then(|rest| {
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let port_at = host.rfind(':').filter(|at| !host[*at..].contains(']'));
        let (host, port) = match port_at {
            Some(at) => (host.get(..at)?, host.get(at + 1..)?.parse().ok().filter(|port| *port > 0)?),
            None => (host, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_name = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':'));
        let sound = !host.is_empty() && is_name && (path.is_empty() || sound_path(path));
        let path = Some(path.to_owned()).filter(|path| path.len() > 1);
        sound.then(|| (AuthServer::Address { host: host.to_owned(), port }, path))
    });
    if found.is_none() {
        problems.0.push(node.wrong("is no address: write `http://host:port/path`"));
    }
    found
}

fn field_name(node: &Node, problems: &mut Problems) -> Option<String> {
    let name = values::text(node, problems)?;
    super::middleware_headers::may_be_set(name, node, problems).then(|| name.to_owned())
}
