//! `/v1/scrub`: reading all stored files again, begun, watched and stopped.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::App;
use super::openapi::words::Wrong;
use super::problem::Problem;
use super::tasks::object;
use crate::clock::rfc3339;
use crate::scrub::{BeginError, Progress};
use crate::store::StoreError;
use crate::store::scrub::{Finding, Orders, Scrub};

/// How to scrub.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ScrubOrder)]
pub(super) struct Begin {
    /// Whether damaged and missing files are fetched again, where their source may still have them.
    #[serde(default)]
    repair: bool,
}

/// A scrub, as far as it came.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Scrub)]
struct ScrubView {
    id: String,
    #[schema(format = DateTime)]
    began_at: String,
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// False of one that is under way, was stopped, or ended by itself.
    complete: bool,
    /// Whether it came by itself (`scrub.every`).
    background: bool,
    /// Whether damaged and missing files are fetched again.
    repair: bool,
    /// How many it has looked at.
    #[schema(minimum = 0)]
    files: i64,
    /// How many there were when it began.
    #[schema(minimum = 0)]
    files_total: i64,
    /// How many it has read.
    #[schema(minimum = 0)]
    bytes: i64,
    /// How many there were when it began.
    #[schema(minimum = 0)]
    bytes_total: i64,
    /// Null of one that has ended.
    bytes_per_second: Option<u64>,
    /// Why it does not go on at the moment.
    waits: Option<String>,
    /// Why it ended before its time by itself.
    reason: Option<String>,
    /// Files with other bytes than were stored.
    #[schema(minimum = 0)]
    damaged: i64,
    /// Files that are not there.
    #[schema(minimum = 0)]
    missing: i64,
    /// Files that the storage failed to give.
    #[schema(minimum = 0)]
    unreadable: i64,
    /// Files that are fetched again, or were put back.
    #[schema(minimum = 0)]
    repaired: i64,
    /// The first 1,000 files that something is wrong with.
    findings: Vec<FindingView>,
}

/// A stored file that something is wrong with.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Finding)]
struct FindingView {
    task_id: String,
    source: String,
    name: String,
    #[schema(value_type = Wrong)]
    wrong: String,
    /// A sentence for people.
    detail: String,
    /// Whether it is fetched again.
    queued: bool,
}

/// How it is with scrubs.
#[derive(Serialize, ToSchema)]
pub(super) struct Scrubs {
    /// The one under way.
    running: Option<ScrubView>,
    /// The last one that ended.
    last: Option<ScrubView>,
}

/// A scrub that looked at everything.
#[derive(Serialize, ToSchema)]
pub(super) struct ScrubSummary {
    #[schema(format = DateTime)]
    began_at: String,
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    #[schema(minimum = 0)]
    files: i64,
    #[schema(minimum = 0)]
    bytes: i64,
    #[schema(minimum = 0)]
    damaged: i64,
    #[schema(minimum = 0)]
    missing: i64,
    #[schema(minimum = 0)]
    unreadable: i64,
    #[schema(minimum = 0)]
    repaired: i64,
}

/// Begins to read every stored file again.
///
/// Each file's length and SHA-256 are compared with its record. It runs on whether or not anybody watches, and goes on after a
/// restart.
#[utoipa::path(
    post,
    path = "/v1/scrub",
    tag = "server",
    operation_id = "begin_scrub",
    request_body(content = Begin, example = json!({"repair": false})),
    responses(
        (status = 202, description = "It runs.", body = ScrubView),
        (status = 409, description = "scrub_running"),
        (status = 413, description = "too_large"),
        (status = 415, description = "unsupported_media_type"),
    ),
)]
pub(super) async fn begin(
    State(app): State<App>,
    body: Result<Json<Box<RawValue>>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(body) = body?;
    let bad = |error| Problem::bad_request(format!("how to scrub is malformed: {error}"));
    let Begin { repair } = object(&body).map_err(bad)?;
    let orders = Orders {
        background: false,
        repair,
    };
    let scrub = app.scrubber.begin(orders).await?;
    tracing::info!(repair, "a scrub was asked for");
    let view = view(scrub, None, Vec::new());
    Ok(app.redactor().json(StatusCode::ACCEPTED, &view))
}

/// Tells how far the scrub is, and what the last one found.
#[utoipa::path(
    get,
    path = "/v1/scrub",
    tag = "server",
    operation_id = "show_scrub",
    responses((status = 200, description = "Both, as far as there are any.", body = Scrubs)),
)]
pub(super) async fn show(State(app): State<App>) -> Result<Response, Problem> {
    let running = match app.scrubber.progress().await {
        Some(progress) => {
            let findings = app.store.scrub_findings(progress.scrub.id).await?;
            Some(view(progress.scrub, Some(progress), findings))
        }
        None => None,
    };
    let last = match app.store.last_scrub().await? {
        Some(scrub) => Some(view(scrub, None, app.store.scrub_findings(scrub.id).await?)),
        None => None,
    };
    Ok(app.redactor().json(StatusCode::OK, &Scrubs { running, last }))
}

/// Ends the running scrub where it is.
#[utoipa::path(
    delete,
    path = "/v1/scrub",
    tag = "server",
    operation_id = "stop_scrub",
    responses(
        (status = 202, description = "It ends."),
        (status = 404, description = "no_scrub"),
    ),
)]
pub(super) async fn stop(State(app): State<App>) -> Result<StatusCode, Problem> {
    if app.scrubber.stop().await {
        return Ok(StatusCode::ACCEPTED);
    }
    Err(Problem::new(
        StatusCode::NOT_FOUND,
        "no_scrub",
        "no scrub is under way",
    ))
}

/// The last complete scrub, for `/v1/stats`.
pub(super) async fn summary(app: &App) -> Result<Option<ScrubSummary>, StoreError> {
    let last = app.store.last_complete_scrub().await?;
    Ok(last.map(|scrub| {
        let tally = scrub.tally;
        ScrubSummary {
            began_at: rfc3339(scrub.began_at),
            ended_at: scrub.ended_at.map(rfc3339),
            files: tally.files,
            bytes: tally.bytes,
            damaged: tally.damaged,
            missing: tally.missing,
            unreadable: tally.unreadable,
            repaired: tally.repaired,
        }
    }))
}

/// A scrub as the API shows it; for those who scrub without a server.
pub fn scrub_json(scrub: Scrub, progress: Option<Progress>, findings: Vec<Finding>) -> Value {
    json!(view(scrub, progress, findings))
}

fn view(scrub: Scrub, progress: Option<Progress>, findings: Vec<Finding>) -> ScrubView {
    let tally = scrub.tally;
    let of_file = progress.as_ref().map_or(0, |progress| progress.of_file);
    ScrubView {
        id: scrub.id.to_string(),
        began_at: rfc3339(scrub.began_at),
        ended_at: scrub.ended_at.map(rfc3339),
        complete: scrub.complete,
        background: scrub.orders.background,
        repair: scrub.orders.repair,
        files: tally.files,
        files_total: scrub.files_total,
        bytes: tally.bytes.saturating_add_unsigned(of_file),
        bytes_total: scrub.bytes_total,
        reason: scrub.reason(),
        bytes_per_second: progress.as_ref().map(|progress| progress.bytes_per_second),
        waits: progress.and_then(|progress| progress.waits),
        damaged: tally.damaged,
        missing: tally.missing,
        unreadable: tally.unreadable,
        repaired: tally.repaired,
        findings: findings.into_iter().map(of_finding).collect(),
    }
}

fn of_finding(finding: Finding) -> FindingView {
    FindingView {
        task_id: finding.task_id,
        source: finding.source,
        name: finding.name,
        wrong: finding.wrong,
        detail: finding.detail,
        queued: finding.queued,
    }
}

impl From<BeginError> for Problem {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::UnderWay => Self::new(
                StatusCode::CONFLICT,
                "scrub_running",
                "a scrub is under way; GET /v1/scrub tells how far it is, DELETE /v1/scrub stops it",
            ),
            BeginError::Store(error) => error.into(),
        }
    }
}
