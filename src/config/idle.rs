//! The idle settings: flat as labels of a container, below `idle` in a file.

use std::collections::BTreeSet;

use super::{
    presets, ready,
    tree::{Fields, Node, Value},
    values,
};
use crate::model::{
    AsleepResponse, IdlePolicy, Ignore, OnWakeTimeout, Place, Problem, Problems, Readiness, Schedule, SleepMethod,
    Waiting, Window,
};

/// Every idle setting, readiness and dependencies included.
pub(super) const IDLE_KEYS: &[&str] = &[
    "idle_timeout",
    "stop_method",
    "stop_signal",
    "stop_timeout",
    "stop_after",
    "wake_timeout",
    "start_endpoint",
    "depends_on",
    "waiting",
    "no_loading_page",
    "ready",
    "settle",
    "ignore",
    "asleep_response",
    "stream_idle",
    "flow_timeout",
    "min_uptime",
    "schedule",
    "busy",
    "max_held",
    "hold_timeout",
    "drain_timeout",
    "on_wake_timeout",
    "wake_after_manual_stop",
];

const WAITING: [(&str, Waiting); 3] = [("page", Waiting::Page), ("hold", Waiting::Hold), ("reject", Waiting::Reject)];

/// Who wrote the settings. Commands run on the node of Dormouse, so only its own file may name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    File,
    Labels,
}

/// What one set of idle settings says.
#[derive(Debug, Clone)]
pub(super) struct IdleDraft {
    pub(super) policy: IdlePolicy,
    pub(super) ready: Option<Readiness>,
    pub(super) depends_on: Vec<Wanted>,
    /// The keys that were there; one for each setting.
    pub(super) keys: BTreeSet<&'static str>,
}

/// A dependency as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) condition: Option<String>,
    pub(super) place: Place,
}

/// Reads the settings that differ from `base`, and leaves other keys of the mapping alone.
pub(super) fn read(fields: &mut Fields<'_>, base: &IdlePolicy, author: Author, problems: &mut Problems) -> IdleDraft {
    let mut draft = IdleDraft { policy: base.clone(), ready: None, depends_on: Vec::new(), keys: BTreeSet::new() };
    for key in IDLE_KEYS {
        if let Some(node) = fields.get(key) {
            draft.keys.insert(if *key == "no_loading_page" { "waiting" } else { key });
            read_one(key, node, &mut draft, author, problems);
        }
    }
    if let Some(after) = fields.get("stop_after")
        && draft.policy.stop_method != SleepMethod::Pause
    {
        let what = "`stop_after` has no effect without `stop_method: pause`";
        problems.0.push(Problem::warning(after.place.clone(), what));
    }
    draft
}

fn read_one(key: &str, node: &Node, draft: &mut IdleDraft, author: Author, problems: &mut Problems) {
    let policy = &mut draft.policy;
    match key {
        "idle_timeout" => idle_timeout(node, policy, problems),
        "stop_method" => {
            let known = [SleepMethod::Stop, SleepMethod::Pause, SleepMethod::Kill].map(|m| (m.as_str(), m));
            set(&mut policy.stop_method, values::word(node, "stop method", &known, problems));
        }
        "stop_signal" => policy.stop_signal = values::parsed(node, problems),
        "stop_timeout" => set(&mut policy.stop_timeout, values::duration(node, problems)),
        "stop_after" => policy.stop_after = values::positive(node, problems),
        "wake_timeout" => set(&mut policy.wake_timeout, values::positive(node, problems)),
        "start_endpoint" => policy.start_endpoint = start_endpoint(node, problems),
        "depends_on" => draft.depends_on = depends_on(node, problems),
        "waiting" => set(&mut policy.waiting, waiting(node, problems)),
        "no_loading_page" => {
            let hold = values::boolean(node, problems) == Some(true);
            set(&mut policy.waiting, hold.then_some(Waiting::Hold));
        }
        "ready" => draft.ready = ready::read(node, author, problems),
        "settle" => set(&mut policy.settle, values::brief(node, problems)),
        "ignore" => policy.ignore = ignore(node, problems),
        "asleep_response" => set(&mut policy.asleep_response, asleep_response(node, problems)),
        "stream_idle" => policy.stream_idle = values::positive(node, problems),
        "flow_timeout" => set(&mut policy.flow_timeout, values::positive(node, problems)),
        "min_uptime" => set(&mut policy.min_uptime, values::duration(node, problems)),
        "schedule" => policy.schedule = schedule(node, problems),
        "busy" => policy.busy = busy(node, author, problems),
        "max_held" => set(&mut policy.max_held, values::count(node, 0..=1_000_000, problems)),
        "hold_timeout" => policy.hold_timeout = values::positive(node, problems),
        "drain_timeout" => set(&mut policy.drain_timeout, values::duration(node, problems)),
        "on_wake_timeout" => {
            let known = [("stop", OnWakeTimeout::Stop), ("leave", OnWakeTimeout::Leave)];
            set(&mut policy.on_wake_timeout, values::word(node, "value", &known, problems));
        }
        "wake_after_manual_stop" => set(&mut policy.wake_after_manual_stop, values::boolean(node, problems)),
        _ => {}
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn idle_timeout(node: &Node, policy: &mut IdlePolicy, problems: &mut Problems) {
    policy.dependency_only = false;
    policy.idle_timeout = None;
    let Some(text) = values::text(node, problems) else { return };
    match text.strip_prefix('-') {
        Some(rest) => {
            let positive = Node { value: Value::Text(rest.to_owned()), ..node.clone() };
            policy.dependency_only = rest == "1" || values::duration(&positive, problems).is_some();
        }
        None => policy.idle_timeout = values::duration(node, problems).filter(|d| !d.is_zero()),
    }
}

fn start_endpoint(node: &Node, problems: &mut Problems) -> Option<String> {
    let path = values::text(node, problems)?;
    let path = path.split('#').next().unwrap_or_default();
    if !path.starts_with('/') || path.contains(['?', ' ']) {
        problems.0.push(node.wrong("is no path: write for example `/start`, without a query"));
        return None;
    }
    Some(path.to_owned())
}

fn depends_on(node: &Node, problems: &mut Problems) -> Vec<Wanted> {
    let opened = values::structured(node);
    if let Value::Map(entries) = &opened.value {
        let conditions = entries.iter().map(|entry| {
            let condition = entry.node.as_text().map(str::to_owned);
            Wanted { name: entry.key.clone(), condition, place: entry.place.clone() }
        });
        return conditions.collect();
    }
    let items = values::items(node, problems);
    let wanted = items.iter().filter_map(|item| {
        let text = values::text(item, problems)?;
        let (name, condition) = match text.split_once(':') {
            Some((name, condition)) => (name.trim(), Some(condition.trim().to_owned())),
            None => (text, None),
        };
        if name.is_empty() {
            problems.0.push(item.wrong("names no backend"));
            return None;
        }
        Some(Wanted { name: name.to_owned(), condition, place: item.place.clone() })
    });
    wanted.collect()
}

/// `page`, `hold` or `reject`.
pub(super) fn waiting(node: &Node, problems: &mut Problems) -> Option<Waiting> {
    values::word(node, "value of `waiting`", &WAITING, problems)
}

/// Presets by name, paths, or a mapping of `paths`, `methods`, `agents`, `clients`, `presets`.
pub(super) fn ignore(node: &Node, problems: &mut Problems) -> Ignore {
    let mut rules = Ignore::default();
    let node = &*values::structured(node);
    if !matches!(node.value, Value::Map(_)) {
        for item in values::items(node, problems) {
            match item.as_text() {
                Some(path) if path.starts_with('/') => rules.paths.push(path.to_owned()),
                _ => presets::add(&item, &mut rules, problems),
            }
        }
        return rules;
    }
    let mut fields = Fields::open(node, "`ignore`", problems);
    for item in fields.get("presets").map(|n| values::items(n, problems)).unwrap_or_default() {
        presets::add(&item, &mut rules, problems);
    }
    for item in fields.get("paths").map(|n| values::items(n, problems)).unwrap_or_default() {
        match values::text(&item, problems) {
            Some(path) if path.starts_with('/') => rules.paths.push(path.to_owned()),
            Some(_) => problems.0.push(item.wrong("is no path: it must begin with `/`")),
            None => {}
        }
    }
    let methods = fields.get("methods").map(|n| values::texts(n, problems)).unwrap_or_default();
    rules.methods.extend(methods.into_iter().map(|method| method.to_ascii_uppercase()));
    for item in fields.get("agents").map(|n| lines(n, problems)).unwrap_or_default() {
        presets::add_agent(&item, &mut rules, problems);
    }
    rules.clients.extend(fields.get("clients").map(|n| networks(n, problems)).unwrap_or_default());
    fields.finish(&["presets", "paths", "methods", "agents", "clients"], problems);
    rules
}

/// Networks; a bare address is a network of one.
pub(super) fn networks(node: &Node, problems: &mut Problems) -> Vec<ipnet::IpNet> {
    let items = values::items(node, problems);
    let nets = items.iter().filter_map(|item| {
        let text = values::text(item, problems)?;
        let net = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from));
        if net.is_err() {
            problems.0.push(item.wrong("is no network: write for example `10.0.0.0/8` or `192.168.1.7`"));
        }
        net.ok()
    });
    nets.collect()
}

/// Items that may hold spaces and commas: a YAML list, or one for each line.
fn lines(node: &Node, problems: &mut Problems) -> Vec<Node> {
    let opened = values::structured(node);
    match (&opened.value, opened.as_text()) {
        (_, Some(text)) => text
            .split(['\n', ';'])
            .filter(|line| !line.trim().is_empty())
            .map(|line| Node::text(node.place.clone(), line.trim()))
            .collect(),
        _ => values::items(&opened, problems),
    }
}

fn schedule(node: &Node, problems: &mut Problems) -> Schedule {
    let items = lines(node, problems);
    Schedule(items.iter().filter_map(|item| values::parsed::<Window>(item, problems)).collect())
}

/// A status, or a mapping of `status` and `body`.
pub(super) fn asleep_response(node: &Node, problems: &mut Problems) -> Option<AsleepResponse> {
    let status = |node: &Node, problems: &mut Problems| {
        values::number(node, 200..=599, problems).and_then(|status| u16::try_from(status).ok())
    };
    let node = &*values::structured(node);
    if node.as_text().is_some() {
        return Some(AsleepResponse { status: status(node, problems)?, body: None });
    }
    let mut fields = Fields::open(node, "`asleep_response`", problems);
    let mut response = AsleepResponse::default();
    if let Some(node) = fields.get("status") {
        response.status = status(node, problems)?;
    }
    response.body = fields.get("body").and_then(|node| node.as_text()).map(str::to_owned);
    fields.finish(&["status", "body"], problems);
    Some(response)
}

fn busy(node: &Node, author: Author, problems: &mut Problems) -> Option<String> {
    let text = values::text(node, problems)?;
    if author == Author::Labels && !text.starts_with("http://") {
        problems.0.push(only_in_the_file(node, "a command of `busy`"));
        return None;
    }
    Some(text.to_owned())
}

/// An error about something that labels must not do.
pub(super) fn only_in_the_file(node: &Node, what: &str) -> Problem {
    Problem::error(node.place.clone(), format!("{what} would run on the machine of Dormouse, not in the container"))
        .with_hint("name it in the configuration file, below `backends`")
}

/// What a library says at the end of its long words.
pub(super) fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
