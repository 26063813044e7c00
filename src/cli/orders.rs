//! `ps`, `routes`, and orders to backends.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    absent,
    arguments::{Name, Pin, Sleep, Wake},
    client::{Client, segments},
    output::{Output, Tone, complain},
    table::Table,
    trouble::Trouble,
    words,
};
use crate::api::wire;

/// The longest cause that is shown in a table.
const CAUSE: usize = 60;

/// Lists the backends.
pub(super) async fn ps(json: bool, client: &Client, output: &Output) -> Result<(), Trouble> {
    let all: wire::Backends = client.get("/api/v1/backends").await?;
    if json {
        return output.json(&all);
    }
    let now = Timestamp::now();
    let mut table = Table::new(&[
        "BACKEND",
        "STATE",
        "FOR",
        "IN USE",
        "SLEEPS IN",
        "TODAY",
        "P50",
        "P95",
        "ASLEEP",
        "GIVES BACK",
        "LAST WAKE",
    ]);
    for backend in &all.backends {
        table.row(row(backend, now));
    }
    table.print(output)?;
    for backend in &all.backends {
        let by_another_hand =
            backend.cause.as_ref().filter(|cause| backend.state == "asleep" && cause.kind == "engine");
        if let Some(why) = backend.failure.as_ref().or(by_another_hand.map(|cause| &cause.text)) {
            output.line(&format!("{}: {why}", backend.id))?;
        }
    }
    all.left_out.iter().try_for_each(|left_out| output.line(&why_left_out(left_out)))?;
    absent::tell(client, |_| true).await
}

/// Why a container has no row.
fn why_left_out(left_out: &wire::LeftOut) -> String {
    let wire::LeftOut { id, problems } = left_out;
    let why = problems.first().map_or_else(dash, |problem| match &problem.label {
        Some(label) => format!("label `{label}`: {}", problem.what),
        None => problem.what.clone(),
    });
    let more = match problems.len() {
        0 | 1 => String::new(),
        all => format!(" (and {} more)", all - 1),
    };
    format!("{id}: left out: {why}{more}; see `dormouse explain {id}`")
}

fn row(backend: &wire::Backend, now: Timestamp) -> Vec<(String, Tone)> {
    let state = match &backend.asleep_as {
        Some(how) => format!("{} ({how})", backend.state),
        None if is_ill(backend.health.as_ref()) => format!("{} (unhealthy)", backend.state),
        None => backend.state.clone(),
    };
    let millis =
        |millis: Option<u64>| millis.map_or_else(dash, |millis| words::duration(Duration::from_millis(millis)));
    let last = backend.last_wake.as_ref().map_or_else(dash, |wake| {
        let cause = wake.cause.as_deref().unwrap_or_default();
        words::cut(&format!("{} ago  {cause}", words::ago(&wake.at, now)), CAUSE)
    });
    let held = if backend.held > 0 {
        format!("{} (+{} wait)", backend.passes, backend.held)
    } else {
        backend.passes.to_string()
    };
    let share = backend.asleep_share.map_or_else(dash, |share| format!("{:.0} %", share * 100.0));
    let plain = |text: String| (text, Tone::Plain);
    vec![
        plain(backend.id.clone()),
        (state, if is_ill(backend.health.as_ref()) { Tone::Bad } else { tone(&backend.state) }),
        plain(words::ago(&backend.since, now)),
        plain(held),
        plain(sleeps_in(backend, now)),
        plain(backend.wakes.today.to_string()),
        plain(millis(backend.wake_ms.p50)),
        plain(millis(backend.wake_ms.p95)),
        plain(share),
        plain(backend.gives_back_bytes.map_or_else(dash, words::bytes)),
        plain(last),
    ]
}

fn is_ill(health: Option<&String>) -> bool {
    health.is_some_and(|health| health == "unhealthy")
}

fn sleeps_in(backend: &wire::Backend, now: Timestamp) -> String {
    if let Some(until) = &backend.pinned_until {
        return format!("pinned {}", words::until(until, now));
    }
    match backend.sleeps_in_s {
        Some(seconds) => words::duration(Duration::from_secs(seconds)),
        None if backend.state == "awake" && backend.passes > 0 => "in use".to_owned(),
        None if backend.state == "awake" && !backend.policy.dependency_only => "never".to_owned(),
        None => dash(),
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn tone(state: &str) -> Tone {
    match state {
        "awake" => Tone::Good,
        "asleep" => Tone::Quiet,
        "failed" | "gone" => Tone::Bad,
        "waking" | "draining" | "stopping" => Tone::Busy,
        _ => Tone::Plain,
    }
}

/// Lists the routes.
pub(super) async fn routes(json: bool, client: &Client, output: &Output) -> Result<(), Trouble> {
    let all: wire::Routes = client.get("/api/v1/routes").await?;
    if json {
        return output.json(&all);
    }
    let mut table = Table::new(&["ROUTE", "ANSWERS TO", "LEADS TO", "STATE", "FOR WHOM", "FROM"]);
    for route in &all.routes {
        let plain = |text: String| (text, Tone::Plain);
        table.row(vec![
            plain(route.alias.clone()),
            plain(answers_to(route)),
            plain(leads_to(route)),
            state(route.state.as_ref(), route.health.as_ref()),
            plain(route.audience.clone()),
            plain(route.place.clone()),
        ]);
        for member in &route.members {
            table.row(vec![
                plain(String::new()),
                plain(format!("  {}", share(member))),
                plain(member_to(member)),
                state(member.state.as_ref(), member.health.as_ref()),
                plain(String::new()),
                plain(member.place.clone()),
            ]);
        }
    }
    table.print(output)?;
    absent::tell(client, |_| true).await
}

/// What a member gets, in short.
fn share(member: &wire::Member) -> String {
    let out = if member.left_out { ", left out for a while" } else { "" };
    format!("weight {}, {} under way{out}", member.weight, member.requests)
}

fn state(state: Option<&String>, health: Option<&String>) -> (String, Tone) {
    let text = state.cloned().unwrap_or_else(dash);
    if is_ill(health) { (format!("{text} (unhealthy)"), Tone::Bad) } else { (text.clone(), tone(&text)) }
}

/// What a route answers to, in short.
pub(super) fn answers_to(route: &wire::Route) -> String {
    if !route.listen.is_empty() {
        let names = if route.sni.is_empty() { String::new() } else { format!(" for {}", route.sni.join(", ")) };
        return format!("{}{names}", route.listen.join(", "));
    }
    let mut text = route.hosts.join(", ");
    if !route.paths.is_empty() {
        text.push(' ');
        text.push_str(&route.paths.join(", "));
    }
    if route.methods.is_empty() { text } else { format!("{} {text}", route.methods.join("|")) }
}

/// Where a route leads, in short.
pub(super) fn leads_to(route: &wire::Route) -> String {
    match &route.balance {
        Some(mode) => format!("{mode} of {}", route.members.len()),
        None => endpoint(&route.backend, &route.address, &route.scheme, route.port),
    }
}

/// Where a member leads, in short.
pub(super) fn member_to(member: &wire::Member) -> String {
    endpoint(&member.backend, &member.address, &member.scheme, member.port)
}

fn endpoint(backend: &Option<String>, address: &Option<String>, scheme: &Option<String>, port: Option<u16>) -> String {
    let target = backend.as_ref().or(address.as_ref()).cloned().unwrap_or_else(dash);
    match (scheme, port) {
        (Some(scheme), Some(port)) => format!("{scheme}://{target}:{port}"),
        _ => target,
    }
}

/// Wakes one backend or all that sleep.
pub(super) async fn wake(options: &Wake, client: &Client, output: &Output) -> Result<(), Trouble> {
    let Some(name) = &options.name else { return wake_all(options.output.json, client, output).await };
    let done = order(client, name, "wake", &serde_json::json!({})).await?;
    tell(&done, "is awake", "was awake", options.output.json, output)
}

/// All at once; one that fails keeps none of the others from waking.
async fn wake_all(json: bool, client: &Client, output: &Output) -> Result<(), Trouble> {
    let all: wire::Backends = client.get("/api/v1/backends").await?;
    // What its owner stopped stays so. What is paused is invisible to most people, whoever paused it.
    let hidden = |backend: &&wire::Backend| backend.put_to_sleep || backend.asleep_as.as_deref() == Some("paused");
    let down = all.backends.iter().filter(hidden);
    let nothing = serde_json::json!({});
    let wakes = down.map(|backend| async { (&backend.id, order(client, &backend.id, "wake", &nothing).await) });
    let mut failed = false;
    for (id, outcome) in futures_util::future::join_all(wakes).await {
        match outcome {
            Ok(done) => tell(&done, "is awake", "was awake", json, output)?,
            Err(trouble) => {
                let text = trouble.to_string();
                // Most say of whom they speak.
                complain(&if text.contains(id.as_str()) { text } else { format!("{id}: {text}") });
                failed = true;
            }
        }
    }
    if failed { Err(Trouble::Told(1)) } else { Ok(()) }
}

/// Lets one down.
pub(super) async fn sleep(options: &Sleep, client: &Client, output: &Output) -> Result<(), Trouble> {
    if options.now {
        let backend: wire::Backend = client.get(&format!("/api/v1/backends/{}", segments(&options.name))).await?;
        if backend.passes > 0 {
            complain(&format!("`{}` is in use by {}: they are cut", backend.id, backend.passes));
        }
    }
    let done = order(client, &options.name, "sleep", &wire::Sleep { now: options.now }).await?;
    tell(&done, "sleeps", "slept already", options.output.json, output)
}

/// Keeps one awake.
pub(super) async fn pin(options: &Pin, client: &Client, output: &Output) -> Result<(), Trouble> {
    let pin = wire::Pin { until: options.until.clone(), duration: options.duration.clone() };
    let done = order(client, &options.name, "pin", &pin).await?;
    tell(&done, "is kept awake", "was pinned so already", options.output.json, output)
}

/// Ends a pin.
pub(super) async fn unpin(options: &Name, client: &Client, output: &Output) -> Result<(), Trouble> {
    let done = order(client, &options.name, "unpin", &serde_json::json!({})).await?;
    tell(&done, "is no longer pinned", "was not pinned", options.output.json, output)
}

/// Lets one down and wakes it again.
pub(super) async fn restart(options: &Name, client: &Client, output: &Output) -> Result<(), Trouble> {
    let done = order(client, &options.name, "restart", &serde_json::json!({})).await?;
    tell(&done, "is awake again", "is awake", options.output.json, output)
}

async fn order(client: &Client, name: &str, order: &str, body: &impl serde::Serialize) -> Result<wire::Done, Trouble> {
    client.order(&format!("/api/v1/backends/{}/{order}", segments(name)), body).await
}

fn tell(done: &wire::Done, now: &str, before: &str, json: bool, output: &Output) -> Result<(), Trouble> {
    if json {
        return output.json(done);
    }
    let cut = match done.cut {
        Some(cut) if cut > 0 => format!(" ({cut} cut)"),
        _ => String::new(),
    };
    output.line(&format!("{} {}{cut}", done.backend, if done.result == "done" { now } else { before }))
}
