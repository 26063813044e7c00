//! What was read, in short lines to compare with.

use std::fmt::Write as _;

use dormouse::model::{
    Audience, AuthServer, BackendSpec, Condition, FieldValue, Group, IdlePolicy, Ignore, Middleware, PathPattern,
    Place, Problem, Readiness, RouteSpec, RouteTarget, SleepMethod, Waiting, WakeOn, format_duration,
};

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

/// `error dormouse.app.port: what (hint)`; the container is named where there are several.
pub(crate) fn problem(problem: &Problem, alone: bool) -> String {
    let place = match &problem.place {
        Place::Label { label: Some(label), .. } if alone => label.clone(),
        Place::Label { label: None, .. } if alone => "container".to_owned(),
        Place::Label { container, label: Some(label) } => format!("{container} {label}"),
        Place::Label { container, label: None } => container.clone(),
        place @ (Place::File { .. } | Place::Body(_) | Place::Host(_) | Place::Node(_)) => place.to_string(),
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
pub(crate) fn route(route: &RouteSpec) -> String {
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
    if route.options.tls_termination {
        line.push_str(" tls_ends");
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
        let varied = |(name, value): &(String, FieldValue)| format!("{name}:{value}");
        list(&mut line, "vary", all.vary_request_headers.iter().map(varied));
        list(&mut line, "vary_response", all.vary_response_headers.iter().map(varied));
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
pub(crate) fn backend(spec: &BackendSpec) -> String {
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
