//! `/v1/tasks` and `/v1/stats`.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::App;
use super::problem::{Path, Problem};
use super::scrub;
use super::views::{Seen, TaskView, apis_paused};
use crate::clock::{parse_rfc3339, rfc3339};
use crate::dropin::prompt_of;
use crate::provider::{Kind, TaskId};
use crate::retention::remove_task;
use crate::store::StoreError;
use crate::store::expect::Expectation;
use crate::store::tasks::{TaskFilter, TaskRecord};

/// Longest `?wait=`; a client that wants more asks again.
const MAX_WAIT: Duration = Duration::from_mins(1);
/// Tasks are looked at again at most this often while somebody waits, however much else changes.
const WAIT_PAUSE: Duration = Duration::from_millis(50);
/// Rows on a page, at most and unless asked otherwise.
const MAX_LIMIT: i64 = 200;
const DEFAULT_LIMIT: i64 = 50;
/// Tasks that one request may expect.
const MAX_EXPECTED: usize = 1_000;

/// What selects one of several sources that share an id, and how long to wait.
#[derive(Debug, Deserialize)]
pub(super) struct Select {
    pub(super) source: Option<String>,
    wait: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    state: Option<String>,
    media: Option<String>,
    source: Option<String>,
    q: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct TaskList<'a> {
    tasks: Vec<TaskView<'a>>,
    next_cursor: Option<String>,
}

pub(super) async fn list(
    State(app): State<App>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let filter = TaskFilter {
        state: one_of("state", query.state, &["pending", "succeeded", "failed"])?,
        media: one_of(
            "media",
            query.media,
            &["none", "downloading", "queued", "stored", "failed", "partial"],
        )?,
        source: query.source,
        prefix: query.q.filter(|prefix| !prefix.is_empty()),
        since: moment("since", query.since.as_deref())?,
        until: moment("until", query.until.as_deref())?,
        before: cursor(query.cursor.as_deref())?,
        limit: limit(query.limit.as_deref())?,
    };
    let page = app.store.list_tasks(&filter).await?;
    let seen = Seen::by(&app);
    let answer = TaskList {
        tasks: page.items.iter().map(|task| TaskView::of(task, &seen)).collect(),
        next_cursor: page.next.map(|next| next.to_string()),
    };
    Ok(app.redactor().json(StatusCode::OK, &answer))
}

/// One task; with `wait`, once nothing more is awaited of it or the time is over.
pub(super) async fn show(
    State(app): State<App>,
    Path(task_id): Path<String>,
    query: Result<Query<Select>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let wait = query.wait.as_deref().map(parse_wait).transpose()?;
    let task = match wait {
        None => find(&app, &task_id, query.source.as_deref()).await?,
        Some(wait) => wait_for(&app, &task_id, query.source.as_deref(), wait).await?,
    };
    Ok(app
        .redactor()
        .json(StatusCode::OK, &TaskView::of(&task, &Seen::by(&app))))
}

/// Looks again after every commit that changed something, until the task is settled.
async fn wait_for(
    app: &App,
    task_id: &str,
    source: Option<&str>,
    wait: Duration,
) -> Result<TaskRecord, Problem> {
    let deadline = tokio::time::Instant::now() + wait;
    let mut changes = app.store.changes();
    loop {
        // Before the look: a change during it is then seen by the next wait.
        changes.mark_unchanged();
        let found = find(app, task_id, source).await;
        match &found {
            Ok(task) if task.is_settled() => return found,
            // It may be unknown only because its callback is still on the way.
            Err(problem) if problem.code() != "unknown_task" => return found,
            _ => {}
        }
        tokio::select! {
            seen = changes.changed() => seen.map_err(|_| StoreError::Closed)?,
            () = tokio::time::sleep_until(deadline) => return found,
            () = app.tasks.draining() => return found,
        }
        tokio::time::sleep(WAIT_PAUSE).await;
    }
}

/// The one task of that id, or a problem that says why there is no one.
pub(super) async fn find(app: &App, task_id: &str, source: Option<&str>) -> Result<TaskRecord, Problem> {
    let mut found = app.store.tasks_by_id(task_id, source).await?;
    match found.len() {
        0 => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "unknown_task",
            format!(
                "no task {task_id} is known{}",
                source.map_or(String::new(), |source| format!(" of source {source}"))
            ),
        )),
        1 => Ok(found.remove(0)),
        _ => {
            let sources: Vec<_> = found.iter().map(|task| task.source.as_str()).collect();
            Err(Problem::new(
                StatusCode::CONFLICT,
                "ambiguous_source",
                format!(
                    "several sources have this task; add ?source= with one of: {}",
                    sources.join(", ")
                ),
            ))
        }
    }
}

/// A task to expect, as submitted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    task_id: TaskId,
    source: Option<String>,
    #[serde(default = "Kind::video")]
    kind: Kind,
    #[serde(default)]
    index: u32,
    family: Option<String>,
    params: Option<Box<RawValue>>,
    #[serde(default)]
    ask: Ask,
}

/// When the provider is asked about a task: once it has been silent for `reconcile.after`, or at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    #[default]
    Later,
    Now,
}

/// Notes tasks whose callbacks are awaited: 201 if any of them was unknown, else 200.
pub(super) async fn expect(
    State(app): State<App>,
    body: Result<Json<Box<RawValue>>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(body) = body?;
    let (expected, single) = parse_expected(&body)?;
    let expected = expected
        .into_iter()
        .map(|expected| expectation(&app, expected))
        .collect::<Result<Vec<_>, _>>()?;
    let total = expected.len() as u64;
    let of_single = expected
        .first()
        .map(|first| (first.task_id.to_string(), first.source.clone()));
    let created = app.store.expect_tasks(expected).await?;
    let status = if created > 0 {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    if let (true, Some((task_id, source))) = (single, of_single) {
        let task = find(&app, &task_id, Some(&source)).await?;
        return Ok(app.redactor().json(status, &TaskView::of(&task, &Seen::by(&app))));
    }
    Ok((
        status,
        Json(json!({"created": created, "known": total - created})),
    )
        .into_response())
}

/// One task or an array of them; the flag tells which.
fn parse_expected(body: &RawValue) -> Result<(Vec<Expected>, bool), Problem> {
    let bad =
        |error: serde_json::Error| Problem::bad_request(format!("a task to expect is malformed: {error}"));
    let text = body.get();
    if !text.starts_with('[') {
        return Ok((vec![serde_json::from_str(text).map_err(bad)?], true));
    }
    let many: Vec<Expected> = serde_json::from_str(text).map_err(bad)?;
    if many.is_empty() || many.len() > MAX_EXPECTED {
        return Err(Problem::bad_request(format!(
            "send 1 to {MAX_EXPECTED} tasks at a time"
        )));
    }
    Ok((many, false))
}

fn expectation(app: &App, expected: Expected) -> Result<Expectation, Problem> {
    let sources = app.ingest.sources();
    let names: Vec<_> = sources.keys().map(crate::config::SourceName::as_str).collect();
    let source = match (&expected.source, names.as_slice()) {
        (Some(source), _) if names.contains(&source.as_str()) => source.clone(),
        (None, [only]) => (*only).to_owned(),
        _ => {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unknown_source",
                format!(
                    "name the source of the task; configured are: {}",
                    names.join(", ")
                ),
            ));
        }
    };
    Ok(Expectation {
        source,
        prompt: expected
            .params
            .as_deref()
            .and_then(|params| prompt_of(params.get())),
        task_id: expected.task_id,
        kind: expected.kind,
        index: expected.index,
        ask_now: expected.ask == Ask::Now,
        family: expected.family,
        params: expected.params.map(|params| params.get().to_owned()),
    })
}

/// Deletes a task, its records and its files; a tombstone keeps late callbacks from reviving it.
pub(super) async fn delete(
    State(app): State<App>,
    Path(task_id): Path<String>,
    query: Result<Query<Select>, QueryRejection>,
) -> Result<StatusCode, Problem> {
    let Query(query) = query?;
    let task = find(&app, &task_id, query.source.as_deref()).await?;
    // Spawned: once the rows are gone the files follow, whether or not the client waits.
    let work = app.clone();
    app.tasks
        .spawn(async move {
            let rows = work.store.delete_task(task.row);
            remove_task((&work.store, &work.storage), (&task.source, &task.task_id), rows).await
        })
        .await
        .map_err(|error| Problem::internal(&error))??;
    tracing::info!(task.id = task_id, "task deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Queues the task's failed downloads again.
pub(super) async fn retry(
    State(app): State<App>,
    Path(task_id): Path<String>,
    query: Result<Query<Select>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let task = find(&app, &task_id, query.source.as_deref()).await?;
    let queued = app.store.retry_task(task.row).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"queued": queued}))).into_response())
}

/// Counts of everything.
pub(super) async fn stats(State(app): State<App>) -> Result<Response, Problem> {
    let mut counts = app.store.counts().await?;
    // To those who ask, a file that waits for another URL waits.
    if let Some(waiting) = counts.files.remove("needs_url") {
        *counts.files.entry("queued".to_owned()).or_default() += waiting;
    }
    let paused = app.pause.reason();
    let paused = paused.as_ref();
    let answer = json!({
        "tasks": counts.tasks,
        "files": counts.files,
        "oldest_queued_at": counts.oldest_queued_at.map(rfc3339),
        "stored_bytes": counts.stored_bytes,
        "paused": paused.map(|reason| &reason.detail),
        "paused_code": paused.map(|reason| reason.code),
        "paused_since": paused.map(|reason| rfc3339(reason.since)),
        "repaired": counts.repaired,
        "asks": {"open": counts.asks, "paused": apis_paused(&app)},
        "scrub": scrub::summary(&app).await?,
    });
    Ok(Json(answer).into_response())
}

/// Rows on a page: 1 to [`MAX_LIMIT`].
pub(super) fn limit(text: Option<&str>) -> Result<i64, Problem> {
    let Some(text) = text else {
        return Ok(DEFAULT_LIMIT);
    };
    match text.parse() {
        Ok(limit @ 1..=MAX_LIMIT) => Ok(limit),
        _ => Err(Problem::bad_request(format!(
            "limit is a number from 1 to {MAX_LIMIT}"
        ))),
    }
}

/// A cursor as `next_cursor` gave it.
pub(super) fn cursor(text: Option<&str>) -> Result<Option<i64>, Problem> {
    text.map(|text| {
        text.parse()
            .map_err(|_| Problem::bad_request("cursor is what next_cursor of the page before says"))
    })
    .transpose()
}

/// A word of a fixed list.
pub(super) fn one_of(name: &str, text: Option<String>, words: &[&str]) -> Result<Option<String>, Problem> {
    match text {
        Some(text) if !words.contains(&text.as_str()) => Err(Problem::bad_request(format!(
            "{name} is one of: {}",
            words.join(", ")
        ))),
        text => Ok(text),
    }
}

/// A moment as RFC 3339 writes it.
pub(super) fn moment(name: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    text.map(|text| {
        parse_rfc3339(text)
            .ok_or_else(|| Problem::bad_request(format!("{name} is a time such as 2026-11-21T09:30:00Z")))
    })
    .transpose()
}

/// `30s`, `1m` or plain seconds, at most [`MAX_WAIT`].
fn parse_wait(text: &str) -> Result<Duration, Problem> {
    let seconds = text.parse().map(Duration::from_secs).ok();
    let wait = seconds.or_else(|| text.parse::<jiff::SignedDuration>().ok()?.try_into().ok());
    wait.map(|wait| wait.min(MAX_WAIT))
        .ok_or_else(|| Problem::bad_request("wait is a duration such as 30s, at most 60s"))
}
