//! Small catalogs for tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Catalog, DiscoveredPart, FilePart};
use crate::model::{
    Alias, BackendId, BackendSpec, Condition, Dependency, Endpoint, HostPattern, IdlePolicy, Place, Problems,
    Provenance, Readiness, RouteMatch, RouteSpec, RouteTarget, Scheme, Unit,
};

pub(super) fn id(name: &str) -> BackendId {
    format!("local/{name}").parse().unwrap()
}

pub(super) fn alias(name: &str) -> Alias {
    name.parse().unwrap()
}

pub(super) fn backend(name: &str, needs: &[&str]) -> BackendSpec {
    BackendSpec {
        id: id(name),
        unit: Unit { name: name.to_owned(), network: None, command: None },
        policy: IdlePolicy::default(),
        ready: Readiness::Tcp,
        ports: Vec::new(),
        depends_on: needs.iter().map(|on| Dependency { on: id(on), condition: Condition::Started }).collect(),
        provenance: Provenance::Discovered,
    }
}

pub(super) fn file_place(line: u32) -> Place {
    Place::File { path: "dormouse.yaml".into(), line: Some(line), column: None }
}

pub(super) fn label_place(container: &str) -> Place {
    Place::Label { container: format!("local/{container}"), label: None }
}

pub(super) fn route(name: &str, to: &str, port: u16, place: Place) -> RouteSpec {
    let matches = RouteMatch { hosts: [HostPattern::FirstLabel(name.into())].into(), ..RouteMatch::default() };
    let target = RouteTarget::Backend { id: id(to), endpoint: Endpoint { scheme: Scheme::Http, port } };
    RouteSpec::new(alias(name), place, matches, target)
}

/// A container with one route for each alias, all to port 80.
pub(super) fn container(spec: BackendSpec, created: i64, aliases: &[&str]) -> DiscoveredPart {
    let name = spec.id.name().to_owned();
    DiscoveredPart {
        container: spec.id.to_string(),
        labelled: true,
        created,
        depends_on: None,
        routes: aliases.iter().map(|alias| route(alias, &name, 80, label_place(&name))).collect(),
        backend: Some(spec),
        problems: Problems::default(),
        excluded: None,
    }
}

pub(super) fn file(routes: Vec<RouteSpec>, backends: Vec<BackendSpec>) -> FilePart {
    FilePart {
        path: "dormouse.yaml".into(),
        routes: routes.into_iter().map(Arc::new).collect(),
        backends,
        written: BTreeMap::new(),
        told_by_files: BTreeSet::new(),
        problems: Problems::default(),
    }
}

/// The problems as text.
pub(super) fn words(catalog: &Catalog) -> String {
    catalog.problems.to_string()
}
