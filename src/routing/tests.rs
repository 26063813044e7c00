//! The order of matching by example, and the table against a matcher that knows no tables.

use proptest::{prelude::*, sample::select};

use super::*;
use crate::model::{HeaderMatch, PathPattern};

fn no_headers<'a>(_: &str) -> Option<&'a str> {
    None
}

fn get<'a>(host: &'a str, path: &'a str) -> Query<'a> {
    Query { host, path, method: "GET", headers: &no_headers }
}

fn path(text: &str) -> PathPattern {
    match text.strip_prefix('=') {
        Some(exact) => PathPattern::Exact(exact.to_owned()),
        None => PathPattern::Prefix(text.to_owned()),
    }
}

fn host(text: &str) -> HostPattern {
    match text.strip_suffix(".*") {
        Some(label) => HostPattern::FirstLabel(label.into()),
        None => text.parse().unwrap(),
    }
}

fn route(hosts: &[&str], paths: &[&str]) -> RouteMatch {
    RouteMatch {
        hosts: hosts.iter().map(|text| host(text)).collect(),
        paths: paths.iter().map(|text| path(text)).collect(),
        ..RouteMatch::default()
    }
}

fn table(routes: &[(&'static str, RouteMatch)]) -> RouteTable<&'static str> {
    RouteTable::build(routes.iter().map(|(name, matches)| (matches.clone(), *name)))
}

fn check(table: &RouteTable<&'static str>, host: &str, path: &str, expected: Option<&str>) {
    assert_eq!(table.find(&get(host, path)).copied(), expected, "{host}{path}");
}

#[test]
fn an_exact_host_comes_before_patterns_and_longer_suffixes_before_shorter() {
    let table = table(&[
        ("all", route(&["*"], &[])),
        ("com", route(&["*.com"], &[])),
        ("example", route(&["*.example.com"], &[])),
        ("label", route(&["app.*"], &[])),
        ("exact", route(&["app.example.com"], &[])),
    ]);
    check(&table, "app.example.com", "/", Some("exact"));
    check(&table, "app.example.org", "/", Some("label"));
    check(&table, "app", "/", Some("label"));
    check(&table, "a.b.example.com", "/", Some("example"));
    check(&table, "example.com", "/", Some("com"));
    check(&table, "com", "/", Some("all"));
    check(&table, "[::1]:80", "/", Some("all"));
    check(&table, "", "/", Some("all"));
}

#[test]
fn case_port_and_trailing_dot_do_not_matter() {
    let table = table(&[("app", route(&["App.Example.com", "two.*"], &[]))]);
    for host in ["app.example.com", "APP.example.COM.", "app.example.com:8080", "app.Example.com.:1"] {
        check(&table, host, "/", Some("app"));
    }
    let odd = ["app.example.com:port", "app.example.com..", "xapp.example.com", "app.example.co", ""];
    for host in odd {
        check(&table, host, "/", None);
        assert_eq!(table.served(host), Served::No, "{host}");
    }
    assert_eq!(table.served("APP.example.com:1"), Served::ByName);
    assert_eq!(table.served("Two.example.com"), Served::ByPattern);
}

#[test]
fn paths_match_on_whole_segments_and_the_longest_wins() {
    let table = table(&[
        ("root", route(&["a"], &["/"])),
        ("api", route(&["a"], &["/api"])),
        ("v1", route(&["a"], &["/api/v1/"])),
        ("exact", route(&["a"], &["=/api"])),
    ]);
    check(&table, "a", "/", Some("root"));
    check(&table, "a", "/apiary", Some("root"));
    check(&table, "a", "/api", Some("exact"));
    check(&table, "a", "/api/", Some("api"));
    check(&table, "a", "/api/v1", Some("v1"));
    check(&table, "a", "/api/v1/x", Some("v1"));
    check(&table, "a", "/api/v10", Some("api"));
    check(&table, "a", "/API", Some("root"));
    check(&table, "a", "*", Some("root"));
}

#[test]
fn several_slashes_are_one() {
    let table = table(&[
        ("root", route(&["a"], &["/"])),
        ("api", route(&["a"], &["/api/v1"])),
        ("exact", route(&["a"], &["=/api"])),
        ("doubled", route(&["a"], &["/b//c"])),
    ]);
    check(&table, "a", "//", Some("root"));
    check(&table, "a", "//api", Some("exact"));
    check(&table, "a", "/api//", Some("root"));
    check(&table, "a", "///api//v1//x", Some("api"));
    check(&table, "a", "//api/v10", Some("root"));
    check(&table, "a", "/b//c/d", Some("doubled"));
    check(&table, "a", "/b/c", Some("root"));
}

#[test]
fn more_conditions_come_before_fewer_and_all_must_hold() {
    let with = |methods: &[&str], headers: &[(&str, Option<&str>)]| RouteMatch {
        methods: methods.iter().map(|&method| method.to_owned()).collect(),
        headers: headers
            .iter()
            .map(|(name, value)| HeaderMatch { name: (*name).to_owned(), value: value.map(str::to_owned) })
            .collect(),
        ..route(&["a"], &["/x"])
    };
    let table = table(&[
        ("plain", with(&[], &[])),
        ("method", with(&["POST", "PUT"], &[])),
        ("header", with(&[], &[("x-a", None), ("x-b", Some("1"))])),
    ]);
    let ask = |method, a: Option<&'static str>, b: Option<&'static str>| {
        let headers = move |name: &str| match name {
            "x-a" => a,
            "x-b" => b,
            _ => None,
        };
        table.find(&Query { host: "a", path: "/x", method, headers: &headers }).copied()
    };
    assert_eq!(ask("GET", None, None), Some("plain"));
    assert_eq!(ask("PUT", None, None), Some("method"));
    assert_eq!(ask("PUT", Some(""), Some("1")), Some("header"));
    assert_eq!(ask("GET", Some(""), Some("2")), Some("plain"));
}

#[test]
fn a_host_that_turns_a_request_down_leaves_it_to_the_next() {
    let table = table(&[("api", route(&["a.b"], &["/api"])), ("rest", route(&["*.b"], &[]))]);
    check(&table, "a.b", "/api", Some("api"));
    check(&table, "a.b", "/", Some("rest"));
    check(&table, "b", "/", None);
}

#[test]
fn of_equals_the_first_answers_and_no_host_is_no_match() {
    let routes = [("stream", route(&[], &[])), ("one", route(&["a"], &[])), ("two", route(&["a"], &[]))];
    let table = table(&routes);
    check(&table, "a", "/", Some("one"));
    check(&table, "b", "/", None);
    assert!(RouteTable::<u8>::default().find(&get("a", "/")).is_none());
}

/// The reference: every pattern of every route is tried, and the best by the words of the rule is taken.
fn slowly(routes: &[RouteMatch], query: &Query<'_>) -> Option<usize> {
    let host = query.host.to_ascii_lowercase();
    let host = host.split(':').next().unwrap().trim_end_matches('.');
    let labels: Vec<&str> = host.split('.').collect();
    let host_rank = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(name) => (**name == *host).then_some((3, 0)),
        HostPattern::FirstLabel(label) => (labels[0] == &**label).then_some((2, 0)),
        HostPattern::Wildcard(suffix) => {
            let wanted: Vec<&str> = suffix.split('.').collect();
            (labels.len() > wanted.len() && labels.ends_with(&wanted)).then_some((1, wanted.len()))
        }
        HostPattern::Any => Some((0, 0)),
    };
    let mut asked = query.path.to_owned();
    while asked.contains("//") {
        asked = asked.replace("//", "/");
    }
    let segments = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let path_rank = |pattern: &PathPattern| match pattern {
        PathPattern::Exact(path) => (*path == asked).then_some((path.len(), true)),
        PathPattern::Prefix(path) => {
            let path = path.trim_end_matches('/');
            segments(&asked).starts_with(&segments(path)).then_some((path.len(), false))
        }
    };
    let mut best = None;
    for (index, route) in routes.iter().enumerate() {
        let method = route.methods.is_empty() || route.methods.iter().any(|method| method == query.method);
        let headers = route.headers.iter().all(|header| (query.headers)(&header.name).is_some());
        if !method || !headers {
            continue;
        }
        let hosts = route.hosts.iter().filter_map(host_rank).max();
        let paths = match route.paths.is_empty() {
            true => Some((0, false)),
            false => route.paths.iter().filter_map(path_rank).max(),
        };
        let (Some(hosts), Some(paths)) = (hosts, paths) else { continue };
        let rank = (hosts, paths, usize::from(!route.methods.is_empty()) + route.headers.len());
        if best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, index));
        }
    }
    best.map(|(_, index)| index)
}

const HOSTS: &[&str] = &["a", "b", "a.b", "b.a", "a.a.b", "b.b.a", "*.b", "*.a.b", "*.a", "a.*", "b.*", "*"];
const ASKED: &[&str] = &["a", "B", "a.b", "b.a:80", "a.a.b.", "b.b.a", "x.a.b", "x.y.a.b", "a.c", "c"];
const PATHS: &[&str] = &["/", "/a", "/a/", "/a/b", "=/a", "=/a/b", "=/", "/ab"];
const ASKED_PATHS: &[&str] = &["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/ab/c", "/b", "//", "//a", "/a//b/"];

fn some_route() -> impl Strategy<Value = RouteMatch> {
    let hosts = proptest::collection::vec(select(HOSTS), 0..4);
    let paths = proptest::collection::vec(select(PATHS), 0..3);
    let methods = proptest::collection::vec(select(&["GET", "POST"][..]), 0..2);
    let headers = proptest::collection::vec(select(&["x-a", "x-b"][..]), 0..2);
    (hosts, paths, methods, headers).prop_map(|(hosts, paths, methods, headers)| RouteMatch {
        methods: methods.into_iter().map(str::to_owned).collect(),
        headers: headers.into_iter().map(|name| HeaderMatch { name: name.to_owned(), value: None }).collect(),
        ..route(&hosts, &paths)
    })
}

proptest! {
    #[test]
    fn the_table_finds_what_trying_everything_finds(routes in proptest::collection::vec(some_route(), 0..12)) {
        let table = RouteTable::build(routes.iter().cloned().enumerate().map(|(index, route)| (route, index)));
        for host in ASKED {
            for path in ASKED_PATHS {
                for (method, header) in [("GET", ""), ("GET", "x-a"), ("POST", "x-b"), ("PUT", "")] {
                    let headers = |name: &str| (name == header).then_some("1");
                    let query = Query { host, path, method, headers: &headers };
                    prop_assert_eq!(table.find(&query).copied(), slowly(&routes, &query), "{:?} {}", query, header);
                }
            }
        }
    }
}
