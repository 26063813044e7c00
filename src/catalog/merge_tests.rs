//! Each rule of the merge by example, and what holds of every catalog.

use std::time::Duration;

use proptest::{prelude::*, sample::subsequence};

use super::{super::samples::*, *};
use crate::model::{Alias, HostPattern, PathPattern, RouteSpec, SleepMethod, Waiting};

fn leads_to(catalog: &Catalog, name: &str) -> RouteTarget {
    catalog.routes[&alias(name)].target.clone()
}

fn port_80_of(name: &str) -> RouteTarget {
    route("x", name, 80, file_place(1)).target
}

fn written(keys: &[&'static str]) -> Written {
    Written { place: file_place(9), depends_on: None, keys: keys.iter().copied().collect() }
}

fn sleeping(mut spec: crate::model::BackendSpec, method: SleepMethod) -> crate::model::BackendSpec {
    spec.policy.idle_timeout = Some(Duration::from_secs(60));
    spec.policy.stop_method = method;
    spec
}

#[test]
fn routes_of_the_file_beat_labels() {
    let file = file(vec![route("app", "other", 80, file_place(7))], vec![backend("other", &[])]);
    let catalog = Catalog::merge(file, vec![container(backend("app", &[]), 1, &["app", "two"])]);
    assert_eq!(leads_to(&catalog, "app"), port_80_of("other"));
    assert_eq!(leads_to(&catalog, "two"), port_80_of("app"));
    let words = words(&catalog);
    assert!(words.contains("error: container local/app: alias `app` is already claimed by dormouse.yaml:7"), "{words}");
    assert_eq!(catalog.file_errors().count(), 0);
}

#[test]
fn of_two_containers_the_older_keeps_the_alias() {
    let parts =
        vec![container(backend("young", &[]), 20, &["app"]), container(backend("old", &[]), 10, &["app", "old"])];
    let catalog = Catalog::merge(file(vec![], vec![]), parts);
    assert_eq!(leads_to(&catalog, "app"), port_80_of("old"));
    let words = words(&catalog);
    assert!(words.contains("container local/young: alias `app` is already claimed by container local/old"), "{words}");
    assert!(!catalog.backends.contains_key(&id("young")), "a container without a route left is not kept");
}

#[test]
fn the_file_extends_what_labels_say_of_a_container() {
    let mut labelled = sleeping(backend("app", &[]), SleepMethod::Pause);
    labelled.unit.network = Some("front".to_owned());
    let mut filed = backend("app", &["db"]);
    filed.policy.idle_timeout = Some(Duration::from_secs(5));
    filed.policy.max_held = 3;
    let parts = vec![container(labelled, 1, &["app"]), container(backend("db", &[]), 1, &[])];
    let mut file = file(vec![], vec![filed]);
    file.written.insert(id("app"), written(&["idle_timeout", "max_held", "depends_on"]));
    let catalog = Catalog::merge(file, parts);
    let app = &catalog.backends[&id("app")];
    assert_eq!(app.policy.idle_timeout, Some(Duration::from_secs(5)));
    assert_eq!(app.policy.stop_method, SleepMethod::Pause);
    assert_eq!(app.policy.max_held, 3);
    assert_eq!(app.unit.network.as_deref(), Some("front"));
    assert_eq!(app.depends_on, backend("app", &["db"]).depends_on);
}

#[test]
fn ports_of_all_routes_are_looked_at_for_readiness() {
    let file = file(vec![route("admin", "app", 9000, file_place(1))], vec![]);
    let catalog = Catalog::merge(file, vec![container(backend("app", &[]), 1, &["app"])]);
    assert_eq!(catalog.backends[&id("app")].ports, [80, 9000]);
}

#[test]
fn an_excluded_container_is_there_when_another_needs_it() {
    let excluded = |name: &str| DiscoveredPart {
        excluded: Some("a database".to_owned()),
        ..container(sleeping(backend(name, &[]), SleepMethod::Stop), 1, &[])
    };
    let parts = vec![container(backend("app", &["db"]), 2, &["app"]), excluded("db"), excluded("lonely")];
    let catalog = Catalog::merge(file(vec![], vec![]), parts);
    assert_eq!(catalog.backends.keys().cloned().collect::<Vec<_>>(), [id("app"), id("db")]);
    let excluded = |name: &str| (format!("local/{name}"), "a database".to_owned());
    assert_eq!(catalog.excluded, [excluded("db"), excluded("lonely")]);
}

#[test]
fn a_dependency_without_a_policy_sleeps_like_its_dependants() {
    let parts = vec![
        container(sleeping(backend("a", &["db", "both"]), SleepMethod::Pause), 1, &["a"]),
        container(sleeping(backend("b", &["both", "own"]), SleepMethod::Kill), 1, &["b"]),
        container(backend("c", &["free"]), 1, &["c"]),
        container(backend("db", &["disk"]), 1, &[]),
        container(backend("disk", &[]), 1, &[]),
        container(backend("both", &[]), 1, &[]),
        container(sleeping(backend("own", &[]), SleepMethod::Pause), 1, &[]),
        container(backend("free", &[]), 1, &[]),
    ];
    let catalog = Catalog::merge(file(vec![], vec![]), parts);
    let policy = |name: &str| {
        let policy = &catalog.backends[&id(name)].policy;
        (policy.dependency_only, policy.stop_method)
    };
    assert_eq!(policy("db"), (true, SleepMethod::Pause));
    assert_eq!(policy("disk"), (true, SleepMethod::Pause), "a method goes down a chain");
    assert_eq!(policy("both"), (true, SleepMethod::Stop), "dependants that differ: stop");
    assert_eq!(policy("own"), (false, SleepMethod::Pause), "an own policy stays");
    assert_eq!(policy("free"), (true, SleepMethod::Stop), "with one that sleeps only when ordered to");
    assert_eq!(policy("a"), (false, SleepMethod::Pause));
}

#[test]
fn a_circle_is_refused_with_its_members_named() {
    let parts = vec![
        container(backend("a", &["c"]), 1, &["a"]),
        container(backend("b", &["a"]), 1, &["b"]),
        container(backend("c", &["b"]), 1, &["c"]),
        container(backend("d", &["a"]), 1, &["d"]),
        container(backend("e", &[]), 1, &["e"]),
    ];
    let catalog = Catalog::merge(file(vec![], vec![]), parts);
    let words = words(&catalog);
    let circle = "dependencies go in a circle: `local/a` → `local/c` → `local/b` → `local/a`";
    assert_eq!(words.matches(circle).count(), 3, "{words}");
    assert!(words.contains("`local/d` depends on `local/a`, which is refused"), "{words}");
    assert_eq!(catalog.backends.keys().cloned().collect::<Vec<_>>(), [id("e")]);
    assert_eq!(leads_to(&catalog, "d"), RouteTarget::Down { id: id("d") }, "no other route may answer in its place");
    assert_eq!(catalog.problems.0.len(), 4);
}

#[test]
fn a_circle_in_the_file_refuses_the_file_but_a_missing_container_does_not() {
    let merge = |needs: &str| Catalog::merge(file(vec![], vec![backend("a", &[needs])]), vec![]);
    let circle = merge("a");
    assert_eq!(circle.file_errors().count(), 1);
    assert!(words(&circle).contains("circle: `local/a` → `local/a`"));
    let missing = merge("db");
    assert_eq!(missing.file_errors().count(), 0);
    assert!(words(&missing).contains("`local/a` depends on `local/db`, which is unknown"));
    assert!(missing.backends.is_empty());
}

#[test]
fn an_unknown_dependency_is_told_with_the_nearest_name() {
    let check = |wanted: &str, expected: &str| {
        let parts =
            vec![container(backend("app", &[wanted]), 1, &["app"]), container(backend("postgres", &[]), 1, &["pg"])];
        let words = words(&Catalog::merge(file(vec![], vec![]), parts));
        assert!(words.contains(expected), "{words}");
    };
    check("postgers", "error: container local/app, label `depends_on`: `local/app` depends on `local/postgers`");
    check("postgers", "which is unknown\n  hint: did you mean `postgres`?");
    check("redis", "which is unknown\n  hint: until it is there");
}

#[test]
fn a_route_to_nothing_is_told() {
    let catalog = Catalog::merge(file(vec![route("app", "gone", 80, file_place(3))], vec![]), vec![]);
    let words = words(&catalog);
    assert!(
        words.contains("warning: dormouse.yaml:3: route `app` leads to `local/gone`, which is not there"),
        "{words}"
    );
}

#[test]
fn a_path_that_another_route_answers_is_told_once() {
    let mut routes = vec![route("a", "x", 80, file_place(1)), route("b", "x", 80, file_place(2))];
    for route in &mut routes {
        route.matches.hosts.push(HostPattern::Exact("shop.example.org".into()));
        route.matches.paths = [PathPattern::Prefix("/api".into())].into();
    }
    routes.push(RouteSpec { matches: routes[0].matches.clone(), ..route("c", "x", 80, file_place(3)) });
    routes[1].matches.paths.push(PathPattern::Prefix("/more".into()));
    routes[2].matches.methods = ["POST".to_owned()].into();
    let catalog = Catalog::merge(file(routes, vec![backend("x", &[])]), vec![]);
    assert_eq!((catalog.problems.0.len(), catalog.routes.len()), (1, 3));
    let words = words(&catalog);
    let expected = "dormouse.yaml:2: `/api` of `shop.example.org` is already answered by route `a` of dormouse.yaml:1";
    assert!(words.contains(expected), "{words}");
}

#[test]
fn the_very_same_requests_are_answered_by_the_first_alone() {
    let shop = |name: &str, place| {
        let mut route = route(name, name, 80, place);
        route.matches.hosts.push(HostPattern::Exact("shop.example.org".into()));
        route
    };
    let mut parts = vec![container(backend("a", &[]), 2, &[]), container(backend("b", &[]), 1, &[])];
    parts[0].routes.push(shop("a", label_place("a")));
    parts[1].routes.push(shop("b", label_place("b")));
    let catalog = Catalog::merge(file(vec![], vec![]), parts);
    assert_eq!(catalog.routes.keys().cloned().collect::<Vec<_>>(), [alias("b")], "the older answers");
    let words = words(&catalog);
    let expected = "container local/a: route `a` answers the same requests of `shop.example.org` as route `b` of";
    assert!(words.contains(expected), "{words}");
    assert_eq!(catalog.file_errors().count(), 0);
    let routes = vec![shop("a", file_place(1)), shop("b", file_place(2))];
    let catalog = Catalog::merge(file(routes, vec![backend("a", &[]), backend("b", &[])]), vec![]);
    assert_eq!(catalog.file_errors().count(), 1);
}

#[test]
fn labels_keep_an_alias_before_an_older_container_without_any() {
    let unlabelled = DiscoveredPart { labelled: false, ..container(backend("old", &[]), 10, &["app"]) };
    let labelled = |name: &str, created| container(backend(name, &[]), created, &["app"]);
    let catalog = Catalog::merge(file(vec![], vec![]), vec![unlabelled.clone(), labelled("young", 20)]);
    assert_eq!(leads_to(&catalog, "app"), port_80_of("young"));
    let catalog =
        Catalog::merge(file(vec![], vec![]), vec![unlabelled, labelled("young", 20), labelled("younger", 30)]);
    assert_eq!(leads_to(&catalog, "app"), port_80_of("young"));
    assert_eq!(catalog.problems.0.len(), 2);
}

#[test]
fn a_route_of_the_file_stands_for_that_of_the_container_it_leads_to() {
    let file = file(vec![route("app", "app", 3000, file_place(1))], vec![backend("app", &[])]);
    let mut own = container(backend("app", &[]), 1, &["app"]);
    if let Some(spec) = &mut own.backend {
        spec.ports.push(80);
    }
    let catalog = Catalog::merge(file, vec![own]);
    assert_eq!(words(&catalog), "");
    assert_eq!(catalog.routes[&alias("app")].place, file_place(1));
    assert_eq!(catalog.backends[&id("app")].ports, [3000], "not the port of the route that was replaced");
}

#[test]
fn what_no_request_can_wake_is_left_alone() {
    let lost = sleeping(backend("lost", &[]), SleepMethod::Pause);
    let mut timed = sleeping(backend("timed", &[]), SleepMethod::Pause);
    timed.policy.schedule.0.push("Mon 08:00-09:00 UTC".parse().unwrap());
    let needed = sleeping(backend("needed", &[]), SleepMethod::Pause);
    let parts = vec![
        container(backend("app", &["needed"]), 1, &["app"]),
        container(lost, 2, &["app"]),
        container(timed, 1, &[]),
        container(needed, 1, &[]),
    ];
    let catalog = Catalog::merge(file(vec![], vec![]), parts);
    assert_eq!(catalog.backends.keys().cloned().collect::<Vec<_>>(), [id("app"), id("needed"), id("timed")]);
}

#[test]
fn the_overlay_takes_what_is_written_also_when_it_is_the_default() {
    let labelled = || {
        let mut found = sleeping(backend("a", &["db"]), SleepMethod::Pause);
        found.policy.waiting = Waiting::Hold;
        found
    };
    let mut found = labelled();
    put_over(&mut found, backend("a", &[]), Some(&written(&["stop_method", "waiting"])));
    assert_eq!((found.policy.stop_method, found.policy.waiting), (SleepMethod::Stop, Waiting::Page));
    assert_eq!(found.policy.idle_timeout, Some(Duration::from_secs(60)), "what is not written stays");
    assert_eq!(found.depends_on, labelled().depends_on);
    let mut found = labelled();
    put_over(&mut found, backend("a", &[]), Some(&written(&["idle_timeout", "depends_on"])));
    assert_eq!((found.policy.idle_timeout, found.depends_on.len()), (None, 0));
    let mut found = labelled();
    put_over(&mut found, backend("a", &[]), None);
    assert_eq!(found, backend("a", &[]), "without a word of what is written, everything is");
}

#[test]
fn a_dependency_is_told_where_it_is_written() {
    let place_of = |wrote: Written, labelled: &[&str]| {
        let mut file = file(vec![route("app", "app", 80, file_place(1))], vec![backend("app", &["nothing"])]);
        file.written.insert(id("app"), wrote);
        let parts = vec![container(backend("app", labelled), 1, &[])];
        words(&Catalog::merge(file, parts))
    };
    let at_the_route = Written { depends_on: Some(file_place(12)), ..written(&["depends_on"]) };
    assert!(place_of(at_the_route, &[]).starts_with("warning: dormouse.yaml:12: `local/app` depends on"));
    assert!(place_of(written(&["depends_on"]), &[]).starts_with("warning: dormouse.yaml:9: `local/app` depends on"));
    let words = place_of(written(&[]), &["none"]);
    assert!(words.starts_with("error: container local/app, label `depends_on`: `local/app` depends on"), "{words}");
}

#[test]
fn an_unknown_process_refuses_the_file() {
    let mut file = file(vec![], vec![backend("app", &["nothing"])]);
    file.told_by_files.insert("local".parse().unwrap());
    assert_eq!(Catalog::merge(file, vec![]).file_errors().count(), 1);
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A file and containers that name each other at will.
fn some_world() -> impl Strategy<Value = (FilePart, Vec<DiscoveredPart>)> {
    let needs = || subsequence(NAMES.to_vec(), 0..3);
    let containers = proptest::collection::vec((needs(), 0i64..3, subsequence(NAMES.to_vec(), 0..3), any::<bool>()), 4);
    let routes = proptest::collection::vec((0usize..5, 0usize..5), 0..3);
    let backends = proptest::collection::vec((0usize..5, needs()), 0..2);
    (containers, routes, backends).prop_map(|(containers, routes, backends)| {
        let mut parts = Vec::new();
        for (name, (needs, created, aliases, idle)) in NAMES.into_iter().zip(containers) {
            let spec = backend(name, &needs);
            let spec = if idle { sleeping(spec, SleepMethod::Pause) } else { spec };
            parts.push(container(spec, created, &aliases));
        }
        let mut names: Vec<&str> = Vec::new();
        let mut own = Vec::new();
        for (alias, to) in routes {
            if !names.contains(&NAMES[alias]) {
                names.push(NAMES[alias]);
                own.push(route(NAMES[alias], NAMES[to], 80, file_place(1)));
            }
        }
        let backends = backends.into_iter().map(|(name, needs)| backend(NAMES[name], &needs)).collect();
        (file(own, backends), parts)
    })
}

proptest! {
    #[test]
    fn what_holds_of_every_catalog((file, parts) in some_world()) {
        let claimed: BTreeSet<Alias> =
            file.routes.iter().map(|r| &**r).chain(parts.iter().flat_map(|part| &part.routes)).map(|r| r.alias.clone()).collect();
        let own: Vec<Arc<RouteSpec>> = file.routes.clone();
        let mut shuffled = parts.clone();
        shuffled.reverse();
        let catalog = Catalog::merge(file.clone(), parts);
        prop_assert_eq!(catalog.routes.keys().cloned().collect::<BTreeSet<_>>(), claimed, "each alias is there once");
        for route in own {
            prop_assert_eq!(&catalog.routes[&route.alias].place, &route.place, "the file's route stays");
        }
        prop_assert!(cycle(&catalog.backends).is_none());
        for spec in catalog.backends.values() {
            for dependency in &spec.depends_on {
                prop_assert!(catalog.backends.contains_key(&dependency.on), "each dependency is there");
            }
        }
        let told = words(&catalog);
        for route in catalog.routes.values() {
            let missing = route.backend().filter(|id| !catalog.backends.contains_key(*id));
            prop_assert!(missing.is_none_or(|id| told.contains(&format!("`{id}`"))), "what is missing is told");
        }
        prop_assert_eq!(catalog, Catalog::merge(file, shuffled), "the order of containers does not matter");
    }
}
