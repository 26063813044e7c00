//! `acme: dns`: what puts records into the DNS.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use super::{
    tree::{Fields, Node, Value, unknown},
    values,
};
use crate::model::{
    DNS_PROVIDERS, DnsAccess, DnsHook, DnsOption, DnsProvider, DnsProviderKind, DnsServer, DnsValue, Problem, Problems,
    TSIG_ALGORITHMS,
};

/// What to write where there is none.
pub(super) const HINT: &str = "write `dns: {provider: cloudflare, token_file: /run/secrets/cloudflare}` or `dns: {command: [/usr/local/bin/dns-hook]}`";

/// What may stand beside what a provider needs.
const COMMON: [&str; 3] = ["zone", "resolvers", "propagation_timeout"];

/// How long a record of a provider may take until it is seen.
const PROPAGATION: Duration = Duration::from_secs(120);

/// Longer than that an order does not wait.
const LONGEST: Duration = Duration::from_secs(480);

/// A command, or a mapping; relative paths start at `base`.
pub(super) fn read(node: &Node, base: &Path, problems: &mut Problems) -> Option<DnsAccess> {
    if !matches!(node.value, Value::Map(_)) {
        return hook(node, values::texts(node, problems), None, problems);
    }
    let mut fields = Fields::open(node, "`dns`", problems);
    let (command, provider) = (fields.get("command"), fields.get("provider"));
    if let (Some(_), Some(provider)) = (command, provider) {
        let what = "`dns` names both a `command` and a `provider`";
        problems.0.push(Problem::error(provider.place.clone(), what).with_hint("leave out the one that is not meant"));
        return None;
    }
    if let Some(named) = provider {
        let name = values::text(named, problems)?;
        let Some(kind) = DnsProviderKind::find(name) else {
            problems.0.push(no_provider(named, name));
            return None;
        };
        return Some(DnsAccess::Provider(provider_of(node, kind, fields, base, problems)));
    }
    let wait = fields.get("wait").and_then(|node| values::duration(node, problems));
    let command = command.map(|node| values::texts(node, problems)).unwrap_or_default();
    let known = problems.0.len();
    let options = DNS_PROVIDERS.iter().flat_map(|kind| kind.options).map(DnsOption::written);
    // Each once, though several need it.
    let keys: BTreeSet<String> = COMMON.into_iter().map(str::to_owned).chain(options).collect();
    for key in keys {
        if let Some(entry) = fields.entry(&key) {
            let what = format!("`{}` goes with a `provider`, and there is none", entry.key);
            problems.0.push(Problem::error(entry.place.clone(), what).with_hint(HINT));
        }
    }
    fields.finish(&["command", "provider", "wait"], problems);
    if command.is_empty() && problems.has_errors_since(known) {
        // What is missing is likely what has another spelling.
        return None;
    }
    hook(node, command, wait, problems)
}

fn hook(node: &Node, command: Vec<String>, wait: Option<Duration>, problems: &mut Problems) -> Option<DnsAccess> {
    if command.is_empty() {
        let problem = Problem::error(node.place.clone(), "`dns` names neither a provider nor a command");
        problems.0.push(problem.with_hint(HINT));
        return None;
    }
    Some(DnsAccess::Hook(DnsHook { command, wait: wait.unwrap_or(Duration::from_secs(30)) }))
}

fn no_provider(node: &Node, name: &str) -> Problem {
    let names: Vec<&str> = DNS_PROVIDERS.iter().map(|kind| kind.name).collect();
    let problem = unknown(&node.place, "DNS provider", name, &names);
    if problem.hint.is_some() {
        return problem;
    }
    problem.with_hint(format!("known: `{}`; for any other there is `command`", names.join("`, `")))
}

fn provider_of(
    node: &Node,
    kind: &'static DnsProviderKind,
    mut fields: Fields<'_>,
    base: &Path,
    problems: &mut Problems,
) -> DnsProvider {
    let mut options = BTreeMap::new();
    for option in kind.options {
        let value = value_of(kind, option, &mut fields, base, problems);
        options.extend(value.map(|value| (option.key, value)));
    }
    let zone = fields.get("zone").and_then(|node| values::text(node, problems));
    let resolvers = fields.get("resolvers").map(|node| resolvers(node, problems)).unwrap_or_default();
    let timeout = fields.get("propagation_timeout");
    let propagation_timeout = timeout.and_then(|node| values::duration(node, problems)).unwrap_or(PROPAGATION);
    if let Some(node) = timeout.filter(|_| propagation_timeout > LONGEST) {
        problems.0.push(node.wrong("is longer than an order may take: write at most `8m`"));
    }
    if let Some(entry) = fields.entry("wait") {
        let what = "`wait` is of `command`: with a provider, records are looked for until they are seen";
        problems.0.push(Problem::error(entry.place.clone(), what).with_hint("write `propagation_timeout: 2m`"));
    }
    let written: Vec<String> = kind.options.iter().map(DnsOption::written).collect();
    let written = written.iter().map(String::as_str);
    let known: Vec<&str> = COMMON.into_iter().chain(["provider"]).chain(written).collect();
    fields.finish(&known, problems);
    DnsProvider {
        kind,
        options,
        zone: zone.map(|zone| zone.trim_end_matches('.').to_ascii_lowercase()),
        resolvers,
        propagation_timeout,
        place: node.place.clone(),
    }
}

fn value_of(
    kind: &DnsProviderKind,
    option: &DnsOption,
    fields: &mut Fields<'_>,
    base: &Path,
    problems: &mut Problems,
) -> Option<DnsValue> {
    if option.secret
        && let Some(entry) = fields.entry(option.key)
    {
        // The value itself is not told.
        let what = format!("`{}` of `{}` is a secret, and has no place here", option.key, kind.name);
        let hint = format!("write `{}: /run/secrets/{}` with a file that holds it", option.written(), kind.name);
        problems.0.push(Problem::error(entry.place.clone(), what).with_hint(hint));
    }
    let node = fields.get(&option.written())?;
    let text = values::text(node, problems)?;
    if text.is_empty() {
        problems.0.push(node.wrong("is empty"));
        return None;
    }
    if option.secret {
        return Some(DnsValue::File(base.join(text)));
    }
    if option.key == "key_algorithm" {
        let known: Vec<(&str, &str)> = TSIG_ALGORITHMS.iter().map(|name| (*name, *name)).collect();
        return values::word(node, "TSIG algorithm", &known, problems).map(|name| DnsValue::Text(name.to_owned()));
    }
    if (kind.name, option.key) == ("rfc2136", "server")
        && let Err(wrong) = text.parse::<DnsServer>()
    {
        problems.0.push(Problem::error(node.place.clone(), wrong.to_string()));
        return None;
    }
    Some(DnsValue::Text(text.to_owned()))
}

/// Addresses, each with a port or not.
fn resolvers(node: &Node, problems: &mut Problems) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for item in values::items(node, problems) {
        let Some(text) = values::text(&item, problems) else { continue };
        let address = text.parse::<SocketAddr>().ok();
        match address.or_else(|| text.parse::<IpAddr>().ok().map(|address| (address, 53).into())) {
            Some(address) => found.push(address),
            None => problems
                .0
                .push(item.wrong("is no address of a resolver: write for example `9.9.9.9` or `127.0.0.1:5353`")),
        }
    }
    found
}
