//! Providers for the configured nodes.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::Context;

use crate::{
    control::Node,
    model::{DockerAddress, EngineAddress, NodeName, Settings},
    provider::{Docker, FileBook, Process, Simulated},
};

/// The nodes, and those of them whose units end with Dormouse.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    pub(super) all: BTreeMap<NodeName, Node>,
    pub(super) processes: Vec<Arc<Process>>,
}

/// Makes a provider for each node. Nothing is connected yet: an engine that is away is no error here.
pub(super) fn open(settings: &Settings, state_dir: &Path, own: Option<&str>) -> anyhow::Result<Nodes> {
    let mut nodes = Nodes::default();
    for (name, spec) in &settings.nodes {
        let node = match &spec.engine {
            EngineAddress::Docker(address) => docker(name, address, state_dir, own)?,
            EngineAddress::Process => {
                let directory = state_dir.join("processes").join(name.as_str());
                let book = Arc::new(FileBook::open(&directory.join("book")).context("open the book of processes")?);
                let process = Process::open(name.clone(), directory, book)
                    .with_context(|| format!("open node `{name}` (processes)"))?;
                let process = Arc::new(process);
                nodes.processes.push(Arc::clone(&process));
                Node { provider: process, engine: "process".to_owned(), discovers: false }
            }
            EngineAddress::Simulated => Node {
                provider: Arc::new(Simulated::new(name.clone())),
                engine: "simulated".to_owned(),
                discovers: true,
            },
        };
        nodes.all.insert(name.clone(), node);
    }
    Ok(nodes)
}

fn docker(name: &NodeName, address: &DockerAddress, state_dir: &Path, own: Option<&str>) -> anyhow::Result<Node> {
    let mut docker = Docker::connect_sharing(name.clone(), address, &state_dir.join("ssh"))
        .with_context(|| format!("open node `{name}`"))?;
    if let Some(own) = own {
        docker = docker.living_in(own);
    }
    let warning = if docker.is_insecure() { " (insecure: no TLS)" } else { "" };
    let engine = format!("docker {}{warning}", docker.address());
    Ok(Node { provider: Arc::new(docker), engine, discovers: true })
}
