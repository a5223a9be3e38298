//! One exchange with the provider's API: the request with our key, the answer within bounds.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response};
use url::Url;

use super::answer::RawAnswer;
use super::error::ApiError;
use super::{Settings, answer};
use crate::clock::Clock;
use crate::config::Secret;
use crate::provider::payload::Envelope;
use crate::{retry, roots};

/// Most bytes of an answer; the largest documented ones are lists of MIDI notes.
const MAX_ANSWER: usize = 4 << 20;
/// How long a connection may take to be made: name, TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection is kept for the next request: less than any server keeps it, as a submission that meets the end of
/// one may or may not have been taken.
const KEEP_IDLE: Duration = Duration::from_secs(5);
/// The longest `Retry-After` that is believed.
const MOST_PATIENCE: Duration = Duration::from_hours(1);

/// A request as it goes out.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) content_type: Option<HeaderValue>,
    pub(super) body: Bytes,
}

/// The way to one provider.
pub(super) struct Wire {
    client: Client,
    base: Url,
    host: String,
    key: Secret,
    authorization: HeaderValue,
    timeout: Duration,
    clock: Clock,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(settings: Settings, clock: Clock) -> Result<Self, ApiError> {
        let setup = |detail: &str| ApiError::Setup {
            detail: detail.to_owned(),
        };
        let host = settings
            .base
            .host_str()
            .filter(|_| !settings.base.cannot_be_a_base());
        let host = host
            .ok_or_else(|| setup("the source's api_url must be an http or https URL"))?
            .to_owned();
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", settings.key.expose()))
            .map_err(|_| setup("the source's api_key holds characters that no HTTP header can carry"))?;
        authorization.set_sensitive(true);
        let client = roots::client(client_settings).map_err(|error| setup(&cause(&error)))?;
        Ok(Self {
            client,
            host,
            base: settings.base,
            key: settings.key,
            authorization,
            timeout: settings.timeout,
            clock,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The URL of an endpoint, its path below `/api/v1/`. `None` if the path leads anywhere else.
    pub(super) fn url(&self, path: &str) -> Option<Url> {
        let permitted = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        let plain = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(permitted);
        if !path.split('/').all(plain) {
            return None;
        }
        let mut url = self.base.clone();
        let below = self.base.path().trim_end_matches('/');
        url.set_path(&format!("{below}/api/v1/{path}"));
        url.set_query(None);
        url.set_fragment(None);
        Some(url)
    }

    /// Sends a request once and reads what comes back. Whatever is a JSON object is an answer.
    pub(super) async fn exchange(&self, request: Request) -> Result<RawAnswer, ApiError> {
        let mut outgoing = self
            .client
            .request(request.method, request.url)
            .timeout(self.timeout)
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::ACCEPT, "application/json");
        if let Some(content_type) = request.content_type {
            outgoing = outgoing.header(header::CONTENT_TYPE, content_type);
        }
        if !request.body.is_empty() {
            outgoing = outgoing.body(request.body);
        }
        let mut response = outgoing.send().await.map_err(|error| self.broken(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_redirection() {
            return Err(gateway(status, "a redirect"));
        }
        let body = self.body(&mut response).await?;
        self.answer(status, &headers, body)
    }

    async fn body(&self, response: &mut Response) -> Result<Bytes, ApiError> {
        let too_large = ApiError::Garbled {
            detail: "it is larger than 4 MiB",
            costs: false,
        };
        let announced = response.content_length().unwrap_or_default();
        if usize::try_from(announced).is_ok_and(|length| length > MAX_ANSWER) {
            return Err(too_large);
        }
        let mut body = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.broken(&error))? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(too_large);
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    fn answer(&self, status: StatusCode, headers: &HeaderMap, body: Bytes) -> Result<RawAnswer, ApiError> {
        let retry_after = self.retry_after(headers);
        let content_type = headers.get(header::CONTENT_TYPE);
        let Some(envelope) = Envelope::parse(&body) else {
            return Err(not_an_answer(status, content_type, &body, retry_after));
        };
        // It should never hold our key; if it does, it is shown to nobody.
        let msg = envelope.msg().replace(self.key.expose(), crate::config::REDACTED);
        Ok(RawAnswer {
            status,
            content_type: content_type.cloned(),
            code: envelope.code(),
            msg: answer::sentence(&msg),
            retry_after,
            body,
        })
    }

    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
        let wait = retry::parse_retry_after(value, self.clock.now())?;
        Some(wait.min(MOST_PATIENCE))
    }

    fn broken(&self, error: &reqwest::Error) -> ApiError {
        let (host, sent) = (self.host.clone(), !error.is_connect());
        if sent && error.is_timeout() {
            return ApiError::Slow { host };
        }
        let detail = cause(error);
        ApiError::Unreachable { host, detail, sent }
    }
}

/// A client for a URL that the operator named. It follows no redirects, which would get the key, and ignores proxies of the
/// environment. It repeats nothing by itself: a submission costs.
fn client_settings() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("reelhook/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT)
        .pool_idle_timeout(KEEP_IDLE)
}

/// What came instead of a JSON object, sorted as far as the HTTP status tells.
fn not_an_answer(
    status: StatusCode,
    content_type: Option<&HeaderValue>,
    body: &[u8],
    retry_after: Option<Duration>,
) -> ApiError {
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS) {
        return answer::said(status.as_u16().into(), String::new(), retry_after);
    }
    let html = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    if body.trim_ascii().is_empty() {
        gateway(status, "nothing")
    } else if html || body.trim_ascii_start().starts_with(b"<") {
        gateway(status, "a page of HTML")
    } else if status.is_success() {
        ApiError::Garbled {
            detail: "it is no JSON object",
            costs: false,
        }
    } else {
        gateway(status, "something that is no JSON")
    }
}

fn gateway(status: StatusCode, what: &'static str) -> ApiError {
    let status = status.as_u16();
    ApiError::Gateway { status, what }
}

/// The innermost reason of a failed request, without the URL.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = match error.source() {
        Some(source) => source,
        None => return "the request failed".to_owned(),
    };
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    answer::sentence(&innermost.to_string())
}
