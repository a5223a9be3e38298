//! The provider's HTTP API: one envelope, HTTP 200 for whatever it says, a `code` in the body that decides.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

mod common;
mod gate;
mod market;
mod params;
mod veo;

use super::Simulator;
use params::Params;

/// The routes, and `GET /_sim/ledger`, which the provider does not have.
pub(super) fn router(simulator: &Simulator) -> Router {
    let api = Router::new()
        .route("/veo/generate", post(veo::generate))
        .route("/veo/extend", post(veo::extend))
        .route("/veo/record-info", get(veo::record_info))
        .route("/veo/get-1080p-video", get(veo::full_hd))
        .route("/veo/get-4k-video", post(veo::uhd))
        .route("/jobs/createTask", post(market::create))
        .route("/jobs/recordInfo", get(market::record_info))
        .route("/common/download-url", post(common::download_url))
        .route("/chat/credit", get(common::credit))
        .method_not_allowed_fallback(async || Refusal::new(405, "Method Not Allowed"))
        .layer(from_fn_with_state(simulator.clone(), gate::pass));
    Router::new()
        .nest("/api/v1", api)
        .route("/_sim/ledger", get(ledger))
        .fallback(nowhere)
        .with_state(simulator.clone())
}

/// What an endpoint has to say.
type Outcome = Result<Success, Refusal>;

/// Code 200.
#[derive(Debug)]
struct Success(Value);

impl IntoResponse for Success {
    fn into_response(self) -> Response {
        envelope(200, &json!({ "code": 200, "msg": "success", "data": self.0 }))
    }
}

/// Any other code; `data` is null unless there is something to tell.
#[derive(Debug)]
struct Refusal {
    code: u16,
    msg: String,
    data: Value,
}

impl Refusal {
    fn new(code: u16, msg: impl Into<String>) -> Self {
        let msg = msg.into();
        Self {
            code,
            msg,
            data: Value::Null,
        }
    }

    /// Without a key the envelope has no `data` at all.
    fn no_access() -> Response {
        envelope(
            401,
            &json!({ "code": 401, "msg": "You do not have access permissions" }),
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { code, msg, data } = self;
        envelope(code, &json!({ "code": code, "msg": msg, "data": data }))
    }
}

/// The code of an answer, for those that count.
#[derive(Debug, Clone, Copy)]
struct BodyCode(u16);

fn envelope(code: u16, body: &Value) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json;charset=UTF-8")];
    let mut response = (content_type, body.to_string()).into_response();
    response.extensions_mut().insert(BodyCode(code));
    response
}

/// An address that the provider does not have is all that has a status of its own.
async fn nowhere() -> Response {
    let body = json!({ "code": 404, "msg": "Not Found" });
    (StatusCode::NOT_FOUND, body.to_string()).into_response()
}

async fn ledger(State(simulator): State<Simulator>) -> Response {
    match tokio::task::spawn_blocking(move || simulator.ledger()).await {
        Ok(ledger) => axum::Json(ledger).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
