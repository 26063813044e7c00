//! Groups: the routes that name the same link become one route with members.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::model::{
    Alias, BackendId, BalanceMode, Group, Link, Member, Place, Problem, Problems, RouteMatch, RouteSpec, RouteTarget,
};

/// Routes that wait to become a group, by its name, in the order of their claims.
#[derive(Debug, Default)]
pub(super) struct Groups {
    gathered: BTreeMap<Alias, Vec<Arc<RouteSpec>>>,
}

impl Groups {
    /// Adds a route that names a link. Returns any other.
    pub(super) fn gather(&mut self, route: &Arc<RouteSpec>) {
        if let Some(link) = &route.options.link {
            self.gathered.entry(link.name.clone()).or_default().push(Arc::clone(route));
        }
    }

    /// The group that this route is the first member of, or the route itself where it is none. Nothing where its
    /// group was asked for before.
    pub(super) fn whole(&mut self, route: Arc<RouteSpec>, problems: &mut Problems) -> Option<Arc<RouteSpec>> {
        let Some(link) = &route.options.link else { return Some(route) };
        let members = self.gathered.remove(&link.name)?;
        Some(Arc::new(group(&link.name, &members, problems)))
    }
}

/// The group of these routes; there is at least one.
fn group(name: &Alias, routes: &[Arc<RouteSpec>], problems: &mut Problems) -> RouteSpec {
    let mut kept: Vec<&Arc<RouteSpec>> = Vec::new();
    for route in routes {
        match refusal(name, route, &kept) {
            Verdict::Kept => kept.push(route),
            Verdict::Stood => {}
            Verdict::Refused(problem) => problems.0.push(*problem),
        }
    }
    let first = kept.first().copied().unwrap_or(&routes[0]);
    let mut matches = first.matches.clone();
    for host in kept.iter().skip(1).flat_map(|route| &route.matches.hosts) {
        if !matches.hosts.contains(host) {
            matches.hosts.push(host.clone());
        }
    }
    let member = |route: &&Arc<RouteSpec>| {
        let spec = RouteSpec { alias: name.clone(), matches: matches.clone(), ..(***route).clone() };
        Member { weight: link(route).map_or(1, |link| link.weight), route: Arc::new(spec) }
    };
    let members: Vec<Member> = kept.iter().map(member).collect();
    if members.iter().all(|member| member.weight == 0) {
        let what = format!("all members of `{name}` have the weight 0: nobody is served");
        problems.0.push(Problem::warning(first.place.clone(), what));
    }
    let target = RouteTarget::Group(Arc::new(Group { members, ..settled(name, &kept, problems) }));
    RouteSpec { alias: name.clone(), matches, target, ..(**first).clone() }
}

enum Verdict {
    Kept,
    /// Another stands for it.
    Stood,
    Refused(Box<Problem>),
}

fn refused(route: &RouteSpec, what: String, hint: &str) -> Verdict {
    Verdict::Refused(Box::new(Problem::error(route.place.clone(), what).with_hint(hint.to_owned())))
}

/// Whether a route may be a member beside these.
fn refusal(name: &Alias, route: &RouteSpec, kept: &[&Arc<RouteSpec>]) -> Verdict {
    if let Some(twin) = kept.iter().find(|other| leads_to(other) == leads_to(route)) {
        let from_labels = |place: &Place| matches!(place, Place::Label { .. });
        if !from_labels(&twin.place) && from_labels(&route.place) {
            return Verdict::Stood;
        }
        let what =
            format!("route `{}` leads where another member of `{name}` leads already ({})", route.alias, twin.place);
        return refused(route, what, "raise the `weight` of that one to give it more requests");
    }
    let Some(first) = kept.first() else { return Verdict::Kept };
    if kept.len() >= Group::MOST_MEMBERS {
        let what = format!("`{name}` has {} members already, and no more are taken", kept.len());
        return refused(route, what, "give some of the routes another `load_balance.link`");
    }
    if let Some(key) = difference(first, route) {
        let what = format!(
            "route `{}` of the link `{name}` has other `{key}` than the member at {}",
            route.alias, first.place
        );
        return refused(route, what, "all members of a link must have the same, since any of them may get a request");
    }
    Verdict::Kept
}

/// Where it leads in the end.
fn leads_to(route: &RouteSpec) -> Option<(Option<&BackendId>, Option<&str>, u16)> {
    match &route.target {
        RouteTarget::Backend { id, endpoint } => Some((Some(id), None, endpoint.port)),
        RouteTarget::Address { host, endpoint } => Some((None, Some(host), endpoint.port)),
        RouteTarget::Down { id } => Some((Some(id), None, 0)),
        RouteTarget::Group(_) => None,
    }
}

/// The first key in which two routes differ that members must have in common: which requests they answer, and whom
/// they let in. Their hosts are put together.
fn difference(first: &RouteSpec, route: &RouteSpec) -> Option<&'static str> {
    let (ours, theirs) = (&route.matches, &first.matches);
    let rest = |matches: &RouteMatch| RouteMatch { hosts: thin_vec::ThinVec::new(), ..matches.clone() };
    let (options, others) = (&route.options, &first.options);
    let is_stream = !ours.listen.is_empty() || !theirs.listen.is_empty();
    let scheme = |route: &RouteSpec| route.endpoint().filter(|_| is_stream).map(|endpoint| endpoint.scheme);
    let schemes = scheme(route).zip(scheme(first));
    let differing = [
        ("listening addresses", ours.listen != theirs.listen),
        ("scheme", schemes.is_some_and(|(ours, theirs)| ours != theirs)),
        ("sni", ours.sni != theirs.sni),
        ("tls_termination", options.tls_termination != others.tls_termination),
        ("paths", ours.paths != theirs.paths),
        ("methods", ours.methods != theirs.methods),
        ("headers", ours.headers != theirs.headers),
        ("strip_prefix", ours.strip_prefix != theirs.strip_prefix),
        ("match", rest(ours) != rest(theirs)),
        ("middlewares", options.middlewares != others.middlewares),
        ("inbound_mtls_profile", options.client_profile != others.client_profile),
        ("audience", route.audience != first.audience),
    ];
    differing.into_iter().find_map(|(key, differs)| differs.then_some(key))
}

fn link(route: &RouteSpec) -> Option<&Link> {
    route.options.link.as_deref()
}

/// What the members together say of their group: the first one to say something is heard.
fn settled(name: &Alias, routes: &[&Arc<RouteSpec>], problems: &mut Problems) -> Group {
    let mut said = |key: &str, differs: &dyn Fn(&Link) -> bool| {
        if let Some(route) = routes.iter().find(|route| link(route).is_some_and(differs)) {
            let what = format!("`{key}` of the link `{name}` differs between its members: the first one's holds");
            let hint = "write the same for all of them, or for one alone";
            problems.0.push(Problem::warning(route.place.clone(), what).with_hint(hint));
        }
    };
    let mode = first(routes, |link| link.mode);
    said("mode", &|link| link.mode.is_some() && link.mode != mode);
    let sticky = first(routes, |link| link.sticky);
    said("sticky", &|link| link.sticky.is_some() && link.sticky != sticky);
    let max_age: Option<Duration> = first(routes, |link| link.sticky_max_age);
    said("sticky_max_age", &|link| link.sticky_max_age.is_some() && link.sticky_max_age != max_age);
    let wake_more_at = first(routes, |link| link.wake_more_at);
    said("wake_more_at", &|link| link.wake_more_at.is_some() && link.wake_more_at != wake_more_at);
    Group {
        mode: mode.unwrap_or(BalanceMode::RoundRobin),
        sticky: sticky.unwrap_or(false).then(|| max_age.unwrap_or(Group::STICKY_MAX_AGE)),
        wake_more_at: wake_more_at.unwrap_or(Group::WAKE_MORE_AT),
        members: Vec::new(),
    }
}

fn first<T>(routes: &[&Arc<RouteSpec>], said: impl Fn(&Link) -> Option<T>) -> Option<T> {
    routes.iter().filter_map(|route| link(route)).find_map(said)
}
