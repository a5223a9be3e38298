//! `/v1/tasks/{task_id}/attempts`: how the files of a task came, step by step.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::App;
use super::problem::{Path, Problem};
use super::tasks::{Select, find};
use crate::clock::rfc3339;
use crate::download::remedy;
use crate::store::attempts::AttemptRecord;

#[derive(Debug, Serialize)]
struct AttemptList<'a> {
    attempts: Vec<AttemptView<'a>>,
}

/// A step of a file: an attempt to fetch it, or another link to it.
#[derive(Debug, Serialize)]
struct AttemptView<'a> {
    name: &'a str,
    n: i64,
    began_at: String,
    ended_at: String,
    outcome: &'a str,
    detail: Option<&'a str>,
    remedy: Option<&'static str>,
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

/// What the files of one task went through, in the order in which it ended.
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
