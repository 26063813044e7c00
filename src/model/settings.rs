//! The settings of the whole program.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    AccessLog, DockerAddress, EngineAddress, HealthCheck, IdlePolicy, MiddlewareSet, NodeName, NodeSpec, TlsSettings,
};

/// Where Dormouse listens, which engines it knows, and the defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Listening addresses.
    pub listen: Listen,
    /// Domains that aliases live under, canonical; empty: an alias is the first label of any host.
    pub domains: Vec<String>,
    /// The engines; at least one.
    pub nodes: BTreeMap<NodeName, NodeSpec>,
    /// The idle policy that routes and containers start from.
    pub default_idle: IdlePolicy,
    /// The health checks of routes that say nothing of them; absent: they are not checked.
    pub default_health: Option<HealthCheck>,
    /// Which containers become routes.
    pub discover: Discover,
    /// Label prefixes, without the dot, best first.
    pub prefixes: Vec<String>,
    /// Certificates, and what hangs on them.
    pub tls: TlsSettings,
    /// Middlewares by name, for routes to use.
    pub middlewares: BTreeMap<String, MiddlewareSet>,
    /// Networks whose `X-Forwarded-*` headers are believed and extended.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Networks of proxies whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol: Vec<ipnet::IpNet>,
    /// Connections of clients at once; absent: as many as the system has descriptors for.
    pub max_connections: Option<usize>,
    /// Connections of one client at once; absent: half of all.
    pub max_connections_per_client: Option<usize>,
    /// Wakes at once for each node.
    pub max_parallel_wakes: usize,
    /// Requests that cause a wake, for each client address and minute.
    pub wakes_per_client: u32,
    /// What happens to sleepers when Dormouse ends.
    pub on_exit: OnExit,
    /// How long requests in flight may take to end when Dormouse ends.
    pub shutdown_timeout: Duration,
    /// What is written down of requests; absent: nothing.
    pub access_log: Option<Arc<AccessLog>>,
}

/// Listening addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// HTTP.
    pub http: Vec<SocketAddr>,
    /// HTTP over TLS.
    pub https: Vec<SocketAddr>,
    /// The management API.
    pub api: Option<SocketAddr>,
}

/// Which containers become routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discover {
    /// Labelled ones for everyone, others with a port for private networks.
    Default,
    /// All of them for everyone.
    All,
    /// Labelled ones only.
    Labelled,
}

/// What happens to sleepers when Dormouse ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// They stay as they are.
    Leave,
    /// All are woken.
    WakeAll,
}

impl Default for Settings {
    /// The settings of a run without a file: one node, `local`, the engine of this machine.
    fn default() -> Self {
        Self {
            listen: Listen {
                http: vec![SocketAddr::from(([0, 0, 0, 0], 80))],
                https: Vec::new(),
                api: Some(SocketAddr::from(([127, 0, 0, 1], 8000))),
            },
            domains: Vec::new(),
            nodes: "local"
                .parse()
                .ok()
                .map(|name| (name, NodeSpec::from(EngineAddress::Docker(DockerAddress::default()))))
                .into_iter()
                .collect(),
            default_idle: IdlePolicy::default(),
            default_health: None,
            discover: Discover::Default,
            prefixes: vec!["dormouse".to_owned(), "proxy".to_owned()],
            tls: TlsSettings::default(),
            middlewares: BTreeMap::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            max_connections: None,
            max_connections_per_client: None,
            max_parallel_wakes: 8,
            wakes_per_client: 30,
            on_exit: OnExit::Leave,
            shutdown_timeout: Duration::from_secs(30),
            access_log: None,
        }
    }
}
