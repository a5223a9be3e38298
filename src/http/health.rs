//! Liveness and readiness.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::problem::Problem;

/// That all is well.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok` or `ready`.
    status: &'static str,
}

/// The process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "server",
    operation_id = "is_alive",
    responses((status = 200, description = "It does.", body = Health, example = json!({"status": "ok"}))),
)]
pub(super) async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Callbacks can be recorded.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "server",
    operation_id = "is_ready",
    responses(
        (status = 200, description = "They can.", body = Health, example = json!({"status": "ready"})),
        (status = 503, description = "draining, store_unavailable"),
    ),
)]
pub(super) async fn ready(State(app): State<App>) -> Response {
    let unready = |code, detail: &'static str| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
            .retry_after(1)
            .into_response()
    };
    if app.tasks.is_draining() {
        return unready("draining", "reelhook is shutting down");
    }
    if !app.store.is_ready().await {
        return unready("store_unavailable", "the database does not answer");
    }
    Json(Health { status: "ready" }).into_response()
}
