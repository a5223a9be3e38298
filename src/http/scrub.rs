//! `/v1/scrub`: reading all stored files again, begun, watched and stopped.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::App;
use super::problem::Problem;
use crate::clock::rfc3339;
use crate::scrub::{BeginError, Progress};
use crate::store::StoreError;
use crate::store::scrub::{Finding, Orders, Scrub};

/// How to scrub.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    #[serde(default)]
    repair: bool,
}

/// A scrub, as far as it came.
#[derive(Debug, Serialize)]
struct ScrubView {
    id: String,
    began_at: String,
    ended_at: Option<String>,
    complete: bool,
    background: bool,
    repair: bool,
    files: i64,
    files_total: i64,
    bytes: i64,
    bytes_total: i64,
    bytes_per_second: Option<u64>,
    waits: Option<String>,
    /// Why it ended before its time by itself.
    reason: Option<String>,
    damaged: i64,
    missing: i64,
    unreadable: i64,
    repaired: i64,
    findings: Vec<FindingView>,
}

#[derive(Debug, Serialize)]
struct FindingView {
    task_id: String,
    source: String,
    name: String,
    wrong: String,
    detail: String,
    queued: bool,
}

/// Begins a scrub, which runs on whether or not anybody watches.
pub(super) async fn begin(
    State(app): State<App>,
    body: Result<Json<Begin>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(Begin { repair }) = body?;
    let orders = Orders {
        background: false,
        repair,
    };
    let scrub = app.scrubber.begin(orders).await?;
    tracing::info!(repair, "a scrub was asked for");
    let view = view(scrub, None, Vec::new());
    Ok(app.redactor().json(StatusCode::ACCEPTED, &view))
}

/// The scrub that runs, and the last one that ended.
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
    let answer = json!({"running": running, "last": last});
    Ok(app.redactor().json(StatusCode::OK, &answer))
}

/// Ends the running scrub where it is.
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
pub(super) async fn summary(app: &App) -> Result<Option<Value>, StoreError> {
    let last = app.store.last_complete_scrub().await?;
    Ok(last.map(|scrub| {
        let tally = scrub.tally;
        json!({
            "began_at": rfc3339(scrub.began_at),
            "ended_at": scrub.ended_at.map(rfc3339),
            "files": tally.files,
            "bytes": tally.bytes,
            "damaged": tally.damaged,
            "missing": tally.missing,
            "unreadable": tally.unreadable,
            "repaired": tally.repaired,
        })
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
