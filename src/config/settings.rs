//! The settings of the program as the file writes them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use super::{
    access_log, acme,
    idle::{self, Author},
    middlewares, nodes, tls,
    tree::{Fields, Node},
    values,
};
use crate::model::{Discover, HostPattern, Listen, NodeName, OnExit, Place, Problem, Problems, Settings, overlap};

/// Every key of the file.
pub(super) const FILE_KEYS: &[&str] = &[
    "listen",
    "domains",
    "nodes",
    "defaults",
    "include",
    "routes",
    "backends",
    "discover",
    "trusted_proxies",
    "proxy_protocol",
    "on_exit",
    "max_connections",
    "max_connections_per_client",
    "max_parallel_wakes",
    "wakes_per_client",
    "shutdown_timeout",
    "access_log",
    "tls",
    "acme",
    "https_redirect",
    "middlewares",
];

/// Keys of GoDoxy's main file, and what to write instead.
const GODOXY_KEYS: &[(&str, &str)] = &[
    ("entrypoint", "addresses are below `listen`, networks of proxies in front below `trusted_proxies`"),
    ("providers", "engines are below `nodes`, route files below `include`"),
    ("match_domains", "write `domains: [example.com]`"),
    ("autocert", "certificates of files are below `tls`, those from an authority below `acme`"),
    ("acl", "lists of clients are not in this version yet"),
    ("timeout_shutdown", "write `shutdown_timeout: 30s`"),
    ("inbound_mtls_profiles", "profiles of client certificates are below `tls: clients`, as they are"),
    ("homepage", "Dormouse has no start page"),
    ("webui", "Dormouse has no start page"),
];

/// Reads every setting of the file except routes, backends and includes. Beside them the names of nodes whose engines
/// can not be understood.
pub(super) fn read(fields: &mut Fields<'_>, base: &Path, problems: &mut Problems) -> (Settings, Vec<NodeName>) {
    let (mut settings, mut unclear) = (Settings::default(), Vec::new());
    let usual_nodes = std::mem::take(&mut settings.nodes);
    if let Some(node) = fields.get("listen") {
        listen(node, &mut settings.listen, problems);
    }
    for item in fields.get("domains").map(|node| values::items(node, problems)).unwrap_or_default() {
        settings.domains.extend(domain(&item, problems).filter(|d| !settings.domains.contains(d)));
    }
    if let Some(node) = fields.get("nodes") {
        unclear = nodes::read(node, base, &mut settings, problems);
    }
    if settings.nodes.is_empty() {
        settings.nodes = usual_nodes;
    }
    if let Some(node) = fields.get("defaults") {
        defaults(node, &mut settings, problems);
    }
    if let Some(node) = fields.get("discover") {
        discover(node, &mut settings, problems);
    }
    if let Some(node) = fields.get("trusted_proxies") {
        settings.trusted_proxies = idle::networks(node, problems);
    }
    if let Some(node) = fields.get("proxy_protocol") {
        settings.proxy_protocol = idle::networks(node, problems);
    }
    if let Some(node) = fields.get("on_exit") {
        let known = [("leave", OnExit::Leave), ("wake_all", OnExit::WakeAll)];
        settings.on_exit = values::word(node, "value of `on_exit`", &known, problems).unwrap_or(settings.on_exit);
    }
    if let Some(node) = fields.get("max_connections") {
        settings.max_connections = values::count(node, 1..=10_000_000, problems);
    }
    if let Some(node) = fields.get("max_connections_per_client") {
        settings.max_connections_per_client = values::count(node, 1..=10_000_000, problems);
    }
    if let Some(node) = fields.get("max_parallel_wakes") {
        settings.max_parallel_wakes = values::count(node, 1..=10_000, problems).unwrap_or(settings.max_parallel_wakes);
    }
    if let Some(node) = fields.get("wakes_per_client") {
        let wakes = values::number(node, 1..=1_000_000, problems).and_then(|n| u32::try_from(n).ok());
        settings.wakes_per_client = wakes.unwrap_or(settings.wakes_per_client);
    }
    if let Some(node) = fields.get("shutdown_timeout") {
        settings.shutdown_timeout = values::duration(node, problems).unwrap_or(settings.shutdown_timeout);
    }
    if let Some(node) = fields.get("access_log") {
        settings.access_log = access_log::read(node, problems);
    }
    if let Some(node) = fields.get("tls") {
        settings.tls = tls::read(node, base, problems);
    }
    if let Some(entry) = fields.entry("acme") {
        settings.tls.acme = acme::read(entry, base, problems);
    }
    if settings.listen.https.is_empty()
        && let Some(acme) = &settings.tls.acme
    {
        let problem = Problem::warning(acme.place.clone(), "certificates are got, but nothing listens for HTTPS");
        problems.0.push(problem.with_hint("write `listen: {https: \":443\"}`"));
    }
    if let Some(entry) = fields.entry("middlewares") {
        settings.middlewares = middlewares::named(entry, problems);
    }
    if let Some(node) = fields.get("https_redirect") {
        settings.tls.redirect = tls::redirect(node, problems);
    }
    (settings, unclear)
}

/// Reports what nobody has read, with advice for GoDoxy's keys.
pub(super) fn finish(mut fields: Fields<'_>, problems: &mut Problems) {
    for (key, advice) in GODOXY_KEYS {
        if let Some(entry) = fields.entry(key) {
            let what = format!("`{key}` is a key of GoDoxy's main file");
            problems.0.push(Problem::error(entry.place.clone(), what).with_hint(*advice));
        }
    }
    fields.finish(FILE_KEYS, problems);
}

fn listen(node: &Node, listen: &mut Listen, problems: &mut Problems) {
    let mut fields = Fields::open(node, "`listen`", problems);
    let mut all = Vec::new();
    let mut read = |node: &Node, everywhere: Ipv4Addr, problems: &mut Problems| {
        let found = addresses(node, everywhere.into(), problems);
        all.extend(found.iter().cloned());
        found.into_iter().map(|(address, _)| address).collect::<Vec<_>>()
    };
    if let Some(node) = fields.get("http") {
        listen.http = read(node, Ipv4Addr::UNSPECIFIED, problems);
    }
    if let Some(node) = fields.get("https") {
        let off = node.as_text().and_then(values::parse_bool) == Some(false);
        listen.https = if off { Vec::new() } else { read(node, Ipv4Addr::UNSPECIFIED, problems) };
    }
    if let Some(node) = fields.get("api") {
        let off = node.as_text().and_then(values::parse_bool) == Some(false);
        listen.api = if off { None } else { read(node, Ipv4Addr::LOCALHOST, problems).into_iter().next() };
        if let Some(address) = listen.api.filter(|address| !address.ip().is_loopback()) {
            let what = format!(
                "the API can not listen on `{address}`: other machines reach it, and nobody could be asked to log in yet"
            );
            let hint = "write `api: 127.0.0.1:8000`, or `api: off` for the Unix socket alone; from elsewhere it is reached \
                        by `ssh -L 8000:127.0.0.1:8000 HOST`";
            problems.0.push(Problem::error(node.place.clone(), what).with_hint(hint));
        }
    }
    each_once(&all, problems);
    if let Some(api) = listen.api.filter(|_| fields.get("api").is_none()) {
        beside_api(&all, api, problems);
    }
    fields.finish(&["http", "https", "api"], problems);
}

/// An address can be listened on once. Each free port is another one.
fn each_once(all: &[(SocketAddr, Place)], problems: &mut Problems) {
    for (index, (address, place)) in all.iter().enumerate().filter(|(_, (address, _))| address.port() != 0) {
        if let Some((other, first)) = all.iter().take(index).find(|(other, _)| collide(*other, *address)) {
            let problem = Problem::error(place.clone(), format!("`{address}` is also listened on at {first}"));
            let hint = if address.is_ipv4() == other.is_ipv4() {
                "remove one of them, or write another port"
            } else {
                "`[::]` takes the addresses of IPv4, too: remove the other one, or write another port"
            };
            problems.0.push(problem.with_hint(hint));
        }
    }
}

/// The API listens where nobody has written so: what is in its way must say it.
fn beside_api(all: &[(SocketAddr, Place)], api: SocketAddr, problems: &mut Problems) {
    for (address, place) in all.iter().filter(|(address, _)| collide(*address, api)) {
        let what = format!("`{address}` is also listened on by the API, which has `{api}` unless `api` says otherwise");
        let hint = "write another port, or `api: off` for the Unix socket alone";
        problems.0.push(Problem::error(place.clone(), what).with_hint(hint));
    }
}

/// Whether the kernel refuses the second: they are the same, or one takes all addresses of its family; `[::]` takes
/// those of both.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let takes_both = |address: SocketAddr| address.is_ipv6() && address.ip().is_unspecified();
    overlap(a, b) && (a.is_ipv4() == b.is_ipv4() || takes_both(a) || takes_both(b))
}

/// `:80`, `80`, `127.0.0.1:80`, `[::]:80`; several as a list.
fn addresses(node: &Node, everywhere: IpAddr, problems: &mut Problems) -> Vec<(SocketAddr, Place)> {
    let mut found = Vec::new();
    for item in values::items(node, problems) {
        let Some(text) = values::text(&item, problems) else { continue };
        let port = text.strip_prefix(':').unwrap_or(text).parse::<u16>();
        let named = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok());
        let address = match (port, named) {
            (Ok(port), _) => Some(SocketAddr::new(everywhere, port)),
            (_, Some(port)) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            _ => text.parse().ok(),
        };
        match address {
            Some(address) => found.push((address, item.place.clone())),
            None => problems.0.push(item.wrong("is no listening address: write `:80`, `127.0.0.1:8000` or `[::]:80`")),
        }
    }
    found
}

fn domain(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = values::text(node, problems)?;
    match text.trim_start_matches("*.").trim_start_matches('.').parse::<HostPattern>() {
        Ok(HostPattern::Exact(domain)) => Some(domain.to_string()),
        Ok(_) | Err(_) => {
            problems.0.push(node.wrong("is no domain: write for example `example.com`"));
            None
        }
    }
}

fn defaults(node: &Node, settings: &mut Settings, problems: &mut Problems) {
    let mut fields = Fields::open(node, "`defaults`", problems);
    if let Some(node) = fields.get("idle") {
        let mut idle_fields = Fields::open(node, "idle", problems);
        let draft = idle::read(&mut idle_fields, &settings.default_idle, Author::File, problems);
        settings.default_idle = draft.policy;
        for key in ["ready", "depends_on"] {
            if let Some(entry) = idle_fields.entry(key) {
                let what = format!("`{key}` can not be a default: it belongs to one backend");
                problems.0.push(Problem::error(entry.place.clone(), what));
            }
        }
        idle_fields.finish(idle::IDLE_KEYS, problems);
    }
    if let Some(node) = fields.get("healthcheck") {
        settings.default_health = super::route::health(node, None, problems);
    }
    fields.finish(&["idle", "healthcheck"], problems);
}

fn discover(node: &Node, settings: &mut Settings, problems: &mut Problems) {
    let mode = |node: &Node, problems: &mut Problems| {
        let known = [
            ("default", Discover::Default),
            ("all", Discover::All),
            ("labelled", Discover::Labelled),
            ("labeled", Discover::Labelled),
        ];
        values::word(node, "value of `discover`", &known, problems)
    };
    if node.as_text().is_some() {
        settings.discover = mode(node, problems).unwrap_or(settings.discover);
        return;
    }
    let mut fields = Fields::open(node, "`discover`", problems);
    if let Some(node) = fields.get("mode") {
        settings.discover = mode(node, problems).unwrap_or(settings.discover);
    }
    if let Some(node) = fields.get("prefixes") {
        let prefixes = values::items(node, problems);
        settings.prefixes = prefixes.iter().filter_map(|item| prefix(item, problems)).collect();
        if settings.prefixes.is_empty() {
            problems.0.push(Problem::error(node.place.clone(), "`prefixes` names none"));
        }
    }
    fields.finish(&["mode", "prefixes"], problems);
}

fn prefix(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = values::text(node, problems)?.trim_end_matches('.');
    let sound = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !sound {
        problems
            .0
            .push(node.wrong("is no prefix of labels: write letters, digits, `-`, `_` and `.`, such as `dormouse`"));
        return None;
    }
    Some(text.to_ascii_lowercase())
}
