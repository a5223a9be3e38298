//! Questions: answered from what is recorded, and else by the provider.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Method};
use serde_json::json;
use url::Url;
use url::form_urlencoded;

use super::request::Body;
use super::shapes::{self, Told};
use super::{Answer, Caller, Dropin, Refusal, Said};
use crate::provider::{Kind, OutcomeClass, TaskId};
use crate::provider_api::{self, ApiError, Call, Class, Family, RawAnswer};
use crate::store::tasks::{FileRecord, TaskRecord};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// `veo/record-info`.
    VeoRecord,
    /// `jobs/recordInfo`.
    MarketRecord,
    /// `veo/get-1080p-video`.
    Upgrade1080p,
    /// `chat/credit`.
    Credit,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Self::VeoRecord => "veo/record-info",
            Self::MarketRecord => "jobs/recordInfo",
            Self::Upgrade1080p => "veo/get-1080p-video",
            Self::Credit => "chat/credit",
        }
    }
}

/// What the query of a question says.
struct Asked {
    task_id: Option<TaskId>,
    index: u32,
    /// Whether the caller wants the provider's URLs whatever is stored.
    provider_urls: bool,
    /// The query without what is only for us.
    passed_on: Option<String>,
}

impl Asked {
    fn of(query: Option<&str>) -> Self {
        let query = query.unwrap_or_default();
        let pairs = || form_urlencoded::parse(query.as_bytes());
        let value = |name: &str| {
            let mut named = pairs().filter(|(key, _)| key == name);
            named.next().map(|(_, value)| value)
        };
        let is_ours = |part: &&str| part.split_once('=').map_or(*part, |(name, _)| name) == "urls";
        let passed_on: Vec<&str> = query.split('&').filter(|part| !is_ours(part)).collect();
        Self {
            task_id: value("taskId").and_then(|id| id.parse().ok()),
            index: value("index").and_then(|index| index.parse().ok()).unwrap_or(0),
            provider_urls: value("urls").as_deref() == Some("provider"),
            passed_on: Some(passed_on.join("&")).filter(|query| !query.is_empty()),
        }
    }
}

impl Dropin {
    /// Answers a question.
    pub async fn ask(
        &self,
        caller: &Caller,
        question: Question,
        query: Option<&str>,
    ) -> Result<Answer, Refusal> {
        let asked = Asked::of(query);
        match (question, asked.task_id.clone()) {
            (Question::VeoRecord, Some(task_id)) => {
                self.record(caller, (question, Family::Veo), &task_id, &asked)
                    .await
            }
            (Question::MarketRecord, Some(task_id)) => {
                self.record(caller, (question, Family::Market), &task_id, &asked)
                    .await
            }
            (Question::Upgrade1080p, Some(task_id)) => self.upgrade_1080p(caller, &task_id, &asked).await,
            // Without a usable id the provider says what is wrong.
            _ => Ok(self.pass(caller, question, &asked).await?.into()),
        }
    }

    async fn record(
        &self,
        caller: &Caller,
        (question, family): (Question, Family),
        task_id: &TaskId,
        asked: &Asked,
    ) -> Result<Answer, Refusal> {
        let known = self.task(caller, task_id).await?;
        let from_store = |task: &TaskRecord| {
            let url_of = |file: &FileRecord| self.url(caller, task, file, asked);
            Answer::ours(Told::of(task, &url_of).json(family))
        };
        let (is_known, is_final) = known.as_ref().map_or((false, false), |task| {
            let told = Told::of(task, &|file| file.provider_url.clone());
            (told.is_known(), told.is_final(family))
        });
        if let Some(task) = known.as_ref().filter(|_| is_final) {
            return Ok(from_store(task));
        }
        let passed = self.pass(caller, question, asked).await;
        // Of what is known anyway, no delivery is written each time that somebody asks.
        if let Ok(raw) = &passed
            && !is_known
        {
            self.take_record(caller, (family, task_id), known.as_ref(), raw)
                .await;
        }
        match (passed, &known) {
            (Ok(raw), Some(task))
                if raw
                    .error()
                    .is_some_and(|error| task.state.is_terminal() || will_pass(&error)) =>
            {
                Ok(from_store(task))
            }
            (Ok(raw), _) => Ok(raw.into()),
            (Err(_), Some(task)) => Ok(from_store(task)),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// Has recorded what a record says that ended: of a task we know, or with files.
    async fn take_record(
        &self,
        caller: &Caller,
        (family, task_id): (Family, &TaskId),
        known: Option<&TaskRecord>,
        raw: &RawAnswer,
    ) {
        let Ok(provider_api::Answer::Ended { event, body, .. }) = raw.as_record(family, task_id) else {
            return;
        };
        if known.is_none() && event.class != OutcomeClass::Success {
            return;
        }
        // The record is that of the task itself, whatever upgrades of it are awaited under the same id.
        let kind = event.kind_by_shape.clone().unwrap_or_else(Kind::video);
        self.enter(caller, task_id, (kind, 0), Said { event, body }).await;
    }

    async fn upgrade_1080p(
        &self,
        caller: &Caller,
        task_id: &TaskId,
        asked: &Asked,
    ) -> Result<Answer, Refusal> {
        let known = self.task(caller, task_id).await?;
        if let Some(task) = &known {
            let is_there = |file: &&FileRecord| shapes::is_1080p(file, asked.index) && file.state == "stored";
            if let Some(file) = task.files.iter().find(is_there) {
                return Ok(Answer::ours(shapes::result_url(
                    &self.url(caller, task, file, asked),
                )));
            }
        }
        let raw = self.pass(caller, Question::Upgrade1080p, asked).await?;
        if let Ok(provider_api::Answer::Ended { event, body, .. }) = raw.as_1080p(task_id)
            && event.class == OutcomeClass::Success
        {
            let about = (Kind::full_hd(), asked.index);
            self.enter(caller, task_id, about, Said { event, body }).await;
        }
        Ok(raw.into())
    }

    /// A link to a file by its URL: ours or the provider's, of what is stored; else the provider is asked for a fresh one.
    pub async fn download_url(
        &self,
        caller: &Caller,
        query: Option<&str>,
        body: &Bytes,
    ) -> Result<Answer, Refusal> {
        let asked = Asked::of(query);
        let parsed = Body::parse(body).map_err(Refusal::Malformed)?;
        let Some(url) = parsed.text("url") else {
            return self.pass_link(caller, &asked, body.clone()).await;
        };
        if is_ours(&caller.public_url, &url) {
            // Never passed on: whoever has it may open the file.
            let Some((task, file)) = self.behind(caller, &url).await? else {
                return Ok(Answer::ours(shapes::wrong_url()));
            };
            if file.state == "stored" && !asked.provider_urls {
                return Ok(Answer::ours(shapes::link(&self.link(
                    caller,
                    &task.task_id,
                    &file.name,
                ))));
            }
            let theirs = json!({"url": file.provider_url}).to_string();
            return self.pass_link(caller, &asked, theirs.into()).await;
        }
        if !asked.provider_urls
            && let Some(stored) = self.0.parts.store.stored_at(&caller.source, &url).await?
        {
            return Ok(Answer::ours(shapes::link(&self.link(
                caller,
                &stored.task_id,
                &stored.name,
            ))));
        }
        self.pass_link(caller, &asked, body.clone()).await
    }

    async fn pass_link(&self, caller: &Caller, asked: &Asked, body: Bytes) -> Result<Answer, Refusal> {
        let json = HeaderValue::from_static("application/json");
        let call = Call {
            method: Method::POST,
            path: "common/download-url",
            query: asked.passed_on.as_deref(),
            body,
            content_type: Some(&json),
        };
        Ok(caller.api.pass(call).await?.into())
    }

    /// The file that a link of ours leads to. Its signature does not matter: the caller may see every file of its source.
    async fn behind(&self, caller: &Caller, url: &str) -> Result<Option<(TaskRecord, FileRecord)>, Refusal> {
        let Some((task_id, name)) = place_in((&caller.public_url, &caller.source), url) else {
            return Ok(None);
        };
        let Some(task) = self.task(caller, &task_id).await? else {
            return Ok(None);
        };
        let file = task.files.iter().find(|file| file.name == name).cloned();
        Ok(file.map(|file| (task, file)))
    }

    fn url(&self, caller: &Caller, task: &TaskRecord, file: &FileRecord, asked: &Asked) -> String {
        if asked.provider_urls {
            return file.provider_url.clone();
        }
        self.url_of(caller, task, file)
    }

    async fn pass(&self, caller: &Caller, question: Question, asked: &Asked) -> Result<RawAnswer, ApiError> {
        let call = Call {
            method: Method::GET,
            path: question.path(),
            query: asked.passed_on.as_deref(),
            body: Bytes::new(),
            content_type: None,
        };
        caller.api.pass(call).await
    }
}

/// Whether the provider's no is for now and about nothing that a person has to see to.
fn will_pass(error: &ApiError) -> bool {
    matches!(error.class(), Class::Retry | Class::Wait | Class::Maintenance)
}

/// Whether a URL is one under `base`.
fn is_ours(base: &Url, url: &str) -> bool {
    let prefix = base.path().trim_end_matches('/');
    let is_below = |url: Url| {
        let below = url.path().strip_prefix(prefix);
        url.origin() == base.origin() && below.is_some_and(|below| below.starts_with('/'))
    };
    Url::parse(url.trim()).is_ok_and(is_below)
}

/// Task and name in a link under `base` to a file of the source.
fn place_in((base, source): (&Url, &str), url: &str) -> Option<(TaskId, String)> {
    let url = Url::parse(url).ok()?;
    let of_another = |(name, value): (Cow<str>, Cow<str>)| name == "source" && value != source;
    if url.query_pairs().any(of_another) {
        return None;
    }
    let below = url.path().strip_prefix(base.path().trim_end_matches('/'))?;
    let (task_id, name) = below.strip_prefix("/v1/tasks/")?.split_once("/files/")?;
    let task_id = percent_encoding::percent_decode_str(task_id).decode_utf8().ok()?;
    let name = percent_encoding::percent_decode_str(name).decode_utf8().ok()?;
    Some((task_id.parse().ok()?, name.into_owned()))
}
