//! A container of a fixture.

use std::{collections::BTreeMap, net::IpAddr};

use dormouse::model::{Container, ContainerPort, ContainerState, Network, Running, Transport};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Unit {
    name: String,
    image: String,
    ports: Vec<String>,
    networks: Vec<String>,
    mode: String,
    remote: bool,
    state: String,
    mounts: Vec<String>,
    restart: String,
    health: bool,
    created: i64,
    compose: String,
    labels: BTreeMap<String, String>,
}

impl Default for Unit {
    fn default() -> Self {
        Self {
            name: "app".into(),
            image: "example/app:1".into(),
            ports: Vec::new(),
            networks: vec!["bridge".into()],
            mode: "bridge".into(),
            remote: false,
            state: "running".into(),
            mounts: Vec::new(),
            restart: "no".into(),
            health: false,
            created: 1,
            compose: String::new(),
            labels: BTreeMap::new(),
        }
    }
}

impl Unit {
    /// One with a port and these labels.
    pub(crate) fn labelled(labels: BTreeMap<String, String>) -> Self {
        Self { ports: vec!["80".into()], labels, ..Self::default() }
    }

    pub(crate) fn container(&self) -> Container {
        let mut labels = self.labels.clone();
        if let Some((project, service)) = self.compose.split_once('/') {
            labels.insert("com.docker.compose.project".into(), project.into());
            labels.insert("com.docker.compose.service".into(), service.into());
        }
        let networks = self.networks.iter().map(|name| Network {
            name: name.clone(),
            address: (self.state != "stopped").then(|| IpAddr::from([172, 17, 0, 2])),
        });
        Container {
            node: "local".parse().unwrap(),
            id: format!("id-{}", self.name),
            name: self.name.clone(),
            image: self.image.clone(),
            labels,
            ports: self.ports.iter().map(|text| port(text)).collect(),
            networks: networks.collect(),
            mounts: self.mounts.clone(),
            network_mode: self.mode.clone(),
            is_near: !self.remote,
            restart_policy: self.restart.clone(),
            created: self.created,
            has_health_check: self.health,
            state: match self.state.as_str() {
                "running" => ContainerState::Running(Running::default()),
                "paused" => ContainerState::Paused(Running::default()),
                "stopped" => ContainerState::Stopped { exit_code: Some(0), error: None },
                "changing" => ContainerState::Changing,
                "gone" => ContainerState::Gone,
                other => panic!("no state `{other}`"),
            },
        }
    }
}

/// `80`, `53/udp`, `8080->80`.
fn port(text: &str) -> ContainerPort {
    let (text, transport) = match text.split_once('/') {
        Some((text, "udp")) => (text, Transport::Udp),
        Some((text, _)) => (text, Transport::Tcp),
        None => (text, Transport::Tcp),
    };
    let (published, port) = match text.split_once("->") {
        Some((host, port)) => (Some((IpAddr::from([0, 0, 0, 0]), host.parse().unwrap())), port),
        None => (None, text),
    };
    ContainerPort { port: port.parse().unwrap(), transport, published }
}
