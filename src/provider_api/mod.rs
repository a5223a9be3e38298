//! The client of the provider's API: what its record says of a task, fresh links, upgrades, the balance, and the requests
//! of callers that are passed on with our key.
//!
//! HTTP 200 says nothing: a `code` in the body decides, and what it means depends on the endpoint (`answer`). Errors are
//! sorted by what the asker does next ([`Class`]).
//!
//! It keeps within the provider's limits (`limit`), and leaves the provider alone where asking again would only repeat the
//! answer (`breaker`), so that no asker, however careless, makes a hot loop of it.
//!
//! The URL is the operator's, so that no guard judges it; what the answers name is for the guarded client to fetch.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method};
use tokio::time::Instant;
use url::Url;

use crate::clock::Clock;
use crate::config::Secret;
use crate::provider::TaskId;

mod answer;
mod breaker;
mod error;
mod limit;
#[cfg(test)]
mod tests;
mod wire;

pub use answer::{Answer, RawAnswer};
pub use breaker::Pause;
pub use error::{ApiError, Class};

use breaker::{Breaker, Errand, Lane};
use limit::Limit;
use wire::{Request, Wire};

/// The POST that is a question: it costs nothing and changes nothing.
const DOWNLOAD_URL: &str = "common/download-url";
/// The wait before a question is sent once more, whose connection failed.
const SECOND_TRY_AFTER: Duration = Duration::from_millis(250);
/// What fails within so long may be a matter of a moment.
const SOON: Duration = Duration::from_secs(5);

/// How one provider is reached and how often it may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where its API lies: `/api/v1/` is added.
    pub base: Url,
    /// The key.
    pub key: Secret,
    /// Most questions in any second, and under way at one time.
    pub queries_per_second: u32,
    /// Most submissions in any ten seconds, and under way at one time.
    pub submissions_per_10s: u32,
    /// How long one request may take, to the last byte of its answer; and before that, wait for its turn.
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

impl Call<'_> {
    fn lane(&self) -> Lane {
        if matches!(self.method, Method::GET | Method::HEAD) || self.path == DOWNLOAD_URL {
            Lane::Query
        } else {
            Lane::Submission
        }
    }
}

/// The provider of one source. Cheap to clone; clones share connections, rate limits and pauses.
#[derive(Debug, Clone)]
pub struct ProviderApi(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    wire: Wire,
    breaker: Breaker,
    queries: Limit,
    submissions: Limit,
    /// How it was set up; its time-out is the longest wait for a turn, too.
    settings: Settings,
}

impl ProviderApi {
    /// A client of these settings. `clock` tells how far off a date in `Retry-After` is, and the times of a [`Pause`].
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, ApiError> {
        let queries = Limit::new(settings.queries_per_second, Duration::from_secs(1));
        let submissions = Limit::new(settings.submissions_per_10s, Duration::from_secs(10));
        let wire = Wire::new(settings.clone(), clock.clone())?;
        Ok(Self(Arc::new(Inner {
            breaker: Breaker::new(wire.host().to_owned(), clock),
            wire,
            queries,
            submissions,
            settings,
        })))
    }

    /// Why the provider, or one of its endpoints, is being left alone, if so. Until then requests are refused unsent, as
    /// [`ApiError::Paused`].
    pub fn pause(&self) -> Option<Pause> {
        self.0.breaker.pause(Instant::now())
    }

    /// Whether it is a client of these settings.
    pub fn is_of(&self, settings: &Settings) -> bool {
        self.0.settings == *settings
    }

    /// What the provider's record says of a task.
    pub async fn record(&self, family: Family, task_id: &TaskId) -> Result<Answer, ApiError> {
        let errand = query(family.endpoint());
        let mut url = self.url(errand)?;
        url.query_pairs_mut().append_pair("taskId", task_id.as_str());
        answer::record(family, task_id, &self.ask(errand, get(url)).await?)
    }

    /// Repeats the request for the 4K version of a video, which tells how far it is.
    ///
    /// **Orders one, and costs**, if none was ordered before; so it counts as a submission, and is sent once.
    pub async fn get_4k_video(&self, task_id: &TaskId, index: u32) -> Result<Answer, ApiError> {
        let errand = Errand {
            lane: Lane::Submission,
            path: "veo/get-4k-video",
        };
        let body = serde_json::json!({"taskId": task_id.as_str(), "index": index});
        let request = post(self.url(errand)?, &body);
        answer::upgrade_4k(task_id, &self.ask(errand, request).await?)
    }

    /// The 1080p version of a video, if it is ready. There is no callback for it.
    pub async fn get_1080p_video(&self, task_id: &TaskId, index: u32) -> Result<Answer, ApiError> {
        let errand = query("veo/get-1080p-video");
        let mut url = self.url(errand)?;
        url.query_pairs_mut()
            .append_pair("taskId", task_id.as_str())
            .append_pair("index", &index.to_string());
        answer::upgrade_1080p(task_id, &self.ask(errand, get(url)).await?)
    }

    /// A fresh link to a file whose URL the provider gave; it opens for 20 minutes.
    pub async fn download_url(&self, url: &str) -> Result<String, ApiError> {
        let errand = query(DOWNLOAD_URL);
        let body = serde_json::json!({"url": url});
        answer::link(&self.ask(errand, post(self.url(errand)?, &body)).await?)
    }

    /// The credits that are left.
    pub async fn credit(&self) -> Result<f64, ApiError> {
        let errand = query("chat/credit");
        answer::credit(&self.ask(errand, get(self.url(errand)?)).await?)
    }

    /// Passes a request on with our key and gives the answer back as it came, whatever its code ([`RawAnswer::error`] tells
    /// what that means). An error means that there is no answer of the API to give back.
    ///
    /// A submission is sent once, so that nothing is paid for twice; [`ApiError::may_have_arrived`] tells whether it may have
    /// been taken.
    pub async fn pass(&self, call: Call<'_>) -> Result<RawAnswer, ApiError> {
        let errand = Errand {
            lane: call.lane(),
            path: call.path,
        };
        let mut url = self.url(errand)?;
        url.set_query(call.query.filter(|query| !query.is_empty()));
        let request = Request {
            method: call.method,
            url,
            content_type: call.content_type.cloned(),
            body: call.body,
        };
        self.ask(errand, request).await
    }

    fn url(&self, errand: Errand<'_>) -> Result<Url, ApiError> {
        self.0.wire.url(errand.path).ok_or(ApiError::Unfit {
            detail: "its path is none of the provider's",
        })
    }

    /// Sends a request; a question whose connection soon failed, once more.
    async fn ask(&self, errand: Errand<'_>, request: Request) -> Result<RawAnswer, ApiError> {
        if errand.lane == Lane::Submission {
            return self.send(errand, request).await;
        }
        let began = Instant::now();
        match self.send(errand, request.clone()).await {
            Err(ApiError::Unreachable { .. }) if began.elapsed() < SOON => {
                tokio::time::sleep(SECOND_TRY_AFTER).await;
                self.send(errand, request).await
            }
            other => other,
        }
    }

    /// Sends a request when it is its turn, unless the provider is left alone.
    async fn send(&self, errand: Errand<'_>, request: Request) -> Result<RawAnswer, ApiError> {
        let Inner { wire, breaker, .. } = &*self.0;
        let limit = match errand.lane {
            Lane::Query => &self.0.queries,
            Lane::Submission => &self.0.submissions,
        };
        breaker.check(errand, Instant::now())?;
        let mut turn = limit.turn(self.0.settings.timeout).await?;
        // Again: the one before may have come back with a reason to pause.
        let entered = Instant::now();
        breaker.enter(errand, entered)?;
        turn.take();
        let failed = |error: &ApiError| breaker.failed(errand, (entered, Instant::now()), error);
        let answer = wire.exchange(request).await;
        drop(turn);
        match answer {
            Ok(mut raw) => {
                match raw.error() {
                    Some(error) => raw.retry_after = raw.retry_after.max(failed(&error)),
                    None => breaker.succeeded(errand, entered),
                }
                Ok(raw)
            }
            Err(mut error) => {
                let pause = failed(&error);
                if let ApiError::Said { retry_after, .. } = &mut error {
                    *retry_after = pause.max(*retry_after);
                }
                Err(error)
            }
        }
    }
}

fn query(path: &'static str) -> Errand<'static> {
    let lane = Lane::Query;
    Errand { lane, path }
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
