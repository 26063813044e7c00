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

impl Nodes {
    /// Takes over the processes that an earlier Dormouse started.
    pub(super) fn adopt(&self) -> anyhow::Result<()> {
        self.processes.iter().try_for_each(|process| process.adopt()).context("adopt the processes that run")
    }

    /// Gives all processes to another Dormouse, or takes them back.
    pub(super) fn give_away(&self, given: bool) {
        for process in &self.processes {
            if let Err(error) = process.give_away(given) {
                tracing::error!(%error, "processes that run could not be taken back");
            }
        }
    }
}

/// Makes a provider for each node. Nothing is connected yet: an engine that is away is no error here. Processes that run
/// are to be adopted.
pub(super) fn open(settings: &Settings, state_dir: &Path, own: Option<&str>) -> anyhow::Result<Nodes> {
    let mut nodes = Nodes::default();
    for (name, spec) in &settings.nodes {
        let node = match &spec.engine {
            EngineAddress::Docker(address) => docker(name, address, state_dir, own)?,
            EngineAddress::Process => {
                let directory = state_dir.join("processes").join(name.as_str());
                let book = Arc::new(FileBook::open(&directory.join("book")).context("open the book of processes")?);
                let process = Process::waiting(name.clone(), directory, book)
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
