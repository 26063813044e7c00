//! Services of Compose that containers name as their dependencies.

use std::collections::BTreeMap;

use super::{container::FromContainer, finish::condition};
use crate::model::{BackendId, BackendSpec, Dependency, Problems};

/// Replaces the dependencies that containers name by Compose services with the containers behind them.
pub fn resolve_dependencies(mut containers: Vec<FromContainer>) -> Vec<FromContainer> {
    let mut services: BTreeMap<(String, String, String), Vec<BackendId>> = BTreeMap::new();
    for made in &containers {
        if let (Some((project, service)), Some(backend)) = (&made.compose, &made.backend) {
            let node = backend.id.node().to_string();
            services.entry((node, project.clone(), service.clone())).or_default().push(backend.id.clone());
        }
    }
    for made in &mut containers {
        if let (Some((project, _)), Some(backend)) = (made.compose.clone(), &made.backend) {
            let depends_on = with_services(backend, &project, made, &services);
            if let Some(backend) = &mut made.backend {
                backend.depends_on = depends_on;
            }
        }
    }
    containers
}

fn with_services(
    backend: &BackendSpec,
    project: &str,
    made: &FromContainer,
    services: &BTreeMap<(String, String, String), Vec<BackendId>>,
) -> Vec<Dependency> {
    let mut found: Vec<Dependency> = Vec::new();
    for one in &made.wanted {
        let Some(condition) = condition(one, &mut Problems::default()) else { continue };
        let key = (backend.id.node().to_string(), project.to_owned(), one.name.clone());
        let on: Vec<BackendId> = match services.get(&key) {
            Some(ids) => ids.clone(),
            None if one.name.contains('/') => one.name.parse().into_iter().collect(),
            None => BackendId::new(backend.id.node().clone(), &one.name).into_iter().collect(),
        };
        found.extend(on.into_iter().map(|on| Dependency { on, condition }));
    }
    found
}
