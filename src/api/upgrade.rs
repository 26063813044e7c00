//! The order to have a new process take over.

use axum::{Extension, Json, extract::State};
use tokio::sync::{mpsc, oneshot};

use super::{Api, Code, Connection, Failure, wire};

/// An order to be carried out: answered with the process that has taken over, or with why there is none, as a sentence.
pub type UpgradeOrder = oneshot::Sender<Result<u32, String>>;

/// Where such orders go.
#[derive(Debug, Clone, Default)]
pub struct Upgrades(Option<mpsc::Sender<UpgradeOrder>>);

impl Upgrades {
    /// Orders go there.
    pub fn to(orders: mpsc::Sender<UpgradeOrder>) -> Self {
        Self(Some(orders))
    }
}

/// Has a new process, from the program file and the configuration of now, take over all sockets, and answers when it
/// serves. What is in use in this one goes on to its end. Only through the Unix socket.
#[utoipa::path(post, path = "/api/v1/upgrade", tag = "configuration",
    responses((status = 200, body = wire::Upgraded), (status = 403, body = wire::ProblemDetails),
        (status = 409, body = wire::ProblemDetails), (status = 503, body = wire::ProblemDetails)))]
pub(super) async fn upgrade(
    State(api): State<Api>,
    connection: Option<Extension<Connection>>,
) -> Result<Json<wire::Upgraded>, Failure> {
    if connection.is_none_or(|Extension(connection)| connection.over_tcp) {
        let failure = Failure::new(Code::OriginNotAllowed, "an upgrade is ordered through the Unix socket alone");
        return Err(failure.with_hint("run `dormouse upgrade` as its user, or send it SIGUSR2"));
    }
    let Some(orders) = api.upgrades.0 else {
        return Err(Failure::new(Code::Denied, "this Dormouse can not be upgraded while it runs"));
    };
    let (reply, outcome) = oneshot::channel();
    let ending = || Failure::new(Code::Ending, "Dormouse is ending and takes no more orders");
    orders.send(reply).await.map_err(|_| ending())?;
    match outcome.await.map_err(|_| ending())? {
        Ok(pid) => Ok(Json(wire::Upgraded { pid })),
        Err(why) => Err(Failure::new(Code::Denied, why)),
    }
}
