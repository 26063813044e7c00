//! Reading the labels of 1,000 containers into routes and backends: what a start on a large host costs.

use std::{collections::BTreeMap, hint::black_box, net::IpAddr};

use criterion::{Criterion, Throughput};
use dormouse::{
    config::from_container,
    model::{Container, ContainerPort, ContainerState, Network, NodeName, Running, Settings, Transport},
};

const CONTAINERS: u64 = 1_000;

/// Five kinds of label sets, as they are found: one label, many, wildcards, YAML blocks, none at all.
fn labels(number: u64) -> BTreeMap<String, String> {
    let pairs: Vec<(&str, String)> = match number % 5 {
        0 => vec![("dormouse.idle_timeout", "15m".into())],
        1 => vec![
            ("proxy.aliases", format!("app{number}, web{number}")),
            ("proxy.idle_timeout", "1h30m".into()),
            ("proxy.stop_method", "pause".into()),
            ("proxy.#1.port", "8080".into()),
            ("proxy.#2.scheme", "http".into()),
            ("proxy.#2.port", "9090".into()),
        ],
        2 => vec![
            ("dormouse.aliases", format!("a{number} b{number} c{number}")),
            ("dormouse.*.healthcheck.path", "/healthz".into()),
            ("dormouse.ports", "80, 81, 82".into()),
        ],
        3 => vec![
            ("dormouse.aliases", format!("block{number}")),
            (
                "dormouse.*",
                "port: 3000\nhealthcheck:\n  interval: 10s\n  path: /ready\nmiddlewares:\n  set_headers: {}\n".into(),
            ),
            ("dormouse.idle_timeout", "5m".into()),
            ("dormouse.ignore", "monitors, favicon".into()),
        ],
        _ => Vec::new(),
    };
    let foreign = [("com.docker.compose.project", "home"), ("org.opencontainers.image.title", "an app")];
    let foreign = foreign.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).chain(foreign).collect()
}

fn container(node: &NodeName, number: u64) -> Container {
    let address = Some(IpAddr::from([10, 0, (number >> 8) as u8, number as u8]));
    Container {
        node: node.clone(),
        id: format!("{number:064x}"),
        name: format!("container-{number}"),
        image: "registry.example.org:5000/team/app:1.2".to_owned(),
        labels: labels(number),
        ports: [80, 3000, 8080].map(|port| ContainerPort { port, transport: Transport::Tcp, published: None }).into(),
        networks: vec![Network { name: "bridge".to_owned(), address }],
        mounts: Vec::new(),
        network_mode: "bridge".to_owned(),
        is_near: true,
        restart_policy: "no".to_owned(),
        created: number as i64,
        has_health_check: false,
        state: ContainerState::Running(Running { address, ..Running::default() }),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node: NodeName = "local".parse()?;
    let containers: Vec<Container> = (0..CONTAINERS).map(|number| container(&node, number)).collect();
    let settings = Settings::default();
    // A set that is refused would be measured as if it were read.
    for container in &containers {
        let made = from_container(container, &settings, &[]);
        assert!(!made.problems.has_errors() && !made.routes.is_empty(), "{}: {}", container.name, made.problems);
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("labels");
    group.throughput(Throughput::Elements(CONTAINERS));
    group.bench_function("read 1000 containers", |bencher| {
        bencher.iter(|| {
            containers
                .iter()
                .map(|container| black_box(from_container(container, &settings, &[])).routes.len())
                .sum::<usize>()
        });
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}
