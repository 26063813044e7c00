//! Containers for tests, as an engine tells of them.

use serde_json::Value;

use super::docker_translate::View;
use crate::model::Running;

pub(super) fn view(machine: &str, own_networks: &[&str]) -> View {
    View {
        node: "local".parse().unwrap(),
        machine: machine.parse().unwrap(),
        own_networks: own_networks.iter().map(|name| (*name).to_owned()).collect(),
    }
}

pub(super) fn here() -> View {
    view("127.0.0.1", &[])
}

/// A running container with two networks and a published port.
pub(super) fn web() -> Value {
    serde_json::json!({
        "Id": "0123456789abcdef", "Name": "/web", "Created": "2024-05-01T10:00:00.123456789Z",
        "State": { "Status": "running", "Running": true, "Pid": 4711, "ExitCode": 0, "Error": "",
            "StartedAt": "2024-05-01T10:00:10Z", "FinishedAt": "2024-05-01T10:00:00Z",
            "Health": { "Status": "starting" } },
        "Config": { "Image": "nginx:1", "Labels": { "dormouse.port": "80", "com.docker.compose.project": "shop" },
            "ExposedPorts": { "80/tcp": {}, "53/udp": {}, "132/sctp": {} },
            "Healthcheck": { "Test": ["CMD", "true"] }, "StopSignal": "SIGQUIT" },
        "HostConfig": { "NetworkMode": "shop_front", "RestartPolicy": { "Name": "unless-stopped" },
            "PortBindings": { "80/tcp": [{ "HostIp": "", "HostPort": "8080" }] } },
        "Mounts": [{ "Destination": "/data" }],
        "NetworkSettings": {
            "Ports": { "53/udp": null, "80/tcp": [{ "HostIp": "::", "HostPort": "8080" },
                { "HostIp": "0.0.0.0", "HostPort": "8080" }] },
            "Networks": { "shop_front": { "IPAddress": "172.18.0.2" }, "back": { "IPAddress": "172.19.0.2" } } }
    })
}

pub(super) fn with(changes: &[(&str, Value)]) -> Value {
    let mut object = web();
    for (pointer, value) in changes {
        *object.pointer_mut(pointer).unwrap() = value.clone();
    }
    object
}

pub(super) fn address_of(how: &Running) -> Option<String> {
    how.address.map(|address| address.to_string())
}
