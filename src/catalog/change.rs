//! One step from the catalog of before to the new one, and its words.

use std::{fmt, sync::Arc};

use super::{
    Catalog,
    difference::{backend_differences, route_differences},
};
use crate::model::{Alias, BackendId, BackendSpec, Endpoint, RouteSpec, RouteTarget};

/// One step.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "a handful for each reload")]
pub enum Change {
    /// A backend comes.
    AddBackend(Box<BackendSpec>),
    /// A backend differs in these aspects; its life goes on.
    ChangeBackend {
        /// As it was.
        old: Box<BackendSpec>,
        /// As it shall be.
        new: Box<BackendSpec>,
        /// Where they differ; not empty.
        aspects: Vec<Aspect>,
    },
    /// A route comes.
    AddRoute(Arc<RouteSpec>),
    /// A route differs in more than its place.
    ChangeRoute {
        /// As it was.
        old: Arc<RouteSpec>,
        /// As it shall be.
        new: Arc<RouteSpec>,
    },
    /// A route goes.
    RemoveRoute(Alias),
    /// A backend goes; no route and no backend needs it any more.
    RemoveBackend(BackendId),
}

/// In what a backend differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// The unit: network or command.
    Unit,
    /// The idle policy.
    Policy,
    /// When it is ready.
    Ready,
    /// The ports that readiness looks at.
    Ports,
    /// What it needs.
    Dependencies,
    /// Who made it.
    Provenance,
}

impl Aspect {
    /// Where two backends of one name differ.
    pub(super) fn between(old: &BackendSpec, new: &BackendSpec) -> Vec<Self> {
        let aspects = [
            (Self::Unit, old.unit != new.unit),
            (Self::Policy, old.policy != new.policy),
            (Self::Ready, old.ready != new.ready),
            (Self::Ports, old.ports != new.ports),
            (Self::Dependencies, old.depends_on != new.depends_on),
            (Self::Provenance, old.provenance != new.provenance),
        ];
        aspects.into_iter().filter(|(_, differs)| *differs).map(|(aspect, _)| aspect).collect()
    }
}

impl Change {
    /// Carries the change out on a catalog.
    pub fn apply(&self, catalog: &mut Catalog) {
        match self {
            Self::AddBackend(spec) | Self::ChangeBackend { new: spec, .. } => {
                catalog.backends.insert(spec.id.clone(), (**spec).clone());
            }
            Self::AddRoute(spec) | Self::ChangeRoute { new: spec, .. } => {
                catalog.routes.insert(spec.alias.clone(), spec.clone());
            }
            Self::RemoveRoute(alias) => {
                catalog.routes.remove(alias);
            }
            Self::RemoveBackend(id) => {
                catalog.backends.remove(id);
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddBackend(spec) => write!(f, "add backend `{}`", spec.id),
            Self::ChangeBackend { old, new, .. } => {
                write!(f, "change backend `{}`: {}", new.id, backend_differences(old, new).join(", "))
            }
            Self::AddRoute(spec) => write!(f, "add route `{}` to {}", spec.alias, Target(&spec.target)),
            Self::ChangeRoute { old, new } => {
                write!(f, "change route `{}`: {}", new.alias, route_differences(old, new).join(", "))
            }
            Self::RemoveRoute(alias) => write!(f, "remove route `{alias}`"),
            Self::RemoveBackend(id) => write!(f, "remove backend `{id}`"),
        }
    }
}

/// A target in words.
pub(super) struct Target<'a>(pub(super) &'a RouteTarget);

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RouteTarget::Backend { id, endpoint: Endpoint { scheme, port } } => {
                write!(f, "port {port} ({scheme}) of `{id}`")
            }
            RouteTarget::Address { host, endpoint: Endpoint { scheme, port } } if host.contains(':') => {
                write!(f, "`{scheme}://[{host}]:{port}`")
            }
            RouteTarget::Address { host, endpoint: Endpoint { scheme, port } } => {
                write!(f, "`{scheme}://{host}:{port}`")
            }
            RouteTarget::Down { id } => write!(f, "`{id}`, which is down"),
            RouteTarget::Group(group) => {
                for (index, member) in group.members.iter().enumerate() {
                    let before = if index == 0 { "" } else { " and " };
                    write!(f, "{before}{}", Target(&member.route.target))?;
                }
                Ok(())
            }
        }
    }
}
