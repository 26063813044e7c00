//! Container labels: whatever they say makes routes or problems, never a panic, and the same ones each time. The input
//! is lines of `key=value`; the first byte chooses among ports, modes and names.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use dormouse::{
    config::from_container,
    model::{Container, ContainerPort, ContainerState, Network, Running, Settings, Transport},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let container = container(*choice, &String::from_utf8_lossy(bytes));
    let settings = Settings::default();
    let own = ["front".to_owned()];
    let made = from_container(&container, &settings, &own);
    let names: BTreeSet<_> = made.routes.iter().map(|route| route.alias.as_str()).collect();
    assert_eq!(names.len(), made.routes.len(), "two routes of one name: {:?}", made.routes);
    let again = from_container(&container, &settings, &own);
    assert_eq!((made.routes, made.backend, made.excluded), (again.routes, again.backend, again.excluded));
    assert_eq!(format!("{:?}", made.problems), format!("{:?}", again.problems));
});

fn container(choice: u8, text: &str) -> Container {
    let labels: BTreeMap<_, _> = text
        .split('\n')
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.into(), value.replace('\t', "\n")))
        .collect();
    let chosen = |bit: u8| choice >> bit & 1 == 1;
    let port = |port, transport| ContainerPort { port, transport, published: None };
    let mut ports = Vec::new();
    if chosen(0) {
        ports.push(port(8080, Transport::Tcp));
    }
    if chosen(1) {
        ports.push(port(53, Transport::Udp));
    }
    if chosen(2) {
        ports.push(port(443, Transport::Tcp));
    }
    Container {
        node: "docker-1".parse().expect("a name"),
        id: "0123456789ab".to_owned(),
        name: if chosen(3) { "project-app-1" } else { "app" }.to_owned(),
        image: if chosen(4) { "postgres:16" } else { "example/app" }.to_owned(),
        labels,
        ports,
        networks: vec![Network { name: "front".to_owned(), address: Some([172, 18, 0, 2].into()) }],
        mounts: Vec::new(),
        network_mode: if chosen(5) { "host" } else { "front" }.to_owned(),
        is_near: true,
        restart_policy: if chosen(6) { "always" } else { "no" }.to_owned(),
        created: 0,
        has_health_check: chosen(7),
        state: ContainerState::Running(Running::default()),
    }
}
