//! The client of a running server's HTTP API.

use std::error::Error as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::Url;

use super::address::Address;
use super::answers::ProblemDetails;
use super::{Session, human};
use crate::config::{Config, Overrides, Secret, SourceName};

/// How long an answer may take, beyond what the request itself asks the server to wait.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a server that was there may be gone, and how often it is tried meanwhile.
const RESTART: Duration = Duration::from_mins(2);
const RETRY_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1_000 });

/// Which server to talk to, and how.
#[expect(clippy::doc_markdown, reason = "clap prints the docs as they are")]
#[derive(Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// The server to ask [env: REELHOOK_SERVER] [default: the configured admin_listen, else listen]
    #[arg(long, value_name = "URL", global = true, help_heading = "Server")]
    server: Option<Url>,
    /// One of the server's api.tokens [env: REELHOOK_API_TOKEN]
    #[arg(long, global = true, help_heading = "Server")]
    token: Option<Secret>,
    /// Only this source; needed where two sources have a task of the same id
    #[arg(long, value_name = "NAME", global = true, help_heading = "Server")]
    source: Option<SourceName>,
    /// Print the server's JSON as it came
    #[arg(long, global = true, help_heading = "Server")]
    pub(super) json: bool,
}

impl ServerArgs {
    /// The source, for commands that mean something else by it than that of every request.
    pub(super) fn take_source(&mut self) -> Option<SourceName> {
        self.source.take()
    }
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Nobody answered, or not to the end.
    #[error(
        "no answer from {server} ({detail}); start a server with `{} serve`, or name another with --server or \
         REELHOOK_SERVER",
        human::program()
    )]
    Unreachable {
        /// The server that was tried.
        server: Url,
        /// What the system said.
        detail: String,
    },
    /// The server said no.
    #[error("{detail} ({code}){}", advice(*status, code))]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The stable code of the error.
        code: String,
        /// The server's sentence.
        detail: String,
    },
    /// Something answered that does not speak our API.
    #[error("{server} answered {status}, and not in the way of reelhook; is this the right address?")]
    Foreign {
        /// The server that was tried.
        server: Url,
        /// The HTTP status.
        status: StatusCode,
    },
}

fn advice(status: StatusCode, code: &str) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; give one of the server's api.tokens by --token or REELHOOK_API_TOKEN"
        }
        StatusCode::CONFLICT if code == "ambiguous_source" => "; --source chooses between sources",
        _ => "",
    }
}

impl ClientError {
    /// Whether a server that was there a moment ago may only be restarting, or draining.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } | Self::Foreign { status, .. } => status.is_server_error(),
        }
    }
}

/// A running server.
pub(super) struct Server {
    base: Url,
    token: Option<Secret>,
    source: Option<SourceName>,
    client: reqwest::Client,
    /// Whether it ever answered.
    reached: AtomicBool,
}

/// The text of a good answer.
pub(super) struct Answer(pub(super) String);

impl Answer {
    /// Reads the text as JSON.
    pub(super) fn read<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_str(&self.0).context("the server's answer is not what was expected")
    }
}

impl Server {
    /// The server named by flag or environment; else the one our configuration describes, with a token from there.
    pub(super) fn new(args: &ServerArgs, session: &Session) -> anyhow::Result<Self> {
        let (address, configured_token) = locate(args.server.as_ref(), session)?;
        let given = args.token.clone().or_else(|| {
            let token = session
                .environment
                .value("REELHOOK_API_TOKEN")
                .filter(|token| !token.is_empty());
            token.map(Secret::new)
        });
        let client = client(&address)?;
        Ok(Self {
            base: address.url,
            token: given.or(configured_token),
            source: args.source.clone(),
            client,
            reached: AtomicBool::new(false),
        })
    }

    /// The server that a configuration describes, running on this machine.
    pub(super) fn of(config: &Config) -> anyhow::Result<Self> {
        let address = Address::of_api(config);
        let client = client(&address)?;
        Ok(Self {
            base: address.url,
            token: config.api.tokens.first().cloned(),
            source: None,
            client,
            reached: AtomicBool::new(false),
        })
    }

    /// The address, as a person would write it.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// The address of a path on the server.
    pub(super) fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("the address is http or https")
            .pop_if_empty()
            .extend(path);
        let source = self.source.iter().map(|source| ("source", source.as_str()));
        let mut pairs = query.iter().copied().chain(source).peekable();
        if pairs.peek().is_some() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        url
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Answer, ClientError> {
        self.send(Method::GET, self.url(path, query), PATIENCE).await
    }

    pub(super) async fn get_at(&self, url: Url) -> Result<Answer, ClientError> {
        self.send(Method::GET, url, PATIENCE).await
    }

    /// Opens the live events, from now on or from the last one that was seen.
    pub(super) async fn follow(
        &self,
        query: &[(&str, &str)],
        last_id: Option<&str>,
    ) -> Result<reqwest::Response, ClientError> {
        let mut request = self.client.get(self.url(&["v1", "events"], query));
        if let Some(last_id) = last_id {
            request = request.header("last-event-id", last_id);
        }
        // The answer has no end, its head has.
        let opened = tokio::time::timeout(PATIENCE, self.open(request)).await;
        let response = opened.map_err(|_| ClientError::Unreachable {
            server: self.base.clone(),
            detail: "it took too long".to_owned(),
        })??;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, text) = self.whole(response).await?;
        Err(self.refusal(status, &text))
    }

    /// A request that the server may take its time to answer.
    pub(super) async fn get_within(&self, url: Url, wait: Duration) -> Result<Answer, ClientError> {
        self.send(Method::GET, url, PATIENCE + wait).await
    }

    pub(super) async fn post(&self, path: &[&str]) -> Result<Answer, ClientError> {
        self.send(Method::POST, self.url(path, &[]), PATIENCE).await
    }

    /// One that the server may take its time to carry out.
    pub(super) async fn post_within(&self, url: Url, wait: Duration) -> Result<Answer, ClientError> {
        self.send(Method::POST, url, PATIENCE + wait).await
    }

    /// A request with a JSON body.
    pub(super) async fn post_json(
        &self,
        path: &[&str],
        body: &serde_json::Value,
    ) -> Result<Answer, ClientError> {
        self.post_text(path, body.to_string()).await
    }

    /// The same with the JSON written already.
    pub(super) async fn post_text(&self, path: &[&str], body: String) -> Result<Answer, ClientError> {
        let request = self
            .client
            .post(self.url(path, &[]))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body);
        self.carry_out(request, PATIENCE).await
    }

    pub(super) async fn delete(&self, path: &[&str]) -> Result<Answer, ClientError> {
        self.send(Method::DELETE, self.url(path, &[]), PATIENCE).await
    }

    /// A request that may be repeated: it is, for a while, if it fails on a server that may be restarting.
    pub(super) async fn patiently<F>(&self, mut request: impl FnMut() -> F) -> Result<Answer, ClientError>
    where
        F: Future<Output = Result<Answer, ClientError>>,
    {
        let give_up_at = Instant::now() + RESTART;
        loop {
            match request().await {
                Err(error) if error.is_passing() && self.was_reached() && Instant::now() < give_up_at => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    /// Whether it ever answered.
    fn was_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    async fn send(&self, method: Method, url: Url, patience: Duration) -> Result<Answer, ClientError> {
        self.carry_out(self.client.request(method, url), patience).await
    }

    async fn carry_out(
        &self,
        request: reqwest::RequestBuilder,
        patience: Duration,
    ) -> Result<Answer, ClientError> {
        let response = self.open(request.timeout(patience)).await?;
        let (status, text) = self.whole(response).await?;
        if status.is_success() {
            return Ok(Answer(text));
        }
        Err(self.refusal(status, &text))
    }

    async fn open(&self, mut request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    async fn whole(&self, response: reqwest::Response) -> Result<(StatusCode, String), ClientError> {
        let status = response.status();
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        self.reached.store(true, Ordering::Relaxed);
        Ok((status, text))
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable {
            server: self.base.clone(),
            detail: cause(error),
        }
    }

    fn refusal(&self, status: StatusCode, text: &str) -> ClientError {
        match serde_json::from_str::<ProblemDetails>(text) {
            Ok(problem) if !problem.code.is_empty() => ClientError::Refused {
                status,
                code: human::clean(&problem.code),
                detail: human::clean(if problem.detail.is_empty() {
                    &problem.title
                } else {
                    &problem.detail
                }),
            },
            _ => ClientError::Foreign {
                server: self.base.clone(),
                status,
            },
        }
    }
}

fn locate(named: Option<&Url>, session: &Session) -> anyhow::Result<(Address, Option<Secret>)> {
    if let Some(url) = named {
        return Ok((Address::named(web(url.clone(), "--server")?), None));
    }
    if let Some(text) = session
        .environment
        .value("REELHOOK_SERVER")
        .filter(|text| !text.is_empty())
    {
        let url = text
            .parse()
            .with_context(|| format!("REELHOOK_SERVER is {text:?}, which is not a URL"))?;
        return Ok((Address::named(web(url, "REELHOOK_SERVER")?), None));
    }
    let config = session
        .config(Overrides::default())
        .context("cannot tell which server is meant; name it with --server, or mend the configuration")?;
    Ok((Address::of_api(&config), config.api.tokens.first().cloned()))
}

fn web(url: Url, named_by: &str) -> anyhow::Result<Url> {
    if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
        anyhow::bail!("{named_by} must be an http or https URL such as http://127.0.0.1:8080");
    }
    Ok(url)
}

/// A client for URLs that the operator named. It follows no redirects: they would get the token.
pub(super) fn client(server: &Address) -> anyhow::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .user_agent(concat!("reelhook/", env!("CARGO_PKG_VERSION")));
    if let (Some(name), Some(at)) = (server.url.host_str(), server.at) {
        builder = builder.resolve(name, at);
    }
    if server.url.scheme() == "http" {
        // Without this the machine's certificates are loaded, of which a small container image has none.
        builder = builder.tls_certs_only([]);
    }
    builder.build().context("cannot set up an HTTP client")
}

/// The innermost reason of a failed request, without the URL, which may hold a token.
pub(super) fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut innermost: &dyn std::error::Error = match error.source() {
        Some(source) => source,
        None => return "the request failed".to_owned(),
    };
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
