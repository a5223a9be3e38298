//! The client of the provider's API: what its record says of a task, fresh links, upgrades, the balance, and the requests
//! of callers that are passed on with our key.
//!
//! HTTP 200 says nothing: a `code` in the body decides, and what it means depends on the endpoint (`answer`). Errors are
//! sorted by what the asker does next ([`Class`]).
//!
//! The URL is the operator's, so that no guard judges it; what the answers name is for the guarded client to fetch.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method};
use url::Url;

use crate::clock::Clock;
use crate::config::Secret;
use crate::provider::TaskId;

mod answer;
mod error;
mod wire;

pub use answer::{Answer, RawAnswer};
pub use error::{ApiError, Class};

use wire::{Request, Wire};

/// How one provider is reached and how often it may be asked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its API lies: `/api/v1/` is added.
    pub base: Url,
    /// The key.
    pub key: Secret,
    /// Most questions in any second.
    pub queries_per_second: u32,
    /// Most submissions in any ten seconds.
    pub submissions_per_10s: u32,
    /// How long one request may take, to the last byte of its answer.
    pub timeout: Duration,
}

/// Which endpoint keeps the record of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// `veo/record-info`.
    Veo,
    /// `jobs/recordInfo`, for everything submitted by `jobs/createTask`.
    Market,
}

impl Family {
    /// The name in the database and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Veo => "veo",
            Self::Market => "market",
        }
    }

    fn endpoint(self) -> &'static str {
        match self {
            Self::Veo => "veo/record-info",
            Self::Market => "jobs/recordInfo",
        }
    }
}

/// A family that has no endpoint to ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the provider can only be asked about the families veo and market (or jobs)")]
pub struct UnknownFamily;

impl FromStr for Family {
    type Err = UnknownFamily;

    fn from_str(name: &str) -> Result<Self, UnknownFamily> {
        match name.to_ascii_lowercase().as_str() {
            "veo" => Ok(Self::Veo),
            "market" | "jobs" => Ok(Self::Market),
            _ => Err(UnknownFamily),
        }
    }
}

/// A request of a caller of ours, to be passed on.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// `GET` and `HEAD` are questions; any other method is a submission, save that `common/download-url` is a question.
    pub method: Method,
    /// The path below `/api/v1/`, such as `veo/generate`: letters, digits, `-._~` and slashes between them.
    pub path: &'a str,
    /// The query as the caller wrote it, without the question mark.
    pub query: Option<&'a str>,
    /// The body, empty for none.
    pub body: Bytes,
    /// The type of the body.
    pub content_type: Option<&'a HeaderValue>,
}

/// The provider of one source. Cheap to clone; clones share connections, rate limits and pauses.
#[derive(Debug, Clone)]
pub struct ProviderApi(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    wire: Wire,
}

impl ProviderApi {
    /// A client of these settings. `clock` tells how far off a date in `Retry-After` is.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, ApiError> {
        let wire = Wire::new(settings, clock)?;
        Ok(Self(Arc::new(Inner { wire })))
    }

    /// What the provider's record says of a task.
    pub async fn record(&self, family: Family, task_id: &TaskId) -> Result<Answer, ApiError> {
        let mut url = self.endpoint(family.endpoint())?;
        url.query_pairs_mut().append_pair("taskId", task_id.as_str());
        answer::record(task_id, &self.exchange(get(url)).await?)
    }

    /// Repeats the request for the 4K version of a video, which tells how far it is.
    ///
    /// **Orders one, and costs**, if none was ordered before. Never repeated by itself.
    pub async fn get_4k_video(&self, task_id: &TaskId, index: u32) -> Result<Answer, ApiError> {
        let url = self.endpoint("veo/get-4k-video")?;
        let body = serde_json::json!({"taskId": task_id.as_str(), "index": index});
        answer::upgrade_4k(task_id, &self.exchange(post(url, &body)).await?)
    }

    /// The 1080p version of a video, if it is ready. There is no callback for it.
    pub async fn get_1080p_video(&self, task_id: &TaskId, index: u32) -> Result<Answer, ApiError> {
        let mut url = self.endpoint("veo/get-1080p-video")?;
        url.query_pairs_mut()
            .append_pair("taskId", task_id.as_str())
            .append_pair("index", &index.to_string());
        answer::upgrade_1080p(task_id, &self.exchange(get(url)).await?)
    }

    /// A fresh link to a file whose URL the provider gave; it opens for 20 minutes.
    pub async fn download_url(&self, url: &str) -> Result<String, ApiError> {
        let endpoint = self.endpoint("common/download-url")?;
        let body = serde_json::json!({"url": url});
        answer::link(&self.exchange(post(endpoint, &body)).await?)
    }

    /// The credits that are left.
    pub async fn credit(&self) -> Result<f64, ApiError> {
        let url = self.endpoint("chat/credit")?;
        answer::credit(&self.exchange(get(url)).await?)
    }

    /// Passes a request on with our key and gives the answer back as it came, whatever its code ([`RawAnswer::error`] tells
    /// what that means). An error means that there is no answer of the API to give back.
    ///
    /// Sent once, so that nothing is paid for twice; [`ApiError::may_have_arrived`] tells whether it may have been taken.
    pub async fn pass(&self, call: Call<'_>) -> Result<RawAnswer, ApiError> {
        let mut url = self.endpoint(call.path)?;
        url.set_query(call.query.filter(|query| !query.is_empty()));
        let request = Request {
            method: call.method,
            url,
            content_type: call.content_type.cloned(),
            body: call.body,
        };
        self.exchange(request).await
    }

    fn endpoint(&self, path: &str) -> Result<Url, ApiError> {
        self.0.wire.url(path).ok_or(ApiError::Unfit {
            detail: "its path is none of the provider's",
        })
    }

    async fn exchange(&self, request: Request) -> Result<RawAnswer, ApiError> {
        self.0.wire.exchange(request).await
    }
}

fn get(url: Url) -> Request {
    Request {
        method: Method::GET,
        url,
        content_type: None,
        body: Bytes::new(),
    }
}

fn post(url: Url, body: &serde_json::Value) -> Request {
    Request {
        method: Method::POST,
        url,
        content_type: Some(HeaderValue::from_static("application/json")),
        body: body.to_string().into(),
    }
}
