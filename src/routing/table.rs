//! The table: from host patterns to the rules behind them.

use std::{collections::HashMap, fmt, sync::Arc};

use super::{Host, hash::HostHash, rule::Rule};
use crate::model::{HostPattern, RouteMatch, Served};

/// What a request is looked up by.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// The host as the request writes it, in any case, with or without port and trailing dot.
    pub host: &'a str,
    /// The path without the query, as it will be judged: the table decodes nothing. See [`plain_path`](super::plain_path).
    pub path: &'a str,
    /// The method.
    pub method: &'a str,
    /// The value of a header field by its lower-case name.
    pub headers: &'a dyn Fn(&str) -> Option<&'a str>,
}

/// All routes by host and path; immutable, built whole.
#[derive(Debug)]
pub struct RouteTable<T> {
    exact: HostMap,
    first_label: HostMap,
    /// By suffix, without the `*.`.
    wildcard: HostMap,
    /// The labels of the longest suffix in `wildcard`; longer ones need no look-up.
    deepest: usize,
    any: Box<[Rule]>,
    targets: Vec<T>,
}

/// The rules behind each host.
type HostMap = HashMap<Arc<str>, Rules, HostHash>;

/// The rules behind one host, best first. Nearly always one, which then lies in the map itself: with many hosts each
/// step to another place in memory costs more than all the rest.
#[derive(Debug)]
enum Rules {
    One(Rule),
    Many(Box<[Rule]>),
}

impl Rules {
    fn all(&self) -> &[Rule] {
        match self {
            Self::One(rule) => std::slice::from_ref(rule),
            Self::Many(rules) => rules,
        }
    }
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self::build([])
    }
}

impl<T> RouteTable<T> {
    /// Builds the table. A route without hosts (a stream's) answers no request. Of two routes that match alike the
    /// one given first answers.
    pub fn build(routes: impl IntoIterator<Item = (RouteMatch, T)>) -> Self {
        let mut draft = Draft::default();
        let mut targets = Vec::new();
        for (matches, target) in routes {
            // More do not fit into any memory.
            let Ok(index) = u32::try_from(targets.len()) else { break };
            draft.add(&matches, index);
            targets.push(target);
        }
        targets.shrink_to_fit();
        Self {
            deepest: draft.wildcard.keys().map(|suffix| suffix.split('.').count()).max().unwrap_or(0),
            exact: ranked_map(draft.exact),
            first_label: ranked_map(draft.first_label),
            wildcard: ranked_map(draft.wildcard),
            any: ranked(draft.any),
            targets,
        }
    }

    /// The target of a request.
    pub fn find(&self, query: &Query<'_>) -> Option<&T> {
        // By reference: a host is large to move.
        let host = Host::read(query.host);
        let host = host.as_ref()?.as_str();
        let best = |rules: &'_ [Rule]| rules.iter().find(|rule| rule.admits(query)).map(|rule| rule.target);
        let exact = self.exact.get(host).and_then(|rules| best(rules.all()));
        let target = exact.or_else(|| self.general_rules(host).find_map(best))?;
        self.targets.get(target as usize)
    }

    /// How this host is served, whatever the path and the rest.
    pub fn served(&self, host: &str) -> Served {
        match Host::read(host) {
            Some(host) if self.exact.contains_key(host.as_str()) => Served::ByName,
            Some(host) if self.general_rules(host.as_str()).next().is_some() => Served::ByPattern,
            Some(_) | None => Served::No,
        }
    }

    /// The targets of all routes that answer to this host, whatever the path and the rest.
    pub fn of_host(&self, host: &str) -> Vec<&T> {
        let Some(host) = Host::read(host) else { return Vec::new() };
        let exact = self.exact.get(host.as_str()).map(Rules::all).into_iter();
        let rules = exact.chain(self.general_rules(host.as_str())).flatten();
        rules.filter_map(|rule| self.targets.get(rule.target as usize)).collect()
    }

    /// The rules of each pattern but the exact one that takes this host, the most specific pattern first.
    fn general_rules<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a [Rule]> {
        let label = host.split_once('.').map_or(host, |(label, _)| label);
        let first_label = if self.first_label.is_empty() { None } else { self.first_label.get(label) };
        let wildcards = suffixes(host, self.deepest).filter_map(|suffix| self.wildcard.get(suffix));
        let any = (!self.any.is_empty()).then_some(&*self.any);
        first_label.into_iter().chain(wildcards).map(Rules::all).chain(any)
    }
}

/// What follows each dot of the host, the longest first, leaving out those of more labels than `deepest`.
fn suffixes(host: &str, deepest: usize) -> impl Iterator<Item = &str> {
    let dots = if deepest == 0 { 0 } else { host.bytes().filter(|b| *b == b'.').count() };
    let skipped = dots.saturating_sub(deepest);
    let all = host.bytes().enumerate().filter(|(_, b)| *b == b'.');
    all.skip(skipped).take(dots - skipped).filter_map(|(dot, _)| host.get(dot + 1..))
}

/// The table while it is filled.
#[derive(Default)]
struct Draft {
    exact: HashMap<Arc<str>, Vec<Rule>>,
    first_label: HashMap<Arc<str>, Vec<Rule>>,
    wildcard: HashMap<Arc<str>, Vec<Rule>>,
    any: Vec<Rule>,
}

impl Draft {
    fn add(&mut self, matches: &RouteMatch, target: u32) {
        let rules = Rule::of(matches, target);
        for pattern in &matches.hosts {
            let place = match pattern {
                HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default(),
                HostPattern::FirstLabel(label) => self.first_label.entry(label.clone()).or_default(),
                HostPattern::Wildcard(suffix) => self.wildcard.entry(suffix.clone()).or_default(),
                HostPattern::Any => &mut self.any,
            };
            place.extend(rules());
        }
    }
}

fn ranked_map(map: HashMap<Arc<str>, Vec<Rule>>) -> HostMap {
    let one_or_many = |rules: Vec<Rule>| match <[Rule; 1]>::try_from(rules) {
        Ok([rule]) => Rules::One(rule),
        Err(rules) => Rules::Many(ranked(rules)),
    };
    map.into_iter().map(|(host, rules)| (host, one_or_many(rules))).collect()
}

fn ranked(mut rules: Vec<Rule>) -> Box<[Rule]> {
    rules.sort_by_key(Rule::rank);
    rules.into()
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, path, method, headers: _ } = self;
        f.debug_struct("Query").field("host", host).field("path", path).field("method", method).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
