//! `GET /v1/events`: what changes, told as server-sent events while it does.
//!
//! One feeder for all readers looks at what the store says has changed, writes it once, and hands the same bytes to everybody
//! ([`mod@feed`]). A reader takes them at his own pace: who falls too far behind is cut off, and comes back with the id of the last event he saw.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use utoipa::IntoParams;

use super::App;
use super::problem::Problem;
use crate::clock::Millis;
use crate::store::StoreError;
use crate::store::changes::Change;

mod feed;
mod render;

pub(super) use feed::{Feed, feed};

use feed::{Events, Message, Seat};

/// Tasks that are read at one time for a reader who catches up.
const BATCH: usize = 100;
/// How long whoever finds no seat is asked to stay away, in seconds.
const FULL_PAUSE: u32 = 10;
/// How long a client waits before it comes back, in milliseconds.
const COME_BACK: u32 = 1_000;

/// How events are told.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Readers at one time.
    pub max_readers: usize,
    /// After how long a silence a sign of life is sent. Shorter than a peer may take nothing of an answer.
    pub heartbeat: Duration,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only what is about tasks of this source.
    #[param(example = "kie")]
    source: Option<String>,
    /// Only what is about this task, or one of several with commas between.
    task_id: Option<String>,
    /// For those who cannot set the header: the id of the last event that was seen.
    last_event_id: Option<String>,
}

/// Which events a reader wants.
#[derive(Debug)]
struct Filter {
    source: Option<String>,
    /// Any, if there is none.
    task_ids: Vec<String>,
}

impl Filter {
    fn is_for_all(&self) -> bool {
        self.source.is_none() && self.task_ids.is_empty()
    }

    fn wants(&self, (source, task_id): (&str, &str)) -> bool {
        self.source.as_deref().is_none_or(|wanted| wanted == source)
            && (self.task_ids.is_empty() || self.task_ids.iter().any(|wanted| wanted == task_id))
    }
}

/// Tells what changes, while it does.
///
/// | event | `id` | data |
/// | --- | --- | --- |
/// | `task.updated` | yes | a `Task` |
/// | `file.stored`, `file.failed` | yes | `task_id`, `source` and `file`, a `File` |
/// | `file.progress` | no | `task_id`, `source`, `name`, `bytes`, `total`, `bytes_per_second` |
/// | `queue.paused` | no | `code`, `detail`, `since` |
/// | `queue.resumed` | no | nothing |
/// | `reset` | yes | nothing: what was missed is too much to tell. Load again what you show |
///
/// Who comes back with the id of the last event gets each task and file that changed since, as it is now, and then goes on
/// live. The stream ends when the server stops, and when a reader falls too far behind.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "tasks",
    operation_id = "follow_events",
    params(
        Wanted,
        ("last-event-id" = Option<String>, Header, description = "The id of the last event that was seen."),
    ),
    responses(
        (status = 200, description = "Events until the end.", content_type = "text/event-stream", body = String),
        (status = 503, description = "too_many_readers"),
    ),
)]
pub(super) async fn follow(
    State(app): State<App>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wanted) = wanted?;
    let seat = Seat::take(&app).ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_readers",
            "as many follow the events as may do so at one time; come back later",
        )
        .retry_after(FULL_PAUSE)
    })?;
    // The address stays the same when a client comes back, so what it says is older.
    let last_event_id = match headers.get("last-event-id") {
        Some(id) => Some(id.to_str().unwrap_or("unreadable").to_owned()),
        None => wanted.last_event_id,
    };
    let ids = wanted.task_id.as_deref().unwrap_or_default().split(',');
    let filter = Filter {
        source: wanted.source,
        task_ids: ids.filter(|id| !id.is_empty()).map(str::to_owned).collect(),
    };
    let reader = Reader::new(seat, filter, last_event_id.filter(|id| !id.is_empty())).await?;
    let told = stream::unfold(reader, |mut reader| async move {
        let bytes = reader.next().await?;
        Some((Ok::<_, Infallible>(bytes), reader))
    });
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/event-stream"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        // A proxy that gathers an answer before it passes it on would pass on nothing.
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, Body::from_stream(told)).into_response())
}

/// One who follows.
struct Reader {
    seat: Seat,
    filter: Filter,
    /// Changes before he came that he has not seen, in their order; each task and each file once.
    missed: VecDeque<Change>,
    /// The last change that he was told of, or that was none of his.
    seen: i64,
    /// Since when the queue is paused, as far as he was told.
    paused: Option<Millis>,
    ready: VecDeque<Bytes>,
    silent_until: Instant,
}

impl Reader {
    async fn new(seat: Seat, filter: Filter, last_event_id: Option<String>) -> Result<Self, StoreError> {
        let mut reader = Self {
            seen: seat.joined_at,
            silent_until: Instant::now(),
            missed: VecDeque::new(),
            ready: VecDeque::new(),
            paused: None,
            seat,
            filter,
        };
        let opening = format!(": events of reelhook\nretry: {COME_BACK}\n");
        match last_event_id {
            None => reader.tell(format!("{opening}id: {}\n\n", reader.seen)),
            Some(id) => {
                reader.tell(format!("{opening}\n"));
                match id.parse().ok().and_then(|id| reader.seat.since(id)) {
                    Some(missed) => reader.missed = reader.own(missed).await?.into(),
                    None => reader.tell(render::reset(reader.seen)),
                }
            }
        }
        if let Some(first) = reader.missed.front() {
            reader.seen = first.seq - 1;
        }
        if let Some((since, bytes)) = render::queue(&reader.seat.app) {
            reader.paused = Some(since);
            reader.ready.push_back(bytes);
        }
        Ok(reader)
    }

    /// Those of the changes that may be wanted: who follows a few tasks need not have all others read.
    async fn own(&self, mut changes: Vec<Change>) -> Result<Vec<Change>, StoreError> {
        if self.filter.task_ids.is_empty() || changes.is_empty() {
            return Ok(changes);
        }
        let mut rows = Vec::new();
        for id in &self.filter.task_ids {
            let source = self.filter.source.as_deref();
            let tasks = self.seat.app.store.tasks_by_id(id, source).await?;
            rows.extend(tasks.into_iter().map(|task| task.row));
        }
        changes.retain(|change| rows.contains(&change.task));
        Ok(changes)
    }

    fn tell(&mut self, text: String) {
        self.ready.push_back(text.into());
    }

    /// What he is told next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let app = self.seat.app.clone();
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.silent_until = Instant::now() + app.settings.events.heartbeat;
                return Some(bytes);
            }
            if app.tasks.is_draining() {
                return None;
            }
            if !self.missed.is_empty() {
                self.catch_up().await?;
                continue;
            }
            tokio::select! {
                biased;
                () = app.tasks.draining() => return None,
                // Who lags behind is let go: he comes back with the id of the last event that he saw.
                message = self.seat.messages.recv() => self.hear(message.ok()?)?,
                // It tells how far we are, too: what is filtered out is no reason to begin anew after a break.
                () = sleep_until(self.silent_until) => self.tell(format!(":\nid: {}\n\n", self.seen)),
            }
        }
    }

    /// Some of what he missed, as it is now. `None` if that cannot be read.
    async fn catch_up(&mut self) -> Option<()> {
        let app = self.seat.app.clone();
        // Few at a time: the readers' connections to the database are there for others as well.
        let _turn = app.events().turns.acquire().await.ok()?;
        let batch: Vec<Change> = self.missed.drain(..BATCH.min(self.missed.len())).collect();
        let events = render::events(&app, &batch).await.ok()?;
        let wanted = events.iter().filter(|event| self.filter.wants(event.about()));
        let text: String = wanted.map(|event| event.text.as_str()).collect();
        if !text.is_empty() {
            self.ready.push_back(text.into());
        }
        self.seen = if self.missed.is_empty() {
            self.seat.joined_at
        } else {
            batch.last()?.seq
        };
        Some(())
    }

    /// Takes what all are told; `None` if this is the end.
    fn hear(&mut self, message: Message) -> Option<()> {
        match message {
            Message::Events(events) => self.take(&events),
            Message::Queue(paused) => match paused {
                Some((since, _)) if self.paused == Some(since) => {}
                Some((since, bytes)) => {
                    self.paused = Some(since);
                    self.ready.push_back(bytes);
                }
                None if self.paused.take().is_some() => self.tell(render::resumed()),
                None => {}
            },
            Message::Reset(id) if id > self.seen => {
                self.seen = id;
                self.tell(render::reset(id));
            }
            Message::Reset(_) => {}
            Message::HangUp => return None,
        }
        Some(())
    }

    fn take(&mut self, events: &Events) {
        let seen = self.seen;
        let is_new = |id: Option<i64>| id.is_none_or(|id| id > seen);
        let begins_anew = events.parts.first().is_some_and(|part| is_new(part.id));
        if self.filter.is_for_all() && begins_anew {
            self.ready.push_back(events.bytes.clone());
        } else {
            let wanted = events.parts.iter().filter(|part| is_new(part.id));
            let wanted = wanted.filter(|part| self.filter.wants((&part.source, &part.task_id)));
            self.ready
                .extend(wanted.map(|part| events.bytes.slice(part.range.clone())));
        }
        self.seen = seen.max(events.through);
    }
}
