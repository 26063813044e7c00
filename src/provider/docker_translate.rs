//! From the words of Docker-compatible engines to ours. Pure.
//!
//! Lenient on purpose: engines of other makes and later versions leave out fields, add states, and send `null` for
//! "none". What is not understood counts as absent, and never hides the other containers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde_json::Value;

use super::docker_namespace;
use crate::model::{Container, ContainerPort, ContainerState, Health, Network, NodeName, Running, Transport};

/// From where we look at an engine: what is needed to say how its containers are reached.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) node: NodeName,
    /// The address of the engine's machine; loopback when it is ours.
    pub(super) machine: IpAddr,
    /// Networks of the container that we ourselves run in.
    pub(super) own_networks: Vec<String>,
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
        is_near: view.machine.is_loopback(),
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
    let reached = Running { published: published(object, view), health: health(object), ..Running::default() };
    let is_ours = view.machine.is_loopback();
    match network_mode(object) {
        "host" => Running { address: Some(view.machine), host_network: true, ..reached },
        // It has no network: nothing to dial, also not by a published port. One that is near is entered: the process that
        // leads there is looked for afterwards.
        "none" if is_ours => Running { published: BTreeMap::new(), ..reached },
        "none" => Running { namespace: Some(docker_namespace::far()), ..reached },
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

/// The number of its first process, where its namespace alone leads to its ports; `host` is the container whose network
/// it shares. One that shares keeps that namespace also when the other one is started anew in another.
pub(super) fn isolated(object: &Value, host: Option<&Value>) -> Option<u32> {
    if network_mode(host.unwrap_or(object)) != "none" {
        return None;
    }
    let pid = object.pointer("/State/Pid").and_then(Value::as_u64).unwrap_or_default();
    u32::try_from(pid).ok()
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

/// From when on its log is of its last run, in nanoseconds since the Unix epoch.
///
/// The engine notes the start only after the program has begun to write, so its first lines are older than that, and
/// the end a moment before it has read the last lines. The middle between an end and the next start is safe for both.
pub(super) fn log_begin(object: &Value) -> i128 {
    let time = |pointer| {
        let time = text(object, pointer).parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_nanosecond);
        // The engine's "never" is the year 1.
        time.filter(|time| *time > 0)
    };
    match (time("/State/FinishedAt"), time("/State/StartedAt")) {
        (_, None) | (None, Some(_)) => 0,
        (Some(end), Some(start)) if end < start => end + (start - end) / 2,
        (Some(_), Some(start)) => start - 1_000_000_000,
    }
}

/// The text at this place; empty where there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn is_named(object: &Value, name: &str) -> bool {
    let id = text(object, "/Id");
    text(object, "/Name").trim_start_matches('/') == name || (name.len() >= 12 && id.starts_with(name))
}

fn network_mode(object: &Value) -> &str {
    match text(object, "/HostConfig/NetworkMode") {
        "" | "default" => "bridge",
        mode => mode,
    }
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{
        super::docker_samples::{address_of, here, view, web, with},
        *,
    };

    fn reached(object: &Value, view: &View, wanted: Option<&str>, host: Option<&Value>) -> Running {
        match state(object, view, wanted, host) {
            ContainerState::Running(how) | ContainerState::Paused(how) => how,
            other @ (ContainerState::Stopped { .. } | ContainerState::Changing | ContainerState::Gone) => {
                panic!("it is {other:?}")
            }
        }
    }

    #[test]
    fn all_facts_are_read() {
        let found = container(&web(), &here(), None, None).unwrap();
        assert_eq!((found.name.as_str(), found.image.as_str(), found.created), ("web", "nginx:1", 1_714_557_600));
        assert_eq!(found.labels["dormouse.port"], "80");
        assert_eq!(
            (found.mounts.as_slice(), found.restart_policy.as_str()),
            (&["/data".to_owned()][..], "unless-stopped")
        );
        assert!(found.has_health_check);
        let ports: Vec<_> = found.ports.iter().map(|port| (port.port, port.transport, port.published)).collect();
        let anywhere = Some((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080));
        assert_eq!(ports, [(53, Transport::Udp, None), (80, Transport::Tcp, anywhere)]);
        let names: Vec<_> = found.networks.iter().map(|network| network.name.as_str()).collect();
        assert_eq!(names, ["shop_front", "back"], "in the engine's order");
    }

    #[test]
    fn the_address_is_of_the_network_that_was_asked_for() {
        let check = |wanted: Option<&str>, own: &[&str], expected: Option<&str>| {
            let how = reached(&web(), &view("127.0.0.1", own), wanted, None);
            assert_eq!(address_of(&how).as_deref(), expected, "{wanted:?} {own:?}");
        };
        check(None, &[], Some("172.19.0.2"));
        check(None, &["shop_front"], Some("172.18.0.2"));
        check(None, &["elsewhere"], Some("172.19.0.2"));
        check(Some("back"), &["shop_front"], Some("172.19.0.2"));
        check(Some("front"), &[], Some("172.18.0.2"));
        check(Some("missing"), &[], None);
    }

    #[test]
    fn a_running_container_tells_its_published_ports_and_health() {
        let how = reached(&web(), &here(), None, None);
        assert_eq!(how.published, BTreeMap::from([(80, "127.0.0.1:8080".parse().unwrap())]));
        assert_eq!(how.health, Some(Health::Starting));
        assert!(!how.host_network);
    }

    #[test]
    fn another_machine_is_reached_by_its_published_ports_only() {
        let far = view("10.0.0.7", &[]);
        let how = reached(&web(), &far, None, None);
        assert_eq!(how.address, None);
        assert_eq!(how.published, BTreeMap::from([(80, "10.0.0.7:8080".parse().unwrap())]));
        let inward = serde_json::json!({ "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8080" }] });
        let how = reached(&with(&[("/NetworkSettings/Ports", inward)]), &far, None, None);
        assert!(how.published.is_empty(), "its loopback is not ours");
    }

    #[test]
    fn special_networks() {
        let mode =
            |mode: &str| with(&[("/HostConfig/NetworkMode", mode.into()), ("/NetworkSettings/Networks", Value::Null)]);
        let host = reached(&mode("host"), &here(), None, None);
        assert_eq!((address_of(&host).as_deref(), host.host_network), (Some("127.0.0.1"), true));
        let far = reached(&mode("host"), &view("10.0.0.7", &[]), None, None);
        assert_eq!((address_of(&far).as_deref(), far.host_network), (Some("10.0.0.7"), true));
        let none = reached(&mode("none"), &here(), None, None);
        assert_eq!(none.address, None);
        let guest = mode("container:0123456789abcdef");
        let shared = reached(&guest, &here(), Some("back"), Some(&web()));
        assert_eq!(address_of(&shared).as_deref(), Some("172.19.0.2"));
        assert_eq!(reached(&guest, &here(), None, None).address, None);
    }

    #[test]
    fn states_are_understood_and_unknown_ones_tolerated() {
        let check = |status: &str, expected: &str| {
            let found = state(&with(&[("/State/Status", status.into())]), &here(), None, None);
            let word = match found {
                ContainerState::Running(_) => "running",
                ContainerState::Paused(_) => "paused",
                ContainerState::Stopped { .. } => "stopped",
                ContainerState::Changing => "changing",
                ContainerState::Gone => "gone",
            };
            assert_eq!(word, expected, "{status}");
        };
        for status in ["created", "exited", "dead", "stopped", "configured", "initialized"] {
            check(status, "stopped");
        }
        for status in ["restarting", "removing", "stopping"] {
            check(status, "changing");
        }
        check("running", "running");
        check("paused", "paused");
        // A word of tomorrow, while the flag says that it runs.
        check("hibernating", "running");
        let odd = with(&[("/State", serde_json::json!({ "Status": "hibernating" }))]);
        assert_eq!(state(&odd, &here(), None, None), ContainerState::Changing);
    }

    #[test]
    fn the_end_of_a_run_is_told() {
        let ended = |state_facts: Value| state(&with(&[("/State", state_facts)]), &here(), None, None);
        assert_eq!(
            ended(serde_json::json!({ "Status": "exited", "ExitCode": 137, "Error": "" })),
            ContainerState::Stopped { exit_code: Some(137), error: None }
        );
        assert_eq!(
            ended(serde_json::json!({ "Status": "created", "ExitCode": 128, "Error": "port is taken" })),
            ContainerState::Stopped { exit_code: Some(128), error: Some("port is taken".to_owned()) }
        );
        assert_eq!(
            ended(serde_json::json!({ "Status": "created", "ExitCode": 0 })),
            ContainerState::Stopped { exit_code: None, error: None }
        );
    }

    #[test]
    fn the_log_of_a_run_begins_between_an_end_and_the_next_start() {
        let second = |at: i128| at / 1_000_000_000 - 1_714_557_600;
        assert_eq!(second(log_begin(&web())), 5);
        assert_eq!(log_begin(&with(&[("/State/FinishedAt", "0001-01-01T00:00:00Z".into())])), 0);
        assert_eq!(second(log_begin(&with(&[("/State/FinishedAt", "2024-05-01T10:00:20Z".into())]))), 9);
    }
}
