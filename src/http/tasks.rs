//! `/v1/tasks` and `/v1/stats`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::App;
use super::openapi::words::{self, Cursor, MEDIA, Media, TASK_STATES, TaskState};
use super::problem::{Path, Problem};
use super::scrub::{self, ScrubSummary};
use super::views::{ApiPause, Seen, TaskView, apis_paused};
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

/// What selects one of several sources that share an id.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Select {
    /// Where two sources share the id: which one.
    #[param(example = "kie")]
    pub(super) source: Option<String>,
}

/// The same, and how long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ShowQuery {
    /// Where two sources share the id: which one.
    #[param(example = "kie")]
    source: Option<String>,
    /// Answers once the state is final and every file is stored or failed, or with what is known when this is over: a
    /// duration or seconds, 60 s at most; more counts as 60.
    #[param(example = "30s")]
    wait: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only tasks in this state.
    #[param(inline, value_type = Option<TaskState>)]
    pub(super) state: Option<String>,
    /// Only tasks whose files are so.
    #[param(inline, value_type = Option<Media>)]
    pub(super) media: Option<String>,
    /// Only tasks of this source.
    #[param(example = "kie")]
    pub(super) source: Option<String>,
    /// Only tasks whose ids begin so.
    pub(super) q: Option<String>,
    /// Only tasks whose prompts have all these words; the last may be the beginning of one.
    pub(super) words: Option<String>,
    /// Only tasks that were first heard of at this moment or after.
    #[param(format = DateTime)]
    pub(super) since: Option<String>,
    /// Only tasks that were first heard of before this moment.
    #[param(format = DateTime)]
    pub(super) until: Option<String>,
    /// Tasks on a page.
    #[param(value_type = Option<u8>, minimum = 1, maximum = 200, default = 50)]
    pub(super) limit: Option<String>,
    /// `next_cursor` of the page before.
    #[param(inline, value_type = Option<Cursor>)]
    pub(super) cursor: Option<String>,
}

/// A page of tasks.
#[derive(Serialize, ToSchema)]
struct TaskList<'a> {
    tasks: Vec<TaskView<'a>>,
    /// Null at the end.
    #[schema(value_type = Option<Cursor>)]
    next_cursor: Option<String>,
    /// Tasks whose words cannot be found yet, in an answer about words.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    not_indexed: Option<i64>,
}

/// Lists tasks, newest first.
///
/// By order of recording. A page examines at most 10,000 tasks and may then be short and still have a `next_cursor`: only null
/// is the end.
#[utoipa::path(
    get,
    path = "/v1/tasks",
    tag = "tasks",
    operation_id = "list_tasks",
    params(ListQuery),
    responses((status = 200, description = "A page of them.", body = TaskList)),
)]
pub(super) async fn list(
    State(app): State<App>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let filter = filter(query)?;
    let page = app.store.list_tasks(&filter).await?;
    let not_indexed = match filter.words {
        Some(_) => Some(app.store.prompts_left().await?).filter(|left| *left > 0),
        None => None,
    };
    let seen = Seen::by(&app);
    let answer = TaskList {
        tasks: page.items.iter().map(|task| TaskView::of(task, &seen)).collect(),
        next_cursor: page.next.map(|next| next.to_string()),
        not_indexed,
    };
    Ok(app.redactor().json(StatusCode::OK, &answer))
}

/// Which tasks a query means.
pub(super) fn filter(query: ListQuery) -> Result<TaskFilter, Problem> {
    Ok(TaskFilter {
        state: one_of("state", query.state, &TASK_STATES)?,
        media: one_of("media", query.media, &MEDIA)?,
        source: query.source,
        prefix: query.q.filter(|prefix| !prefix.is_empty()),
        words: query.words,
        since: moment("since", query.since.as_deref())?,
        until: moment("until", query.until.as_deref())?,
        before: cursor(query.cursor.as_deref())?,
        limit: limit(query.limit.as_deref())?,
    })
}

/// Shows one task with its outcomes and files.
///
/// With `wait`, once nothing more is awaited of it, or the time is over. The task need not be known yet: the answer is then 404
/// at the end.
#[utoipa::path(
    get,
    path = "/v1/tasks/{task_id}",
    tag = "tasks",
    operation_id = "show_task",
    params(("task_id" = inline(words::TaskId), Path, description = "The task.", example = "veo_task_1"), ShowQuery),
    responses(
        (status = 200, description = "The task.", body = TaskView),
        (status = 404, description = "unknown_task"),
        (status = 409, description = "ambiguous_source"),
    ),
)]
pub(super) async fn show(
    State(app): State<App>,
    Path(task_id): Path<String>,
    query: Result<Query<ShowQuery>, QueryRejection>,
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
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ExpectedTask)]
pub(super) struct Expected {
    #[schema(value_type = words::TaskId)]
    task_id: TaskId,
    /// May be left out if only one is configured.
    #[schema(example = "kie")]
    source: Option<String>,
    /// Which result is awaited.
    #[serde(default = "Kind::video")]
    #[schema(value_type = words::Kind, default = "video")]
    kind: Kind,
    /// Which of several of the kind.
    #[serde(default, deserialize_with = "whole")]
    #[schema(format = "uint32", maximum = 4_294_967_295u32, default = 0)]
    index: u32,
    /// Which record the provider is asked for: `veo`, `veo-extend` or `market`. Without it, all are tried; of any other the
    /// provider cannot be asked.
    #[schema(example = "veo")]
    family: Option<String>,
    /// Anything; it is recorded, and the prompt is taken from `prompt` or `input.prompt` in it.
    #[schema(value_type = Value, required = false, example = json!({"prompt": "A red fox in the snow"}))]
    params: Option<Box<RawValue>>,
    #[serde(default)]
    #[schema(default = "later")]
    ask: Ask,
}

/// JSON knows one kind of number: to a schema, `2.0` is as good an integer as `2`.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    // Adding nothing makes a zero of a negative one. No `u32` is lost on the way.
    let number = f64::deserialize(deserializer)? + 0.0;
    let whole = number.to_string().parse();
    whole.map_err(|_| D::Error::custom(format!("{number} is no whole number from 0 to {}", u32::MAX)))
}

/// When the provider is asked about a task: once it has been silent for `reconcile.after`, or at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AskWhen)]
enum Ask {
    #[default]
    Later,
    Now,
}

/// What tasks to expect come as.
enum OneOrMany {}

impl PartialSchema for OneOrMany {
    fn schema() -> RefOr<Schema> {
        let one = Ref::from_schema_name(Expected::name());
        let many = ArrayBuilder::new()
            .items(one.clone())
            .min_items(Some(1))
            .max_items(Some(MAX_EXPECTED));
        OneOfBuilder::new().item(one).item(many).into()
    }
}

impl ToSchema for OneOrMany {
    fn schemas(known: &mut Vec<(String, RefOr<Schema>)>) {
        known.push((Expected::name().into_owned(), Expected::schema()));
        Expected::schemas(known);
    }
}

/// What became of an array of tasks to expect.
#[derive(Serialize, ToSchema)]
struct Announced {
    /// How many are new.
    created: u64,
    /// How many were known.
    known: u64,
}

/// The task that was announced, or, of an array, how many are new.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    reason = "the document alone needs it: the two are answered by themselves"
)]
enum TaskOrCounts<'a> {
    Task(Box<TaskView<'a>>),
    Counts(Announced),
}

/// Announces tasks whose callbacks are awaited.
///
/// One task, or 1 to 1,000 in an array, so that they are listed as `pending` before any callback, and asked for if none comes.
/// What a callback has told already stays. A task that was deleted may come back this way. At most 8 MiB.
#[utoipa::path(
    post,
    path = "/v1/tasks",
    tag = "tasks",
    operation_id = "expect_tasks",
    request_body(
        content = inline(OneOrMany),
        examples(
            ("one" = (value = json!({"task_id": "veo_task_1", "params": {"prompt": "A red fox in the snow"}}))),
            ("many" = (value = json!([{"task_id": "veo_task_1"}, {"task_id": "veo_task_2", "kind": "4k"}]))),
        ),
    ),
    responses(
        (status = 201, description = "At least one of them was unknown.", body = inline(TaskOrCounts)),
        (status = 200, description = "All were known.", body = inline(TaskOrCounts)),
        (status = 413, description = "too_large"),
        (status = 415, description = "unsupported_media_type"),
        (status = 422, description = "unknown_source"),
    ),
)]
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
    let announced = Announced {
        created,
        known: total - created,
    };
    Ok((status, Json(announced)).into_response())
}

/// One task or an array of them; the flag tells which.
fn parse_expected(body: &RawValue) -> Result<(Vec<Expected>, bool), Problem> {
    let bad =
        |error: serde_json::Error| Problem::bad_request(format!("a task to expect is malformed: {error}"));
    let text = body.get();
    if !text.starts_with('[') {
        return Ok((vec![object(body).map_err(bad)?], true));
    }
    let many: Vec<Box<RawValue>> = serde_json::from_str(text).map_err(bad)?;
    if many.is_empty() || many.len() > MAX_EXPECTED {
        return Err(Problem::bad_request(format!(
            "send 1 to {MAX_EXPECTED} tasks at a time"
        )));
    }
    let many = many.iter().map(|one| object(one).map_err(bad));
    Ok((many.collect::<Result<_, _>>()?, false))
}

/// Reads an object. As serde would have it, an array of its fields in their order would do.
pub(super) fn object<T: DeserializeOwned>(json: &RawValue) -> Result<T, serde_json::Error> {
    if !json.get().starts_with('{') {
        return Err(serde_json::Error::custom("an object is expected"));
    }
    serde_json::from_str(json.get())
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

/// Deletes a task with its records and its files.
///
/// A tombstone keeps late callbacks from reviving it: they are answered 200 and noted without their bodies.
#[utoipa::path(
    delete,
    path = "/v1/tasks/{task_id}",
    tag = "tasks",
    operation_id = "delete_task",
    params(("task_id" = inline(words::TaskId), Path, description = "The task.", example = "veo_task_2"), Select),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, description = "unknown_task"),
        (status = 409, description = "ambiguous_source"),
    ),
)]
pub(super) async fn delete(
    State(app): State<App>,
    Path(task_id): Path<String>,
    query: Result<Query<Select>, QueryRejection>,
) -> Result<StatusCode, Problem> {
    let Query(query) = query?;
    let task = find(&app, &task_id, query.source.as_deref()).await?;
    remove(&app, task).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a task for good.
pub(super) async fn remove(app: &App, task: TaskRecord) -> Result<(), Problem> {
    let task_id = task.task_id.clone();
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
    Ok(())
}

/// How many downloads were queued.
#[derive(Serialize, ToSchema)]
struct Queued {
    queued: u64,
}

/// Queues the task's failed downloads again, with fresh attempts.
#[utoipa::path(
    post,
    path = "/v1/tasks/{task_id}/retry",
    tag = "tasks",
    operation_id = "retry_task",
    params(("task_id" = inline(words::TaskId), Path, description = "The task.", example = "veo_task_1"), Select),
    responses(
        (status = 202, description = "They are queued.", body = Queued),
        (status = 404, description = "unknown_task"),
        (status = 409, description = "ambiguous_source"),
    ),
)]
pub(super) async fn retry(
    State(app): State<App>,
    Path(task_id): Path<String>,
    query: Result<Query<Select>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let task = find(&app, &task_id, query.source.as_deref()).await?;
    let queued = app.store.retry_task(task.row).await?;
    Ok((StatusCode::ACCEPTED, Json(Queued { queued })).into_response())
}

/// Counts of everything.
#[derive(Serialize, ToSchema)]
struct Stats {
    /// Tasks by state; states without any are left out.
    tasks: BTreeMap<String, i64>,
    /// Files by state; states without any are left out.
    files: BTreeMap<String, i64>,
    /// When the download that waits longest was queued.
    #[schema(format = DateTime)]
    oldest_queued_at: Option<String>,
    /// Bytes of all stored files.
    stored_bytes: i64,
    /// Why nothing is fetched at the moment, in a sentence.
    paused: Option<String>,
    /// The same in a word.
    #[schema(example = "disk_full")]
    paused_code: Option<&'static str>,
    /// Since when.
    #[schema(format = DateTime)]
    paused_since: Option<String>,
    /// Tasks whose first final outcome came by asking the provider: 0 where all is well.
    repaired: i64,
    asks: Asks,
    /// The last scrub that looked at everything.
    scrub: Option<ScrubSummary>,
}

/// What the provider is asked.
#[derive(Serialize, ToSchema)]
struct Asks {
    /// Open questions by reason.
    open: BTreeMap<String, i64>,
    /// The sources whose provider is left alone for now.
    paused: BTreeMap<String, ApiPause>,
}

/// Tells the counts of everything.
#[utoipa::path(
    get,
    path = "/v1/stats",
    tag = "server",
    operation_id = "show_stats",
    responses((status = 200, description = "The counts.", body = Stats)),
)]
pub(super) async fn stats(State(app): State<App>) -> Result<Response, Problem> {
    let mut counts = app.store.counts().await?;
    // To those who ask, a file that waits for another URL waits.
    if let Some(waiting) = counts.files.remove("needs_url") {
        *counts.files.entry("queued".to_owned()).or_default() += waiting;
    }
    let paused = app.pause.reason();
    let paused = paused.as_ref();
    let answer = Stats {
        tasks: counts.tasks,
        files: counts.files,
        oldest_queued_at: counts.oldest_queued_at.map(rfc3339),
        stored_bytes: counts.stored_bytes,
        paused: paused.map(|reason| reason.detail.clone()),
        paused_code: paused.map(|reason| reason.code),
        paused_since: paused.map(|reason| rfc3339(reason.since)),
        repaired: counts.repaired,
        asks: Asks {
            open: counts.asks,
            paused: apis_paused(&app),
        },
        scrub: scrub::summary(&app).await?,
    };
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
        let digits = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit()) && text.len() <= 18);
        digits
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| Problem::bad_request("cursor is what next_cursor of the page before says"))
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
