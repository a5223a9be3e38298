//! `/v1/tasks/{task_id}/attempts`: how the files of a task came, step by step.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::openapi::words::TaskId;
use super::problem::{Path, Problem};
use super::tasks::{Select, find};
use crate::clock::rfc3339;
use crate::download::remedy;
use crate::store::attempts::AttemptRecord;

/// What the files of a task went through.
#[derive(Debug, Serialize, ToSchema)]
struct AttemptList<'a> {
    attempts: Vec<AttemptView<'a>>,
}

/// A step of a file: an attempt to fetch it, or another link to it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(super) struct AttemptView<'a> {
    /// The file, by the name that it has now.
    #[schema(example = "result-0.mp4")]
    name: &'a str,
    /// Which step of the file, counting from 1.
    #[schema(minimum = 1)]
    n: i64,
    #[schema(format = DateTime)]
    began_at: String,
    #[schema(format = DateTime)]
    ended_at: String,
    /// `stored`; a code of `files[].error`; `stopped` in good order, or `interrupted`, where the server ended; `refreshed` or
    /// `not_refreshed`, where the provider was asked for another link.
    #[schema(example = "expired")]
    outcome: &'a str,
    /// A sentence about it.
    detail: Option<&'a str>,
    /// A sentence that says what to do.
    remedy: Option<&'static str>,
    /// Bytes of the file that were there in the end, those of earlier attempts included.
    #[schema(minimum = 0)]
    bytes: Option<i64>,
}

impl<'a> From<&'a AttemptRecord> for AttemptView<'a> {
    fn from(attempt: &'a AttemptRecord) -> Self {
        Self {
            name: &attempt.name,
            n: attempt.n,
            began_at: rfc3339(attempt.began_at),
            ended_at: rfc3339(attempt.ended_at),
            outcome: &attempt.outcome,
            detail: attempt.detail.as_deref(),
            remedy: remedy(&attempt.outcome),
            bytes: attempt.bytes,
        }
    }
}

/// Lists what the files of one task went through, in the order in which each step ended.
///
/// The newest 20 steps of each file are kept, and go with the task.
#[utoipa::path(
    get,
    path = "/v1/tasks/{task_id}/attempts",
    tag = "tasks",
    operation_id = "list_attempts",
    params(("task_id" = inline(TaskId), Path, description = "The task.", example = "veo_task_1"), Select),
    responses(
        (status = 200, description = "The steps.", body = AttemptList),
        (status = 404, description = "unknown_task"),
        (status = 409, description = "ambiguous_source"),
    ),
)]
pub(super) async fn of_task(
    State(app): State<App>,
    Path(task_id): Path<String>,
    query: Result<Query<Select>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let task = find(&app, &task_id, query.source.as_deref()).await?;
    let attempts = app.store.attempts(task.row).await?;
    let answer = AttemptList {
        attempts: attempts.iter().map(AttemptView::from).collect(),
    };
    Ok(app.redactor().json(StatusCode::OK, &answer))
}
