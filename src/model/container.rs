//! What an engine says of one container, guest or process, in our words.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Namespace, NodeName, Spot};

/// TCP or UDP, of a port that a container exposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port that a container exposes, and where the engine publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// The container's own port.
    pub port: u16,
    /// Its transport.
    pub transport: Transport,
    /// The address and port on the node, when published.
    pub published: Option<(IpAddr, u16)>,
}

/// A network that a container is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The engine's name of the network.
    pub name: String,
    /// The container's address there; absent while it does not run.
    pub address: Option<IpAddr>,
}

/// The engine's own health check, when there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Checks have not yet decided.
    Starting,
    /// The last check passed.
    Healthy,
    /// The last checks failed.
    Unhealthy,
}

/// How a running (or paused) unit is reached. Looked up again at each wake.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Running {
    /// The address that Dormouse dials for the unit's own ports; absent when only published ports can be reached.
    pub address: Option<IpAddr>,
    /// The unit's own port to the address on the node, used where `address` is absent.
    pub published: BTreeMap<u16, SocketAddr>,
    /// Where a unit on no network lives: the way to its ports, used where `address` is absent.
    pub namespace: Option<Namespace>,
    /// The unit lives in the node's own network (host network or a plain process): its port may open before
    /// the engine's start call answers.
    pub host_network: bool,
    /// The engine's health check.
    pub health: Option<Health>,
}

impl Running {
    /// Where a port of the unit is dialled, and whether that is the unit's own address. A published port may be
    /// accepted by the engine's forwarder before the app listens, so connecting there proves nothing.
    pub fn dial(&self, port: u16) -> Option<(Spot, bool)> {
        match (self.address, &self.namespace) {
            (Some(address), _) => Some((SocketAddr::new(address, port).into(), true)),
            (None, Some(Namespace::Of(process))) => Some((Spot::Inside(*process, port), true)),
            (None, Some(Namespace::Closed(_))) => None,
            (None, None) => self.published.get(&port).map(|at| (Spot::Network(*at), false)),
        }
    }

    /// Why none of its ports can be dialled from here, where that is certain.
    pub fn closed(&self) -> Option<&Arc<str>> {
        match &self.namespace {
            Some(Namespace::Closed(why)) if self.address.is_none() => Some(why),
            Some(_) | None => None,
        }
    }
}

/// What a unit does now, as the engine tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// It runs and is reached so.
    Running(Running),
    /// It is frozen, its memory kept; it is reached so once thawed.
    Paused(Running),
    /// It does not run. The exit code and the engine's words, where it tells them.
    Stopped {
        /// The exit code of the last run.
        exit_code: Option<i64>,
        /// What the engine says went wrong.
        error: Option<String>,
    },
    /// The engine is between two states (restarting, removing): look again.
    Changing,
    /// No such unit.
    Gone,
}

/// Facts about one container: what labels, ports and networks make routes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The node that runs it.
    pub node: NodeName,
    /// The engine's id, which changes when it is created anew.
    pub id: String,
    /// Its name, without a leading slash.
    pub name: String,
    /// The image reference as the engine gives it.
    pub image: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// Exposed ports; each at most once.
    pub ports: Vec<ContainerPort>,
    /// Networks, in the engine's order.
    pub networks: Vec<Network>,
    /// Mount destinations inside the container.
    pub mounts: Vec<String>,
    /// The engine's network mode: `bridge`, `host`, `none`, `container:<id>`, or a network's name.
    pub network_mode: String,
    /// Whether its node is this machine, so that its processes are near.
    pub is_near: bool,
    /// The restart policy's name, `no` when there is none.
    pub restart_policy: String,
    /// Seconds since the Unix epoch, when it was created.
    pub created: i64,
    /// Whether the engine checks its health.
    pub has_health_check: bool,
    /// What it does now.
    pub state: ContainerState,
}

impl Container {
    /// One of which nothing more is known: stopped, on the node's own network, without labels and ports.
    pub fn bare(node: NodeName, name: &str) -> Self {
        Self {
            node,
            id: name.to_owned(),
            name: name.to_owned(),
            image: String::new(),
            labels: BTreeMap::new(),
            ports: Vec::new(),
            networks: Vec::new(),
            mounts: Vec::new(),
            network_mode: "host".to_owned(),
            is_near: true,
            restart_policy: "no".to_owned(),
            created: 0,
            has_health_check: false,
            state: ContainerState::Stopped { exit_code: None, error: None },
        }
    }

    /// The Compose project and service, when Compose made it.
    pub fn compose(&self) -> Option<(&str, &str)> {
        let project = self.labels.get("com.docker.compose.project")?;
        let service = self.labels.get("com.docker.compose.service")?;
        Some((project, service))
    }
}
