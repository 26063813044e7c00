//! One route as written: keys and values checked, defaults not yet filled in.

use std::{net::IpAddr, sync::Arc};

use super::{
    access_log, balance,
    idle::{self, Author},
    later, middlewares, ready, stream,
    tree::{Fields, Node, Value},
    upstream_tls,
    values::{self, Switch},
};
use crate::model::{
    Alias, AsleepResponse, BackendId, HeaderMatch, HealthCheck, HostPattern, Ignore, Link, MiddlewareSet, Middlewares,
    PathPattern, Place, Problem, Problems, Readiness, RouteLog, RouteMatch, RouteOptions, RouteSpec, RouteTarget,
    Scheme, Settings, Severity, Upstream, Waiting, WakeOn, format_duration, is_token,
};

/// Every key of a route.
pub(super) const ROUTE_KEYS: &[&str] = &[
    "scheme",
    "host",
    "port",
    "bind",
    "backend",
    "hosts",
    "paths",
    "methods",
    "headers",
    "strip_prefix",
    "sni",
    "endpoints",
    "root",
    "spa",
    "index",
    "no_tls_verify",
    "response_header_timeout",
    "connect_timeout",
    "max_conns_per_host",
    "disable_compression",
    "ssl_server_name",
    "ssl_trusted_certificate",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_protocols",
    "inbound_mtls_profile",
    "rules",
    "rule_file",
    "healthcheck",
    "load_balance",
    "middlewares",
    "homepage",
    "webui",
    "access_log",
    "relay_proxy_protocol_header",
    "wake_on",
    "match",
    "tls_termination",
    "agent",
    "proxmox",
    "idle",
    "idlewatcher",
    "ready",
    "depends_on",
    "waiting",
    "waiting_page",
    "title",
    "ignore",
    "asleep_response",
];

/// A checked draft.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteDraft {
    pub(super) scheme: Option<Scheme>,
    pub(super) host: Option<(String, Place)>,
    pub(super) port: Option<(u16, Place)>,
    /// The listening part of `port`.
    pub(super) listen_port: Option<u16>,
    /// Whether a port is written, sound or not.
    pub(super) names_port: bool,
    /// The addresses to listen on, with `listen_port`.
    pub(super) bind: Vec<IpAddr>,
    pub(super) sni: Option<(Sni, Place)>,
    pub(super) wake_on: WakeOn,
    /// TLS ends here, and where that was written.
    pub(super) tls_termination: Option<Place>,
    /// The first key that only stream routes have.
    pub(super) of_streams: Option<(&'static str, Place)>,
    /// Keys that mean nothing for a stream route.
    pub(super) of_http: Vec<(&'static str, Place)>,
    pub(super) backend: Option<(BackendId, Place)>,
    /// Whether a host or backend is written, sound or not.
    pub(super) names_target: bool,
    /// The match; its hosts are those of `hosts` alone.
    pub(super) matches: RouteMatch,
    pub(super) upstream: Upstream,
    pub(super) client_profile: Option<(String, Place)>,
    pub(super) middlewares: MiddlewareSet,
    pub(super) health: Option<HealthCheck>,
    pub(super) balance: Option<balance::Balance>,
    pub(super) endpoints: Vec<balance::EndpointDraft>,
    /// The group that it is a member of, once that is decided.
    pub(super) link: Option<Box<Link>>,
    pub(super) waiting: Option<Waiting>,
    /// The file of an own waiting page.
    pub(super) waiting_page: Option<(String, Place)>,
    pub(super) title: Option<String>,
    pub(super) ignore: Ignore,
    pub(super) asleep_response: Option<AsleepResponse>,
    pub(super) access_log: RouteLog,
    /// Idle settings of the backend, in files.
    pub(super) idle: Option<Node>,
    pub(super) ready: Option<Readiness>,
    pub(super) depends_on: Option<Node>,
}

/// The names by which a stream route is told from others on its port.
#[derive(Debug, Clone)]
pub(super) enum Sni {
    /// Those of the alias.
    Alias,
    /// These.
    Names(Vec<HostPattern>),
}

/// Keys of a route that tell requests of HTTP apart or change them: a stream has none.
const OF_HTTP: [&str; 9] = [
    "hosts",
    "paths",
    "methods",
    "headers",
    "strip_prefix",
    "middlewares",
    "inbound_mtls_profile",
    "waiting_page",
    "asleep_response",
];

impl RouteDraft {
    /// The route that it makes, once it is known what it answers to, where it leads, and the text of its own waiting page.
    pub(super) fn into_route(
        self,
        alias: Alias,
        place: Place,
        matches: RouteMatch,
        target: RouteTarget,
        waiting_page: Option<String>,
    ) -> RouteSpec {
        let MiddlewareSet { steps, request, response, error_pages: _ } = self.middlewares;
        let more = Middlewares {
            steps,
            add_request_headers: request.add,
            add_response_headers: response.add,
            vary_request_headers: request.vary,
            vary_response_headers: response.vary,
        };
        let options = RouteOptions {
            upstream: self.upstream,
            client_profile: self.client_profile.map(|(name, _)| name),
            set_request_headers: request.set,
            set_response_headers: response.set,
            hide_request_headers: request.hide,
            hide_response_headers: response.hide,
            middlewares: (more != Middlewares::default()).then(|| Arc::new(more)),
            waiting: self.waiting,
            waiting_page,
            title: self.title,
            ignore: self.ignore,
            asleep_response: self.asleep_response,
            health: self.health,
            wake_on: self.wake_on,
            tls_termination: self.tls_termination.is_some(),
            access_log: self.access_log,
            link: self.link,
        };
        RouteSpec { options: options.shared(), ..RouteSpec::new(alias, place, matches, target) }
    }
}

/// Reads a route. Only a result without errors may be served.
pub(super) fn read(node: &Node, author: Author, settings: &Settings, problems: &mut Problems) -> RouteDraft {
    let mut draft = RouteDraft::default();
    let mut fields = Fields::open(node, "route", problems);
    target(&mut fields, &mut draft, author, problems);
    stream::read(&mut fields, &mut draft, problems);
    let of_http = OF_HTTP.iter().filter_map(|key| Some((*key, fields.entry(key)?.place.clone())));
    draft.of_http = of_http.collect();
    matching(&mut fields, &mut draft.matches, problems);
    upstream(&mut fields, &mut draft.upstream, problems);
    draft.client_profile = fields
        .get("inbound_mtls_profile")
        .and_then(|node| Some((values::text(node, problems)?.to_owned(), node.place.clone())));
    draft.upstream.tls = upstream_tls::read(&mut fields, author, problems);
    draft.health = match fields.get("healthcheck") {
        Some(node) => health(node, settings.default_health.as_ref(), problems),
        None => settings.default_health.clone(),
    };
    if let Some(node) = fields.get("middlewares") {
        draft.middlewares = middlewares::read(node, author, &settings.middlewares, problems);
    }
    sleeping(&mut fields, &mut draft, author, problems);
    if let Some(node) = fields.get("access_log") {
        draft.access_log = access_log::route(node, author, problems);
    }
    balance::read(&mut fields, &mut draft, author, problems);
    later::read(&mut fields, problems);
    match author {
        Author::Labels => misplaced_idle(&mut fields, problems),
        Author::File => fields.below("idle", idle::IDLE_KEYS.iter().copied(), problems),
    }
    fields.below("load_balance", balance::OF_ROUTES.iter().copied(), problems);
    fields.below("healthcheck", ["use_get", "interval", "retries"], problems);
    fields.below("middlewares", middlewares::names(), problems);
    fields.finish(ROUTE_KEYS, problems);
    draft
}

/// Where it leads.
pub(super) fn target(fields: &mut Fields<'_>, draft: &mut RouteDraft, author: Author, problems: &mut Problems) {
    draft.names_target =
        ["host", "backend"].iter().any(|key| fields.entry(key).is_some_and(|e| e.node.hidden || !e.node.is_null()));
    draft.scheme = fields.get("scheme").and_then(|node| values::parsed(node, problems));
    if let Some(node) = fields.get("port") {
        port(node, draft, problems);
    }
    if let Some(node) = fields.get("host") {
        draft.host = host(node, problems).map(|host| (host, node.place.clone()));
    }
    if let Some(node) = fields.get("backend") {
        if author == Author::Labels {
            problems.0.push(Problem::error(node.place.clone(), "a label can not lead to another backend"));
        }
        draft.backend = values::parsed(node, problems).map(|id| (id, node.place.clone()));
    }
}

/// `target`, `listen:target` or `:target`.
fn port(node: &Node, draft: &mut RouteDraft, problems: &mut Problems) {
    draft.names_port = true;
    let Some(text) = values::text(node, problems) else { return };
    let (listen, target) = match text.split_once(':') {
        Some((listen, target)) => (listen.trim(), target.trim()),
        None => ("", text),
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match number(target) {
        Some(port) => draft.port = Some((port, node.place.clone())),
        None => {
            problems.0.push(node.wrong("is no port: write a number from 1 to 65535, or `listen:target`"));
            return;
        }
    }
    if !matches!(listen, "" | "0") {
        draft.listen_port = number(listen);
        if draft.listen_port.is_none() {
            problems.0.push(node.wrong("has no listening port: write a number from 1 to 65535, or `listen:target`"));
        }
    }
}

/// A host name or address to dial.
fn host(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = values::text(node, problems)?.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    let is_name = matches!(text.parse::<HostPattern>(), Ok(HostPattern::Exact(_)));
    if !is_address && !is_name {
        let problem = node.wrong("is no host: write a name or an address, without scheme, port or path");
        problems.0.push(problem);
        return None;
    }
    Some(if is_address { text } else { text.trim_end_matches('.').to_owned() })
}

fn matching(fields: &mut Fields<'_>, matches: &mut RouteMatch, problems: &mut Problems) {
    let hosts = fields.get("hosts").map(|node| values::list_of(node, problems));
    matches.hosts = hosts.unwrap_or_default().into();
    for item in fields.get("paths").map(|node| values::items(node, problems)).unwrap_or_default() {
        matches.paths.extend(path_pattern(&item, problems));
    }
    for item in fields.get("methods").map(|node| values::items(node, problems)).unwrap_or_default() {
        match values::text(&item, problems) {
            Some(method) if is_token(method) => matches.methods.push(method.to_ascii_uppercase()),
            Some(_) => problems.0.push(item.wrong("is no method")),
            None => {}
        }
    }
    if let Some(node) = fields.get("headers") {
        header_matches(node, matches, problems);
    }
    if let Some(node) = fields.get("strip_prefix")
        && let Some(prefix) = values::text(node, problems)
    {
        if prefix.starts_with('/') && prefix.len() > 1 {
            matches.strip_prefix = Some(prefix.trim_end_matches('/').to_owned());
        } else {
            problems.0.push(node.wrong("is no prefix: write for example `/api`"));
        }
    }
}

/// `/api` and `/api/*` mean `/api` and all below; `=/api` means `/api` alone.
fn path_pattern(node: &Node, problems: &mut Problems) -> Option<PathPattern> {
    let text = values::text(node, problems)?;
    let (exact, path) = match text.strip_prefix('=') {
        Some(path) => (true, path),
        None => (false, text.strip_suffix("/*").unwrap_or(text)),
    };
    let path = if path.is_empty() && !exact { "/" } else { path };
    if !path.starts_with('/') || path.contains(['*', '?', '#']) || path.contains(char::is_whitespace) {
        problems.0.push(node.wrong("is no path: write `/api`, `/api/*` or `=/api`"));
        return None;
    }
    if never_asked(path) {
        let what = "is the path of no request: those with `.` or `..` between slashes, a hidden slash, or two to begin with are refused";
        problems.0.push(node.wrong(what));
        return None;
    }
    let path = if exact || path == "/" { path } else { path.trim_end_matches('/') };
    if path.contains("//") {
        let what = "takes requests that double just these slashes and no others: in a path several count as one";
        let single = path.split('/').filter(|segment| !segment.is_empty()).collect::<Vec<_>>().join("/");
        let (mark, end) = (if exact { "=" } else { "" }, if path.ends_with('/') { "/" } else { "" });
        let hint = format!("write `{mark}/{single}{end}`, which takes them too");
        let wrong = node.wrong(what);
        problems.0.push(Problem { severity: Severity::Warning, ..wrong }.with_hint(hint));
    }
    Some(match (exact, path) {
        (true, path) => PathPattern::Exact(path.to_owned()),
        (false, path) => PathPattern::Prefix(path.to_owned()),
    })
}

/// What is refused in a request before a route is chosen by it, whichever way it is spelt.
fn never_asked(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%2e", ".");
    path.starts_with("//")
        || ["\\", "%2f", "%5c"].iter().any(|slash| path.contains(slash))
        || path.split('/').any(|segment| matches!(segment, "." | ".."))
}

fn header_matches(node: &Node, matches: &mut RouteMatch, problems: &mut Problems) {
    let node = &*values::structured(node);
    let mut add = |name: &str, value: Option<&str>, place: &Place, problems: &mut Problems| {
        if is_token(name) {
            let value = value.map(str::to_owned);
            matches.headers.push(HeaderMatch { name: name.to_ascii_lowercase(), value });
        } else {
            problems.0.push(Problem::error(place.clone(), format!("`{name}` is no name of a header field")));
        }
    };
    if let Value::Map(entries) = &node.value {
        for entry in entries {
            let value = if entry.node.is_null() { None } else { values::text(&entry.node, problems) };
            add(&entry.key, value, &entry.place, problems);
        }
    } else {
        for item in values::items(node, problems) {
            if let Some(name) = values::text(&item, problems) {
                add(name, None, &item.place, problems);
            }
        }
    }
}

fn upstream(fields: &mut Fields<'_>, upstream: &mut Upstream, problems: &mut Problems) {
    if let Some(timeout) = fields.get("response_header_timeout").and_then(|node| values::brief_positive(node, problems))
    {
        upstream.response_header_timeout = timeout;
    }
    if let Some(timeout) = fields.get("connect_timeout").and_then(|node| values::brief_positive(node, problems)) {
        upstream.connect_timeout = timeout;
    }
    let most = fields.get("max_conns_per_host").and_then(|node| values::count(node, 0..=1_000_000, problems));
    upstream.max_conns = most.filter(|most| *most > 0);
    // Services are asked for no coding that their clients did not ask for: there is nothing to switch off.
    if let Some(node) = fields.get("disable_compression") {
        values::boolean(node, problems);
    }
}

/// Reads `healthcheck`, over what holds without it; a disabled one is none.
pub(super) fn health(node: &Node, base: Option<&HealthCheck>, problems: &mut Problems) -> Option<HealthCheck> {
    const KEYS: &[&str] = &["disable", "disabled", "path", "use_get", "interval", "timeout", "retries"];
    let node = match values::switch(node, "`healthcheck`", "", problems)? {
        Switch::Off => return None,
        Switch::On => return Some(base.cloned().unwrap_or_default()),
        Switch::Mapping(node) => node,
    };
    let mut fields = Fields::open(&node, "healthcheck", problems);
    let mut check = base.cloned().unwrap_or_default();
    let disabled = ["disable", "disabled"].into_iter().filter_map(|key| fields.get(key));
    let disabled: Vec<bool> = disabled.filter_map(|node| values::boolean(node, problems)).collect();
    if let Some(node) = fields.get("path") {
        match values::text(node, problems) {
            Some(path) if path.starts_with('/') => check.path = path.to_owned(),
            Some(_) => problems.0.push(node.wrong("is no path: it must begin with `/`")),
            None => {}
        }
    }
    let use_get = fields.get("use_get").and_then(|node| values::boolean(node, problems));
    check.use_get = use_get.unwrap_or(check.use_get);
    if let Some(interval) = fields.get("interval").and_then(|node| values::brief_positive(node, problems)) {
        check.interval = interval;
    }
    if let Some(node) = fields.get("timeout")
        && let Some(timeout) = values::brief_positive(node, problems)
    {
        check.timeout = timeout;
        if timeout > check.interval {
            let what = format!("is longer than the interval of the checks, {}", format_duration(check.interval));
            let problem = Problem { severity: Severity::Warning, ..node.wrong(what) };
            problems.0.push(problem.with_hint("the next check begins when the last one has ended"));
        }
    }
    let retries = fields.get("retries");
    if let Some(number) = retries.and_then(|node| values::number(node, 0..=1000, problems)) {
        check.retries = u32::try_from(number).unwrap_or(check.retries);
        if let Some(node) = retries.filter(|_| number == 0) {
            let what = "`retries: 0` is read as 1: the first failure is enough";
            problems.0.push(Problem::warning(node.place.clone(), what));
        }
    }
    fields.finish(KEYS, problems);
    if disabled.contains(&true) { None } else { Some(check) }
}

fn sleeping(fields: &mut Fields<'_>, draft: &mut RouteDraft, author: Author, problems: &mut Problems) {
    draft.waiting = fields.get("waiting").and_then(|node| idle::waiting(node, problems));
    draft.title = fields.get("title").and_then(|node| values::text(node, problems)).map(str::to_owned);
    if let Some(node) = fields.get("ignore") {
        draft.ignore = idle::ignore(node, problems);
    }
    draft.asleep_response = fields.get("asleep_response").and_then(|node| idle::asleep_response(node, problems));
    draft.ready = fields.get("ready").and_then(|node| ready::read(node, author, problems));
    if let Some(node) = fields.get("waiting_page") {
        match author {
            Author::File => {
                draft.waiting_page = values::text(node, problems).map(|path| (path.to_owned(), node.place.clone()));
            }
            Author::Labels => {
                let problem = Problem::error(node.place.clone(), "a label can not name a file of Dormouse's machine");
                problems.0.push(problem.with_hint("set `waiting_page` of a route in the configuration file"));
            }
        }
    }
    if author == Author::File {
        let idle = fields.get("idle");
        draft.idle = fields.get("idlewatcher").or(idle).cloned();
        draft.depends_on = fields.get("depends_on").cloned();
    }
}

/// Idle settings belong to the container as a whole, since it sleeps as a whole.
fn misplaced_idle(fields: &mut Fields<'_>, problems: &mut Problems) {
    for key in idle::IDLE_KEYS.iter().chain(&["idle", "idlewatcher"]) {
        if ROUTE_KEYS.contains(key) && !matches!(*key, "idle" | "idlewatcher" | "depends_on") {
            continue;
        }
        if let Some(entry) = fields.entry(key) {
            let what = format!("`{key}` belongs to the container, not to one of its routes");
            let hint = match *key {
                "idle" | "idlewatcher" => "write the settings flat, such as `dormouse.idle_timeout`".to_owned(),
                key => format!("write `dormouse.{key}`"),
            };
            problems.0.push(Problem::error(entry.place.clone(), what).with_hint(hint));
        }
    }
}
