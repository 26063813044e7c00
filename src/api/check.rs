//! The configuration: what is wrong with it, what another would change, and reading it again.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
};

use super::{Api, Code, Connection, Failure, error::suggest, orders::whole, wire};
use crate::{
    control::{Explained, ReloadFailed, Taken, View},
    model::{Place, Problems, Severity},
    telemetry::access_troubles,
};

/// What is wrong now.
#[utoipa::path(get, path = "/api/v1/problems", tag = "configuration",
    responses((status = 200, body = wire::Standing)))]
pub(super) async fn problems(State(api): State<Api>) -> Json<wire::Standing> {
    let view = api.control.view();
    let mut problems = tell(&view.catalog.problems);
    problems.extend(api.control.certificates().problems().iter().map(wire::Problem::from));
    let excluded =
        |(container, why): &(String, String)| wire::Excluded { container: container.clone(), why: why.clone() };
    problems.extend(tell(&api.control.troubles()));
    problems.extend(tell(&view.absent()));
    problems.extend(tell(&of_access_logs(&api).await));
    Json(wire::Standing {
        problems,
        refused: tell(&view.refused),
        excluded: view.catalog.excluded.iter().map(excluded).collect(),
    })
}

/// What is wrong with the access logs. A disk may be slow: nothing waits long for it.
async fn of_access_logs(api: &Api) -> Problems {
    let writer = api.access.clone();
    api.control.look_at_access_logs(move |outputs| access_troubles(outputs, &writer)).await
}

/// What is made of each listed container and of each process, and why.
#[utoipa::path(get, path = "/api/v1/explain", tag = "configuration",
    responses((status = 200, body = wire::Explanations)))]
pub(super) async fn explain_all(State(api): State<Api>) -> Json<wire::Explanations> {
    let view = api.control.view();
    let containers = view.explain().iter().map(|explained| told(&api, &view, explained)).collect();
    Json(wire::Explanations { containers })
}

/// What is made of one container, by its name or `node/name`, and why.
#[utoipa::path(get, path = "/api/v1/explain/{container}", tag = "configuration",
    params(("container", description = "its name, or `node/name` with the slash as `%2F` or as it is")),
    responses((status = 200, body = wire::Explained), (status = 404, body = wire::ProblemDetails)))]
pub(super) async fn explain(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<wire::Explained>, Failure> {
    let view = api.control.view();
    let all = view.explain();
    match Explained::named(&all, &name).as_slice() {
        [one] => Ok(Json(told(&api, &view, one))),
        [] => Err(no_container(&view, &all, &name)),
        several => {
            let is_alias = several.iter().all(|one| one.container.name != name);
            let what = if is_alias { "leads to more than one backend" } else { "is the name of more than one backend" };
            let failure = Failure::new(Code::NoSuchContainer, format!("`{name}` {what}"));
            let names = several.iter().map(|it| format!("`{}`", it.full_name()));
            Err(failure.with_hint(format!("name one of {}", names.collect::<Vec<_>>().join(", "))))
        }
    }
}

/// A process is listed by no engine: what it does is known from its backend, as are the failures of all. Where its
/// engine is away, all of it may be out of date.
fn told(api: &Api, view: &View, explained: &Explained) -> wire::Explained {
    let mut told = wire::Explained::from(explained);
    if let Some(backend) = explained.backend.as_ref().and_then(|spec| api.control.backend(&spec.id)) {
        let status = backend.status().borrow().clone();
        if told.is_process {
            told.state = status.state.as_str().to_owned();
        }
        told.failure = status.failure.as_deref().map(str::to_owned);
    }
    told.problems.extend(view.absence(&explained.container.node).iter().map(wire::Problem::from));
    told
}

/// The same with the slash of `node/name` as it is.
pub(super) async fn explain_with_node(
    api: State<Api>,
    Path((node, name)): Path<(String, String)>,
) -> Result<Json<wire::Explained>, Failure> {
    explain(api, Path(format!("{node}/{name}"))).await
}

fn no_container(view: &View, all: &[Explained], name: &str) -> Failure {
    let names: Vec<String> = all.iter().map(Explained::full_name).collect();
    let mut what = format!("no engine told of a container `{name}`, and no file of such a process");
    for (node, away) in view.nodes.iter().filter_map(|(node, known)| Some((node, known.away.as_ref()?))) {
        what.push_str(&format!("; node `{node}` can not tell: {} (since {})", away.why, away.since));
    }
    let failure = Failure::new(Code::NoSuchContainer, what);
    suggest(failure, name, &names)
}

/// Checks a configuration text and says what it would change, without changing anything. Over TCP no file that it names
/// is read, no variable replaced, and no setting compared with what is in force.
#[utoipa::path(post, path = "/api/v1/check", tag = "configuration",
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, body = wire::Checked), (status = 400, body = wire::ProblemDetails)))]
pub(super) async fn check(
    State(api): State<Api>,
    connection: Option<Extension<Connection>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<wire::Checked>, Failure> {
    let strangers = connection.is_none_or(|Extension(connection)| connection.over_tcp);
    let text = String::from_utf8(whole(body)?.into());
    let text = text.map_err(|_| Failure::new(Code::BadRequest, "the body is no UTF-8 text"))?;
    let checked = match api.control.dry_run(text, strangers).await {
        Ok(taken) => wire::Checked {
            ok: !refuses(&taken.problems),
            changes: changes(&taken),
            waiting: waiting(&taken),
            problems: tell(&taken.problems),
        },
        Err(ReloadFailed::Problems(problems)) => {
            wire::Checked { problems: tell(&problems), ..wire::Checked::default() }
        }
        Err(ReloadFailed::Ending) => return Err(ending()),
        Err(fault @ ReloadFailed::Fault) => return Err(Failure::new(Code::Fault, fault.to_string())),
    };
    Ok(Json(checked))
}

/// Reads the configuration again. With any error in it, what runs is as before.
#[utoipa::path(post, path = "/api/v1/reload", tag = "configuration",
    responses((status = 200, body = wire::Reloaded), (status = 422, body = wire::ProblemDetails)))]
pub(super) async fn reload(State(api): State<Api>) -> Result<Json<wire::Reloaded>, Failure> {
    match api.control.reload().await {
        Ok(taken) => Ok(Json(wire::Reloaded {
            changes: changes(&taken),
            waiting: waiting(&taken),
            problems: tell(&taken.problems),
        })),
        Err(ReloadFailed::Problems(problems)) => Err(Failure::refused(&problems)),
        Err(ReloadFailed::Ending) => Err(ending()),
        Err(fault @ ReloadFailed::Fault) => Err(Failure::new(Code::Fault, fault.to_string())),
    }
}

/// Settings first, then what is made.
fn changes(taken: &Taken) -> Vec<wire::Change> {
    taken.settings.iter().map(wire::Change::from).chain(taken.changes.iter().map(wire::Change::from)).collect()
}

fn waiting(taken: &Taken) -> Vec<String> {
    taken.settings.iter().filter(|change| change.waits).map(|change| change.key.path.clone()).collect()
}

fn tell(problems: &Problems) -> Vec<wire::Problem> {
    problems.0.iter().map(wire::Problem::from).collect()
}

/// Errors in labels refuse only their routes, those of files the whole.
fn refuses(problems: &Problems) -> bool {
    let in_file = |place: &Place| matches!(place, Place::File { .. } | Place::Body(_) | Place::Host(_));
    problems.0.iter().any(|problem| problem.severity == Severity::Error && in_file(&problem.place))
}

fn ending() -> Failure {
    Failure::new(Code::Ending, "Dormouse is ending and takes no more orders")
}
