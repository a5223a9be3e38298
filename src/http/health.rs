//! Liveness and readiness.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::App;
use super::problem::Problem;

/// The process answers.
pub(super) async fn live() -> Json<serde_json::Value> {
    Json(json!({"status": "ok"}))
}

/// Callbacks can be recorded.
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
    Json(json!({"status": "ready"})).into_response()
}
