//! The rules behind one host: path, method and header conditions of one target.

use std::{cmp::Reverse, sync::Arc};

use thin_vec::ThinVec;

use super::{
    Query,
    path::{plain_path, single_slashes},
};
use crate::model::{HeaderMatch, PathPattern, RouteMatch};

/// One way to a target, for one host.
#[derive(Debug)]
pub(super) struct Rule {
    /// For a prefix without trailing slashes, so that the empty one takes every path.
    path: Box<str>,
    exact: bool,
    /// Shared by all hosts and paths of the route; absent when it has no conditions.
    conditions: Option<Arc<Conditions>>,
    /// Where the target is in the table.
    pub(super) target: u32,
}

/// What a request must meet beside host and path.
#[derive(Debug)]
struct Conditions {
    methods: ThinVec<String>,
    headers: ThinVec<HeaderMatch>,
}

impl Rule {
    /// The rules of one route, the same for each of its hosts: one for each path.
    pub(super) fn of(matches: &RouteMatch, target: u32) -> impl Fn() -> Vec<Self> {
        let conditions = Conditions::of(matches);
        let mut paths: Vec<(Box<str>, bool)> = matches.paths.iter().map(canonical).collect();
        if paths.is_empty() {
            paths.push(("".into(), false));
        }
        move || {
            let rule = |(path, exact): &(Box<str>, bool)| Self {
                path: path.clone(),
                exact: *exact,
                conditions: conditions.clone(),
                target,
            };
            paths.iter().map(rule).collect()
        }
    }

    /// Sorts best first: longer paths, exact ones, more conditions, and then as given.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        let conditions = self.conditions.as_ref().map_or(0, |conditions| conditions.count());
        (Reverse(self.path.len()), Reverse(self.exact), Reverse(conditions), self.target)
    }

    /// Whether the request, whose host is right already, meets the rule.
    pub(super) fn admits(&self, query: &Query<'_>) -> bool {
        self.takes_path(query.path) && self.conditions.as_ref().is_none_or(|conditions| conditions.hold(query))
    }

    fn takes_path(&self, path: &str) -> bool {
        // The usual rule first, without a comparison: comparing nothing at the address of an empty box (which is no
        // address) costs some processors more than the whole look-up.
        if self.path.is_empty() {
            return !self.exact || path.is_empty();
        }
        // Many services take `//admin` for `/admin`: it must not come to them by the route of everything else.
        self.begins(path) || (path.contains("//") && self.begins(&single_slashes(path)))
    }

    fn begins(&self, path: &str) -> bool {
        match path.strip_prefix(&*self.path) {
            Some(rest) if self.exact => rest.is_empty(),
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}

fn canonical(pattern: &PathPattern) -> (Box<str>, bool) {
    match pattern {
        PathPattern::Prefix(path) => (plain_path(path.trim_end_matches('/')).into(), false),
        PathPattern::Exact(path) => (plain_path(path).into(), true),
    }
}

impl Conditions {
    fn of(matches: &RouteMatch) -> Option<Arc<Self>> {
        let conditions = Self { methods: matches.methods.clone(), headers: matches.headers.clone() };
        (conditions.count() > 0).then(|| Arc::new(conditions))
    }

    /// The methods are one condition, each header is one.
    fn count(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len()
    }

    fn hold(&self, query: &Query<'_>) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|method| method == query.method))
            && self.headers.iter().all(|header| {
                let found = (query.headers)(&header.name);
                found.is_some_and(|found| header.value.as_deref().is_none_or(|value| value == found))
            })
    }
}
