//! Orders: wake, sleep, pin, unpin, restart.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::{Api, Code, Connection, Failure, backends::find, wire};
use crate::{
    backend::{Answer, Backend, Order},
    model::parse_duration,
};

type Body = Result<Bytes, BytesRejection>;
type Person = Option<Extension<Connection>>;
type Outcome = Result<Json<wire::Done>, Failure>;

/// Wakes a backend, cool-down or not, and answers when it is awake.
#[utoipa::path(post, path = "/api/v1/backends/{node}/{name}/wake", tag = "orders",
    params(("node", description = "the node"), ("name", description = "the engine's own name of it")),
    responses((status = 200, body = wire::Done), (status = 404, body = wire::ProblemDetails),
        (status = 409, body = wire::ProblemDetails)))]
pub(super) async fn wake(State(api): State<Api>, Path(id): Path<(String, String)>, person: Person) -> Outcome {
    carry_out(&api, &joined(id), "wake", &Bytes::new(), person).await
}

/// Lets a backend down once those inside are done, or at once with `now`.
#[utoipa::path(post, path = "/api/v1/backends/{node}/{name}/sleep", tag = "orders",
    params(("node", description = "the node"), ("name", description = "the engine's own name of it")),
    request_body(content = Option<wire::Sleep>),
    responses((status = 200, body = wire::Done), (status = 404, body = wire::ProblemDetails),
        (status = 409, body = wire::ProblemDetails)))]
pub(super) async fn sleep(
    State(api): State<Api>,
    Path(id): Path<(String, String)>,
    person: Person,
    body: Body,
) -> Outcome {
    carry_out(&api, &joined(id), "sleep", &whole(body)?, person).await
}

/// Keeps a backend awake until a time, waking it if need be.
#[utoipa::path(post, path = "/api/v1/backends/{node}/{name}/pin", tag = "orders",
    params(("node", description = "the node"), ("name", description = "the engine's own name of it")),
    request_body(content = wire::Pin),
    responses((status = 200, body = wire::Done), (status = 400, body = wire::ProblemDetails),
        (status = 404, body = wire::ProblemDetails), (status = 409, body = wire::ProblemDetails),
        (status = 507, body = wire::ProblemDetails)))]
pub(super) async fn pin(
    State(api): State<Api>,
    Path(id): Path<(String, String)>,
    person: Person,
    body: Body,
) -> Outcome {
    carry_out(&api, &joined(id), "pin", &whole(body)?, person).await
}

/// Ends a pin.
#[utoipa::path(post, path = "/api/v1/backends/{node}/{name}/unpin", tag = "orders",
    params(("node", description = "the node"), ("name", description = "the engine's own name of it")),
    responses((status = 200, body = wire::Done), (status = 404, body = wire::ProblemDetails),
        (status = 507, body = wire::ProblemDetails)))]
pub(super) async fn unpin(State(api): State<Api>, Path(id): Path<(String, String)>, person: Person) -> Outcome {
    carry_out(&api, &joined(id), "unpin", &Bytes::new(), person).await
}

/// Lets a backend down once those inside are done, and wakes it again.
#[utoipa::path(post, path = "/api/v1/backends/{node}/{name}/restart", tag = "orders",
    params(("node", description = "the node"), ("name", description = "the engine's own name of it")),
    responses((status = 200, body = wire::Done), (status = 404, body = wire::ProblemDetails),
        (status = 409, body = wire::ProblemDetails)))]
pub(super) async fn restart(State(api): State<Api>, Path(id): Path<(String, String)>, person: Person) -> Outcome {
    carry_out(&api, &joined(id), "restart", &Bytes::new(), person).await
}

/// The same orders to a backend that is named in short: `POST /api/v1/backends/{name}/{order}`.
pub(super) async fn in_short(
    State(api): State<Api>,
    Path((name, order)): Path<(String, String)>,
    person: Person,
    body: Body,
) -> Outcome {
    carry_out(&api, &name, &order, &whole(body)?, person).await
}

fn joined((node, name): (String, String)) -> String {
    format!("{node}/{name}")
}

async fn carry_out(api: &Api, name: &str, order: &str, body: &[u8], person: Person) -> Outcome {
    let person = person.map_or_else(|| "the API".to_owned(), |Extension(connection)| connection.person);
    let backend = || find(&api.control, name);
    match order {
        "wake" => give(&backend()?, Order::Wake, &person).await,
        "restart" => give(&backend()?, Order::Restart, &person).await,
        "sleep" if read::<wire::Sleep>(body)?.now => {
            let backend = backend()?;
            let cut = backend.passes();
            let Json(done) = give(&backend, Order::SleepNow, &person).await?;
            Ok(Json(wire::Done { cut: Some(if done.result == "done" { cut } else { 0 }), ..done }))
        }
        "sleep" => give(&backend()?, Order::Sleep, &person).await,
        "pin" => {
            let until = end_of_pin(&read(body)?)?;
            let backend = backend()?;
            let answer = backend.pin(until, &person).await;
            kept(api, &backend, answer).await
        }
        "unpin" => {
            let backend = backend()?;
            let answer = backend.unpin(&person).await;
            kept(api, &backend, answer).await
        }
        other => {
            let failure = Failure::new(Code::NoSuchPath, format!("`{other}` is no order"));
            Err(failure.with_hint("orders are `wake`, `sleep`, `pin`, `unpin` and `restart`"))
        }
    }
}

async fn give(backend: &Backend, order: Order, person: &str) -> Outcome {
    let answer = backend.order(order, person).await;
    outcome(backend, answer)
}

/// Answers an order that is to hold in the next run, too, once it is written down.
async fn kept(api: &Api, backend: &Backend, answer: Answer) -> Outcome {
    let written = api.control.keep(backend).await;
    let done = outcome(backend, answer)?;
    let Err(why) = written else { return Ok(done) };
    let what = format!("`{}`: the order holds now, but {why}; it is lost when Dormouse ends", backend.id());
    Err(Failure::new(Code::NotKept, what).with_hint(
        "see that the state directory can be written to and that its disk is not full: it is then written by itself",
    ))
}

fn outcome(backend: &Backend, answer: Answer) -> Outcome {
    let told = |result: &str| wire::Done { result: result.to_owned(), backend: backend.id().to_string(), cut: None };
    match answer {
        Answer::Done => Ok(Json(told("done"))),
        Answer::AlreadySo => Ok(Json(told("already_so"))),
        Answer::Denied(why) => Err(Failure::new(Code::Denied, format!("`{}`: {why}", backend.id()))),
    }
}

/// The body, unless it was too long or broke off.
pub(super) fn whole(body: Body) -> Result<Bytes, Failure> {
    body.map_err(|rejection| match rejection.status() {
        status if status == Code::BodyTooLarge.status() => {
            Failure::new(Code::BodyTooLarge, "the body is longer than 1 MiB")
        }
        _ => Failure::new(Code::BadRequest, "the body broke off"),
    })
}

/// Reads a body; none at all is an empty one.
fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Failure> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| Failure::new(Code::BadRequest, format!("the body: {error}")))
}

fn end_of_pin(pin: &wire::Pin) -> Result<Timestamp, Failure> {
    let now = Timestamp::now();
    let until = match (&pin.until, &pin.duration) {
        (Some(until), None) => until.parse::<Timestamp>().map_err(|_| {
            let failure = Failure::new(Code::BadRequest, format!("`until`: `{until}` is no time"));
            failure.with_hint("write for example `2030-01-01T18:00:00Z`")
        })?,
        (None, Some(text)) => {
            let bad = |why: String| Failure::new(Code::BadRequest, format!("`for`: {why}"));
            let duration = parse_duration(text).map_err(|error| bad(error.to_string()))?;
            let end = now.checked_add(duration).map_err(|_| bad("it is too long".to_owned()))?;
            // To the second, as people write it; never shorter than asked for.
            Timestamp::from_second(end.as_second() + 1).map_err(|_| bad("it is too long".to_owned()))?
        }
        (None, None) | (Some(_), Some(_)) => {
            let failure = Failure::new(Code::BadRequest, "a pin needs exactly one of `until` and `for`");
            return Err(failure.with_hint("write for example `{\"for\": \"2h\"}`"));
        }
    };
    if until <= now {
        return Err(Failure::new(Code::BadRequest, "the end of the pin is not in the future"));
    }
    Ok(until)
}
