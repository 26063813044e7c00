//! `explain`: what is made of containers, and why.

use std::{io::Read, path::Path};

use super::{
    absent,
    arguments::Explain,
    check::painted,
    client::{Client, segments},
    orders::{answers_to, leads_to, member_to},
    output::{Output, Tone, complain},
    trouble::Trouble,
};
use crate::{
    api::wire,
    control::{Explained, FileSource, explain_alone},
    model::{Container, DockerAddress, NodeName, Problems},
    provider::{Docker, Provider, parse_inspect},
    telemetry::chain,
};

/// Explains one container or all: from a file, from the running Dormouse, or from the local engine.
pub(super) async fn explain(options: &Explain, client: &Client, output: &Output) -> Result<(), Trouble> {
    let all = match (&options.inspect, &options.config) {
        (Some(file), _) => alone(&inspected(file)?, options)?,
        (None, Some(_)) => match process(options)? {
            Some(process) => process,
            None => alone(&from_engine().await?, options)?,
        },
        (None, None) => match running(options, client).await? {
            Some(all) => all,
            None => alone(&from_engine().await?, options)?,
        },
    };
    let refused = all.iter().any(is_refused);
    if options.output.json {
        output.json(&wire::Explanations { containers: all })?;
        return if refused { Err(Trouble::Told(2)) } else { Ok(()) };
    }
    for (index, explained) in all.iter().enumerate() {
        if index > 0 {
            output.line("")?;
        }
        print(explained, output)?;
    }
    if all.is_empty() {
        output.line("there are no containers")?;
    }
    if refused { Err(Trouble::Told(2)) } else { Ok(()) }
}

/// Whether a mistake keeps a route of it from being made.
fn is_refused(explained: &wire::Explained) -> bool {
    explained.problems.iter().any(|problem| problem.severity == "error")
}

/// The named backend, where the configuration alone tells of it.
fn process(options: &Explain) -> Result<Option<Vec<wire::Explained>>, Trouble> {
    if options.container.is_none() {
        return Ok(None);
    }
    match alone(&[], options) {
        Ok(found) => Ok(Some(found)),
        Err(Trouble::Failed(_)) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

async fn running(options: &Explain, client: &Client) -> Result<Option<Vec<wire::Explained>>, Trouble> {
    match &options.container {
        Some(name) => {
            let path = format!("/api/v1/explain/{}", segments(name));
            Ok(client.get_if_running::<wire::Explained>(&path).await?.map(|one| vec![one]))
        }
        None => {
            let all: Option<wire::Explanations> = client.get_if_running("/api/v1/explain").await?;
            let Some(wire::Explanations { containers }) = all else { return Ok(None) };
            if !options.output.json {
                // Those of which something is shown tell it themselves.
                let is_shown = |node: &wire::Node| containers.iter().any(|one| is_of(one, node));
                absent::tell(client, |node| !is_shown(node)).await?;
            }
            Ok(Some(containers))
        }
    }
}

fn is_of(explained: &wire::Explained, node: &wire::Node) -> bool {
    explained.container.split_once('/').is_some_and(|(name, _)| name == node.name)
}

/// Explains containers with the named configuration, or with none.
fn alone(containers: &[Container], options: &Explain) -> Result<Vec<wire::Explained>, Trouble> {
    let source = options.config.clone().map_or(FileSource::None { explicit: false, https: None }, FileSource::File);
    let loaded = source.load().map_err(|problems| Trouble::Wrong(told(&problems)))?;
    let all = explain_alone(containers, &source, &loaded);
    let meant: Vec<&Explained> = match &options.container {
        Some(name) => Explained::named(&all, name),
        None => all.iter().collect(),
    };
    match &options.container {
        Some(name) if meant.is_empty() => Err(Trouble::Failed(format!("there is no container or process `{name}`"))),
        _ => Ok(meant.into_iter().map(wire::Explained::from).collect()),
    }
}

fn told(problems: &Problems) -> String {
    format!("the configuration has errors\n{problems}")
}

fn local() -> Result<NodeName, Trouble> {
    "local".parse().map_err(|error| Trouble::Failed(format!("{error}")))
}

fn inspected(file: &Path) -> Result<Vec<Container>, Trouble> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(file).map(|read| text = read)
    };
    let bad = |why: String| Trouble::Wrong(format!("can not read `{}`: {why}", file.display()));
    read.map_err(|error| bad(error.to_string()))?;
    parse_inspect(&text, &local()?).map_err(|error| bad(chain(&error)))
}

async fn from_engine() -> Result<Vec<Container>, Trouble> {
    complain("no Dormouse is asked; this is what one without more configuration would make of the local engine");
    let docker =
        Docker::connect(local()?, &DockerAddress::default()).map_err(|error| Trouble::Failed(chain(&error)))?;
    docker.list().await.map_err(|error| Trouble::Failed(format!("can not ask {}: {}", docker.address(), chain(&error))))
}

fn print(explained: &wire::Explained, output: &Output) -> Result<(), Trouble> {
    output.line(&format!("{}  {}  {}", explained.container, explained.image, explained.state))?;
    if let Some(why) = &explained.failure {
        output.line(&format!("  {} {why}", output.paint("failed:", Tone::Bad)))?;
    }
    if let Some(why) = &explained.excluded {
        output.line(&format!("  {} {why}", output.paint("no routes:", Tone::Busy)))?;
    }
    for route in &explained.routes {
        let private = if route.audience == "private" { ", for private networks only" } else { "" };
        output.line(&format!("  route {}: {} -> {}{private}", route.alias, answers_to(route), leads_to(route)))?;
        for member in &route.members {
            output.line(&format!("    {}, weight {}, from {}", member_to(member), member.weight, member.place))?;
        }
    }
    if let Some(policy) = explained.policy.as_ref().filter(|_| !explained.routes.is_empty()) {
        output.line(&format!("  sleep: {}", sleep(policy, explained)))?;
    }
    if !explained.depends_on.is_empty() {
        output.line(&format!("  needs: {}", explained.depends_on.join(", ")))?;
    }
    if is_refused(explained) {
        let what = match explained.routes.len() {
            0 => "it is not reached through Dormouse until the errors below are mended",
            _ => "what the errors below name is left out, until they are mended",
        };
        output.line(&format!("  {} {what}", output.paint("refused:", Tone::Bad)))?;
    }
    for note in &explained.notes {
        output.line(&format!("  {} {note}", output.paint("note:", Tone::Quiet)))?;
    }
    explained
        .problems
        .iter()
        .try_for_each(|problem| output.line(&format!("  {}", painted(problem, output).replace('\n', "\n  "))))
}

fn sleep(policy: &wire::Policy, of: &wire::Explained) -> String {
    let mut text = match &policy.idle_timeout {
        Some(timeout) => format!("{} after {timeout} of quiet", policy.stop_method),
        None if policy.dependency_only => "with its last dependant, if one of them woke it".to_owned(),
        None if of.is_process => {
            return format!(
                "never by itself (set `idle: {{ idle_timeout: 15m }}` of `{}` below `backends`)",
                of.container
            );
        }
        None => return "never by itself (set `dormouse.idle_timeout`)".to_owned(),
    };
    if let Some(after) = &policy.stop_after {
        text.push_str(&format!(", stopped after {after} paused"));
    }
    if !policy.schedule.is_empty() {
        text.push_str(&format!(", kept awake {}", policy.schedule.join("; ")));
    }
    text
}
