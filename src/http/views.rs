//! The JSON of the API: one struct for each thing, in the order in which the fields are documented.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::App;
use super::openapi::words::{AskReason, FileState, Kind, Media, Role, TaskId, TaskState, Verdict, Via};
use super::redact::Redactor;
use crate::clock::{Millis, rfc3339};
use crate::download::{Progress, remedy};
use crate::ingest::{self, Ailing, Sources};
use crate::provider::Failure;
use crate::provider::encoding::beginning;
use crate::provider_api::ProviderApi;
use crate::store::deliveries::{DeliveryRecord, LISTED_BODY_BYTES};
use crate::store::tasks::{AskRecord, FileRecord, OutcomeRecord, TaskRecord};

/// What a compressed body is unpacked to for showing.
const MAX_SHOWN: u64 = 16 * 1024 * 1024;

/// A task with its outcomes and files.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Task)]
pub(super) struct TaskView<'a> {
    /// The provider's id of the task.
    #[schema(value_type = TaskId)]
    task_id: &'a str,
    /// The configured source that it belongs to.
    #[schema(example = "kie")]
    source: &'a str,
    /// With `code`, `msg`, `failure`, `resolution`, `fallback` and `credits` it is that of the outcome (`video`, 0) if that
    /// is known, else of the newest.
    #[schema(value_type = TaskState)]
    state: &'static str,
    /// The provider's own code, in the body of its callback.
    #[schema(example = 200)]
    code: Option<i64>,
    /// The provider's own words.
    msg: Option<&'a str>,
    /// Why it failed, and what a person can do about it.
    #[schema(value_type = Option<Failure>)]
    failure: Option<Box<RawValue>>,
    /// As the provider names it.
    #[schema(example = "1080p")]
    resolution: Option<&'a str>,
    /// Whether the provider fell back to another model.
    fallback: Option<bool>,
    /// As far as it is known: from `params` of the announcement, or from the submission.
    prompt: Option<&'a str>,
    /// What it cost, where the provider says so.
    credits: Option<f64>,
    /// When it was first heard of.
    #[schema(format = DateTime)]
    created_at: String,
    /// When its first delivery came; null while it is only announced.
    #[schema(format = DateTime)]
    received_at: Option<String>,
    /// When anything of it last changed.
    #[schema(format = DateTime)]
    updated_at: String,
    /// How many deliveries came, rejected ones aside.
    #[schema(minimum = 0)]
    deliveries: i64,
    /// How many of them are open conflicts.
    #[schema(minimum = 0)]
    conflicts: i64,
    /// Over all files.
    #[schema(value_type = Media)]
    media: &'a str,
    /// Why nothing is fetched at the moment; only while that is so and files of the task wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    paused: Option<String>,
    /// What is known of each result of the task.
    outcomes: Vec<OutcomeView<'a>>,
    /// Everything that its callbacks announced.
    files: Vec<FileView<'a>>,
    /// What the provider is asked about it; empty if nothing is open.
    asking: Vec<AskView<'a>>,
}

/// What is known of one result of a task.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Outcome)]
struct OutcomeView<'a> {
    /// Which result.
    #[schema(value_type = Kind)]
    kind: &'a str,
    /// Which of several of the kind.
    #[schema(minimum = 0)]
    index: i64,
    #[schema(value_type = TaskState)]
    state: &'static str,
    /// The provider's own code.
    code: Option<i64>,
    /// The provider's own words.
    msg: Option<&'a str>,
    /// Why it failed, and what a person can do about it.
    #[schema(value_type = Option<Failure>)]
    failure: Option<Box<RawValue>>,
    /// As the provider names it.
    resolution: Option<&'a str>,
    /// What it cost, where the provider says so.
    credits: Option<f64>,
    /// How it was heard; null while it is only announced.
    #[schema(value_type = Option<Via>)]
    via: Option<&'a str>,
    /// When that came.
    #[schema(format = DateTime)]
    received_at: Option<String>,
}

/// One announced file: waiting, on its way, stored or failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = File)]
pub(super) struct FileView<'a> {
    /// `{role}-{n}.{ext}` for (`video`, 0), else `{kind}-{index}-{role}-{n}.{ext}`. The extension may change once the content
    /// is known, the part before it does not.
    #[schema(example = "result-0.mp4")]
    name: &'a str,
    /// What it is to the task.
    #[schema(value_type = Role)]
    role: &'a str,
    /// Which result it belongs to.
    #[schema(value_type = Kind)]
    kind: &'a str,
    /// Which of several of the kind.
    #[schema(minimum = 0)]
    index: i64,
    /// Its place among those of the same role.
    #[schema(minimum = 0)]
    n: i64,
    #[schema(value_type = FileState)]
    state: &'a str,
    /// Where the provider keeps it.
    #[schema(example = "https://media.example.com/a.mp4")]
    provider_url: &'a str,
    /// Where it is served, once stored: a path on this server.
    #[schema(example = "/v1/tasks/veo_task_1/files/result-0.mp4?source=kie")]
    url: Option<String>,
    /// Its length, once stored.
    #[schema(minimum = 0)]
    bytes: Option<i64>,
    /// Of its content, once stored.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    sha256: Option<String>,
    /// By its content, once stored; `application/octet-stream` if that is unknown.
    #[schema(example = "video/mp4")]
    content_type: Option<&'a str>,
    /// How long it plays, by what the file says of itself.
    #[schema(minimum = 0)]
    duration_ms: Option<i64>,
    /// In pixels, as it plays.
    #[schema(minimum = 0)]
    width: Option<i64>,
    /// In pixels, as it plays.
    #[schema(minimum = 0)]
    height: Option<i64>,
    /// Of the video, or of the sound if there is no picture.
    #[schema(example = "h264")]
    codec: Option<&'a str>,
    /// Attempts to fetch it that counted: faults of this machine do not.
    #[schema(minimum = 0)]
    attempts: i64,
    /// When it is tried again, for a queued file that waits for that.
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    /// The last failure, also while it is being tried again.
    error: Option<ErrorView<'a>>,
    /// How far it is; only while it is being fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    progress: Option<ProgressView>,
    /// When the provider is expected to delete it.
    #[schema(format = DateTime)]
    deadline: String,
}

/// How far a transfer is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Progress)]
struct ProgressView {
    bytes: u64,
    /// Null if the server did not tell.
    total: Option<u64>,
    bytes_per_second: u64,
}

/// Why a file could not be fetched.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FileError)]
struct ErrorView<'a> {
    /// A stable word.
    #[schema(example = "expired")]
    code: &'a str,
    /// A sentence for people.
    detail: &'a str,
    /// What a person can do about it, as a sentence.
    remedy: Option<&'static str>,
}

/// An open question to the provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ask)]
struct AskView<'a> {
    /// Which result it is about.
    #[schema(value_type = Kind)]
    kind: &'a str,
    /// Which of several of the kind.
    #[schema(minimum = 0)]
    index: i64,
    #[schema(value_type = AskReason)]
    reason: &'a str,
    /// Since when that is open.
    #[schema(format = DateTime)]
    since: String,
    /// How often it was asked.
    #[schema(minimum = 0)]
    asks: i64,
    /// When last.
    #[schema(format = DateTime)]
    asked_at: Option<String>,
    /// When it is asked again, at the earliest; null where nobody can be asked, or it was given up.
    #[schema(format = DateTime)]
    next_ask_at: Option<String>,
    /// What came of the last time.
    note: Option<NoteView<'a>>,
}

/// What came of asking.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AskNote)]
struct NoteView<'a> {
    /// A stable word.
    #[schema(example = "no_api_key")]
    code: &'a str,
    /// A sentence for people.
    #[schema(value_type = String)]
    detail: Cow<'a, str>,
}

/// What the views show besides what is recorded.
pub(super) struct Seen<'a> {
    /// Decides whether a queued file still waits for its next attempt.
    now: Millis,
    progress: &'a Progress,
    /// Why nothing is fetched.
    paused: Option<String>,
    /// Decide whether anybody can be asked.
    sources: Arc<Sources>,
    /// Of these sources nobody is asked at the moment.
    apis_paused: BTreeMap<String, ApiPause>,
}

/// Why a provider's API is left alone, and until when.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApiPause {
    /// A stable word.
    #[schema(example = "unauthorized")]
    code: &'static str,
    /// A sentence for people.
    detail: String,
    #[schema(format = DateTime)]
    since: String,
    #[schema(format = DateTime)]
    until: String,
}

/// The sources whose provider is left alone as a whole.
pub(super) fn apis_paused(app: &App) -> BTreeMap<String, ApiPause> {
    let of = |(source, api): (&String, &ProviderApi)| {
        let pause = api.pause().filter(|pause| pause.endpoint.is_none())?;
        let pause = ApiPause {
            code: pause.code,
            detail: pause.detail,
            since: rfc3339(pause.since),
            until: rfc3339(pause.until),
        };
        Some((source.clone(), pause))
    };
    app.apis.now().iter().filter_map(of).collect()
}

impl<'a> Seen<'a> {
    pub(super) fn by(app: &'a App) -> Self {
        Self {
            now: app.clock.now(),
            progress: &app.progress,
            paused: app.pause.reason().map(|reason| reason.detail),
            sources: app.ingest.sources(),
            apis_paused: apis_paused(app),
        }
    }

    /// Why nobody can be asked about tasks of a source, whatever its row says: keys come and go with the configuration.
    fn cannot_ask(&self, source: &str) -> Option<NoteView<'static>> {
        let (code, detail) = match self.sources.get(source) {
            Some(source) if source.api_key.is_some() => return None,
            Some(_) => (
                "no_api_key",
                format!("source {source} has no api_key: nobody can be asked; set sources.{source}.api_key"),
            ),
            None => (
                "no_source",
                format!(
                    "source {source} is no longer configured: nobody can be asked; configure sources.{source} again"
                ),
            ),
        };
        Some(NoteView {
            code,
            detail: Cow::Owned(detail),
        })
    }
}

impl<'a> TaskView<'a> {
    pub(super) fn of(task: &'a TaskRecord, seen: &Seen<'_>) -> Self {
        let main = task.main_outcome();
        Self {
            task_id: &task.task_id,
            source: &task.source,
            state: task.state.as_str(),
            code: main.and_then(|outcome| outcome.code),
            msg: main.and_then(|outcome| outcome.msg.as_deref()),
            failure: main.and_then(failure),
            resolution: main.and_then(|outcome| outcome.resolution.as_deref()),
            fallback: main.and_then(|outcome| outcome.fallback),
            prompt: task.prompt.as_deref(),
            credits: main.and_then(|outcome| outcome.credits),
            created_at: rfc3339(task.created_at),
            received_at: task.received_at.map(rfc3339),
            updated_at: rfc3339(task.updated_at),
            deliveries: task.deliveries,
            conflicts: task.conflicts,
            media: &task.media,
            paused: seen
                .paused
                .clone()
                .filter(|_| task.files.iter().any(|file| file.state == "queued")),
            outcomes: task.outcomes.iter().map(OutcomeView::of).collect(),
            files: task
                .files
                .iter()
                .map(|file| FileView::of(task, file, seen))
                .collect(),
            asking: task
                .asks
                .iter()
                .map(|ask| AskView::of(&task.source, ask, seen))
                .collect(),
        }
    }
}

impl<'a> OutcomeView<'a> {
    fn of(outcome: &'a OutcomeRecord) -> Self {
        Self {
            kind: &outcome.kind,
            index: outcome.index,
            state: outcome.state.as_str(),
            code: outcome.code,
            msg: outcome.msg.as_deref(),
            failure: failure(outcome),
            resolution: outcome.resolution.as_deref(),
            credits: outcome.credits,
            via: outcome.via.as_deref(),
            received_at: outcome.received_at.map(rfc3339),
        }
    }
}

impl<'a> FileView<'a> {
    pub(super) fn of(task: &TaskRecord, file: &'a FileRecord, seen: &Seen<'_>) -> Self {
        let stored = file.state == "stored";
        // To those who ask, a file that waits for another URL waits.
        let state = match file.state.as_str() {
            "needs_url" => "queued",
            state => state,
        };
        let waits = state == "queued" && file.next_at > seen.now;
        let transfer = (state == "downloading")
            .then(|| seen.progress.of(file.id))
            .flatten();
        Self {
            name: &file.name,
            role: &file.role,
            kind: &file.kind,
            index: file.index,
            n: file.n,
            state,
            provider_url: &file.provider_url,
            url: stored.then(|| {
                format!(
                    "/v1/tasks/{}/files/{}?source={}",
                    task.task_id, file.name, task.source
                )
            }),
            bytes: file.bytes,
            sha256: file.sha256.as_deref().map(hex::encode),
            content_type: file.content_type.as_deref(),
            duration_ms: file.duration_ms,
            width: file.width,
            height: file.height,
            codec: file.codec.as_deref(),
            attempts: file.attempts,
            next_attempt_at: waits.then(|| rfc3339(file.next_at)),
            error: file.error.as_ref().map(|(code, detail)| ErrorView {
                code,
                detail,
                remedy: remedy(code),
            }),
            progress: transfer.map(|transfer| ProgressView {
                bytes: transfer.bytes,
                total: transfer.total,
                bytes_per_second: transfer.speed,
            }),
            deadline: rfc3339(file.deadline),
        }
    }
}

impl<'a> AskView<'a> {
    fn of(source: &str, ask: &'a AskRecord, seen: &Seen<'_>) -> Self {
        let mute = seen.cannot_ask(source);
        let own = ask.note.as_ref().map(|(code, detail)| NoteView {
            code,
            detail: Cow::Borrowed(detail),
        });
        let note = own.or_else(|| {
            let pause = seen.apis_paused.get(source)?;
            Some(NoteView {
                code: pause.code,
                detail: Cow::Owned(pause.detail.clone()),
            })
        });
        Self {
            kind: &ask.kind,
            index: ask.index,
            reason: &ask.reason,
            since: rfc3339(ask.since),
            asks: ask.asks,
            asked_at: ask.asked_at.map(rfc3339),
            next_ask_at: ask.ask_at.filter(|_| mute.is_none()).map(rfc3339),
            note: mute.or(note),
        }
    }
}

/// Stored as JSON by ourselves; shown as it is.
fn failure(outcome: &OutcomeRecord) -> Option<Box<RawValue>> {
    RawValue::from_string(outcome.failure.clone()?).ok()
}

/// What arrived once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(super) struct DeliveryView<'a> {
    /// Opaque to clients, hence a text.
    #[schema(example = "3")]
    id: String,
    /// Null if none could be read.
    task_id: Option<&'a str>,
    /// The source whose URL it came to.
    source: &'a str,
    #[schema(format = DateTime)]
    received_at: String,
    /// How it came.
    #[schema(value_type = Via)]
    via: &'a str,
    /// What was made of it.
    #[schema(value_type = Verdict)]
    verdict: &'a str,
    /// Why, where the verdict alone does not say it.
    #[schema(example = "different_media")]
    reason: Option<&'a str>,
    /// Which result it is about.
    #[schema(value_type = Option<Kind>)]
    kind: Option<&'a str>,
    /// Which of several of the kind.
    #[schema(minimum = 0)]
    index: Option<i64>,
    /// Who sent it.
    #[schema(example = "192.0.2.7")]
    remote_addr: Option<&'a str>,
    /// Those of an allow-list, by their names in lower case.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    headers: Option<Box<RawValue>>,
    /// As it came, unpacked if it was gzip. Neither this nor `body_base64` is there if the body is not kept, or cannot be
    /// unpacked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    body: Option<String>,
    /// In the place of `body` where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, content_encoding = "base64")]
    body_base64: Option<String>,
    /// Its length as it came; null if it is not kept.
    #[schema(minimum = 0)]
    body_bytes: Option<i64>,
    /// Only the beginning is shown: of more than 64 KiB in lists, and of more than 16 MiB anywhere.
    body_truncated: bool,
    /// What to do about one that was rejected or is in conflict.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    remedy: Option<String>,
}

impl<'a> DeliveryView<'a> {
    /// As in lists: of a long body only the beginning.
    pub(super) fn listed(delivery: &'a DeliveryRecord, redactor: &Redactor) -> Self {
        let most = usize::try_from(LISTED_BODY_BYTES).unwrap_or(usize::MAX);
        Self::of(delivery, Shown::of(delivery, most, redactor))
    }

    /// With its whole body.
    pub(super) fn whole(delivery: &'a DeliveryRecord, redactor: &Redactor) -> Self {
        Self::of(delivery, Shown::of(delivery, usize::MAX, redactor))
    }

    fn of(delivery: &'a DeliveryRecord, shown: Shown) -> Self {
        Self {
            id: delivery.id.to_string(),
            task_id: delivery.task_id.as_deref(),
            source: &delivery.source,
            received_at: rfc3339(delivery.received_at),
            via: &delivery.via,
            verdict: &delivery.verdict,
            reason: delivery.reason.as_deref(),
            kind: delivery.kind.as_deref(),
            index: delivery.index,
            remote_addr: delivery.remote_addr.as_deref(),
            headers: RawValue::from_string(delivery.headers.clone()).ok(),
            body: shown.text,
            body_base64: shown.base64,
            body_bytes: delivery.body_bytes,
            body_truncated: shown.truncated,
            remedy: None,
        }
    }

    /// With what to do about it, where something can be done.
    pub(super) fn advised(self, delivery: &DeliveryRecord, sources: &Sources) -> Self {
        Self {
            remedy: remedy_of(delivery, sources),
            ..self
        }
    }
}

/// What to do about a delivery that was rejected or is in conflict.
pub(super) fn remedy_of(delivery: &DeliveryRecord, sources: &Sources) -> Option<String> {
    let ailing = Ailing {
        source: &delivery.source,
        verdict: &delivery.verdict,
        reason: delivery.reason.as_deref().unwrap_or_default(),
        received_at: delivery.received_at,
        headers: &delivery.headers,
    };
    ingest::remedy(sources, &ailing)
}

/// A body without secrets: as text where it is text (unpacked, if it came packed), else in Base64.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) text: Option<String>,
    pub(super) base64: Option<String>,
    pub(super) truncated: bool,
}

impl Shown {
    /// At most so many bytes of it. Where the store cut it already, it has fewer than `body_bytes`.
    pub(super) fn of(delivery: &DeliveryRecord, most: usize, redactor: &Redactor) -> Self {
        let Some(raw) = &delivery.body else {
            return Self::default();
        };
        let cut = delivery
            .body_bytes
            .is_some_and(|bytes| usize::try_from(bytes) != Ok(raw.len()));
        let Ok((plain, more)) = beginning(raw, MAX_SHOWN.min(most as u64)) else {
            // Packed, and nobody can tell which secrets are in it.
            return Self {
                truncated: cut,
                ..Self::default()
            };
        };
        let truncated = cut || more;
        // Whole secrets first: cutting a torn one could tear a whole one.
        let clean = match std::str::from_utf8(&plain) {
            Ok(text) => redactor.text(text).into_owned().into_bytes(),
            Err(_) => redactor.bytes(&plain),
        };
        let shown = if truncated {
            redactor.without_torn_end(&clean)
        } else {
            &clean
        };
        let (text, base64) = match std::str::from_utf8(shown) {
            Ok(text) => (Some(text.to_owned()), None),
            // It may have been cut inside a character.
            Err(error) if truncated && shown.len() - error.valid_up_to() < 4 => {
                let whole = &shown[..error.valid_up_to()];
                (Some(String::from_utf8_lossy(whole).into_owned()), None)
            }
            Err(_) => (None, Some(STANDARD.encode(shown))),
        };
        Self {
            text,
            base64,
            truncated,
        }
    }
}
