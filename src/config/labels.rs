//! The grammar of labels: from flat keys to one tree for the container and one for each alias.
//!
//! Within a prefix: blocks first, then the dotted keys beneath them, deeper wins. Then wildcards, and over them what is
//! said of one alias; in both steps a better prefix wins key by key.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    idle::IDLE_KEYS,
    label_prefix,
    route::ROUTE_KEYS,
    tree::{Node, Value, nearest, normal},
    values,
};
use crate::model::{Alias, Container, Place, Problem, Problems};

/// Labels of the container itself, beside the idle settings.
pub(super) const CONTAINER_KEYS: [&str; 3] = ["aliases", "exclude", "network"];

/// Plurals that give the n-th item to the n-th alias.
pub(super) const SHORTCUTS: [(&str, &str); 22] = [
    ("ports", "port"),
    ("protos", "scheme"),
    ("protocols", "scheme"),
    ("schemes", "scheme"),
    ("hosts", "host"),
    ("binds", "bind"),
    ("roots", "root"),
    ("spas", "spa"),
    ("indexes", "index"),
    ("no_tls_verifies", "no_tls_verify"),
    ("response_header_timeouts", "response_header_timeout"),
    ("max_conns_per_hosts", "max_conns_per_host"),
    ("disable_compressions", "disable_compression"),
    ("ssl_server_names", "ssl_server_name"),
    ("ssl_trusted_certificates", "ssl_trusted_certificate"),
    ("ssl_certificates", "ssl_certificate"),
    ("ssl_certificate_keys", "ssl_certificate_key"),
    ("agents", "agent"),
    ("inbound_mtls_profiles", "inbound_mtls_profile"),
    ("rule_files", "rule_file"),
    ("tls_terminations", "tls_termination"),
    ("proxy_protocol_headers", "relay_proxy_protocol_header"),
];

/// All labels of a container, in order.
#[derive(Debug)]
pub(super) struct Labelled {
    /// Whether it carries any label of ours.
    pub(super) any: bool,
    /// Settings of the container.
    pub(super) container: Node,
    /// A label concerns the whole container and can not be understood.
    pub(super) refused: bool,
    /// The aliases with their settings; `None`: a label of that route can not be understood.
    pub(super) routes: Vec<(Alias, Option<Node>)>,
    /// Whether `aliases` or a label of a route asks for routes.
    pub(super) asks_for_routes: bool,
    /// The container's name, where it names no route because labels name others.
    pub(super) passed_over: Option<Alias>,
}

/// The labels of one prefix.
#[derive(Debug)]
struct Layer {
    prefix: String,
    wildcard: Node,
    numbered: BTreeMap<usize, Node>,
    named: BTreeMap<Alias, Node>,
    shortcuts: Vec<(&'static str, Node, String)>,
    /// Every full route label: its first field, normal, and its key.
    full: Vec<(String, String)>,
}

impl Layer {
    /// Whether anything is said of the first alias, and not only of all.
    fn says_of_first(&self, alias: &Alias) -> bool {
        !self.shortcuts.is_empty() || self.numbered.contains_key(&1) || self.named.contains_key(alias)
    }
}

/// Reads all labels; best prefix first.
pub(super) fn gather(container: &Container, prefixes: &[String], problems: &mut Problems) -> Labelled {
    let name = format!("{}/{}", container.node, container.name);
    let mut gatherer = Gatherer {
        container: name,
        problems,
        settings: Vec::new(),
        layers: Vec::new(),
        refused_all: false,
        refused: BTreeSet::new(),
        meant: BTreeSet::new(),
        refused_numbers: BTreeSet::new(),
        any: false,
    };
    for prefix in prefixes.iter().rev() {
        gatherer.layer(prefix, &container.labels);
    }
    let labelled = gatherer.finish(&container.name);
    label_prefix::warn_of_misspelt(container, prefixes, problems);
    labelled
}

struct Gatherer<'p> {
    container: String,
    problems: &'p mut Problems,
    /// Settings of the container, worst prefix first.
    settings: Vec<Node>,
    layers: Vec<Layer>,
    refused_all: bool,
    refused: BTreeSet<Alias>,
    /// Those of them that a label names as a route, and not only seems to.
    meant: BTreeSet<Alias>,
    refused_numbers: BTreeSet<usize>,
    any: bool,
}

impl Gatherer<'_> {
    fn place(&self, label: Option<&str>) -> Place {
        Place::Label { container: self.container.clone(), label: label.map(str::to_owned) }
    }

    fn error(&mut self, label: &str, what: impl Into<String>) {
        let place = self.place(Some(label));
        self.problems.0.push(Problem::error(place, what));
    }

    fn layer(&mut self, prefix: &str, labels: &BTreeMap<String, String>) {
        let mut own: Vec<(&str, &str, &str)> = Vec::new();
        for (key, value) in labels {
            let Some(rest) = key.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix)) else { continue };
            match key[rest.len()..].strip_prefix('.') {
                Some(rest) => own.push((key, rest, value)),
                None if key.len() == prefix.len() => {
                    self.any = true;
                    self.error(key, "a label needs a key after the prefix");
                }
                None => {}
            }
        }
        own.sort_by_key(|(key, rest, _)| (rest.matches('.').count(), *key));
        self.any |= !own.is_empty();
        let root = Node::empty_map(self.place(None));
        let mut layer = Layer {
            prefix: prefix.to_owned(),
            wildcard: root.clone(),
            numbered: BTreeMap::new(),
            named: BTreeMap::new(),
            shortcuts: Vec::new(),
            full: Vec::new(),
        };
        let mut settings = root;
        for (key, rest, value) in own {
            self.label(&mut layer, &mut settings, key, rest, value);
        }
        self.settings.push(settings);
        self.layers.push(layer);
    }

    fn label(&mut self, layer: &mut Layer, settings: &mut Node, key: &str, rest: &str, value: &str) {
        let path: Vec<&str> = rest.split('.').map(str::trim).collect();
        let node = Node::text(self.place(Some(key)), value);
        let first = path[0];
        if path.contains(&"") {
            self.error(key, "a part of the label's key is empty");
            self.refuse(first);
            return;
        }
        if CONTAINER_KEYS.iter().chain(IDLE_KEYS).any(|known| normal(known) == normal(first)) {
            if let Err(problem) = settings.put(&path, node) {
                self.problems.0.push(problem);
                self.refused_all = true;
            }
            return;
        }
        if let ([only], Some((_, field))) =
            (&path[..], SHORTCUTS.iter().find(|(many, _)| normal(many) == normal(first)))
        {
            layer.shortcuts.push((field, node, (*only).to_owned()));
            return;
        }
        self.route_label(layer, key, &path, node);
    }

    fn route_label(&mut self, layer: &mut Layer, key: &str, path: &[&str], mut node: Node) {
        let (first, deeper) = (path[0], &path[1..]);
        if deeper.is_empty() {
            match self.block(&layer.prefix, key, first, &node) {
                Some(block) => node = block,
                None => return,
            }
            if let Value::Map(entries) = &node.value {
                layer.full.extend(entries.iter().map(|entry| (normal(&entry.key), key.to_owned())));
            }
        } else {
            layer.full.push((normal(deeper[0]), key.to_owned()));
        }
        let root = Node::empty_map(self.place(Some(key)));
        let tree = if first == "*" {
            &mut layer.wildcard
        } else if let Some(number) = first.strip_prefix('#') {
            match number.parse::<usize>() {
                Ok(number) if number > 0 => layer.numbered.entry(number).or_insert(root),
                Ok(_) | Err(_) => {
                    self.error(key, format!("`{first}` is no number of an alias: the first is `#1`"));
                    return;
                }
            }
        } else {
            match first.parse::<Alias>() {
                Ok(alias) => layer.named.entry(alias).or_insert(root),
                Err(error) => {
                    self.error(key, error.to_string());
                    return;
                }
            }
        };
        if let Err(problem) = tree.put(deeper, node) {
            self.problems.0.push(problem);
            self.refuse(first);
        }
    }

    /// Refuses what the first part of a key stands for; a number is looked up later, and what names no route has none.
    fn refuse(&mut self, first: &str) {
        if first == "*" {
            self.refused_all = true;
        } else if let Some(number) = first.strip_prefix('#') {
            self.refused_numbers.extend(number.parse::<usize>());
        } else {
            self.refused.extend(first.parse::<Alias>());
            self.meant.extend(first.parse::<Alias>());
        }
    }

    /// The mapping in a label that names an alias alone.
    fn block(&mut self, prefix: &str, key: &str, first: &str, node: &Node) -> Option<Node> {
        let text = node.as_text().unwrap_or_default();
        let before = self.problems.0.len();
        let block = values::block(text, node, self.problems);
        if self.problems.0.len() > before {
            self.refuse(first);
            return None;
        }
        match block {
            Some(block) if block.is_null() => return Some(Node::empty_map(block.place)),
            Some(block) if matches!(block.value, Value::Map(_)) => return Some(block),
            None | Some(_) => {}
        }
        let known = || CONTAINER_KEYS.iter().chain(IDLE_KEYS).copied().chain(SHORTCUTS.iter().map(|(many, _)| *many));
        let place = self.place(Some(key));
        let is_field = ROUTE_KEYS.iter().any(|field| normal(field) == normal(first));
        let plural = || known().find(|key| [first, "s"].concat() == *key || [first, "es"].concat() == *key);
        let near = nearest(first, known()).or_else(plural);
        let as_elsewhere = matches!(normal(first).as_str(), "enable" | "enabled");
        let problem = Problem::error(place, format!("`{first}` is no label of a container, nor a mapping for a route"));
        let problem = match (is_field, near) {
            _ if as_elsewhere => problem.with_hint(format!(
                "remove it: a container with labels is served anyway, unless `{prefix}.exclude: true` says otherwise"
            )),
            (true, _) => {
                problem.with_hint(format!("write `{prefix}.<alias>.{first}`, or `{prefix}.*.{first}` for all"))
            }
            (false, Some(near)) => problem.with_hint(format!("did you mean `{prefix}.{near}`?")),
            (false, None) => problem.with_hint(format!("settings of a route go below it: `{prefix}.{first}.port`")),
        };
        self.problems.0.push(problem);
        if is_field || near.is_some() {
            self.refused_all = true;
        } else if let Ok(alias) = first.parse() {
            self.refused.insert(alias);
        } else {
            self.refuse(first);
        }
        None
    }

    fn finish(mut self, name: &str) -> Labelled {
        let mut container = Node::empty_map(self.place(None));
        for settings in std::mem::take(&mut self.settings) {
            container.overlay(settings);
        }
        let (listed, explicit) = self.aliases(&container, name);
        let by_number = |number: &usize| listed.get(number.checked_sub(1)?).cloned();
        self.refused.extend(self.refused_numbers.iter().filter_map(by_number));
        let layers = std::mem::take(&mut self.layers);
        let asks_for_routes =
            explicit || layers.iter().any(|l| !l.full.is_empty() || !l.named.is_empty() || !l.shortcuts.is_empty());
        let passed_over = if explicit { None } else { self.passed_over(listed.first(), &layers) };
        let mut all = listed.clone();
        all.retain(|alias| passed_over.as_ref() != Some(alias));
        for alias in layers.iter().flat_map(|layer| layer.named.keys()).chain(&self.refused) {
            if !all.contains(alias) {
                all.push(alias.clone());
            }
        }
        for layer in &layers {
            self.check_layer(layer, &listed);
            if explicit {
                self.doubt_unlisted(layer, &listed);
            }
        }
        let routes = all.into_iter().map(|alias| {
            let tree = self.tree(&alias, &listed, &layers);
            (alias.clone(), tree.filter(|_| !self.refused.contains(&alias)))
        });
        let routes = routes.collect();
        Labelled { any: self.any, container, refused: self.refused_all, routes, asks_for_routes, passed_over }
    }

    /// The name of the container, where labels name others and nothing is said of it: what they ask for, a guard for
    /// one, would not hold for a route of that name, which nobody has asked for.
    fn passed_over(&self, name: Option<&Alias>, layers: &[Layer]) -> Option<Alias> {
        let name = name?;
        let named = layers.iter().flat_map(|layer| layer.named.keys());
        let others = named.chain(&self.meant).any(|alias| alias != name);
        let is_said = self.refused.contains(name) || layers.iter().any(|layer| layer.says_of_first(name));
        (others && !is_said).then(|| name.clone())
    }

    /// The listed aliases, and whether a label lists them.
    fn aliases(&mut self, container: &Node, name: &str) -> (Vec<Alias>, bool) {
        let mut fields = super::tree::Fields::open(container, "label", self.problems);
        let node = fields.get("aliases").filter(|node| node.as_text() != Some(""));
        let Some(node) = node else {
            return match name.parse::<Alias>() {
                Ok(alias) => (vec![alias], false),
                Err(_) => (Vec::new(), false),
            };
        };
        let mut aliases = Vec::new();
        for item in values::items(node, self.problems) {
            let before = self.problems.0.len();
            let alias = values::parsed::<Alias>(&item, self.problems);
            self.refused_all |= self.problems.0.len() > before;
            aliases.extend(alias.filter(|alias| !aliases.contains(alias)));
        }
        (aliases, true)
    }

    /// Numbers beyond the aliases, and shortcuts that say what a full label says too.
    fn check_layer(&mut self, layer: &Layer, listed: &[Alias]) {
        for (number, node) in &layer.numbered {
            if *number > listed.len() {
                let what = format!("`#{number}` names no alias: there {}", count(listed.len()));
                self.problems.0.push(Problem::error(node.place.clone(), what));
            }
        }
        for (field, node, many) in &layer.shortcuts {
            let items = values::items(node, self.problems);
            if items.len() > listed.len() {
                let what = format!("`{many}` has {} items, but there {}", items.len(), count(listed.len()));
                self.problems.0.push(Problem::error(node.place.clone(), what));
            }
            let conflict = layer.full.iter().find(|(full, _)| *full == normal(field));
            if let Some((_, full)) = conflict {
                let what = format!("`{}.{many}` and `{full}` both set `{field}`", layer.prefix);
                let problem = Problem::error(node.place.clone(), what).with_hint("keep one of the two");
                self.problems.0.push(problem);
                self.refused.extend(listed.iter().take(items.len()).cloned());
            }
        }
    }

    /// An alias beside the list that is almost one of it: what is said of it may be meant for that one.
    fn doubt_unlisted(&mut self, layer: &Layer, listed: &[Alias]) {
        for (alias, node) in layer.named.iter().filter(|(alias, _)| !listed.contains(alias)) {
            let Some(near) = nearest(alias.as_str(), listed.iter().map(Alias::as_str)) else { continue };
            let what = format!("`aliases` does not list `{alias}`, which makes a route of its own");
            let problem = Problem::warning(node.place.clone(), what);
            self.problems.0.push(problem.with_hint(format!("did you mean `{near}`?")));
        }
    }

    /// Everything said of one alias; `None` when parts do not fit together.
    fn tree(&mut self, alias: &Alias, listed: &[Alias], layers: &[Layer]) -> Option<Node> {
        let index = listed.iter().position(|known| known == alias);
        let mut tree = Node::empty_map(self.place(None));
        for layer in layers {
            tree.overlay(layer.wildcard.clone());
        }
        for layer in layers {
            for (field, node, _) in &layer.shortcuts {
                let item = index.and_then(|index| values::items(node, &mut Problems::default()).into_iter().nth(index));
                if let Some(item) = item {
                    let mut over = Node::empty_map(node.place.clone());
                    over.put(&[field], item).ok()?;
                    tree.overlay(over);
                }
            }
            if let Some(numbered) = index.and_then(|index| layer.numbered.get(&(index + 1))) {
                tree.overlay(numbered.clone());
            }
            if let Some(named) = layer.named.get(alias) {
                tree.overlay(named.clone());
            }
        }
        Some(tree)
    }
}

fn count(aliases: usize) -> String {
    match aliases {
        0 => "are no aliases".to_owned(),
        1 => "is one alias".to_owned(),
        n => format!("are {n} aliases"),
    }
}
