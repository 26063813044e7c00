//! `redirect_http` and `redirect`: the client is sent elsewhere.

use crate::model::Replacement;

use super::{
    super::{answer::Answer, secure},
    asker::Asker,
    chain::Refusal,
    path::{expand, split},
};

/// Sends those to HTTPS who came in clear.
pub(super) fn to_https(asker: &Asker<'_>) -> Result<(), Refusal> {
    let head = asker.head;
    if asker.is_secure() || head.target() == "*" {
        return Ok(());
    }
    Err(sent(secure::over_tls(head, asker.client.settings.https_redirect.unwrap_or(443))))
}

/// Sends those elsewhere whose path the pattern finds.
pub(super) fn elsewhere(to: &Replacement, status: u16, target: &str) -> Result<(), Refusal> {
    let Some(location) = location(to, target) else { return Ok(()) };
    Err(sent(Answer { location: Some(location), ..Answer::new(status, "The service is reached elsewhere.") }))
}

fn sent(answer: Answer) -> Refusal {
    Refusal::new("it is sent elsewhere", answer)
}

fn location(to: &Replacement, target: &str) -> Option<String> {
    let (path, query) = split(target);
    let found = to.from.captures(path)?;
    let mut location = String::new();
    found.expand(&to.to, &mut location);
    if to.to.starts_with('/') {
        // Two slashes, or one of either kind, would name another host.
        location = format!("/{}", location.trim_start_matches(['/', '\\']));
    }
    Some(expand(location, query))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_made_of_what_was_found_and_names_no_other_host() {
        let to = |from: &str, to: &str| Replacement { from: from.parse().unwrap(), to: to.to_owned() };
        for (rule, target, expected) in [
            (to("^.*$", "https://new.example/"), "/a?x=1", Some("https://new.example/?x=1")),
            (to("^/old/(.*)$", "https://new.example/$1"), "/old/a/b?x=1", Some("https://new.example/a/b?x=1")),
            (to("^/old/(.*)$", "/new/$1"), "/other", None),
            (to("^/old(.*)$", "$1").clone(), "/new", None),
            (to("^/old/(.*)$", "/$1"), "/old//evil.example/", Some("/evil.example/")),
            (to("^/old/(.*)$", "/$1"), "/old/\\evil.example/", Some("/evil.example/")),
            (to("^/s/(.*)$", "/search?q=$1"), "/s/cats?page=2", Some("/search?q=cats&page=2")),
        ] {
            assert_eq!(location(&rule, target).as_deref(), expected, "{} {target}", rule.to);
        }
    }
}
