//! `strip_prefix`, `add_prefix`, `rewrite`: the path that the service gets.

use crate::{
    model::{Middleware, Replacement},
    routing::behind_prefix,
};

use super::{
    super::{
        answer::Answer,
        request_target::{check_path, hides_slash},
    },
    chain::Refusal,
};

/// A target is at most so long when it was changed.
const LONGEST: usize = 16 * 1024;

/// Changes a target. What would not mean the same to every reader is refused.
pub(super) fn change(step: &Middleware, target: &str) -> Result<String, Refusal> {
    if target == "*" {
        return Ok(target.to_owned());
    }
    let (path, query) = split(target);
    if hides_slash(path) {
        return Err(Refusal::new("its path hides a slash", Answer::new(400, "The path hides a slash.")));
    }
    let changed = match step {
        Middleware::StripPrefix(prefixes) => format!("{}{query}", strip(path, prefixes)),
        Middleware::AddPrefix(prefix) => format!("{prefix}{target}"),
        Middleware::Rewrite(to) => rewrite(to, path, query),
        Middleware::RealIp(_)
        | Middleware::RedirectHttp
        | Middleware::Clients(_)
        | Middleware::RateLimit(_)
        | Middleware::InFlightLimit(_)
        | Middleware::BasicAuth(_)
        | Middleware::ForwardAuth(_)
        | Middleware::Oidc(_)
        | Middleware::Cors(_)
        | Middleware::MaxBody(_)
        | Middleware::Retry(_)
        | Middleware::ErrorPages(_)
        | Middleware::Compress(_)
        | Middleware::Redirect { .. } => target.to_owned(),
    };
    let unfit = || Refusal::new("its path would lead elsewhere", Answer::new(400, "The path can not be rewritten."));
    if changed.len() > LONGEST {
        return Err(Refusal::new("its path would be too long", Answer::new(414, "The path is too long.")));
    }
    if !changed.starts_with('/') || check_path(&changed).is_err() {
        return Err(unfit());
    }
    Ok(changed)
}

/// The path, and the query with its `?`.
pub(super) fn split(target: &str) -> (&str, &str) {
    target.split_at(target.find('?').unwrap_or(target.len()))
}

/// A target and a query behind it, where it may have one of its own.
pub(super) fn expand(target: String, query: &str) -> String {
    match query.strip_prefix('?') {
        Some(query) if target.contains('?') => format!("{target}&{query}"),
        Some(_) => target + query,
        None => target,
    }
}

/// Without the first of these that it begins with, segment by segment.
fn strip<'a>(path: &'a str, prefixes: &[String]) -> &'a str {
    let rest = |prefix: &String| match behind_prefix(path, prefix)? {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        _ => None,
    };
    prefixes.iter().find_map(rest).unwrap_or(path)
}

fn rewrite(to: &Replacement, path: &str, query: &str) -> String {
    expand(to.from.replace(path, &to.to).into_owned(), query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_changed_and_never_escapes() {
        let strip = || Middleware::StripPrefix(vec!["/api".to_owned(), "/v1".to_owned()]);
        let add = || Middleware::AddPrefix("/base".to_owned());
        let rewrite =
            |from: &str, to: &str| Middleware::Rewrite(Replacement { from: from.parse().unwrap(), to: to.to_owned() });
        for (step, target, expected) in [
            (strip(), "/api/users?x=/api", Some("/users?x=/api")),
            (strip(), "/api", Some("/")),
            (strip(), "/api?x", Some("/?x")),
            (strip(), "/apiary", Some("/apiary")),
            (strip(), "/v1//evil.example", Some("//evil.example")),
            (strip(), "/%61pi/%61?%61", Some("/%61?%61")),
            (strip(), "/other", Some("/other")),
            (strip(), "*", Some("*")),
            (strip(), "/api/..%2fetc", None),
            (strip(), "/api/..%5Cetc", None),
            (add(), "/a?b", Some("/base/a?b")),
            (rewrite("^/old/(.*)$", "/new/$1"), "/old/a?b", Some("/new/a?b")),
            (rewrite("^/old/(.*)$", "/new/$1"), "/other", Some("/other")),
            (rewrite("^/item/([0-9]+)$", "/show?id=$1"), "/item/7?x=1", Some("/show?id=7&x=1")),
            (rewrite("^/x(.*)$", "/$1"), "/x./secret", None),
            (rewrite("^/x(.*)$", "/a/$1"), "/x../secret", None),
            (rewrite("^/x(.*)$", "/a/$1"), "/x%2E./secret", None),
            (rewrite("^/x(.*)$", "$1"), "/xsecret", None),
            (rewrite("^/x(.*)$", "/%00$1"), "/x", None),
            (rewrite("(.*)", "/$1$1$1$1"), &format!("/{}", "a".repeat(8000)), None),
        ] {
            assert_eq!(change(&step, target).ok().as_deref(), expected, "{step:?} {target}");
        }
    }
}
