//! The provider's own API, spoken by us: a caller changes one base URL and keeps every other line.
//!
//! What it submits is noted before it goes upstream, with our callback URL in the place of its own (`submit`). What it asks
//! for is answered from what is recorded, with URLs of the stored files, and else by the provider (`ask`); what the provider
//! tells on the way is recorded like a callback.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use url::Url;

use crate::clock::Clock;
use crate::config::{Live, Secret, Source, SourceName};
use crate::file_urls::{FileName, FileUrls};
use crate::provider::{Event, Kind, TaskId};
use crate::provider_api::{ApiError, ProviderApi, RawAnswer};
use crate::shutdown::Tasks;
use crate::store::record::{ProviderAnswer, Via};
use crate::store::tasks::{FileRecord, TaskRecord};
use crate::store::{Store, StoreError};

mod ask;
mod request;
mod shapes;
mod submit;
mod under_way;

pub use ask::Question;
pub use request::prompt_of;
pub use submit::{Endpoint, Submission};

use under_way::UnderWay;

/// The sources that callers may submit to, by name.
pub type Sources = BTreeMap<SourceName, Source>;

/// Speaks the provider's API. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Dropin(Arc<Shared>);

/// What it is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where everything is recorded.
    pub store: Store,
    /// Tells the time.
    pub clock: Clock,
    /// Carries submissions to their end, whether or not their callers still wait.
    pub tasks: Tasks,
    /// Signs URLs of stored files.
    pub file_urls: FileUrls,
    /// The providers, by the source's name; a reload may replace them.
    pub apis: Live<BTreeMap<String, ProviderApi>>,
    /// How the world reaches us; callbacks and links start with it.
    pub public_url: Option<Url>,
    /// The source of callers with a token of the API, if it was named.
    pub source: Option<String>,
}

#[derive(Debug)]
struct Shared {
    parts: Parts,
    under_way: UnderWay,
}

/// Somebody who may use it, and the source that is used.
#[derive(Debug, Clone)]
pub struct Caller {
    source: String,
    api: ProviderApi,
    public_url: Url,
    /// Where callbacks of the source go, with its token.
    callback_url: Url,
}

/// An answer in the provider's shape: its own, or ours in its stead.
#[derive(Clone)]
pub struct Answer {
    /// The HTTP status, 200 even for most of the provider's errors.
    pub status: StatusCode,
    /// The type it came with.
    pub content_type: Option<HeaderValue>,
    /// The JSON.
    pub body: Bytes,
}

impl fmt::Debug for Answer {
    /// Without the body, which may echo our callback URL and its token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Answer {
    fn ours(json: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: Some(HeaderValue::from_static("application/json")),
            body: json.into(),
        }
    }
}

impl From<RawAnswer> for Answer {
    fn from(raw: RawAnswer) -> Self {
        Self {
            status: raw.status,
            content_type: raw.content_type,
            body: raw.body,
        }
    }
}

/// Why a caller gets none.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// No token, or one that lets nobody in. In the provider's words.
    #[error("You do not have access permissions")]
    NotPermitted,
    /// Something is not configured.
    #[error("{0}")]
    NotSetUp(String),
    /// The request is none that can be passed on.
    #[error("{0}")]
    Malformed(String),
    /// The Idempotency-Key was used for something else.
    #[error("this Idempotency-Key was used for another request; send each request with a key of its own")]
    KeyReused,
    /// Under this Idempotency-Key something was sent, and nobody knows what came of it.
    #[error(
        "in_doubt: this was sent to the provider and its answer was lost, so it is not sent again; its callback will tell, \
         then ask again with this Idempotency-Key"
    )]
    InDoubt,
    /// The provider gave no answer; nothing was submitted.
    #[error("{0}")]
    Provider(ApiError),
    /// The provider gave no answer, and may have taken the submission all the same.
    #[error("{0}. The provider may have taken it all the same: its callback will tell")]
    Lost(ApiError),
    /// Nothing can be recorded at the moment, so nothing is submitted.
    #[error("this cannot be recorded at the moment; try again shortly")]
    Store(#[from] StoreError),
}

impl Dropin {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            parts,
            under_way: UnderWay::default(),
        }))
    }

    /// Lets in who presents the API key of a source, which selects that source, or a token of our own API. All of them are
    /// compared, so that the time taken tells nothing.
    pub fn admit(
        &self,
        sources: &Sources,
        api_tokens: &[Secret],
        presented: Option<&str>,
    ) -> Result<Caller, Refusal> {
        let presented = presented.ok_or(Refusal::NotPermitted)?.as_bytes();
        let has_key = |source: &Source| source.api_key.as_ref().is_some_and(|key| key.matches(presented));
        let of_key: Vec<&SourceName> = sources
            .iter()
            .filter(|(_, source)| has_key(source))
            .map(|(name, _)| name)
            .collect();
        let is_token = Secret::any_matches(api_tokens, presented);
        let name = match of_key.as_slice() {
            [] if is_token => self.source_of_tokens(sources)?,
            [] => return Err(Refusal::NotPermitted),
            [only] => only,
            several => several
                .iter()
                .find(|name| self.is_chosen(name))
                .unwrap_or(&several[0]),
        };
        self.caller(name, &sources[name])
    }

    fn is_chosen(&self, name: &SourceName) -> bool {
        self.0.parts.source.as_deref() == Some(name.as_str())
    }

    /// The source of callers whose token does not tell.
    fn source_of_tokens<'s>(&self, sources: &'s Sources) -> Result<&'s SourceName, Refusal> {
        if self.0.parts.source.is_some() {
            let chosen = sources.keys().find(|name| self.is_chosen(name));
            return chosen.ok_or_else(|| Refusal::NotSetUp("dropin.source names no source".to_owned()));
        }
        let with_key: Vec<&SourceName> = sources
            .iter()
            .filter(|(_, source)| source.api_key.is_some())
            .map(|(name, _)| name)
            .collect();
        match with_key.as_slice() {
            [only] => Ok(only),
            [] => Err(Refusal::NotSetUp(
                "no source has an API key; set sources.NAME.api_key".to_owned(),
            )),
            _ => Err(Refusal::NotSetUp(
                "several sources have an API key; set dropin.source, or send the key of the one that is meant".to_owned(),
            )),
        }
    }

    fn caller(&self, name: &SourceName, source: &Source) -> Result<Caller, Refusal> {
        let api = self.0.parts.apis.now().get(name.as_str()).cloned();
        let api = api.ok_or_else(|| {
            Refusal::NotSetUp(format!(
                "source {name} cannot be submitted to; set sources.{name}.api_key"
            ))
        })?;
        let public_url = self.0.parts.public_url.clone().ok_or_else(|| {
            Refusal::NotSetUp(
                "public_url is not set, so the provider could not call back; set it to how the world reaches this server"
                    .to_owned(),
            )
        })?;
        Ok(Caller {
            source: name.to_string(),
            api,
            callback_url: source.callback_url(name, public_url.clone()),
            public_url,
        })
    }

    /// Where a caller finds a file: here once it is stored, with the provider until then and after it was deleted.
    fn url_of(&self, caller: &Caller, task: &TaskRecord, file: &FileRecord) -> String {
        if file.state == "stored" {
            self.link(caller, &task.task_id, &file.name)
        } else {
            file.provider_url.clone()
        }
    }

    fn link(&self, caller: &Caller, task_id: &str, name: &str) -> String {
        let file = FileName {
            source: &caller.source,
            task_id,
            name,
        };
        let now = self.0.parts.clock.now();
        self.0.parts.file_urls.url(&caller.public_url, file, now).into()
    }

    async fn task(&self, caller: &Caller, task_id: &TaskId) -> Result<Option<TaskRecord>, StoreError> {
        let found = self
            .0
            .parts
            .store
            .tasks_by_id(task_id.as_str(), Some(&caller.source));
        Ok(found.await?.pop())
    }

    /// Has an answer of the provider recorded the way a callback is. That it could not be is no reason to withhold it.
    async fn enter(&self, caller: &Caller, task_id: &TaskId, (kind, index): (Kind, u32), said: Said) {
        let answer = ProviderAnswer {
            source: caller.source.clone(),
            via: Via::Api,
            received_at: self.0.parts.clock.now(),
            task_id: task_id.clone(),
            kind,
            index,
            event: said.event,
            body: said.body,
        };
        match self.0.parts.store.record_delivery(answer.into()).await {
            Ok(recorded) => tracing::info!(
                source = caller.source,
                task.id = %task_id,
                verdict = recorded.verdict.as_str(),
                downloads = recorded.queued,
                "the provider told a caller what became of task {task_id}"
            ),
            Err(error) => tracing::warn!(
                source = caller.source,
                task.id = %task_id,
                %error,
                "what the provider told a caller about task {task_id} was not recorded: {error}"
            ),
        }
    }
}

/// An answer of the provider that says what became of a task.
struct Said {
    event: Event,
    body: Bytes,
}
