//! What routes of files and of labels have in common once their draft is read.

use thin_vec::ThinVec;

use super::{balance, idle::Wanted, route::RouteDraft, stream, tree::unknown};
use crate::model::{Alias, Condition, HostPattern, Place, Problem, Problems, Scheme, Settings};

/// The condition of a dependency; GoDoxy's and Compose's words too.
pub(super) fn condition(wanted: &Wanted, problems: &mut Problems) -> Option<Condition> {
    match wanted.condition.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("started" | "service_started") => Some(Condition::Started),
        Some("healthy" | "service_healthy") => Some(Condition::Healthy),
        Some("completed" | "service_completed_successfully") => Some(Condition::Completed),
        Some(other) => {
            problems.0.push(unknown(&wanted.place, "condition", other, &["started", "healthy", "completed"]));
            None
        }
    }
}

/// The scheme of a route: as written, else by its ports.
pub(super) fn scheme(draft: &RouteDraft, port: Option<u16>) -> Scheme {
    match (draft.scheme, port) {
        (Some(scheme), _) => scheme,
        (None, _) if draft.listen_port.is_some() => Scheme::Tcp,
        (None, Some(port)) if port % 1000 == 443 => Scheme::Https,
        (None, _) => Scheme::Http,
    }
}

/// Keys that do not go with the scheme.
pub(super) fn check_scheme(scheme: Scheme, draft: &RouteDraft, place: &Place, problems: &mut Problems) {
    stream::check(scheme, draft, place, problems);
    balance::check(scheme, draft, place, problems);
    if scheme.is_stream() {
        return;
    }
    if draft.listen_port.is_some() {
        let what = format!("a listening port of its own for an `{scheme}` route is not in this version yet");
        let at = draft.port.as_ref().map_or(place, |(_, place)| place);
        problems.0.push(Problem::error(at.clone(), what).with_hint("write the target port alone"));
    }
}

/// A profile of client certificates that nobody has described would let nobody in, or everybody.
pub(super) fn check_profile(draft: &RouteDraft, settings: &Settings, problems: &mut Problems) {
    let Some((name, place)) = &draft.client_profile else { return };
    if !settings.tls.clients.contains_key(name) {
        let known: Vec<&str> = settings.tls.clients.keys().map(String::as_str).collect();
        let problem = unknown(place, "profile of client certificates", name, &known);
        let hint = format!("describe it: `tls: {{clients: {{{name}: clients.pem}}}}`");
        problems.0.push(if known.is_empty() { problem.with_hint(hint) } else { problem });
    }
}

/// The hosts of an alias in all domains, and those of `hosts`.
pub(super) fn hosts(alias: &Alias, draft: &RouteDraft, settings: &Settings) -> ThinVec<HostPattern> {
    let mut hosts = ThinVec::new();
    if alias.is_full_host() {
        hosts.push(HostPattern::Exact(alias.as_str().into()));
    } else if settings.domains.is_empty() {
        hosts.push(HostPattern::FirstLabel(alias.as_str().into()));
    } else {
        let in_domain = |domain: &String| HostPattern::Exact(format!("{alias}.{domain}").into());
        hosts.extend(settings.domains.iter().map(in_domain));
    }
    for host in &draft.matches.hosts {
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    hosts.shrink_to_fit();
    hosts
}
