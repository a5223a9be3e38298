//! What the answers of the API mean, by endpoint: a code of the provider means one thing of a record and another of an
//! upgrade.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::Family;
use super::error::{ApiError, Class};
use crate::clock::Millis;
use crate::provider::payload::{Document, Envelope, PayloadError};
use crate::provider::{Event, Failure, Kind, OutcomeClass, TaskId};

/// Longest text kept of the provider's sentence in errors and notes, in bytes.
const MAX_SENTENCE: usize = 512;

/// An answer of the API as it came: a JSON object of at most 4 MiB.
#[derive(Debug, Clone)]
pub struct RawAnswer {
    /// The HTTP status, 200 even for most errors.
    pub status: StatusCode,
    /// The type, as the provider wrote it.
    pub content_type: Option<HeaderValue>,
    /// The body.
    pub body: Bytes,
    /// The body code, which decides.
    pub code: Option<i64>,
    /// The provider's sentence, for people; empty if there is none.
    pub msg: String,
    /// What `Retry-After` asked for, an hour at most, or how long the provider is left alone now.
    pub retry_after: Option<Duration>,
}

impl RawAnswer {
    /// What the answer says went wrong; `None` for a success.
    pub fn error(&self) -> Option<ApiError> {
        let code = self.meaning();
        Class::of(code).map(|_| said(code, self.msg.clone(), self.retry_after))
    }

    /// Reads it as the answer of record-info or recordInfo about `asked`.
    pub fn as_record(&self, family: Family, asked: &TaskId) -> Result<Answer, ApiError> {
        record(family, asked, self)
    }

    /// Reads it as the answer of get-1080p-video about `asked`.
    pub fn as_1080p(&self, asked: &TaskId) -> Result<Answer, ApiError> {
        upgrade_1080p(asked, self)
    }

    /// Reads it as the answer of get-4k-video about `asked`.
    pub fn as_4k(&self, asked: &TaskId) -> Result<Answer, ApiError> {
        upgrade_4k(asked, self)
    }

    /// The code that counts: the body's, unless the HTTP status contradicts a success in it.
    pub(super) fn meaning(&self) -> i64 {
        let status = i64::from(self.status.as_u16());
        match self.code {
            _ if self.status == StatusCode::TOO_MANY_REQUESTS => status,
            Some(200) | None if !self.status.is_success() => status,
            Some(code) => code,
            None => 200,
        }
    }
}

/// What the provider's record says of a task, or of an upgrade of its video.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Finished, with success or failure.
    Ended {
        /// What it says.
        event: Event,
        /// When the task ended, where the record tells.
        completed_at: Option<Millis>,
        /// The answer as it came, to be recorded as a delivery.
        body: Bytes,
    },
    /// Not finished.
    Running {
        /// The provider's sentence.
        msg: String,
        /// The answer as it came.
        body: Bytes,
    },
    /// The provider has no record of it.
    Unknown {
        /// The provider's sentence.
        msg: String,
        /// Whether it never will have one again: the task is older than it keeps records (14 days).
        forever: bool,
    },
}

/// The provider's no, of this code.
pub(super) fn said(code: i64, msg: String, retry_after: Option<Duration>) -> ApiError {
    ApiError::Said {
        code,
        class: Class::of(code).unwrap_or(Class::Final),
        msg,
        retry_after,
    }
}

/// `text` on one line and not too long, for people.
pub(super) fn sentence(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let cut = &clean[..clean.floor_char_boundary(MAX_SENTENCE)];
    cut.trim().trim_end_matches('.').to_owned()
}

/// Reads an answer of record-info or recordInfo about `asked`.
///
/// Codes other than 200 tell of the question, with these exceptions: a state field that says failed is the task's, and so are
/// the codes and messages that the page of record-info lists for refused inputs and failed generations.
pub(super) fn record(family: Family, asked: &TaskId, raw: &RawAnswer) -> Result<Answer, ApiError> {
    check_class(raw)?;
    let code = raw.meaning();
    if code == 200 && !envelope(raw)?.has_object() {
        return unknown(raw);
    }
    let document = document(asked, raw)?;
    if code == 200 && !document.names_its_task() {
        return Err(garbled(&PayloadError::NoTaskId));
    }
    match (code, document.state()) {
        (200, _) => Ok(recorded(family, &document, raw)),
        (404 | 422, None) => Ok(absent(raw)),
        (404 | 422, Some(OutcomeClass::Progress)) => Ok(running(raw.msg.clone(), raw)),
        (_, Some(OutcomeClass::Failure)) => Ok(settled(document.event(), &document, raw)),
        _ if is_of_the_task(code, &raw.msg) => Ok(settled(document.event(), &document, raw)),
        _ => Err(said(code, raw.msg.clone(), raw.retry_after)),
    }
}

/// A record under code 200. One that has neither state nor files says nothing yet; nor does a video without a file, as the
/// provider has messages of its own for records whose result data are still blank.
fn recorded(family: Family, document: &Document<'_>, raw: &RawAnswer) -> Answer {
    let event = document.event();
    let empty = event.class == OutcomeClass::Success && event.media.is_empty();
    if empty && (document.state().is_none() || family == Family::Veo) {
        return running(event.msg, raw);
    }
    settled(event, document, raw)
}

/// Whether a code of record-info that is no success tells of the task instead of the question.
fn is_of_the_task(code: i64, msg: &str) -> bool {
    let meant = Failure::classify(Some(code), msg, None);
    match code {
        // Of any other 400 nobody knows whether the task or the question was bad.
        400 => !meant.retryable && meant != Failure::classify(Some(code), "", None),
        451 | 501 => true,
        _ => false,
    }
}

/// Reads the answer to a request for a 1080p version, which has a single `resultUrl` and no id.
pub(super) fn upgrade_1080p(asked: &TaskId, raw: &RawAnswer) -> Result<Answer, ApiError> {
    check_class(raw)?;
    let code = raw.meaning();
    if code == 200 {
        let document = document(asked, raw)?;
        if document.has_media() {
            return Ok(settled(document.event_by(Some(200)), &document, raw));
        }
        return Ok(running(raw.msg.clone(), raw));
    }
    match code {
        _ if is_not_ready(&raw.msg) => Ok(running(raw.msg.clone(), raw)),
        404 => Ok(absent(raw)),
        422 if is_about_the_record(&raw.msg) => Ok(absent(raw)),
        _ => Err(said(code, raw.msg.clone(), raw.retry_after)),
    }
}

/// Reads the answer to a (repeated) request for a 4K version. A finished one comes as a 422 with URLs.
pub(super) fn upgrade_4k(asked: &TaskId, raw: &RawAnswer) -> Result<Answer, ApiError> {
    check_class(raw)?;
    let code = raw.meaning();
    let document = Document::about(asked, &raw.body).map_err(|error| match error {
        // Asking again might order another one each time.
        PayloadError::TaskIdsDiffer => ApiError::Garbled {
            detail: "it is about another task",
            costs: true,
        },
        _ => garbled(&error),
    })?;
    let of_4k = |mut event: Event| {
        event.kind_by_shape = Some(Kind::four_k());
        settled(event, &document, raw)
    };
    match code {
        200 | 422 if document.has_media() => Ok(of_4k(document.event_by(Some(200)))),
        200 => Ok(running(raw.msg.clone(), raw)),
        400 | 422 | 500 | 501 if is_unavailable(&raw.msg) => Ok(of_4k(document.event_by(Some(500)))),
        _ if is_not_ready(&raw.msg) => Ok(running(raw.msg.clone(), raw)),
        404 => Ok(absent(raw)),
        422 if is_about_the_record(&raw.msg) => Ok(absent(raw)),
        _ => Err(said(code, raw.msg.clone(), raw.retry_after)),
    }
}

/// Reads the answer to a request for a fresh link.
pub(super) fn link(raw: &RawAnswer) -> Result<String, ApiError> {
    refuse(raw)?;
    let envelope = envelope(raw)?;
    let link = envelope.text().filter(|link| link.starts_with("http"));
    link.map(Into::into).ok_or(ApiError::Garbled {
        detail: "there is no link in it",
        costs: false,
    })
}

/// Reads the balance.
pub(super) fn credit(raw: &RawAnswer) -> Result<f64, ApiError> {
    refuse(raw)?;
    envelope(raw)?.number().ok_or(ApiError::Garbled {
        detail: "there is no balance in it",
        costs: false,
    })
}

fn refuse(raw: &RawAnswer) -> Result<(), ApiError> {
    raw.error().map_or(Ok(()), Err)
}

/// Refuses the answers that are about the asker, whatever was asked, and those that are not the API's own.
fn check_class(raw: &RawAnswer) -> Result<(), ApiError> {
    match raw.error() {
        Some(error) if !matches!(error.class(), Class::Retry | Class::Final) => Err(error),
        Some(_) if raw.code.is_none() => Err(ApiError::Gateway {
            status: raw.status.as_u16(),
            what: "JSON without a code",
        }),
        _ => Ok(()),
    }
}

fn envelope(raw: &RawAnswer) -> Result<Envelope<'_>, ApiError> {
    Envelope::parse(&raw.body).ok_or(ApiError::Garbled {
        detail: "it is no JSON object",
        costs: false,
    })
}

fn document<'a>(asked: &TaskId, raw: &'a RawAnswer) -> Result<Document<'a>, ApiError> {
    Document::about(asked, &raw.body).map_err(|error| garbled(&error))
}

fn garbled(error: &PayloadError) -> ApiError {
    let detail = match error {
        PayloadError::TaskIdsDiffer => "it is about another task",
        PayloadError::DuplicateKey(_) => "a field that decides is given twice",
        PayloadError::NotJson { .. } => "it is no JSON object",
        PayloadError::NoTaskId => "it names no task",
        PayloadError::BadTaskId => "the task id in it is not usable",
    };
    ApiError::Garbled { detail, costs: false }
}

fn running(msg: String, raw: &RawAnswer) -> Answer {
    let body = raw.body.clone();
    Answer::Running { msg, body }
}

fn settled(event: Event, document: &Document<'_>, raw: &RawAnswer) -> Answer {
    if event.class == OutcomeClass::Progress {
        return running(event.msg, raw);
    }
    Answer::Ended {
        event,
        completed_at: document.completed_at(),
        body: raw.body.clone(),
    }
}

/// An answer under code 200 with nothing in it.
fn unknown(raw: &RawAnswer) -> Result<Answer, ApiError> {
    if raw.code.is_none() {
        return Err(ApiError::Garbled {
            detail: "there is neither a code nor a record in it",
            costs: false,
        });
    }
    Ok(Answer::Unknown {
        msg: raw.msg.clone(),
        forever: false,
    })
}

/// What a 404, or the 422 of a record, says: that there is none, or none any more, or that it is not finished.
fn absent(raw: &RawAnswer) -> Answer {
    let said = raw.msg.to_lowercase();
    if ["status is not success", "result data"]
        .iter()
        .any(|words| said.contains(words))
    {
        return running(raw.msg.clone(), raw);
    }
    Answer::Unknown {
        msg: raw.msg.clone(),
        forever: said.contains("14 days"),
    }
}

/// Whether a 422 is one of those that record-info and the upgrades share.
fn is_about_the_record(msg: &str) -> bool {
    mentions(msg, &["record", "14 days"])
}

/// Whether an upgrade is under way, by the documented sentences and what they have in common.
fn is_not_ready(msg: &str) -> bool {
    mentions(
        msg,
        &["processing", "not ready", "be ready", "check back", "处理中"],
    )
}

/// Whether there can be no upgrade of this video.
fn is_unavailable(msg: &str) -> bool {
    mentions(msg, &["unavailable", "not available", "not supported"])
}

fn mentions(msg: &str, words: &[&str]) -> bool {
    let msg = msg.to_lowercase();
    words.iter().any(|words| msg.contains(words))
}
