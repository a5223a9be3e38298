//! Submissions: noted, sent upstream once, and awaited from the provider's answer on.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use sha2::{Digest as _, Sha256};

use super::request::Body;
use super::under_way::{Outcome, Place};
use super::{Answer, Caller, Dropin, Refusal, Said, shapes};
use crate::failpoint::{self, Step};
use crate::provider::payload::Document;
use crate::provider::{Event, Kind, TaskId, family};
use crate::provider_api::{self, ApiError, Call, Class, RawAnswer};
use crate::store::StoreError;
use crate::store::submissions::{Begun, End, Known, NewSubmission, SubmissionAnswer, Verdict};

/// Random bytes of a ref: nobody guesses one.
const REF_BYTES: usize = 18;
/// Pauses between attempts to note how a submission ended.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest Idempotency-Key.
const MAX_KEY: usize = 255;

/// What is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `veo/generate`.
    Generate,
    /// `veo/extend`.
    Extend,
    /// `veo/get-4k-video`.
    FourK,
    /// `jobs/createTask`.
    CreateTask,
}

impl Endpoint {
    fn path(self) -> &'static str {
        match self {
            Self::Generate => "veo/generate",
            Self::Extend => "veo/extend",
            Self::FourK => "veo/get-4k-video",
            Self::CreateTask => "jobs/createTask",
        }
    }

    /// The family of the task, as the reconciler knows them.
    fn family(self) -> &'static str {
        match self {
            Self::Generate | Self::FourK => "veo",
            Self::Extend => family::EXTENSION,
            Self::CreateTask => "market",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::FourK => Kind::four_k(),
            Self::Generate | Self::Extend | Self::CreateTask => Kind::video(),
        }
    }
}

/// A caller's request.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// Where it goes.
    pub endpoint: Endpoint,
    /// Its query.
    pub query: Option<&'a str>,
    /// Its body.
    pub body: &'a Bytes,
    /// Its Idempotency-Key, if it has one.
    pub key: Option<&'a [u8]>,
}

/// A submission that was noted.
struct Noted {
    row: i64,
    caller: Caller,
    endpoint: Endpoint,
    query: Option<String>,
    /// The body with our callback URL.
    body: Bytes,
    /// The task that the body names: of an upgrade or an extension.
    about: Option<TaskId>,
    index: u32,
}

impl Dropin {
    /// Sends a submission to the provider, unless its key says that it was sent before.
    ///
    /// Once it is noted it takes its course, whether or not the caller still waits.
    pub async fn submit(&self, caller: Caller, submission: Submission<'_>) -> Outcome {
        let body = Body::parse(submission.body).map_err(Refusal::Malformed)?;
        let new = note_of(&caller, submission, &body)?;
        let mut noted = Noted {
            row: 0,
            endpoint: submission.endpoint,
            query: submission.query.map(str::to_owned),
            body: body.calling_back(&callback_url(&caller, &new)).into(),
            about: body.text("taskId").and_then(|id| id.parse().ok()),
            index: new.index,
            caller,
        };
        // Before it is noted: whoever finds the note finds it under way, too.
        let place = self.0.under_way.enter(&new.reference);
        for _ in 0..2 {
            match self.0.parts.store.begin_submission(new.clone()).await? {
                Begun::Noted(row) => {
                    noted.row = row;
                    return self.carry_out(noted, place).await;
                }
                Begun::KeyReused => return Err(Refusal::KeyReused),
                Begun::Repeated(known) => {
                    if let Some(answer) = answer_again(&known) {
                        return Ok(answer);
                    }
                    if let Some(outcome) = self.0.under_way.outcome(&known.reference).await {
                        return outcome;
                    }
                    // It may have ended just now: then the note says how.
                }
            }
        }
        Err(Refusal::InDoubt)
    }

    async fn carry_out(&self, noted: Noted, place: Place) -> Outcome {
        let work = self.clone();
        let carried_out = self.0.parts.tasks.spawn(async move {
            let outcome = work.send(noted).await;
            place.tell(&outcome);
            outcome
        });
        carried_out.await.unwrap_or(Err(Refusal::InDoubt))
    }

    async fn send(&self, noted: Noted) -> Outcome {
        let json = HeaderValue::from_static("application/json");
        let call = Call {
            method: Method::POST,
            path: noted.endpoint.path(),
            query: noted.query.as_deref(),
            body: noted.body.clone(),
            content_type: Some(&json),
        };
        let passed = tokio::select! {
            passed = noted.caller.api.pass(call) => passed,
            // What is still not answered at the end of the grace period never will be: its callback will tell.
            () = self.0.parts.tasks.stopping() => return Err(Refusal::InDoubt),
        };
        match passed {
            Ok(raw) => {
                failpoint::step(Step::SubmissionAccepted);
                self.answered(&noted, raw).await
            }
            Err(error) if error.may_have_arrived() => {
                noted.warn_of_doubt(&error.to_string());
                self.note_end(&noted, End::InDoubt).await;
                Err(Refusal::Lost(error))
            }
            Err(error) => {
                self.note_end(&noted, End::NotSent).await;
                Err(Refusal::Provider(error))
            }
        }
    }

    /// Notes what the provider said, and gives it to the caller as it came.
    async fn answered(&self, noted: &Noted, raw: RawAnswer) -> Outcome {
        let end = if let Some(verdict) = noted.verdict(&raw) {
            End::Answered(verdict, answer_of(&raw))
        } else {
            noted.warn_of_doubt("the provider's answer does not tell whether it was taken");
            End::InDoubt
        };
        self.note_end(noted, end).await;
        if let (Some((event, body)), Some(task_id)) = (announced(noted, &raw), &noted.about) {
            let about = (noted.endpoint.kind(), noted.index);
            self.enter(&noted.caller, task_id, about, Said { event, body })
                .await;
        }
        Ok(raw.into())
    }

    /// Notes how a submission ended. The caller need not wait until that succeeds: it is tried again aside.
    async fn note_end(&self, noted: &Noted, end: End) {
        let row = noted.row;
        let Err(error) = self.0.parts.store.end_submission(row, end.clone()).await else {
            return;
        };
        tracing::warn!(
            source = noted.caller.source,
            path = noted.endpoint.path(),
            %error,
            "what came of a submission to {} could not be noted, and is tried again: {error}",
            noted.endpoint.path()
        );
        let dropin = self.clone();
        self.0
            .parts
            .tasks
            .spawn(async move { dropin.keep_noting(row, end).await });
    }

    /// Until it is noted, or the grace period is over: then the callback tells.
    async fn keep_noting(&self, row: i64, end: End) {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.0.parts.tasks.stopping() => return,
            }
            match self.0.parts.store.end_submission(row, end.clone()).await {
                Ok(()) | Err(StoreError::Closed) => return,
                Err(StoreError::Busy | StoreError::Database(_)) => pause = LONGEST_PAUSE.min(pause * 2),
            }
        }
    }

    /// Has upgrades awaited that were being submitted when the process ended. To be called before any is submitted.
    pub async fn take_up_upgrades(&self) -> Result<(), StoreError> {
        let store = &self.0.parts.store;
        for row in store.cut_off_upgrades().await? {
            store.end_submission(row, End::InDoubt).await?;
        }
        Ok(())
    }
}

fn note_of(caller: &Caller, submission: Submission<'_>, body: &Body<'_>) -> Result<NewSubmission, Refusal> {
    let Submission { endpoint, key, .. } = submission;
    if key.is_some_and(|key| key.is_empty() || key.len() > MAX_KEY) {
        return Err(Refusal::Malformed(format!(
            "an Idempotency-Key has 1 to {MAX_KEY} bytes"
        )));
    }
    Ok(NewSubmission {
        reference: reference()?,
        source: caller.source.clone(),
        path: endpoint.path(),
        family: endpoint.family(),
        kind: endpoint.kind(),
        index: if endpoint == Endpoint::FourK {
            body.index()
        } else {
            0
        },
        // It was parsed, so it is UTF-8, perhaps behind a byte order mark.
        body: String::from_utf8_lossy(submission.body)
            .trim_start_matches('\u{feff}')
            .to_owned(),
        body_digest: Sha256::digest(submission.body).into(),
        prompt: body.prompt(),
        callback_url: body.callback_url(),
        key: key.map(|key| Sha256::digest(key).into()),
    })
}

impl Noted {
    /// Whether the provider took it; `None` if its answer does not tell.
    fn verdict(&self, raw: &RawAnswer) -> Option<Verdict> {
        let Some(error) = raw.error() else {
            let document = Document::parse(&raw.body).ok()?;
            return Some(Verdict::Accepted(document.task_id().clone()));
        };
        if self.endpoint == Endpoint::FourK
            && let Some(task_id) = &self.about
            && !matches!(
                raw.as_4k(task_id),
                Err(_) | Ok(provider_api::Answer::Unknown { .. })
            )
        {
            // Under way or finished: it was ordered before, and is awaited.
            return Some(Verdict::Accepted(task_id.clone()));
        }
        if error.may_have_arrived() {
            return None;
        }
        Some(match error.class() {
            Class::Final => Verdict::Refused,
            Class::Retry | Class::Wait | Class::Auth | Class::Credits | Class::Maintenance => Verdict::NotNow,
        })
    }

    fn warn_of_doubt(&self, why: &str) {
        tracing::warn!(
            source = self.caller.source,
            path = self.endpoint.path(),
            "a submission to {} is in doubt, its callback will tell: {why}",
            self.endpoint.path()
        );
    }
}

/// Files that the answer to the submission names: those of an upgrade that was made before.
fn announced(noted: &Noted, raw: &RawAnswer) -> Option<(Event, Bytes)> {
    let task_id = noted
        .about
        .as_ref()
        .filter(|_| noted.endpoint == Endpoint::FourK)?;
    match raw.as_4k(task_id) {
        Ok(provider_api::Answer::Ended { event, body, .. }) => Some((event, body)),
        _ => None,
    }
}

fn reference() -> Result<String, Refusal> {
    let mut random = [0_u8; REF_BYTES];
    getrandom::fill(&mut random)
        .map_err(|error| Refusal::Store(StoreError::Database(std::sync::Arc::new(error))))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

/// Ours, with all that tells what the callback will be about.
fn callback_url(caller: &Caller, new: &NewSubmission) -> String {
    let mut url = caller.callback_url.clone();
    url.query_pairs_mut()
        .append_pair("kind", new.kind.as_str())
        .append_pair("index", &new.index.to_string())
        .append_pair("ref", &new.reference);
    url.into()
}

fn answer_of(raw: &RawAnswer) -> SubmissionAnswer {
    let content_type = raw.content_type.as_ref();
    SubmissionAnswer {
        status: raw.status.as_u16(),
        content_type: content_type.and_then(|value| value.to_str().ok().map(str::to_owned)),
        body: raw.body.clone(),
    }
}

/// The answer to a submission that was sent before: the one that was given, or the one that its callback amounts to.
fn answer_again(known: &Known) -> Option<Answer> {
    let Some(answer) = &known.answer else {
        return known
            .task_id
            .as_deref()
            .map(|task_id| Answer::ours(shapes::accepted(task_id)));
    };
    let content_type = answer.content_type.as_deref();
    Some(Answer {
        status: StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK),
        content_type: content_type.and_then(|value| HeaderValue::from_str(value).ok()),
        body: answer.body.clone(),
    })
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Provider(error)
    }
}
