//! The comparison of two catalogs.

use super::{Aspect, Catalog, Change, dependencies::ordered};
use crate::model::{Group, RouteSpec, RouteTarget};

/// The steps from `old` to `new`, in an order in which each is safe: a backend comes after all that it needs, a route
/// after its backend; a route goes before its backend, and a backend before what it needed. At no step do
/// dependencies go in a circle. What did not change does not appear; a route that only moved in its file did not.
pub fn diff(old: &Catalog, new: &Catalog) -> Vec<Change> {
    let mut changes = Vec::new();
    for id in ordered(&new.backends) {
        let Some(spec) = new.backends.get(id) else { continue };
        match old.backends.get(id) {
            None => changes.push(Change::AddBackend(Box::new(spec.clone()))),
            Some(known) => {
                let aspects = Aspect::between(known, spec);
                if !aspects.is_empty() {
                    let (old, new) = (Box::new(known.clone()), Box::new(spec.clone()));
                    changes.push(Change::ChangeBackend { old, new, aspects });
                }
            }
        }
    }
    let gone = old.routes.keys().filter(|alias| !new.routes.contains_key(*alias));
    changes.extend(gone.cloned().map(Change::RemoveRoute));
    for (alias, route) in &new.routes {
        match old.routes.get(alias) {
            None => changes.push(Change::AddRoute(route.clone())),
            Some(known) if alike(known, route) => {}
            Some(known) => changes.push(Change::ChangeRoute { old: known.clone(), new: route.clone() }),
        }
    }
    let gone = ordered(&old.backends).into_iter().rev().filter(|id| !new.backends.contains_key(*id));
    changes.extend(gone.cloned().map(Change::RemoveBackend));
    changes
}

/// Whether two routes are the same but for their place.
fn alike(old: &RouteSpec, new: &RouteSpec) -> bool {
    let target = if let (RouteTarget::Group(old), RouteTarget::Group(group)) = (&old.target, &new.target)
        && alike_groups(old, group)
    {
        new.target.clone()
    } else {
        old.target.clone()
    };
    let moved = RouteSpec { place: new.place.clone(), target, ..old.clone() };
    moved == *new
}

/// The same for the members of two groups.
fn alike_groups(old: &Group, new: &Group) -> bool {
    let moved = Group { members: new.members.clone(), ..old.clone() };
    let mut members = old.members.iter().zip(&new.members);
    moved == *new
        && old.members.len() == new.members.len()
        && members.all(|(old, new)| old.weight == new.weight && alike(&old.route, &new.route))
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
