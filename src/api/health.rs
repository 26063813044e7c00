//! Whether it lives and whether it is ready, for whoever watches over it.

use axum::{extract::State, http::StatusCode};

use super::Api;

/// It lives.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "it lives")))]
pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

/// It is ready: each node has been listed, or is known to be away.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, description = "it is ready"), (status = 503, description = "some nodes are not yet listed")))]
pub(super) async fn ready(State(api): State<Api>) -> (StatusCode, String) {
    let view = api.control.view();
    let unknown = view.nodes.iter().filter(|(_, node)| !node.listed && node.away.is_none());
    let unknown: Vec<&str> = unknown.map(|(name, _)| name.as_str()).collect();
    if unknown.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not yet listed: {}\n", unknown.join(", ")))
    }
}
