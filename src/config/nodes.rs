//! `nodes`: the engines by name.

use std::path::Path;

use super::{
    tree::{Fields, Node, Value, unknown},
    values,
};
use crate::model::{DockerAddress, EngineAddress, EngineTls, NodeName, NodeSpec, Pem, Problem, Problems, Settings};

const ENGINES: &[&str] = &["docker", "podman", "process", "simulated"];
const ENGINES_LATER: [&str; 5] = ["proxmox", "lxd", "incus", "swarm", "kubernetes"];

/// Every key of a node.
pub(super) const NODE_KEYS: &[&str] = &["docker", "podman", "process", "simulated", "tls", "insecure", "token"];
/// Every key of a node's `tls`.
pub(super) const NODE_TLS_KEYS: &[&str] = &["ca", "cert", "key"];

/// How addresses of a Docker-compatible engine begin.
const SCHEMES: [&str; 5] = ["unix:///", "tcp://", "http://", "https://", "ssh://"];

/// Reads all nodes; relative paths start at `base`. Returns the names of those whose engines can not be understood.
pub(super) fn read(node: &Node, base: &Path, settings: &mut Settings, problems: &mut Problems) -> Vec<NodeName> {
    let mut unclear = Vec::new();
    let Value::Map(entries) = &node.value else {
        problems.0.push(node.wrong("is no mapping of node names to engines, such as `local: docker`"));
        return unclear;
    };
    for entry in entries.iter().filter(|entry| !entry.key.starts_with("x-")) {
        let name = match entry.key.parse::<NodeName>() {
            Ok(name) => name,
            Err(error) => {
                problems.0.push(Problem::error(entry.place.clone(), error.to_string()));
                continue;
            }
        };
        let Some(spec) = spec(&entry.node, base, problems) else {
            unclear.push(name);
            continue;
        };
        if settings.nodes.insert(name.clone(), spec).is_some() {
            problems.0.push(Problem::error(entry.place.clone(), format!("node `{name}` is set twice")));
        }
    }
    unclear
}

fn spec(node: &Node, base: &Path, problems: &mut Problems) -> Option<NodeSpec> {
    if let Some(word) = node.as_text() {
        let engine = engine(word, DockerAddress::default(), node, problems)?;
        return Some(NodeSpec { engine, place: Some(node.place.clone()) });
    }
    let Value::Map(entries) = &node.value else {
        problems.0.push(node.wrong("names no engine: write for example `docker` or `{docker: \"tcp://host:2375\"}`"));
        return None;
    };
    let engines: Vec<_> = entries
        .iter()
        .filter(|entry| ENGINES.contains(&entry.key.as_str()) || ENGINES_LATER.contains(&entry.key.as_str()))
        .collect();
    let mut fields = Fields::open(node, "node", problems);
    let [entry] = engines[..] else {
        problems.0.push(Problem::error(node.place.clone(), "a node must name exactly one engine"));
        return None;
    };
    fields.entry(&entry.key);
    if let Some(entry) = fields.entry("token") {
        let what = "`token` of a node is not in this version yet, and the engine would not answer without";
        problems.0.push(Problem::error(entry.place.clone(), what));
    }
    let secure = fields.entry("tls").map(|entry| (tls(&entry.node, base, problems), &entry.place));
    let insecure = fields.entry("insecure").map(|entry| (values::boolean(&entry.node, problems), &entry.place));
    fields.finish(NODE_KEYS, problems);
    let address = if entry.node.is_null() { None } else { Some(values::text(&entry.node, problems)?.to_owned()) };
    let docker = DockerAddress {
        address,
        tls: secure.as_ref().and_then(|(tls, _)| tls.clone()),
        insecure: insecure.is_some_and(|(insecure, _)| insecure == Some(true)),
    };
    let engine = engine(&entry.key, docker, &entry.node, problems)?;
    if !matches!(engine, EngineAddress::Docker(_)) {
        for (key, place) in [("tls", secure.map(|(_, at)| at)), ("insecure", insecure.map(|(_, at)| at))] {
            if let Some(place) = place {
                let what = format!("`{key}` is for engines that are reached over a network");
                problems.0.push(Problem::error(place.clone(), what));
            }
        }
    }
    Some(NodeSpec { engine, place: Some(entry.node.place.clone()) })
}

/// `kind` is the word for the engine; `docker` holds only for Docker-compatible ones.
fn engine(kind: &str, docker: DockerAddress, node: &Node, problems: &mut Problems) -> Option<EngineAddress> {
    match kind.trim().to_ascii_lowercase().as_str() {
        "docker" | "podman" => {
            if let Some(address) = &docker.address
                && !SCHEMES.iter().any(|scheme| address.starts_with(scheme))
            {
                let hint = "write `unix:///path`, `tcp://host:port`, `https://host:port` or `ssh://user@host`";
                problems.0.push(node.wrong("is no address of an engine").with_hint(hint));
                return None;
            }
            Some(EngineAddress::Docker(docker))
        }
        "process" => Some(EngineAddress::Process),
        "simulated" => Some(EngineAddress::Simulated),
        later if ENGINES_LATER.contains(&later) => {
            problems.0.push(Problem::error(node.place.clone(), format!("engine `{later}` is not in this version yet")));
            None
        }
        other => {
            problems.0.push(unknown(&node.place, "engine", other, ENGINES));
            None
        }
    }
}

/// The directory of `ca.pem`, `cert.pem` and `key.pem`, or each by its key: a file, or the PEM itself.
fn tls(node: &Node, base: &Path, problems: &mut Problems) -> Option<EngineTls> {
    if let Some(path) = node.as_text().map(str::trim).filter(|path| !path.is_empty()) {
        return Some(EngineTls::directory(&base.join(path)));
    }
    let mut fields = Fields::open(node, "`tls` of a node", problems);
    let mut pem = |key: &str| {
        let text = fields.get(key).and_then(|node| values::text(node, problems)).filter(|text| !text.is_empty())?;
        let is_itself = text.starts_with("-----BEGIN ");
        Some(if is_itself { Pem::Text(text.to_owned()) } else { Pem::File(base.join(text)) })
    };
    let (roots, certificate, key) = (pem("ca"), pem("cert"), pem("key"));
    fields.finish(NODE_TLS_KEYS, problems);
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let what = "`cert` and `key` of a node's `tls` go together";
            problems.0.push(Problem::error(node.place.clone(), what));
            None
        }
    };
    Some(EngineTls { roots, client })
}
