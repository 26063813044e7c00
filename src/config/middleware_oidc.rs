//! The middleware `oidc`: a provider says who somebody is.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{
    idle::Author,
    middleware_paths::sound_path,
    middlewares::{finish, options},
    tree::{Fields, Node},
    values,
};
use crate::model::{Oidc, Problem, Problems, Secret, UpstreamTls};

const OPTIONS: &[&str] = &[
    "issuer_url",
    "issuer",
    "client_id",
    "client_secret",
    "scopes",
    "allowed_users",
    "allowed_groups",
    "callback_path",
    "logout_path",
    "session",
    "timeout",
    "ssl_trusted_certificate",
];

/// Those of GoDoxy.
const PATHS: [(&str, &str); 2] = [("callback_path", "/auth/callback"), ("logout_path", "/auth/logout")];

/// A browser forgets cookies after so long (RFC 6265bis, 5.5).
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

pub(super) fn read(node: &Node, author: Author, problems: &mut Problems) -> Option<Oidc> {
    let before = problems.0.len();
    let node = values::mapping(node, "`oidc`", problems)?;
    let mut fields = options(&node, "`oidc`", problems);
    let issuer_node = fields.get("issuer");
    let issuer_node = fields.get("issuer_url").or(issuer_node);
    let issuer = match issuer_node {
        Some(node) => issuer(node, problems),
        None => lacking(&node, "`issuer_url`, the provider's address", problems),
    };
    let client_id = match fields.get("client_id").and_then(|node| text(node, problems)) {
        Some(id) => Some(id),
        None => lacking(&node, "`client_id`, under which the provider knows this service", problems),
    };
    let client_secret = fields.get("client_secret").and_then(|node| text(node, problems)).map(Secret::new);
    let scopes = fields.get("scopes").map(|node| scopes(node, problems)).unwrap_or_default();
    let mut names = |key: &str| fields.get(key).map(|node| values::texts(node, problems)).unwrap_or_default();
    let (allowed_users, allowed_groups) = (names("allowed_users"), names("allowed_groups"));
    if allowed_users.is_empty() && allowed_groups.is_empty() {
        let what = "`oidc` lacks `allowed_users` or `allowed_groups`, those who are let in";
        let hint = "write `allowed_users: \"*\"` to let everybody in whom the provider knows";
        problems.0.push(Problem::error(node.place.clone(), what).with_hint(hint));
    }
    let [callback_path, logout_path] = PATHS.map(|(key, usual)| path(&mut fields, key, usual, problems));
    if callback_path == logout_path {
        let what = "`callback_path` and `logout_path` of `oidc` are the same";
        problems.0.push(Problem::error(node.place.clone(), what));
    }
    let session = fields.get("session");
    let session_given = session.and_then(|node| values::positive(node, problems));
    if let Some(node) = session.filter(|_| session_given.is_some_and(|session| session > LONGEST)) {
        problems.0.push(node.wrong("is longer than browsers keep a cookie: write at most `400d`"));
    }
    let timeout = fields.get("timeout").and_then(|node| values::positive(node, problems));
    let roots = roots(&mut fields, author, problems);
    finish(fields, OPTIONS, problems);
    let (issuer, client_id) = issuer.zip(client_id).filter(|_| !problems.has_errors_since(before))?;
    Some(Oidc {
        issuer,
        tls: UpstreamTls { roots, ..UpstreamTls::default() },
        client_id,
        client_secret,
        scopes,
        allowed_users,
        allowed_groups,
        callback_path,
        logout_path,
        session: session_given.unwrap_or(Duration::from_secs(86_400)),
        timeout: timeout.unwrap_or(Duration::from_secs(10)),
    })
}

/// A text that is there and holds something; none is shown.
fn text(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = values::text(node, problems)?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn lacking<T>(node: &Node, what: &str, problems: &mut Problems) -> Option<T> {
    problems.0.push(Problem::error(node.place.clone(), format!("`oidc` lacks {what}")));
    None
}

/// `https://host:port/path`, without the slash at its end. In clear everybody in between could say who is let in.
fn issuer(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = values::text(node, problems)?.trim();
    let secure = text.strip_prefix("https://");
    let rest = secure.or_else(|| text.strip_prefix("http://"));
    let sound = |rest: &str| {
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let of_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
        !host.is_empty() && host.bytes().all(of_host) && (path.is_empty() || sound_path(path))
    };
    let Some(rest) = rest.filter(|rest| sound(rest)) else {
        problems.0.push(node.wrong("is no address of a provider: write for example `https://id.example.com`"));
        return None;
    };
    if secure.is_none() && !is_here(rest) {
        let what = "the provider of `oidc` is asked in clear: everybody in between can say who is let in";
        problems.0.push(Problem::warning(node.place.clone(), what).with_hint("use an `https://` address"));
    }
    Some(text.trim_end_matches('/').to_owned())
}

/// Whether nobody is in between.
fn is_here(authority: &str) -> bool {
    let host = authority.split('/').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn scopes(node: &Node, problems: &mut Problems) -> Vec<String> {
    let mut scopes = Vec::new();
    for item in values::items(node, problems) {
        for scope in values::text(&item, problems).unwrap_or_default().split_whitespace() {
            if scope.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\')) {
                scopes.push(scope.to_owned());
            } else {
                problems.0.push(item.wrong("is no scope"));
            }
        }
    }
    if !scopes.is_empty() && !scopes.iter().any(|scope| scope == "openid") {
        scopes.insert(0, "openid".to_owned());
    }
    scopes
}

fn path(fields: &mut Fields<'_>, key: &str, usual: &str, problems: &mut Problems) -> String {
    let Some(node) = fields.get(key) else { return usual.to_owned() };
    let Some(text) = values::text(node, problems) else { return usual.to_owned() };
    let begins = text.starts_with('/') && !text.starts_with("//");
    if !begins || !sound_path(text) || text.contains('%') || text.len() < 2 {
        problems.0.push(node.wrong(format!("is no path of its own: write for example `{usual}`")));
    }
    text.to_owned()
}

/// The file of the authority behind the provider's certificate.
fn roots(fields: &mut Fields<'_>, author: Author, problems: &mut Problems) -> Option<PathBuf> {
    const KEY: &str = "ssl_trusted_certificate";
    let node = fields.get(KEY)?;
    if author == Author::Labels {
        let problem = Problem::error(node.place.clone(), "a label can not name a file of Dormouse's machine");
        problems.0.push(problem.with_hint(format!("set `{KEY}` in a named set of the configuration file")));
        return None;
    }
    let path = PathBuf::from(values::text(node, problems)?);
    if !path.is_absolute() {
        problems.0.push(node.wrong("is no whole path of a file"));
    }
    Some(path)
}
