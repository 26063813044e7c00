//! Comparing: nothing for what is equal, and every way from one catalog to another is safe at each step.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proptest::{prelude::*, sample::subsequence};

use super::{
    super::{dependencies::cycle, samples::*},
    *,
};
use crate::model::{BackendSpec, BalanceMode, Group, Member, RouteLog, RouteTarget, SleepMethod};

fn catalog(backends: Vec<BackendSpec>, routes: Vec<RouteSpec>) -> Catalog {
    Catalog {
        backends: backends.into_iter().map(|spec| (spec.id.clone(), spec)).collect(),
        routes: routes.into_iter().map(|route| (route.alias.clone(), Arc::new(route))).collect(),
        ..Catalog::default()
    }
}

fn words(old: &Catalog, new: &Catalog) -> Vec<String> {
    diff(old, new).iter().map(ToString::to_string).collect()
}

#[test]
fn a_new_world_is_built_from_the_ground_and_torn_down_from_the_top() {
    let full = catalog(
        vec![backend("a", &["b"]), backend("b", &["c"]), backend("c", &[])],
        vec![route("a", "a", 80, file_place(1))],
    );
    let empty = Catalog::default();
    let up = ["add backend `local/c`", "add backend `local/b`", "add backend `local/a`"];
    let mut expected: Vec<&str> = up.to_vec();
    expected.push("add route `a` to port 80 (http) of `local/a`");
    assert_eq!(words(&empty, &full), expected);
    let down = ["remove route `a`", "remove backend `local/a`", "remove backend `local/b`", "remove backend `local/c`"];
    assert_eq!(words(&full, &empty), down);
    assert!(diff(&full, &full).is_empty());
}

#[test]
fn a_route_that_moved_in_its_file_did_not_change() {
    let at = |line| catalog(vec![], vec![route("a", "a", 80, file_place(line))]);
    assert!(diff(&at(1), &at(2)).is_empty());
}

#[test]
fn what_changed_of_how_a_route_is_served_is_named() {
    let old = route("a", "a", 80, file_place(1));
    let mut new = old.clone();
    let options = Arc::make_mut(&mut new.options);
    (options.access_log, options.title) = (RouteLog::Off, Some("A".into()));
    let words = words(&catalog(vec![], vec![old]), &catalog(vec![], vec![new]));
    assert_eq!(words, ["change route `a`: title, access_log"]);
}

#[test]
fn a_group_whose_members_moved_in_their_file_did_not_change() {
    let at = |line| {
        let member = |port| Member { weight: 1, route: Arc::new(route("web", "a", port, file_place(line))) };
        let members = vec![member(80), member(81)];
        let group = Group { mode: BalanceMode::RoundRobin, sticky: None, wake_more_at: 20, members };
        let target = RouteTarget::Group(Arc::new(group));
        catalog(vec![], vec![RouteSpec { target, ..route("web", "a", 80, file_place(line)) }])
    };
    assert!(diff(&at(1), &at(2)).is_empty());
}

#[test]
fn what_changed_of_a_group_is_named() {
    let group = |mode, members: &[(u16, u16)]| {
        let member = |(port, weight): &(u16, u16)| Member {
            weight: *weight,
            route: Arc::new(route("web", "a", *port, file_place(1))),
        };
        let members = members.iter().map(member).collect();
        let group = Group { mode, sticky: None, wake_more_at: 20, members };
        RouteSpec { target: RouteTarget::Group(Arc::new(group)), ..route("web", "a", 80, file_place(1)) }
    };
    let told = |old, new| words(&catalog(vec![], vec![old]), &catalog(vec![], vec![new]));
    let old = group(BalanceMode::RoundRobin, &[(80, 1), (81, 1)]);
    assert!(told(old.clone(), old.clone()).is_empty());
    let new = group(BalanceMode::IpHash, &[(80, 1), (81, 3)]);
    assert_eq!(told(old.clone(), new), ["change route `web`: mode round_robin → ip_hash, weights"]);
    let new = group(BalanceMode::RoundRobin, &[(80, 1)]);
    assert_eq!(
        told(old, new),
        [
            "change route `web`: port 80 (http) of `local/a` and port 81 (http) of `local/a` → port 80 (http) of `local/a`"
        ]
    );
}

#[test]
fn changes_are_told_with_both_values() {
    let old = backend("a", &[]);
    let mut new = backend("a", &["db"]);
    new.policy.idle_timeout = Some(Duration::from_secs(900));
    new.policy.stop_method = SleepMethod::Pause;
    new.ports = vec![80];
    let (old, new) = (catalog(vec![old], vec![]), catalog(vec![new, backend("db", &[])], vec![]));
    let changes = diff(&old, &new);
    let Change::ChangeBackend { aspects, .. } = &changes[1] else { panic!("{changes:?}") };
    assert_eq!(*aspects, [Aspect::Policy, Aspect::Ports, Aspect::Dependencies]);
    assert_eq!(
        changes[1].to_string(),
        "change backend `local/a`: idle_timeout none → 15m, stop_method stop → pause, ports [] → [80], \
         depends_on nothing → local/db"
    );
    let moved = |port| catalog(vec![], vec![route("a", "a", port, file_place(1))]);
    let expected = "change route `a`: port 80 (http) of `local/a` → port 81 (http) of `local/a`";
    assert_eq!(words(&moved(80), &moved(81)), [expected]);
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A sound catalog: backends in a random order of which each needs only earlier ones, and routes to them.
fn some_catalog() -> impl Strategy<Value = Catalog> {
    let names = subsequence(NAMES.to_vec(), 0..=NAMES.len()).prop_shuffle();
    let needs = proptest::collection::vec(proptest::collection::vec(0usize..6, 0..3), NAMES.len());
    let traits = proptest::collection::vec((0u16..3, any::<bool>()), NAMES.len());
    (names, needs, traits).prop_map(|(names, needs, traits)| {
        let mut all = catalog(vec![], vec![]);
        for (index, name) in names.iter().enumerate() {
            let needs: BTreeSet<&str> = needs[index].iter().filter(|n| **n < index).map(|n| names[*n]).collect();
            let mut spec = backend(name, &needs.into_iter().collect::<Vec<_>>());
            let (port, routed) = traits[index];
            spec.ports = vec![port];
            if routed {
                let route = route(name, name, port, file_place(1));
                all.routes.insert(route.alias.clone(), Arc::new(route));
            }
            all.backends.insert(spec.id.clone(), spec);
        }
        all
    })
}

fn check_sound(catalog: &Catalog) -> Result<(), TestCaseError> {
    prop_assert!(cycle(&catalog.backends).is_none());
    for spec in catalog.backends.values() {
        for dependency in &spec.depends_on {
            prop_assert!(catalog.backends.contains_key(&dependency.on), "{} lacks {}", spec.id, dependency.on);
        }
    }
    for route in catalog.routes.values() {
        if let RouteTarget::Backend { id, .. } = &route.target {
            prop_assert!(catalog.backends.contains_key(id), "{} lacks {id}", route.alias);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_steps_lead_from_old_to_new_and_each_is_safe(old in some_catalog(), new in some_catalog()) {
        let mut now = old.clone();
        for change in diff(&old, &new) {
            let before = now.clone();
            change.apply(&mut now);
            prop_assert_ne!(&before, &now, "{} changes something", change);
            prop_assert!(!change.to_string().ends_with(": "), "{}", change);
            check_sound(&now)?;
        }
        prop_assert_eq!(now, new);
    }
}
