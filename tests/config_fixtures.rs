//! Labels and files against fixtures, one file for each case.
//!
//! `tests/config/labels/*.yaml` describe containers with labels and the routes, backends and problems they must make;
//! `tests/config/files` holds configuration files that must load, and such that must not, with the words and places of
//! their problems beside them. In expected lines `…` stands for any text.

// The helpers of tests may end a test as the tests themselves do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use dormouse::{
    catalog::{Catalog, FilePart, discover},
    config::{Loaded, check_text, from_container, load},
    model::{
        Audience, AuthServer, BackendSpec, Condition, Container, ContainerPort, ContainerState, Group, IdlePolicy,
        Ignore, Middleware, Network, PathPattern, Place, Problem, Problems, Readiness, RouteSpec, RouteTarget, Running,
        Settings, SleepMethod, Transport, Waiting, WakeOn, format_duration,
    },
};
use serde::Deserialize;

/// A middleware in short. Of a password nothing is shown.
fn step(step: &Middleware) -> String {
    let networks = |networks: &[ipnet::IpNet]| networks.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
    match step {
        Middleware::RealIp(rule) => {
            format!(
                "real_ip({} from {}{})",
                rule.header,
                networks(&rule.from),
                if rule.recursive { " deep" } else { "" }
            )
        }
        Middleware::RedirectHttp => "redirect_http".into(),
        Middleware::Clients(list) => {
            let word = if list.allows { "allow" } else { "deny" };
            format!("{word}({} {} `{}`)", networks(&list.networks), list.status, list.message)
        }
        Middleware::RateLimit(limit) => format!("rate_limit(each {:?} burst {})", limit.each, limit.burst),
        Middleware::InFlightLimit(limit) => {
            format!("in_flight_limit({}{})", limit.amount, if limit.per_client { " each" } else { "" })
        }
        Middleware::BasicAuth(auth) => {
            let users: Vec<&str> = auth.users.iter().map(|(name, _)| name.as_str()).collect();
            format!("basic_auth({} `{}`)", users.join("+"), auth.realm)
        }
        Middleware::ForwardAuth(auth) => {
            let at = match &auth.at {
                AuthServer::Route(alias) => alias.to_string(),
                AuthServer::Address { host, port } => format!("{host}:{port}"),
            };
            format!("forward_auth({at}{} {} {:?})", auth.path, auth.headers.join("+"), auth.timeout)
        }
        Middleware::Oidc(rule) => {
            let secret = rule.client_secret.as_ref().map_or("-", |_| "secret");
            let paths = format!("{} {}", rule.callback_path, rule.logout_path);
            let named =
                [&rule.allowed_users, &rule.allowed_groups, &rule.scopes].map(|names| names.join("+")).join("|");
            let roots = rule.tls.roots.as_ref().map(|roots| format!(" {}", roots.display())).unwrap_or_default();
            let times = format!("{:?} {:?}", rule.session, rule.timeout);
            format!("oidc({} {} {secret} {named} {paths} {times}{roots})", rule.issuer, rule.client_id)
        }
        Middleware::Cors(cors) => {
            let fields: Vec<String> = cors.preflight.iter().map(|(name, value)| format!("{name}:{value}")).collect();
            format!("cors({} {})", cors.origins.join("+"), fields.join(" "))
        }
        Middleware::MaxBody(most) => format!("max_body({most})"),
        Middleware::Retry(rule) => {
            format!("retry({} of {:?} each {:?} within {:?})", rule.attempts, rule.statuses, rule.pause, rule.timeout)
        }
        Middleware::ErrorPages(pages) => {
            format!("error_pages({})", pages.0.keys().map(String::as_str).collect::<Vec<_>>().join("+"))
        }
        Middleware::Compress(rule) => {
            let codings: Vec<&str> = rule.codings.iter().map(|coding| coding.as_str()).collect();
            let types = if rule.types.len() > 4 { "usual".to_owned() } else { rule.types.join("+") };
            format!("compress({} of {types} from {})", codings.join("+"), rule.min_size)
        }
        Middleware::StripPrefix(prefixes) => format!("strip_prefix({})", prefixes.join("+")),
        Middleware::AddPrefix(prefix) => format!("add_prefix({prefix})"),
        Middleware::Rewrite(to) => format!("rewrite({} -> {})", to.from, to.to),
        Middleware::Redirect { to, status } => format!("redirect({} -> {} {status})", to.from, to.to),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// A configuration file's text.
    #[serde(default)]
    settings: String,
    /// Networks of Dormouse's own container.
    #[serde(default)]
    own_networks: Vec<String>,
    /// One container, alone.
    container: Option<Unit>,
    /// Several, checked together.
    #[serde(default)]
    containers: Vec<Unit>,
    /// Whether the choices made are compared too.
    #[serde(default)]
    with_notes: bool,
    /// Whether those without routes are compared too, with the reasons.
    #[serde(default)]
    with_excluded: bool,
    /// The id of Dormouse's own container: `id-` and its name.
    own_container: Option<String>,
    expect: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Unit {
    name: String,
    image: String,
    ports: Vec<String>,
    networks: Vec<String>,
    mode: String,
    state: String,
    mounts: Vec<String>,
    restart: String,
    health: bool,
    created: i64,
    compose: String,
    labels: BTreeMap<String, String>,
}

impl Default for Unit {
    fn default() -> Self {
        Self {
            name: "app".into(),
            image: "example/app:1".into(),
            ports: Vec::new(),
            networks: vec!["bridge".into()],
            mode: "bridge".into(),
            state: "running".into(),
            mounts: Vec::new(),
            restart: "no".into(),
            health: false,
            created: 1,
            compose: String::new(),
            labels: BTreeMap::new(),
        }
    }
}

impl Unit {
    fn container(&self) -> Container {
        let mut labels = self.labels.clone();
        if let Some((project, service)) = self.compose.split_once('/') {
            labels.insert("com.docker.compose.project".into(), project.into());
            labels.insert("com.docker.compose.service".into(), service.into());
        }
        let networks = self.networks.iter().map(|name| Network {
            name: name.clone(),
            address: (self.state != "stopped").then(|| IpAddr::from([172, 17, 0, 2])),
        });
        Container {
            node: "local".parse().unwrap(),
            id: format!("id-{}", self.name),
            name: self.name.clone(),
            image: self.image.clone(),
            labels,
            ports: self.ports.iter().map(|text| port(text)).collect(),
            networks: networks.collect(),
            mounts: self.mounts.clone(),
            network_mode: self.mode.clone(),
            restart_policy: self.restart.clone(),
            created: self.created,
            has_health_check: self.health,
            state: match self.state.as_str() {
                "running" => ContainerState::Running(Running::default()),
                "paused" => ContainerState::Paused(Running::default()),
                "stopped" => ContainerState::Stopped { exit_code: Some(0), error: None },
                "changing" => ContainerState::Changing,
                "gone" => ContainerState::Gone,
                other => panic!("no state `{other}`"),
            },
        }
    }
}

/// `80`, `53/udp`, `8080->80`.
fn port(text: &str) -> ContainerPort {
    let (text, transport) = match text.split_once('/') {
        Some((text, "udp")) => (text, Transport::Udp),
        Some((text, _)) => (text, Transport::Tcp),
        None => (text, Transport::Tcp),
    };
    let (published, port) = match text.split_once("->") {
        Some((host, port)) => (Some((IpAddr::from([0, 0, 0, 0]), host.parse().unwrap())), port),
        None => (None, text),
    };
    ContainerPort { port: port.parse().unwrap(), transport, published }
}

#[test]
fn labels_make_what_each_fixture_expects() {
    let mut failures = String::new();
    let mut seen = 0;
    for path in fixtures("labels", "yaml") {
        let text = fs::read_to_string(&path).unwrap();
        let case: Case = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        seen += 1;
        let mut rendered = render_case(&case);
        if !case.with_notes {
            rendered.retain(|line| !line.starts_with("note "));
        }
        let expected: Vec<&str> = case.expect.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        difference(&path, &expected, &rendered, &mut failures);
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(seen >= 200, "only {seen} fixtures were found");
}

fn render_case(case: &Case) -> Vec<String> {
    let loaded = check_text(&case.settings, "settings.yaml", &|_| None).unwrap();
    let mut lines = Vec::new();
    if let Some(unit) = &case.container {
        let made = from_container(&unit.container(), &loaded.settings, &case.own_networks);
        lines.extend(made.routes.iter().map(route));
        lines.extend(made.backend.iter().map(backend));
        lines.extend(made.excluded.iter().map(|reason| format!("excluded {reason}")));
        lines.extend(made.problems.0.iter().map(|p| problem(p, true)));
        lines.extend(made.notes.iter().map(|note| format!("note {note}")));
        return lines;
    }
    let catalog = together("settings.yaml", &loaded, &case.containers, case.own_container.as_deref());
    lines.extend(catalog.routes.values().map(|spec| route(spec)));
    lines.extend(catalog.backends.values().map(backend));
    lines.extend(catalog.problems.0.iter().map(|p| problem(p, false)));
    if case.with_excluded {
        lines.extend(catalog.excluded.iter().map(|(container, reason)| format!("excluded {container} {reason}")));
    }
    lines
}

/// A file and containers, merged as the running program does.
fn together(name: &str, loaded: &Loaded, units: &[Unit], own: Option<&str>) -> Catalog {
    let containers: Vec<Container> = units.iter().map(Unit::container).collect();
    let parts = discover(&containers.iter().collect::<Vec<_>>(), &loaded.settings, own);
    Catalog::merge(FilePart::new(name, loaded), parts)
}

/// Reads a file, and merges it as the running program does before it knows of any container.
fn load_alone(path: &Path) -> Result<Loaded, Problems> {
    let loaded = load(path, &env)?;
    let catalog = together(&path.display().to_string(), &loaded, &[], None);
    if catalog.file_errors().next().is_some() { Err(catalog.problems) } else { Ok(loaded) }
}

/// `error dormouse.app.port: what (hint)`; the container is named where there are several.
fn problem(problem: &Problem, alone: bool) -> String {
    let place = match &problem.place {
        Place::Label { label: Some(label), .. } if alone => label.clone(),
        Place::Label { label: None, .. } if alone => "container".to_owned(),
        Place::Label { container, label: Some(label) } => format!("{container} {label}"),
        Place::Label { container, label: None } => container.clone(),
        place @ (Place::File { .. } | Place::Body(_) | Place::Host(_)) => place.to_string(),
    };
    let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{} {place}: {}{hint}", problem.severity.as_str(), problem.what)
}

fn target(to: &RouteTarget) -> String {
    match to {
        RouteTarget::Backend { id, endpoint } => format!("-> {} {id}:{}", endpoint.scheme, endpoint.port),
        RouteTarget::Address { host, endpoint } => format!("-> {} address {host}:{}", endpoint.scheme, endpoint.port),
        RouteTarget::Down { id } => format!("down {id}"),
        RouteTarget::Group(group) => {
            let weight = |weight| if weight == 1 { String::new() } else { format!(" weight={weight}") };
            let members = group.members.iter();
            let members = members.map(|one| format!("{}{}", target(&one.route.target), weight(one.weight)));
            let mut line = format!("{} of", group.mode);
            if let Some(age) = group.sticky {
                write!(line, " sticky={}", format_duration(age)).unwrap();
            }
            if group.wake_more_at != Group::WAKE_MORE_AT {
                write!(line, " wake_more_at={}", group.wake_more_at).unwrap();
            }
            write!(line, " ({})", members.collect::<Vec<_>>().join(", ")).unwrap();
            line
        }
    }
}

/// `route app [app.*] -> http local/app:80`, and what differs from the defaults.
fn route(route: &RouteSpec) -> String {
    let hosts: Vec<String> = route.matches.hosts.iter().map(ToString::to_string).collect();
    let listen: Vec<String> = route.matches.listen.iter().map(ToString::to_string).collect();
    let hosts = if listen.is_empty() { hosts } else { listen };
    let mut line = format!("route {} [{}] {}", route.alias, hosts.join(" "), target(&route.target));
    if let Some(link) = route.options.link.as_deref().filter(|_| route.group().is_none()) {
        write!(line, " link={}", link.name).unwrap();
    }
    let matches = &route.matches;
    let paths = matches.paths.iter().map(|path| match path {
        PathPattern::Prefix(path) => path.clone(),
        PathPattern::Exact(path) => format!("={path}"),
    });
    list(&mut line, "paths", paths);
    list(&mut line, "methods", matches.methods.iter().cloned());
    let headers = matches.headers.iter().map(|h| match &h.value {
        Some(value) => format!("{}:{value}", h.name),
        None => h.name.clone(),
    });
    list(&mut line, "headers", headers);
    list(&mut line, "strip", matches.strip_prefix.iter().cloned());
    list(&mut line, "sni", matches.sni.iter().map(ToString::to_string));
    if let WakeOn::Data(openings) = &route.options.wake_on {
        let openings: Vec<String> = openings.iter().map(ToString::to_string).collect();
        write!(line, " wake_on=data:{}", openings.join("+")).unwrap();
    }
    let upstream = &route.options.upstream;
    if upstream.proxy_header {
        line.push_str(" proxy_header");
    }
    if upstream.response_header_timeout.as_secs() != 60 {
        write!(line, " header_timeout={}", format_duration(upstream.response_header_timeout)).unwrap();
    }
    if upstream.connect_timeout.as_secs() != 5 {
        write!(line, " connect_timeout={}", format_duration(upstream.connect_timeout)).unwrap();
    }
    list(&mut line, "max_conns", upstream.max_conns.iter().map(ToString::to_string));
    list(&mut line, "set", route.options.set_request_headers.iter().map(|(name, value)| format!("{name}:{value}")));
    list(
        &mut line,
        "set_response",
        route.options.set_response_headers.iter().map(|(name, value)| format!("{name}:{value}")),
    );
    list(&mut line, "hide", route.options.hide_request_headers.iter().cloned());
    list(&mut line, "hide_response", route.options.hide_response_headers.iter().cloned());
    if let Some(all) = &route.options.middlewares {
        let pair = |(name, value): &(String, String)| format!("{name}:{value}");
        list(&mut line, "add", all.add_request_headers.iter().map(pair));
        list(&mut line, "add_response", all.add_response_headers.iter().map(pair));
        list(&mut line, "steps", all.steps.iter().map(step));
    }
    list(&mut line, "waiting", route.options.waiting.iter().map(|w| waiting(*w).to_owned()));
    list(&mut line, "title", route.options.title.iter().cloned());
    ignore(&mut line, &route.options.ignore);
    list(&mut line, "asleep", route.options.asleep_response.iter().map(|r| r.status.to_string()));
    let health = route.options.health.iter().map(|h| {
        let method = if h.use_get { "GET" } else { "HEAD" };
        format!("{method}:{}:{}:{}:{}", h.path, format_duration(h.interval), format_duration(h.timeout), h.retries)
    });
    list(&mut line, "health", health);
    if route.audience == Audience::PrivateNetworks {
        line.push_str(" private");
    }
    line
}

fn list(line: &mut String, name: &str, items: impl IntoIterator<Item = String>) {
    let items: Vec<String> = items.into_iter().collect();
    if !items.is_empty() {
        write!(line, " {name}={}", items.join(",")).unwrap();
    }
}

fn waiting(waiting: Waiting) -> &'static str {
    match waiting {
        Waiting::Page => "page",
        Waiting::Hold => "hold",
        Waiting::Reject => "reject",
    }
}

fn ignore(line: &mut String, ignore: &Ignore) {
    list(line, "ignore_paths", ignore.paths.iter().cloned());
    list(line, "ignore_methods", ignore.methods.iter().cloned());
    let agents = ignore.agents.iter().map(|a| {
        let text = a.as_str();
        if text.starts_with("uptime") {
            "(monitors)".to_owned()
        } else if text.starts_with("bot") {
            "(bots)".to_owned()
        } else {
            text.to_owned()
        }
    });
    list(line, "ignore_agents", agents);
    list(line, "ignore_clients", ignore.clients.iter().map(ToString::to_string));
}

/// `backend local/app ports=80 network=bridge idle=15m`, and what differs from the defaults.
fn backend(spec: &BackendSpec) -> String {
    let (policy, base) = (&spec.policy, IdlePolicy::default());
    let mut line = format!("backend {}", spec.id);
    list(&mut line, "ports", spec.ports.iter().map(ToString::to_string));
    list(&mut line, "network", spec.unit.network.iter().filter(|name| *name != "bridge").cloned());
    list(&mut line, "idle", policy.idle_timeout.iter().map(|d| format_duration(*d)));
    if policy.dependency_only {
        line.push_str(" dependency");
    }
    if policy.stop_method != SleepMethod::Stop {
        write!(line, " method={}", policy.stop_method).unwrap();
    }
    list(&mut line, "signal", policy.stop_signal.iter().map(ToString::to_string));
    let mut time = |name: &str, value, default| {
        if value != default {
            write!(line, " {name}={}", format_duration(value)).unwrap();
        }
    };
    time("stop_timeout", policy.stop_timeout, base.stop_timeout);
    time("stop_after", policy.stop_after.unwrap_or_default(), std::time::Duration::ZERO);
    time("wake_timeout", policy.wake_timeout, base.wake_timeout);
    time("settle", policy.settle, base.settle);
    time("stream_idle", policy.stream_idle.unwrap_or_default(), std::time::Duration::ZERO);
    time("flow_timeout", policy.flow_timeout, base.flow_timeout);
    time("min_uptime", policy.min_uptime, base.min_uptime);
    time("hold_timeout", policy.hold_timeout.unwrap_or_default(), std::time::Duration::ZERO);
    time("drain_timeout", policy.drain_timeout, base.drain_timeout);
    list(&mut line, "start", policy.start_endpoint.iter().cloned());
    if policy.waiting != Waiting::Page {
        write!(line, " waiting={}", waiting(policy.waiting)).unwrap();
    }
    ignore(&mut line, &policy.ignore);
    if policy.asleep_response != base.asleep_response {
        let body = policy.asleep_response.body.iter().map(|body| format!(":{body}")).collect::<String>();
        write!(line, " asleep={}{body}", policy.asleep_response.status).unwrap();
    }
    list(&mut line, "schedule", policy.schedule.0.iter().map(ToString::to_string));
    list(&mut line, "busy", policy.busy.iter().cloned());
    if policy.max_held != base.max_held {
        write!(line, " max_held={}", policy.max_held).unwrap();
    }
    if policy.on_wake_timeout != base.on_wake_timeout {
        line.push_str(" on_wake_timeout=leave");
    }
    if !policy.wake_after_manual_stop {
        line.push_str(" stays_stopped");
    }
    let ready = match &spec.ready {
        Readiness::Tcp => None,
        Readiness::Http { path, status, host } => {
            let host = host.iter().map(|host| format!(":{host}")).collect::<String>();
            Some(format!("http:{path}:{}-{}{host}", status.start(), status.end()))
        }
        Readiness::Engine => Some("engine".to_owned()),
        Readiness::Log(pattern) => Some(format!("log:{pattern}")),
        Readiness::Command(argv) => Some(format!("command:{}", argv.join(" "))),
        Readiness::Delay(delay) => Some(format!("delay:{}", format_duration(*delay))),
    };
    list(&mut line, "ready", ready);
    let needs = spec.depends_on.iter().map(|d| match d.condition {
        Condition::Started => d.on.to_string(),
        Condition::Healthy => format!("{}:healthy", d.on),
        Condition::Completed => format!("{}:completed", d.on),
    });
    list(&mut line, "needs", needs);
    line
}

/// Every fixture of a folder, sorted.
fn fixtures(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(folder);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

/// Adds what is expected but missing (`-`) and what is there but unexpected (`+`).
fn difference(path: &Path, expected: &[&str], rendered: &[String], failures: &mut String) {
    let same = expected.len() == rendered.len() && expected.iter().zip(rendered).all(|(e, r)| like(e, r));
    if same {
        return;
    }
    writeln!(failures, "{}", path.display()).unwrap();
    for line in expected.iter().filter(|line| !rendered.iter().any(|r| like(line, r))) {
        writeln!(failures, "  - {line}").unwrap();
    }
    for line in rendered.iter().filter(|line| !expected.iter().any(|e| like(e, line))) {
        writeln!(failures, "  + {line}").unwrap();
    }
    if expected.iter().all(|line| rendered.iter().any(|r| like(line, r))) {
        writeln!(failures, "  rendered, in this order:\n    {}", rendered.join("\n    ")).unwrap();
    }
}

/// Whether a text is as expected; `…` stands for any text.
fn like(expected: &str, text: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        last = Some(part);
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty() || last.is_some_and(str::is_empty) || last.is_some_and(|last| text.ends_with(last))
}

#[test]
fn every_valid_file_loads() {
    let paths = fixtures("files/valid", "yaml");
    assert!(!paths.is_empty());
    for path in paths {
        let loaded = load_alone(&path).unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()));
        assert!(loaded.files.contains(&path));
        let expected = fs::read_to_string(path.with_extension("expect")).unwrap();
        let folder = format!("{}/", path.parent().unwrap().display());
        let mut lines: Vec<String> = loaded.routes.iter().map(|spec| route(spec)).collect();
        lines.extend(loaded.backends.iter().map(backend));
        lines.extend(loaded.problems.0.iter().map(|p| problem(p, false).replace(&folder, "")));
        let mut failures = String::new();
        let expected: Vec<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
        difference(&path, &expected, &lines, &mut failures);
        assert!(failures.is_empty(), "\n{failures}");
    }
}

#[test]
fn every_invalid_file_tells_all_its_problems_with_places() {
    let paths = fixtures("files/invalid", "yaml");
    assert!(paths.len() >= 30, "only {} files were found", paths.len());
    let mut failures = String::new();
    for path in paths {
        let expected = fs::read_to_string(path.with_extension("expect")).unwrap();
        let folder = format!("{}/", path.parent().unwrap().display());
        let problems = match load_alone(&path) {
            Ok(_) => {
                writeln!(failures, "{} was accepted", path.display()).unwrap();
                continue;
            }
            Err(problems) => problems,
        };
        let lines: Vec<String> = problems.0.iter().map(|p| problem(p, false).replace(&folder, "")).collect();
        let expected: Vec<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
        difference(&path, &expected, &lines, &mut failures);
    }
    assert!(failures.is_empty(), "\n{failures}");
}

fn env(name: &str) -> Option<String> {
    match name {
        "DOMAIN" => Some("example.com".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

#[test]
fn settings_without_anything_are_the_defaults() {
    let loaded = check_text("", "empty.yaml", &|_| None).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    assert!(loaded.routes.is_empty());
}

mod properties {
    use std::time::Duration;

    use dormouse::model::{Alias, HostPattern, parse_duration};
    use proptest::prelude::*;

    use super::*;

    /// Parts of keys: words of the grammar, and anything at all.
    fn part() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(
                [
                    "",
                    "*",
                    "#1",
                    "#2",
                    "#9",
                    "#",
                    "app",
                    "web",
                    "APP",
                    "port",
                    "ports",
                    "scheme",
                    "host",
                    "hosts",
                    "healthcheck",
                    "path",
                    "interval",
                    "middlewares",
                    "set_headers",
                    "aliases",
                    "idle_timeout",
                    "depends_on",
                    "ready",
                    "http",
                    "ignore",
                    "network",
                    "load_balance",
                    "idle",
                    "title",
                    "paths",
                ]
                .map(str::to_owned)
                .to_vec()
            ),
            "[a-z#*._-]{0,6}",
            ".{0,4}",
        ]
    }

    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(
                [
                    "",
                    "80",
                    "81, 82",
                    "true",
                    "maybe",
                    "5m",
                    "30",
                    "-1",
                    "a, b",
                    "[a, b]",
                    "{port: 80}",
                    "port: 80\n",
                    "healthcheck:\n\tpath: /x\n",
                    "- a\n- b\n",
                    "*",
                    "a: &x [*x]",
                    "a: b: c",
                    "\"",
                    "|",
                    "http",
                    "udp",
                    "/x",
                    "monitors",
                    "{a: {b: {c: d}}}",
                    "engine",
                    "53:53",
                    "? a",
                    "<<: {port: 80}",
                    "\u{feff}port: 1",
                ]
                .map(str::to_owned)
                .to_vec()
            ),
            "[a-z0-9:,\\[\\]{}&*#?|>!%@` \n\t\"'-]{0,24}",
            ".{0,12}",
        ]
    }

    fn label_sets() -> impl Strategy<Value = BTreeMap<String, String>> {
        let prefix = prop::sample::select(vec!["dormouse", "proxy", "Dormouse", "other"]);
        let key = (prefix, prop::collection::vec(part(), 0..4))
            .prop_map(|(prefix, parts)| std::iter::once(prefix.to_owned()).chain(parts).collect::<Vec<_>>().join("."));
        prop::collection::btree_map(key, value(), 0..8)
    }

    fn unit(labels: BTreeMap<String, String>) -> Unit {
        Unit { ports: vec!["80".into()], labels, ..Unit::default() }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_set_of_labels_panics_or_ends_in_silence(labels in label_sets()) {
            let loaded = check_text("domains: [example.com]", "settings.yaml", &|_| None).unwrap();
            let made = from_container(&unit(labels.clone()).container(), &loaded.settings, &[]);
            prop_assert!(!made.routes.is_empty() || made.excluded.is_some() || made.problems.has_errors());
            for route in &made.routes {
                prop_assert_eq!(route.alias.to_string().parse::<Alias>().unwrap(), route.alias.clone());
                for host in &route.matches.hosts {
                    prop_assert_eq!(&host.to_string().parse::<HostPattern>().unwrap(), host);
                }
                if let Some(health) = &route.options.health {
                    prop_assert_eq!(parse_duration(&format_duration(health.interval)), Ok(health.interval));
                }
            }
            let mut aliases: Vec<&Alias> = made.routes.iter().map(|route| &route.alias).collect();
            aliases.sort();
            aliases.dedup();
            prop_assert_eq!(aliases.len(), made.routes.len());
            let catalog = together("settings.yaml", &loaded, &[unit(labels)], None);
            for route in catalog.routes.values() {
                let down = matches!(route.target, RouteTarget::Down { .. });
                prop_assert!(down || route.backend().is_none_or(|id| catalog.backends.contains_key(id)));
            }
        }

        #[test]
        fn what_excludes_excludes_whatever_else_is_said(labels in label_sets(), word in "[a-z]{0,5}") {
            prop_assume!(!["false", "no", "off", "n", "f"].contains(&word.as_str()));
            let mut labels = labels;
            labels.retain(|key, _| !key.to_lowercase().replace('_', "").starts_with("dormouse.exclude"));
            labels.insert("dormouse.exclude".into(), word);
            let made = from_container(&unit(labels).container(), &Settings::default(), &[]);
            prop_assert_eq!(made.routes, Vec::new());
        }

        #[test]
        fn printed_durations_read_back_as_labels(seconds in 1u64..10_000_000) {
            let idle = Duration::from_secs(seconds);
            let labels = BTreeMap::from([("dormouse.idle_timeout".to_owned(), format_duration(idle))]);
            let made = from_container(&unit(labels).container(), &Settings::default(), &[]);
            prop_assert_eq!(made.backend.unwrap().policy.idle_timeout, Some(idle));
        }

        #[test]
        fn printed_aliases_and_hosts_read_back_as_labels(name in "[A-Za-z0-9_-]{1,12}(\\.[A-Za-z0-9-]{1,8}){0,2}\\.?") {
            let made = |alias: &str| {
                let labels = BTreeMap::from([
                    ("dormouse.aliases".to_owned(), alias.to_owned()),
                    ("dormouse.*.hosts".to_owned(), format!("\"{alias}\", \"*.{alias}\"")),
                ]);
                let labels = labels.into_iter().map(|(k, v)| (k, v.replace('"', ""))).collect();
                from_container(&unit(labels).container(), &Settings::default(), &[]).routes.remove(0)
            };
            let first = made(&name);
            let again = made(&first.alias.to_string());
            prop_assert_eq!(&first.alias, &again.alias);
            prop_assert_eq!(first.matches, again.matches);
        }

        #[test]
        fn no_text_of_a_file_panics(text in "[a-z:{}\\[\\]&*#,|>\\-\"' \n\t$]{0,80}") {
            let _ = check_text(&text, "any.yaml", &|_| None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_value_of_a_known_key_panics(value in value()) {
            let schema = dormouse::config::schema();
            // Files are read only where `include` names them.
            for key in schema["properties"].as_object().unwrap().keys().filter(|key| *key != "include") {
                let _ = check_text(&format!("{key}: {value}\n"), "any.yaml", &|_| None);
            }
        }
    }
}
