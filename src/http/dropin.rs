//! `/api/v1/…`: the provider's own API, in its own shape, errors included.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::Serialize;
use utoipa::openapi::{self, ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

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

/// What the provider's API answers, and what is answered in its stead.
#[derive(Serialize, ToSchema)]
#[schema(as = ProviderAnswer)]
pub(super) struct Document<'a> {
    /// 200 where it was done, whatever the status says; else why not.
    code: i64,
    /// The same in words.
    msg: &'a str,
    /// What was asked for, in the provider's shape.
    #[schema(value_type = Value)]
    data: (),
}

/// What a caller makes up so that a submission that is repeated is done once.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "the document alone needs it: the header is read as bytes"
)]
struct IdempotencyKey {
    /// The same key and body get the same answer for 24 hours. Another body: 422. If it is unknown what came of the first: 409.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255)]
    key: Option<String>,
}

/// What a record is asked for by.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the document alone needs it: the query goes on as it is")]
struct RecordQuery {
    /// The task.
    #[param(rename = "taskId", example = "veo_task_1")]
    task_id: String,
    /// `provider`: the provider's URLs, and no links to what is stored here.
    urls: Option<String>,
}

/// The answers to what is only asked for.
enum OfQuestion {}

/// The answers to what comes with a body.
enum OfOrder {}

/// The answers to a submission.
enum OfSubmission {}

const ANSWERS: [(StatusCode, &str); 4] = [
    (
        StatusCode::OK,
        "What the provider answers, or what is answered in its stead. `code` tells whether it was done.",
    ),
    (
        StatusCode::BAD_GATEWAY,
        "The provider cannot be reached, or something before it answered.",
    ),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "Something is not set up, which `msg` names; nothing can be recorded; or the provider is left alone for now.",
    ),
    (
        StatusCode::GATEWAY_TIMEOUT,
        "The provider did not answer in time.",
    ),
];
const TOO_LARGE: (StatusCode, &str) = (StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 1 MiB.");
const OF_THE_KEY: [(StatusCode, &str); 2] = [
    (
        StatusCode::CONFLICT,
        "It is unknown what came of the first request with this Idempotency-Key. Nothing was sent.",
    ),
    (
        StatusCode::UNPROCESSABLE_ENTITY,
        "The Idempotency-Key was used for another request.",
    ),
];

type Answers = BTreeMap<String, RefOr<openapi::Response>>;

impl IntoResponses for OfQuestion {
    fn responses() -> Answers {
        ANSWERS.into_iter().map(described).collect()
    }
}

impl IntoResponses for OfOrder {
    fn responses() -> Answers {
        let with_body = ANSWERS.into_iter().chain([TOO_LARGE]);
        with_body.map(described).collect()
    }
}

impl IntoResponses for OfSubmission {
    fn responses() -> Answers {
        let mut answers = OfOrder::responses();
        answers.extend(OF_THE_KEY.map(described));
        answers
    }
}

fn described((status, description): (StatusCode, &str)) -> (String, RefOr<openapi::Response>) {
    let answer = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("ProviderAnswer")))
        .build();
    let response = ResponseBuilder::new()
        .description(description)
        .content("application/json", answer);
    (status.as_str().to_owned(), response.build().into())
}

/// Who may do this: always by a key or token, on this machine, too, as what is submitted costs. It stands before the body in
/// every handler: nothing of a stranger's body is read.
struct Admitted(Caller);

/// Every route, for whoever has a key or a token.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(generate))
        .routes(routes!(extend))
        .routes(routes!(get_4k_video))
        .routes(routes!(create_task))
        .routes(routes!(record_info))
        .routes(routes!(get_1080p_video))
        .routes(routes!(job_record_info))
        .routes(routes!(download_url))
        .routes(routes!(credit))
}

/// The routes as they are served.
pub(super) fn table() -> Router<App> {
    Router::from(routes())
        .method_not_allowed_fallback(method_not_allowed)
        .route("/api/v1/{*rest}", any(unknown))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

/// What a submission comes with: its query and headers, and its body.
type Submitted = ((RawQuery, HeaderMap), Result<Bytes, BytesRejection>);

/// Generates a video.
///
/// The body goes on as it was written, but for `callBackUrl`, which becomes ours. It is recorded before anything is sent: a
/// task that was paid for is known even if its answer is lost. The task is awaited from the answer on.
#[utoipa::path(
    post,
    path = "/api/v1/veo/generate",
    tag = "provider's API",
    operation_id = "veo_generate",
    params(IdempotencyKey),
    request_body(content = Object, example = json!({"prompt": "A red fox in the snow", "model": "veo3_fast"})),
    responses(OfSubmission),
    security(("provider_key" = [])),
)]
async fn generate(
    app: State<App>,
    admitted: Admitted,
    head: (RawQuery, HeaderMap),
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    submit((app, admitted), Endpoint::Generate, (head, body)).await
}

/// Extends a video.
#[utoipa::path(
    post,
    path = "/api/v1/veo/extend",
    tag = "provider's API",
    operation_id = "veo_extend",
    params(IdempotencyKey),
    request_body(content = Object, example = json!({"taskId": "veo_task_1", "prompt": "The fox runs away"})),
    responses(OfSubmission),
    security(("provider_key" = [])),
)]
async fn extend(
    app: State<App>,
    admitted: Admitted,
    head: (RawQuery, HeaderMap),
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    submit((app, admitted), Endpoint::Extend, (head, body)).await
}

/// Orders the 4K version of a video.
///
/// It goes to the provider each time; one that was made before is fetched.
#[utoipa::path(
    post,
    path = "/api/v1/veo/get-4k-video",
    tag = "provider's API",
    operation_id = "veo_get_4k_video",
    params(IdempotencyKey),
    request_body(content = Object, example = json!({"taskId": "veo_task_1", "index": 0})),
    responses(OfSubmission),
    security(("provider_key" = [])),
)]
async fn get_4k_video(
    app: State<App>,
    admitted: Admitted,
    head: (RawQuery, HeaderMap),
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    submit((app, admitted), Endpoint::FourK, (head, body)).await
}

/// Submits a job of any other model.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/createTask",
    tag = "provider's API",
    operation_id = "jobs_create_task",
    params(IdempotencyKey),
    request_body(content = Object, example = json!({"model": "some/model", "input": {"prompt": "A red fox"}})),
    responses(OfSubmission),
    security(("provider_key" = [])),
)]
async fn create_task(
    app: State<App>,
    admitted: Admitted,
    head: (RawQuery, HeaderMap),
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    submit((app, admitted), Endpoint::CreateTask, (head, body)).await
}

/// Tells what became of a video.
///
/// A finished task is told from what is recorded, without the provider's limit of 14 days, with signed links to stored files.
/// All others are asked for.
#[utoipa::path(
    get,
    path = "/api/v1/veo/record-info",
    tag = "provider's API",
    operation_id = "veo_record_info",
    params(RecordQuery),
    responses(OfQuestion),
    security(("provider_key" = [])),
)]
async fn record_info(app: State<App>, admitted: Admitted, query: RawQuery) -> Result<Response, Failure> {
    ask(app, admitted, Question::VeoRecord, query).await
}

/// Asks for the 1080p version of a video; once the provider has it, it is fetched.
#[utoipa::path(
    get,
    path = "/api/v1/veo/get-1080p-video",
    tag = "provider's API",
    operation_id = "veo_get_1080p_video",
    params(RecordQuery, ("index" = Option<u32>, Query, description = "Which of several.")),
    responses(OfQuestion),
    security(("provider_key" = [])),
)]
async fn get_1080p_video(app: State<App>, admitted: Admitted, query: RawQuery) -> Result<Response, Failure> {
    ask(app, admitted, Question::Upgrade1080p, query).await
}

/// Tells what became of a job of any other model.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/recordInfo",
    tag = "provider's API",
    operation_id = "jobs_record_info",
    params(RecordQuery),
    responses(OfQuestion),
    security(("provider_key" = [])),
)]
async fn job_record_info(app: State<App>, admitted: Admitted, query: RawQuery) -> Result<Response, Failure> {
    ask(app, admitted, Question::MarketRecord, query).await
}

/// Tells the balance.
#[utoipa::path(
    get,
    path = "/api/v1/chat/credit",
    tag = "provider's API",
    operation_id = "chat_credit",
    responses(OfQuestion),
    security(("provider_key" = [])),
)]
async fn credit(app: State<App>, admitted: Admitted, query: RawQuery) -> Result<Response, Failure> {
    ask(app, admitted, Question::Credit, query).await
}

async fn submit(
    (State(app), Admitted(caller)): (State<App>, Admitted),
    endpoint: Endpoint,
    ((RawQuery(query), headers), body): Submitted,
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

/// Gives a link to a file by its URL.
#[utoipa::path(
    post,
    path = "/api/v1/common/download-url",
    tag = "provider's API",
    operation_id = "common_download_url",
    request_body(content = Object, example = json!({"url": "https://media.example.com/a.mp4"})),
    responses(OfOrder),
    security(("provider_key" = [])),
)]
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
