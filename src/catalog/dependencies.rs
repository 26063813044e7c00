//! Who needs whom: order, cycles, and the policies that dependencies inherit.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{BackendId, BackendSpec, SleepMethod};

/// Backends by their names.
pub(super) type Backends = BTreeMap<BackendId, BackendSpec>;

/// All backends, dependencies before those that need them. Members of a cycle, and those that need one, are left out.
pub(super) fn ordered(backends: &Backends) -> Vec<&BackendId> {
    let mut missing: BTreeMap<&BackendId, usize> = BTreeMap::new();
    let mut needed_by: BTreeMap<&BackendId, Vec<&BackendId>> = BTreeMap::new();
    for (id, spec) in backends {
        let known: BTreeSet<&BackendId> = known_dependencies(backends, spec).collect();
        missing.insert(id, known.len());
        for dependency in known {
            needed_by.entry(dependency).or_default().push(id);
        }
    }
    let mut order: Vec<&BackendId> = missing.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
    let mut next = 0;
    while let Some(id) = order.get(next).copied() {
        next += 1;
        for dependant in needed_by.remove(id).unwrap_or_default() {
            if let Some(count) = missing.get_mut(dependant) {
                *count -= 1;
                if *count == 0 {
                    order.push(dependant);
                }
            }
        }
    }
    order
}

/// One cycle, from its first member by name, each needing the next and the last the first.
pub(super) fn cycle(backends: &Backends) -> Option<Vec<BackendId>> {
    let sound: BTreeSet<&BackendId> = ordered(backends).into_iter().collect();
    let stuck = |id: &&BackendId| !sound.contains(id);
    let mut id = backends.keys().find(stuck)?;
    let mut way: Vec<&BackendId> = Vec::new();
    // Everything stuck needs something stuck, so the way comes back to itself.
    while !way.contains(&id) {
        way.push(id);
        id = known_dependencies(backends, backends.get(id)?).find(stuck)?;
    }
    let mut members: Vec<BackendId> = way.into_iter().skip_while(|member| *member != id).cloned().collect();
    let first = members.iter().enumerate().min_by_key(|(_, member)| *member).map_or(0, |(index, _)| index);
    members.rotate_left(first);
    Some(members)
}

/// The given backends and all that they need, directly or not.
pub(super) fn closure(backends: &Backends, roots: impl Iterator<Item = BackendId>) -> BTreeSet<BackendId> {
    let mut found = BTreeSet::new();
    let mut open: Vec<BackendId> = roots.collect();
    while let Some(id) = open.pop() {
        if let Some(spec) = backends.get(&id)
            && found.insert(id)
        {
            open.extend(spec.depends_on.iter().map(|dependency| dependency.on.clone()));
        }
    }
    found
}

/// A dependency without a policy of its own sleeps with its last dependant, by that one's method; where several
/// need it and differ, by `stop`, which none of them would be surprised by. Dependants that sleep only when ordered
/// to have a say only where no other has.
pub(super) fn inherit_policies(backends: &mut Backends) {
    let order: Vec<BackendId> = ordered(backends).into_iter().cloned().collect();
    // Dependants first, so that a method goes down a chain.
    for id in order.iter().rev() {
        let needs_it = |spec: &&BackendSpec| spec.depends_on.iter().any(|dependency| dependency.on == *id);
        let (sleepers, others): (Vec<_>, Vec<_>) =
            backends.values().filter(needs_it).map(|spec| &spec.policy).partition(|policy| policy.sleeps());
        let deciding = if sleepers.is_empty() { others } else { sleepers };
        let Some(method) = deciding.first().map(|policy| policy.stop_method) else { continue };
        let alike = deciding.iter().all(|policy| policy.stop_method == method);
        if let Some(spec) = backends.get_mut(id).filter(|spec| !spec.policy.sleeps()) {
            spec.policy.dependency_only = true;
            spec.policy.stop_method = if alike { method } else { SleepMethod::Stop };
        }
    }
}

/// The name on the same node that is spelled most like this one, when one is near.
pub(super) fn nearest<'a>(known: &'a BTreeSet<BackendId>, wanted: &BackendId, of: &BackendId) -> Option<&'a BackendId> {
    let near = |id: &&BackendId| strsim::damerau_levenshtein(id.name(), wanted.name());
    let others = known.iter().filter(|id| id.node() == wanted.node() && *id != of);
    others.min_by_key(near).filter(|id| near(id) <= 1 + wanted.name().len() / 6)
}

fn known_dependencies<'a>(backends: &'a Backends, spec: &'a BackendSpec) -> impl Iterator<Item = &'a BackendId> {
    spec.depends_on.iter().map(|dependency| &dependency.on).filter(|on| backends.contains_key(*on))
}
