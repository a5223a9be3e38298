//! `/api/v1/…`: the provider's own API, in its own shape, errors included.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde::Serialize;

use super::App;
use super::access::bearer;
use crate::dropin::{Answer, Caller, Endpoint, Question, Refusal, Submission};
use crate::provider_api::{ApiError, Class};
use crate::store::StoreError;

/// Largest body: prompts and URLs, not the pictures themselves.
const MAX_BODY: usize = 1024 * 1024;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An error as the provider writes them: its code in the body, and a status that its clients know what to do about.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    code: i64,
    msg: String,
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct Document<'a> {
    code: i64,
    msg: &'a str,
    data: (),
}

/// Who may do this: always by a key or token, on this machine, too, as what is submitted costs. It stands before the body in
/// every handler: nothing of a stranger's body is read.
struct Admitted(Caller);

/// Every route, for whoever has a key or a token.
pub(super) fn routes() -> Router<App> {
    let submit = |endpoint| {
        post(
            move |app: State<App>,
                  admitted: Admitted,
                  (query, headers): (RawQuery, HeaderMap),
                  body: Result<Bytes, BytesRejection>| {
                submit((app, admitted), endpoint, (query, headers), body)
            },
        )
    };
    let ask = |question| {
        get(move |app: State<App>, admitted: Admitted, query: RawQuery| ask(app, admitted, question, query))
    };
    Router::new()
        .route("/api/v1/veo/generate", submit(Endpoint::Generate))
        .route("/api/v1/veo/extend", submit(Endpoint::Extend))
        .route("/api/v1/veo/get-4k-video", submit(Endpoint::FourK))
        .route("/api/v1/jobs/createTask", submit(Endpoint::CreateTask))
        .route("/api/v1/veo/record-info", ask(Question::VeoRecord))
        .route("/api/v1/veo/get-1080p-video", ask(Question::Upgrade1080p))
        .route("/api/v1/jobs/recordInfo", ask(Question::MarketRecord))
        .route("/api/v1/chat/credit", ask(Question::Credit))
        .route("/api/v1/common/download-url", post(download_url))
        .method_not_allowed_fallback(method_not_allowed)
        .route("/api/v1/{*rest}", any(unknown))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn submit(
    (State(app), Admitted(caller)): (State<App>, Admitted),
    endpoint: Endpoint,
    (RawQuery(query), headers): (RawQuery, HeaderMap),
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let submission = Submission {
        endpoint,
        query: query.as_deref(),
        body: &body?,
        key: headers.get(IDEMPOTENCY_KEY).map(HeaderValue::as_bytes),
    };
    Ok(shown(&app, app.dropin.submit(caller, submission).await?))
}

async fn ask(
    State(app): State<App>,
    Admitted(caller): Admitted,
    question: Question,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let answer = app.dropin.ask(&caller, question, query.as_deref()).await?;
    Ok(shown(&app, answer))
}

async fn download_url(
    State(app): State<App>,
    Admitted(caller): Admitted,
    RawQuery(query): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let answer = app.dropin.download_url(&caller, query.as_deref(), &body?).await?;
    Ok(shown(&app, answer))
}

async fn unknown(uri: Uri) -> Failure {
    Failure::of(
        StatusCode::NOT_FOUND,
        format!("{} is not passed on by reelhook", uri.path()),
    )
}

async fn method_not_allowed(uri: Uri) -> Failure {
    Failure::of(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} takes another method", uri.path()),
    )
}

impl FromRequestParts<App> for Admitted {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let presented = bearer(&parts.headers);
        let admitted = app.dropin.admit(&app.ingest.sources(), &app.tokens(), presented);
        Ok(Self(admitted?))
    }
}

/// The answer without our secrets: the provider echoes callback URLs, and ours has the source's token in it.
fn shown(app: &App, answer: Answer) -> Response {
    let body = app.redactor().bytes(&answer.body);
    let mut response = (answer.status, body).into_response();
    let json = HeaderValue::from_static("application/json");
    let content_type = answer.content_type.unwrap_or(json);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

impl Failure {
    fn of(status: StatusCode, msg: impl Into<String>) -> Self {
        Self {
            status,
            code: status.as_u16().into(),
            msg: msg.into(),
            retry_after: None,
        }
    }

    /// As the provider answers what its own API refuses: with status 200.
    fn said(code: i64, msg: String) -> Self {
        Self {
            status: StatusCode::OK,
            code,
            msg,
            retry_after: None,
        }
    }

    fn of_provider(error: &ApiError, msg: String) -> Self {
        let (status, code) = match (error.class(), error) {
            (_, ApiError::Slow { .. }) => (StatusCode::GATEWAY_TIMEOUT, 504),
            (Class::Retry | Class::Final, _) => (StatusCode::BAD_GATEWAY, 502),
            (Class::Wait, _) => (StatusCode::SERVICE_UNAVAILABLE, 429),
            (Class::Auth, _) => (StatusCode::SERVICE_UNAVAILABLE, 401),
            (Class::Credits, _) => (StatusCode::SERVICE_UNAVAILABLE, 402),
            (Class::Maintenance, _) => (StatusCode::SERVICE_UNAVAILABLE, 455),
        };
        let retry_after = error.retry_after().map(|wait| wait.as_secs() + 1);
        Self {
            status,
            code,
            msg,
            retry_after,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let msg = refusal.to_string();
        match refusal {
            Refusal::NotPermitted => Self::said(401, msg),
            Refusal::Malformed(_) => Self::said(422, msg),
            Refusal::NotSetUp(_) => Self::of(StatusCode::SERVICE_UNAVAILABLE, msg),
            Refusal::KeyReused => Self::of(StatusCode::UNPROCESSABLE_ENTITY, msg),
            Refusal::InDoubt => Self::of(StatusCode::CONFLICT, msg),
            Refusal::Provider(error) | Refusal::Lost(error) => Self::of_provider(&error, msg),
            Refusal::Store(error) => {
                if let StoreError::Database(_) = error {
                    tracing::error!(%error, "a request for the provider was not passed on: it could not be recorded");
                }
                Self {
                    retry_after: Some(1),
                    ..Self::of(StatusCode::SERVICE_UNAVAILABLE, msg)
                }
            }
        }
    }
}

impl From<BytesRejection> for Failure {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::of(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is larger than 1 MiB; name pictures by their URLs",
            ),
            _ => Self::said(422, "the body broke off".to_owned()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let document = Document {
            code: self.code,
            msg: &self.msg,
            data: (),
        };
        let mut response = (self.status, axum::Json(document)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
