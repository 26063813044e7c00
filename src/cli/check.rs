//! `check`, `schema` and `reload`.

use std::path::Path;

use super::{
    arguments::Check,
    client::Client,
    output::{Output, Tone},
    trouble::Trouble,
};
use crate::{
    api::wire,
    config,
    control::{FileSource, check_alone},
    model::Problems,
};

/// Checks a file, or shows the problems of what runs.
pub(super) async fn check(options: &Check, client: &Client, output: &Output) -> Result<(), Trouble> {
    let checked = match &options.file {
        None => {
            let standing: wire::Standing = client.get("/api/v1/problems").await?;
            let problems: Vec<wire::Problem> = standing.problems.into_iter().chain(standing.refused).collect();
            let ok = problems.iter().all(|problem| problem.severity != "error");
            wire::Checked { ok, problems, ..wire::Checked::default() }
        }
        Some(file) if options.diff => {
            let text = config::text_of(file)
                .map_err(|error| Trouble::Wrong(format!("can not read `{}`: {error}", file.display())))?;
            client.post("/api/v1/check", text.into_bytes()).await?
        }
        Some(file) => alone(file),
    };
    if options.output.json {
        output.json(&checked)?;
    } else {
        for problem in &checked.problems {
            output.line(&painted(problem, output))?;
        }
        for change in &checked.changes {
            output.line(&change.text)?;
        }
        if checked.ok {
            output.line(if options.diff && checked.changes.is_empty() { "ok: nothing would change" } else { "ok" })?;
        }
    }
    if checked.ok { Ok(()) } else { Err(Trouble::Told(2)) }
}

fn alone(file: &Path) -> wire::Checked {
    let tell = |problems: &Problems| problems.0.iter().map(wire::Problem::from).collect();
    let (ok, problems) = match check_alone(&FileSource::File(file.to_owned())) {
        Ok(problems) => (true, tell(&problems)),
        Err(problems) => (false, tell(&problems)),
    };
    wire::Checked { ok, problems, ..wire::Checked::default() }
}

/// Prints the schema of the configuration file.
pub(super) fn schema(output: &Output) -> Result<(), Trouble> {
    output.json(&config::schema())
}

/// Has the configuration read again.
pub(super) async fn reload(json: bool, client: &Client, output: &Output) -> Result<(), Trouble> {
    let reloaded: wire::Reloaded = client.post("/api/v1/reload", Vec::new()).await?;
    if json {
        return output.json(&reloaded);
    }
    for problem in reloaded.problems.iter().filter(|problem| problem.severity != "hint") {
        output.line(&painted(problem, output))?;
    }
    for change in &reloaded.changes {
        output.line(&change.text)?;
    }
    if reloaded.changes.is_empty() { output.line("nothing changed") } else { Ok(()) }
}

/// Has a new process take over.
pub(super) async fn upgrade(json: bool, client: &Client, output: &Output) -> Result<(), Trouble> {
    let upgraded: wire::Upgraded = client.post("/api/v1/upgrade", Vec::new()).await?;
    if json {
        return output.json(&upgraded);
    }
    output.line(&format!("process {} has taken over; what is in use in the one before may finish", upgraded.pid))
}

/// A problem as the command line writes it.
pub(super) fn in_words(problem: &wire::Problem) -> String {
    let hint = problem.hint.as_ref().map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
    format!("{}: {}: {}{hint}", problem.severity, problem.place, problem.what)
}

/// The same with its severity in a colour.
pub(super) fn painted(problem: &wire::Problem, output: &Output) -> String {
    let tone = match problem.severity.as_str() {
        "error" => Tone::Bad,
        "warning" => Tone::Busy,
        _ => Tone::Quiet,
    };
    let text = in_words(problem);
    match text.strip_prefix(&problem.severity) {
        Some(rest) => format!("{}{rest}", output.paint(&problem.severity, tone)),
        None => text,
    }
}
