//! Route look-up among 10, 1,000 and 50,000 hosts, a random host for each request; and the memory of a route.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use dormouse::{
    model::{HostPattern, PathPattern, RouteMatch},
    routing::{Query, RouteTable},
};

/// What a route may cost beyond its target.
const BYTES_PER_ROUTE: usize = 300;

/// So many routes are weighed.
const WEIGHED: usize = 50_000;

fn host(number: usize) -> String {
    format!("app-{number:05}.apps.example.com")
}

fn table(hosts: usize) -> RouteTable<u32> {
    RouteTable::build((0..hosts).map(|number| {
        let matches = RouteMatch {
            hosts: [HostPattern::Exact(host(number).into())].into(),
            paths: [PathPattern::Prefix("/".to_owned())].into(),
            ..RouteMatch::default()
        };
        (matches, number as u32)
    }))
}

/// A fixed pseudo-random order, longer than the caches are likely to remember.
fn asked(hosts: usize) -> Vec<String> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..65_536)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            host((state >> 33) as usize % hosts)
        })
        .collect()
}

fn look_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routes/find");
    for hosts in [10, 1_000, 50_000] {
        let (table, asked) = (table(hosts), asked(hosts));
        let mut next = asked.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(hosts), |bencher| {
            bencher.iter(|| {
                let host = next.next().map_or("", String::as_str);
                let query = Query { host, path: "/some/page", method: "GET", headers: &|_| None };
                black_box(table.find(black_box(&query)))
            });
        });
        let mut next = asked.iter().cycle();
        group.bench_function(BenchmarkId::new("unknown", hosts), |bencher| {
            bencher.iter(|| {
                let host = next.next().map_or("", |host| &host[1..]);
                let query = Query { host, path: "/some/page", method: "GET", headers: &|_| None };
                black_box(table.find(black_box(&query)))
            });
        });
    }
    group.finish();
}

/// Resident bytes of this process, from the kernel.
fn resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// The memory of many routes, target included; runs first, while the heap holds nothing that could be reused.
#[allow(clippy::print_stdout)]
fn memory() {
    let before = resident();
    let table = table(WEIGHED);
    if let (Some(before), Some(after)) = (before, resident()) {
        let each = after.saturating_sub(before) / WEIGHED;
        println!("routes/memory: {each} bytes a route (at most {BYTES_PER_ROUTE})");
        assert!(each <= BYTES_PER_ROUTE, "a route costs {each} bytes");
    }
    drop(table);
}

fn main() {
    memory();
    let mut criterion = Criterion::default().configure_from_args();
    look_up(&mut criterion);
    criterion.final_summary();
}
