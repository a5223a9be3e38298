//! Events as text.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use crate::clock::{Millis, rfc3339};
use crate::http::App;
use crate::http::redact::Redactor;
use crate::http::views::{FileView, Seen, TaskView};
use crate::store::StoreError;
use crate::store::changes::Change;
use crate::store::tasks::TaskRecord;

/// An event about a task.
pub(super) struct Event {
    pub(super) id: Option<i64>,
    pub(super) source: String,
    pub(super) task_id: String,
    pub(super) text: String,
}

impl Event {
    pub(super) fn about(&self) -> (&str, &str) {
        (&self.source, &self.task_id)
    }
}

#[derive(Serialize)]
struct FileEvent<'a> {
    task_id: &'a str,
    source: &'a str,
    file: FileView<'a>,
}

#[derive(Serialize)]
struct ProgressEvent<'a> {
    task_id: &'a str,
    source: &'a str,
    name: &'a str,
    bytes: u64,
    total: Option<u64>,
    bytes_per_second: u64,
}

/// What changes have led to by now: the tasks and files as they are. Nothing of what is gone, nor of files that are neither
/// stored nor failed any more.
pub(super) async fn events(app: &App, changes: &[Change]) -> Result<Vec<Event>, StoreError> {
    let mut rows: Vec<i64> = changes.iter().map(|change| change.task).collect();
    rows.sort_unstable();
    rows.dedup();
    let tasks = app.store.tasks_by_row(&rows).await?;
    let tasks: HashMap<i64, &TaskRecord> = tasks.iter().map(|task| (task.row, task)).collect();
    let (seen, redactor) = (Seen::by(app), app.redactor());
    let event = |change: &Change| {
        let task = tasks.get(&change.task)?;
        let (name, data) = match change.file {
            None => ("task.updated", data(&redactor, &TaskView::of(task, &seen))?),
            Some(download) => of_file(&redactor, (task, download), &seen)?,
        };
        Some(Event {
            id: Some(change.seq),
            source: task.source.clone(),
            task_id: task.task_id.clone(),
            text: text(name, Some(change.seq), &data),
        })
    };
    Ok(changes.iter().filter_map(event).collect())
}

fn of_file(
    redactor: &Redactor,
    (task, download): (&TaskRecord, i64),
    seen: &Seen<'_>,
) -> Option<(&'static str, String)> {
    let file = task.files.iter().find(|file| file.id == download)?;
    let name = match file.state.as_str() {
        "stored" => "file.stored",
        "failed" => "file.failed",
        _ => return None,
    };
    let event = FileEvent {
        task_id: &task.task_id,
        source: &task.source,
        file: FileView::of(task, file, seen),
    };
    Some((name, data(redactor, &event)?))
}

/// How far the running transfers are.
pub(super) async fn progress(app: &App) -> Result<Vec<Event>, StoreError> {
    let running = app.progress.all();
    if running.is_empty() {
        return Ok(Vec::new());
    }
    let downloads: Vec<i64> = running.iter().map(|(download, _)| *download).collect();
    let named = app.store.file_names(&downloads).await?;
    let redactor = app.redactor();
    let event = |(download, transfer): &(i64, crate::download::Transfer)| {
        let file = named.iter().find(|file| file.download == *download)?;
        let event = ProgressEvent {
            task_id: &file.task_id,
            source: &file.source,
            name: &file.name,
            bytes: transfer.bytes,
            total: transfer.total,
            bytes_per_second: transfer.speed,
        };
        Some(Event {
            id: None,
            source: file.source.clone(),
            task_id: file.task_id.clone(),
            text: text("file.progress", None, &data(&redactor, &event)?),
        })
    };
    Ok(running.iter().filter_map(event).collect())
}

/// Since when the queue is paused, and how that is told; `None` if it is not.
pub(super) fn queue(app: &App) -> Option<(Millis, Bytes)> {
    let reason = app.pause.reason()?;
    let told = json!({"code": reason.code, "detail": reason.detail, "since": rfc3339(reason.since)});
    let data = data(&app.redactor(), &told)?;
    Some((reason.since, text("queue.paused", None, &data).into()))
}

pub(super) fn resumed() -> String {
    text("queue.resumed", None, "{}")
}

/// What was missed cannot be told any more; all changes up to this one are to be looked up.
pub(super) fn reset(id: i64) -> String {
    text("reset", Some(id), "{}")
}

fn data(redactor: &Redactor, event: &impl Serialize) -> Option<String> {
    redactor
        .serialised(event)
        .inspect_err(|error| tracing::error!(%error, "an event could not be written: {error}"))
        .ok()
}

/// JSON has no line ends, so that it is one line of data.
fn text(name: &str, id: Option<i64>, data: &str) -> String {
    match id {
        Some(id) => format!("event: {name}\nid: {id}\ndata: {data}\n\n"),
        None => format!("event: {name}\ndata: {data}\n\n"),
    }
}
