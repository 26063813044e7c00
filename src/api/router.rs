//! All paths, and the document that describes them.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    middleware,
    routing::{get, post},
};
use jiff::Timestamp;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Code, Failure, Upgrades, backends, certificates, check, events, guard::guard, health, metrics, orders, upgrade,
};
use crate::{
    control::Control,
    telemetry::{AccessWriter, ConnectionCounters},
};

/// The longest body that is read.
const BODY: usize = 1024 * 1024;

/// What the interface shows and orders.
#[derive(Debug, Clone)]
pub struct Api {
    /// The running world.
    pub control: Control,
    /// When this run of the program began, all its upgrades included. Tells its events from those of runs before.
    pub run: Timestamp,
    /// Who writes the access log.
    pub access: AccessWriter,
    /// The connections of clients.
    pub connections: Arc<ConnectionCounters>,
    /// Where the order goes to have a new process take over.
    pub upgrades: Upgrades,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Dormouse",
    description = "What runs behind a Dormouse, why it sleeps and wakes, and orders to it. Errors are \
                   `application/problem+json`. A backend may also be named in short, by its name alone or by the \
                   alias of a route that leads to it: `GET /api/v1/backends/{name}` and \
                   `POST /api/v1/backends/{name}/{order}`."
))]
struct Document;

/// The interface as a service. It expects a [`super::Connection`] with each request.
pub fn router(api: Api) -> Router {
    let (router, document) = documented().split_for_parts();
    router
        .route("/openapi.json", get(|| async move { Json(document) }))
        .route("/api/v1/backends/{node}/{name}", post(orders::in_short))
        .route("/api/v1/explain/{node}/{name}", get(check::explain_with_node))
        .fallback(|| async { Failure::new(Code::NoSuchPath, "there is nothing at this path") })
        .method_not_allowed_fallback(|State(_): State<Api>| async {
            Failure::new(Code::MethodNotAllowed, "this path is not asked with this method")
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn(guard))
        .with_state(api)
}

/// The description of the interface.
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

fn documented() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(backends::list))
        .routes(routes!(backends::named))
        .routes(routes!(backends::one))
        .routes(routes!(orders::wake))
        .routes(routes!(orders::sleep))
        .routes(routes!(orders::pin))
        .routes(routes!(orders::unpin))
        .routes(routes!(orders::restart))
        .routes(routes!(backends::routes))
        .routes(routes!(backends::nodes))
        .routes(routes!(events::events))
        .routes(routes!(check::problems))
        .routes(routes!(check::explain_all))
        .routes(routes!(check::explain))
        .routes(routes!(check::check))
        .routes(routes!(certificates::certificates))
        .routes(routes!(check::reload))
        .routes(routes!(upgrade::upgrade))
        .routes(routes!(metrics::metrics))
        .routes(routes!(health::healthy))
        .routes(routes!(health::ready))
}
