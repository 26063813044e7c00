//! Who gets an alias, and who answers which requests: the first to claim them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use thin_vec::ThinVec;

use crate::model::{
    Alias, PathPattern, Place, Problem, Problems, RouteMatch, RouteSpec, RouteTarget, arrives, literal_address, overlap,
};

/// The routes that were kept, and why others were not.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) routes: BTreeMap<Alias, Arc<RouteSpec>>,
    pub(super) problems: Problems,
    /// The route that answers each kind of requests.
    answered: HashMap<(String, RouteMatch), Alias>,
    /// The routes that listen on each port, in the order of their claims.
    listening: HashMap<u16, Vec<Alias>>,
}

impl Claims {
    /// Keeps a route unless its alias is claimed, or the very same requests are answered already.
    pub(super) fn claim(&mut self, route: impl Into<Arc<RouteSpec>>) {
        let route = route.into();
        if let Some(keeper) = self.routes.get(&route.alias) {
            if !stands_for(keeper, &route) {
                self.problems.0.push(claimed(keeper, &route));
            }
            return;
        }
        let listen = &route.matches.listen;
        let beside =
            listen.iter().flat_map(|at| self.listening_on(at.port())).find_map(|first| same_port(first, &route));
        if let Some(problem) = beside {
            self.problems.0.push(problem);
            return;
        }
        let fronts = fronts(&route.matches);
        if let Some((host, first)) = fronts.iter().find_map(|front| Some((&front.0, self.answered.get(front)?))) {
            let at = self.routes.get(first).map(|first| format!(" of {}", owner(&first.place))).unwrap_or_default();
            let what = format!("route `{}` answers the same requests of `{host}` as route `{first}`{at}", route.alias);
            let hint = "give one of them another host, or other paths";
            self.problems.0.push(Problem::error(route.place.clone(), what).with_hint(hint));
            return;
        }
        self.answered.extend(fronts.into_iter().map(|front| (front, route.alias.clone())));
        for port in listen.iter().map(SocketAddr::port).collect::<BTreeSet<_>>() {
            self.listening.entry(port).or_default().push(route.alias.clone());
        }
        self.routes.insert(route.alias.clone(), route);
    }

    /// Takes out routes to an address where a stream route listens: what is sent there may come back for ever.
    pub(super) fn refuse_circles(&mut self) {
        let circle = |way: &RouteSpec| {
            let RouteTarget::Address { host, endpoint } = &way.target else { return None };
            let to = literal_address(host, endpoint.port)?;
            let takes = |first: &&Arc<RouteSpec>| {
                shares(carries(first), carries(way)) && first.matches.listen.iter().any(|at| arrives(to, *at))
            };
            self.listening_on(to.port()).find(takes).map(|first| (way.alias.clone(), to, first.alias.clone()))
        };
        let leads = |route: &Arc<RouteSpec>| route.ways().find_map(circle);
        let found: Vec<_> = self.routes.values().filter_map(leads).collect();
        for (alias, to, first) in found {
            if let Some(route) = self.routes.remove(&alias) {
                let what = format!("route `{alias}` leads to `{to}`, where route `{first}` listens");
                let hint = "name the address of the service itself";
                self.problems.0.push(Problem::error(route.place.clone(), what).with_hint(hint));
            }
        }
    }

    fn listening_on(&self, port: u16) -> impl Iterator<Item = &Arc<RouteSpec>> {
        self.listening.get(&port).into_iter().flatten().filter_map(|alias| self.routes.get(alias))
    }

    /// Routes that share a host and one path of several: the one whose alias comes first answers there.
    pub(super) fn warn_of_shadows(&mut self) {
        let mut known: HashMap<_, Vec<&RouteSpec>> = HashMap::new();
        let mut told = BTreeSet::new();
        for route in self.routes.values() {
            let paths: Vec<_> = route.matches.paths.iter().map(path_key).collect();
            let paths = if paths.is_empty() { vec![(false, "")] } else { paths };
            for (host, path) in route.matches.hosts.iter().flat_map(|host| paths.iter().map(move |path| (host, *path)))
            {
                let alike = known.entry((host, path, &route.matches.methods)).or_default();
                let first = alike.iter().find(|known| known.matches.headers == route.matches.headers);
                if let Some(first) = first.filter(|first| first.alias != route.alias)
                    && told.insert((&first.alias, &route.alias))
                {
                    let at = if path.1.is_empty() { format!("`{host}`") } else { format!("`{}` of `{host}`", path.1) };
                    let what =
                        format!("{at} is already answered by route `{}` of {}", first.alias, owner(&first.place));
                    let hint = format!("route `{}` gets none of these requests", route.alias);
                    self.problems.0.push(Problem::warning(route.place.clone(), what).with_hint(hint));
                }
                alike.push(route);
            }
        }
    }
}

/// A file's route to a container stands for the one that the container's labels or ports would make.
fn stands_for(keeper: &RouteSpec, route: &RouteSpec) -> bool {
    let from_labels = |place: &Place| matches!(place, Place::Label { .. });
    !from_labels(&keeper.place)
        && from_labels(&route.place)
        && route.backend().is_some()
        && keeper.backends().any(|id| Some(id) == route.backend())
}

fn claimed(keeper: &RouteSpec, route: &RouteSpec) -> Problem {
    let what = format!("alias `{}` is already claimed by {}", route.alias, owner(&keeper.place));
    let hint = match (&keeper.place, &route.place) {
        (Place::Label { .. }, _) => {
            "a container with labels keeps it, and of two alike the older: give one of them another name with the \
             label `aliases`"
        }
        (_, Place::Label { .. }) => "routes of the file go before labels: rename or remove one of the two",
        _ => "rename or remove one of the two",
    };
    Problem::error(route.place.clone(), what).with_hint(hint)
}

/// Who claimed it: the container, whichever its label, or the place in the file.
fn owner(place: &Place) -> String {
    match place {
        Place::Label { container, .. } => format!("container {container}"),
        Place::File { .. } | Place::Body(_) | Place::Host(_) | Place::Node(_) => place.to_string(),
    }
}

/// Why a stream route can not be beside another: they listen at one place, and nothing tells them apart.
fn same_port(first: &RouteSpec, route: &RouteSpec) -> Option<Problem> {
    if !shares(carries(first), carries(route)) {
        return None;
    }
    let (theirs, ours) = (&first.matches.listen, &route.matches.listen);
    let (there, here) =
        ours.iter().find_map(|here| Some((theirs.iter().find(|there| overlap(**there, *here))?, here)))?;
    let (names, others) = (&route.matches.sni, &first.matches.sni);
    let both = names.iter().find(|name| others.contains(name));
    let all_named = !names.is_empty() && !others.is_empty();
    // The kernel takes one listener for each address: those who share it by name must share all of it.
    if there == here && both.is_none() && !(names.is_empty() && others.is_empty()) {
        return None;
    }
    let of_name = both.map(|name| format!(" for `{name}`")).unwrap_or_default();
    let what = format!(
        "route `{}` listens on `{here}`{of_name}, where route `{}` of {} listens",
        route.alias,
        first.alias,
        owner(&first.place)
    );
    let hint = match both {
        Some(_) => "give one of them another name in `sni`, or another listening port",
        None if all_named => "give both the same `bind`, or one of them another listening port",
        None => "give one of them another listening port, or tell them apart by names of TLS with `sni`",
    };
    Some(Problem::error(route.place.clone(), what).with_hint(hint))
}

/// Whether it takes connections, and datagrams. What leads nowhere may take either once it does.
fn carries(route: &RouteSpec) -> (bool, bool) {
    let of_way = |way: &RouteSpec| way.endpoint().map_or((true, true), |at| (at.scheme.has_tcp(), at.scheme.has_udp()));
    route.ways().map(of_way).fold((false, false), |(tcp, udp), (t, u)| (tcp || t, udp || u))
}

fn shares((tcp, udp): (bool, bool), (other_tcp, other_udp): (bool, bool)) -> bool {
    (tcp && other_tcp) || (udp && other_udp)
}

/// Each host of a route with all other conditions: equal ones mean equal requests.
fn fronts(matches: &RouteMatch) -> Vec<(String, RouteMatch)> {
    let rest = RouteMatch { hosts: ThinVec::new(), strip_prefix: None, ..matches.clone() };
    matches.hosts.iter().map(|host| (host.to_string(), rest.clone())).collect()
}

/// A path as the route table compares it.
fn path_key(path: &PathPattern) -> (bool, &str) {
    match path {
        PathPattern::Prefix(path) => (false, path.trim_end_matches('/')),
        PathPattern::Exact(path) => (true, path),
    }
}
