//! From the words of Docker-compatible engines to ours. Pure.
//!
//! Lenient on purpose: engines of other makes and later versions leave out fields, add states, and send `null` for
//! "none". What is not understood counts as absent, and never hides the other containers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use serde_json::Value;

use crate::model::{Container, ContainerPort, ContainerState, Health, Network, NodeName, Running, Transport};

/// Why a text is no output of `docker inspect`.
#[derive(Debug, thiserror::Error)]
pub enum BadInspect {
    /// It is no JSON.
    #[error("it is no JSON")]
    Syntax(#[from] serde_json::Error),
    /// It is something else.
    #[error("{0}")]
    Shape(String),
}

/// From where we look at an engine: what is needed to say how its containers are reached.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) node: NodeName,
    /// The address of the engine's machine; loopback when it is ours.
    pub(super) machine: IpAddr,
    /// Networks of the container that we ourselves run in.
    pub(super) own_networks: Vec<String>,
}

/// Reads one object, or an array of them, in the form of `docker inspect`.
pub fn parse_inspect(json: &str, node: &NodeName) -> Result<Vec<Container>, BadInspect> {
    let objects = match serde_json::from_str(json)? {
        Value::Array(objects) => objects,
        object @ Value::Object(_) => vec![object],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(BadInspect::Shape("it is neither an object nor an array of objects".to_owned()));
        }
    };
    let view = View { node: node.clone(), machine: IpAddr::V4(Ipv4Addr::LOCALHOST), own_networks: Vec::new() };
    let mut found = Vec::with_capacity(objects.len());
    for (index, object) in objects.iter().enumerate() {
        let host = host_of(object).and_then(|host| objects.iter().find(|other| is_named(other, host)));
        let made = container(object, &view, None, host);
        found.push(made.ok_or_else(|| BadInspect::Shape(format!("object {} has no `Name`", index + 1)))?);
    }
    Ok(found)
}

/// All facts of one container. `wanted` is the network to dial; `host` the container whose network it shares.
pub(super) fn container(object: &Value, view: &View, wanted: Option<&str>, host: Option<&Value>) -> Option<Container> {
    Some(Container {
        node: view.node.clone(),
        id: text(object, "/Id").to_owned(),
        name: Some(text(object, "/Name").trim_start_matches('/')).filter(|name| !name.is_empty())?.to_owned(),
        image: text(object, "/Config/Image").to_owned(),
        labels: texts(object.pointer("/Config/Labels")),
        ports: ports(object, view),
        networks: networks(object),
        mounts: mounts(object),
        network_mode: network_mode(object).to_owned(),
        restart_policy: Some(text(object, "/HostConfig/RestartPolicy/Name"))
            .filter(|name| !name.is_empty())
            .unwrap_or("no")
            .to_owned(),
        created: text(object, "/Created").parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second),
        has_health_check: has_health_check(object),
        state: state(object, view, wanted, host),
    })
}

/// What it does now.
pub(super) fn state(object: &Value, view: &View, wanted: Option<&str>, host: Option<&Value>) -> ContainerState {
    let is = |flag| object.pointer(flag).and_then(Value::as_bool).unwrap_or(false);
    match text(object, "/State/Status") {
        "running" => ContainerState::Running(running(object, view, wanted, host)),
        "paused" => ContainerState::Paused(running(object, view, wanted, host)),
        "created" | "configured" | "initialized" | "exited" | "stopped" | "dead" => stopped(object),
        "restarting" | "removing" | "stopping" => ContainerState::Changing,
        _ if is("/State/Paused") => ContainerState::Paused(running(object, view, wanted, host)),
        _ if is("/State/Restarting") => ContainerState::Changing,
        _ if is("/State/Running") => ContainerState::Running(running(object, view, wanted, host)),
        "" => stopped(object),
        _ => ContainerState::Changing,
    }
}

fn stopped(object: &Value) -> ContainerState {
    let code = object.pointer("/State/ExitCode").and_then(Value::as_i64);
    let never_ran = matches!(text(object, "/State/Status"), "created" | "configured" | "initialized");
    let error = text(object, "/State/Error").trim();
    ContainerState::Stopped {
        exit_code: code.filter(|code| !never_ran || *code != 0),
        error: (!error.is_empty()).then(|| error.to_owned()),
    }
}

fn running(object: &Value, view: &View, wanted: Option<&str>, host: Option<&Value>) -> Running {
    let reached = Running {
        address: None,
        published: published(object, view),
        host_network: false,
        namespace_of: None,
        health: health(object),
    };
    let is_ours = view.machine.is_loopback();
    match network_mode(object) {
        "host" => Running { address: Some(view.machine), host_network: true, ..reached },
        "none" => Running { namespace_of: process(object).filter(|_| is_ours), ..reached },
        mode if mode.starts_with("container:") => match host {
            Some(host) => Running { health: reached.health, ..running(host, view, wanted, None) },
            None => reached,
        },
        // The bridges of another machine are not ours to dial.
        _ if !is_ours => reached,
        _ => Running { address: address(object, view, wanted), ..reached },
    }
}

/// The address on the wanted network, else on one that we share, else on the first by name.
fn address(object: &Value, view: &View, wanted: Option<&str>) -> Option<IpAddr> {
    let mut networks = networks(object);
    networks.sort_by(|one, other| one.name.cmp(&other.name));
    let on = |name: &str| networks.iter().find(|network| network.name == name);
    if let Some(wanted) = wanted {
        let project = object.pointer("/Config/Labels").and_then(|labels| labels.get("com.docker.compose.project"));
        let composed = project.and_then(Value::as_str).map(|project| format!("{project}_{wanted}"));
        return on(wanted).or_else(|| on(&composed?)).and_then(|network| network.address);
    }
    let shared = networks.iter().find(|network| network.address.is_some() && view.own_networks.contains(&network.name));
    shared.or_else(|| networks.iter().find(|network| network.address.is_some())).and_then(|network| network.address)
}

/// The networks that it is attached to.
pub(super) fn networks(object: &Value) -> Vec<Network> {
    let attached = object.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    attached
        .into_iter()
        .flatten()
        .map(|(name, facts)| Network {
            name: name.clone(),
            address: ip(text(facts, "/IPAddress")).or_else(|| ip(text(facts, "/GlobalIPv6Address"))),
        })
        .collect()
}

/// The container whose network this one shares.
pub(super) fn host_of(object: &Value) -> Option<&str> {
    network_mode(object).strip_prefix("container:")
}

/// The engine's own stop signal for it, by name or number.
pub(super) fn stop_signal(object: &Value) -> &str {
    match text(object, "/Config/StopSignal") {
        "" => "SIGTERM",
        signal => signal,
    }
}

/// The text at this place; empty where there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn is_named(object: &Value, name: &str) -> bool {
    let id = text(object, "/Id");
    text(object, "/Name").trim_start_matches('/') == name || (name.len() >= 12 && id.starts_with(name))
}

fn network_mode(object: &Value) -> &str {
    match text(object, "/HostConfig/NetworkMode") {
        "" | "default" => "bridge",
        mode => mode,
    }
}

fn process(object: &Value) -> Option<u32> {
    object.pointer("/State/Pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0)
}

fn health(object: &Value) -> Option<Health> {
    let status = match text(object, "/State/Health/Status") {
        "" => text(object, "/State/Healthcheck/Status"),
        status => status,
    };
    match status {
        "starting" => Some(Health::Starting),
        "healthy" => Some(Health::Healthy),
        "unhealthy" => Some(Health::Unhealthy),
        _ => None,
    }
}

fn has_health_check(object: &Value) -> bool {
    let test = object.pointer("/Config/Healthcheck/Test").and_then(Value::as_array);
    match test.and_then(|words| words.first()).and_then(Value::as_str) {
        Some(first) => !first.eq_ignore_ascii_case("none"),
        None => health(object).is_some(),
    }
}

fn mounts(object: &Value) -> Vec<String> {
    let mounts = object.pointer("/Mounts").and_then(Value::as_array);
    mounts
        .into_iter()
        .flatten()
        .map(|mount| text(mount, "/Destination").to_owned())
        .filter(|at| !at.is_empty())
        .collect()
}

fn texts(object: Option<&Value>) -> BTreeMap<String, String> {
    let pairs = object.and_then(Value::as_object).into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Every port that is exposed, published or to be published, in order of number.
fn ports(object: &Value, view: &View) -> Vec<ContainerPort> {
    let mut found: BTreeMap<(u16, Transport), Option<(IpAddr, u16)>> = BTreeMap::new();
    for place in ["/Config/ExposedPorts", "/HostConfig/PortBindings", "/NetworkSettings/Ports"] {
        for (name, bindings) in object.pointer(place).and_then(Value::as_object).into_iter().flatten() {
            let Some(port) = port(name) else { continue };
            let published = binding(bindings, view);
            let entry = found.entry(port).or_default();
            *entry = published.or(*entry);
        }
    }
    let port = |((port, transport), published)| ContainerPort { port, transport, published };
    found.into_iter().map(port).collect()
}

/// Where its TCP ports are dialled on the engine's machine.
fn published(object: &Value, view: &View) -> BTreeMap<u16, SocketAddr> {
    let bound = object.pointer("/NetworkSettings/Ports").and_then(Value::as_object);
    let mut published = BTreeMap::new();
    for (name, bindings) in bound.into_iter().flatten() {
        if let (Some((port, Transport::Tcp)), Some((address, at))) = (port(name), binding(bindings, view)) {
            let dialled = if address.is_unspecified() { view.machine } else { address };
            if view.machine.is_loopback() || !dialled.is_loopback() {
                published.insert(port, SocketAddr::new(dialled, at));
            }
        }
    }
    published
}

/// `80/tcp`; without a transport it is TCP.
fn port(name: &str) -> Option<(u16, Transport)> {
    let (number, transport) = name.split_once('/').unwrap_or((name, "tcp"));
    let transport = match transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return None,
    };
    Some((number.parse().ok().filter(|number| *number > 0)?, transport))
}

/// The first binding to a fixed port, and rather one by IPv4.
fn binding(bindings: &Value, view: &View) -> Option<(IpAddr, u16)> {
    let all = bindings.as_array()?.iter().filter_map(|binding| {
        let port = text(binding, "/HostPort").parse().ok().filter(|port| *port > 0)?;
        let unspecified = if view.machine.is_ipv4() { "0.0.0.0" } else { "::" };
        let address = Some(text(binding, "/HostIp")).filter(|address| !address.is_empty()).unwrap_or(unspecified);
        Some((ip(address)?, port))
    });
    all.min_by_key(|(address, _)| address.is_ipv6())
}

fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}
