//! Outgoing requests to URLs that came from outside, and the guard that vets them.
//!
//! A callback's URLs are not signed, so anyone who can replay a header pair chooses what we fetch. Nothing that came in a
//! body may make us talk to our own network. The guard therefore judges
//!
//! 1. every URL, redirects included: scheme, userinfo, host list, port, literal addresses (`policy`);
//! 2. every address a name resolves to, **in** the resolution whose result is connected to, so that there is no second
//!    answer to swap (`resolver`); one bad address blocks the name;
//! 3. the peer of the connection, once more, when the answer is there.
//!
//! Redirects are followed here, not by the HTTP library. Proxies are ignored: they would resolve names for us, unjudged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, StatusCode};
use tokio::net::TcpStream;
use url::Url;

use crate::roots;

mod address;
mod error;
mod policy;
mod resolver;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;

pub use error::{BlockReason, EgressError};
pub use policy::EgressPolicy;
pub use resolver::{LookUp, Resolver};

use policy::{Hop, Scope};
use resolver::GuardedResolver;

/// Most redirects that one request follows.
pub const MAX_REDIRECTS: usize = 5;

const USER_AGENT: &str = concat!("reelhook/", env!("CARGO_PKG_VERSION"));

/// How long a connection is kept for the next file from the same host.
const KEEP_IDLE: Duration = Duration::from_secs(30);

/// What to fetch.
#[derive(Debug, Clone, Default)]
pub struct Request<'a> {
    /// The URL as it came from outside.
    pub url: &'a str,
    /// Hosts that may be asked, redirects included: `host`, `*.suffix` or `.suffix`. Empty: any public host.
    pub allowed_hosts: &'a [String],
    /// Further headers, such as `Range`. Credentials, cookies and `Referer` among them are dropped.
    pub headers: HeaderMap,
}

/// The HTTP client for URLs that came from outside. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct GuardedClient {
    policy: Arc<EgressPolicy>,
    resolver: Resolver,
    /// One client for each scope, because a resolver is told neither the port nor the request it works for, and so that
    /// a connection made under one scope is never used under another.
    public: Client,
    listed: Client,
    exempt: Client,
}

impl GuardedClient {
    /// A client that looks names up in the operating system.
    ///
    /// Trusts the certificates of the system's store; where there is none (a bare container), Mozilla's list as it was
    /// when this program was built.
    pub fn new(policy: EgressPolicy) -> Result<Self, EgressError> {
        Self::with_resolver(policy, &Resolver::System)
    }

    /// A client that looks names up in `resolver`.
    pub fn with_resolver(policy: EgressPolicy, resolver: &Resolver) -> Result<Self, EgressError> {
        let policy = Arc::new(policy);
        let client = |scope| build(&policy, resolver, scope);
        Ok(Self {
            public: client(Scope::Public)?,
            listed: client(Scope::Listed)?,
            exempt: client(Scope::Exempt)?,
            resolver: resolver.clone(),
            policy,
        })
    }

    /// Whether where this URL leads to can be reached: its name is looked up and a connection made, by the same guard, and
    /// nothing sent.
    pub async fn reaches(&self, url: &str) -> bool {
        let connect = async {
            let hop = self.policy.vet_first(url, &[]).ok()?;
            let port = hop.url.port_or_known_default()?;
            let addresses = match policy::literal(&hop.url) {
                Some(address) => vec![address],
                None => self.guard(hop.scope).addresses(&hop.host).await.ok()?,
            };
            let sockets: Vec<SocketAddr> = addresses.into_iter().map(|ip| (ip, port).into()).collect();
            TcpStream::connect(&*sockets).await.ok()
        };
        let connected = tokio::time::timeout(self.policy.connect_timeout, connect).await;
        matches!(connected, Ok(Some(_)))
    }

    fn guard(&self, scope: Scope) -> GuardedResolver {
        GuardedResolver {
            resolver: self.resolver.clone(),
            policy: Arc::clone(&self.policy),
            scope,
        }
    }

    /// Sends a GET and follows up to [`MAX_REDIRECTS`] redirects, each judged like the first URL.
    ///
    /// Answers of any status are returned; only the body of the last one is left to read. An error while reading it is
    /// sorted by [`EgressError::from_transport`].
    pub async fn get(&self, request: &Request<'_>) -> Result<Response, EgressError> {
        let headers = carried(&request.headers);
        let mut hop = self.policy.vet_first(request.url, request.allowed_hosts)?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&hop, headers.clone()).await?;
            let Some(next) = redirect(&hop.url, &response)? else {
                return Ok(response);
            };
            hop = self.policy.vet(next, request.allowed_hosts)?;
        }
        Err(EgressError::TooManyRedirects)
    }

    async fn send(&self, hop: &Hop, headers: HeaderMap) -> Result<Response, EgressError> {
        let client = match hop.scope {
            Scope::Public => &self.public,
            Scope::Listed => &self.listed,
            Scope::Exempt => &self.exempt,
        };
        let sent = client.get(hop.url.clone()).headers(headers).send().await;
        let response = sent.map_err(|error| EgressError::from_transport(error, &hop.host))?;
        // Belt and braces: whatever the HTTP library did with our answer, the body of a peer out of scope is not read.
        let peer = response.remote_addr().ok_or_else(|| BlockReason::UnknownPeer {
            host: hop.host.clone(),
        })?;
        self.policy.judge(&hop.host, peer.ip(), hop.scope)?;
        Ok(response)
    }
}

fn build(policy: &Arc<EgressPolicy>, resolver: &Resolver, scope: Scope) -> Result<Client, EgressError> {
    let guard = Arc::new(GuardedResolver {
        resolver: resolver.clone(),
        policy: Arc::clone(policy),
        scope,
    });
    roots::client(|| settings(policy).dns_resolver(Arc::clone(&guard)))
        .map_err(|source| EgressError::Build { source })
}

fn settings(policy: &EgressPolicy) -> ClientBuilder {
    let mut headers = HeaderMap::new();
    // The stored file is the file as it is, and its length is the announced one.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    // The no_* calls hold even if some other crate turns the features on.
    Client::builder()
        .user_agent(USER_AGENT)
        .default_headers(headers)
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .connect_timeout(policy.connect_timeout)
        .read_timeout(policy.idle_timeout)
        .pool_idle_timeout(KEEP_IDLE)
}

/// The caller's headers without those that would give something away to a host that a stranger chose.
fn carried(headers: &HeaderMap) -> HeaderMap {
    let mut carried = headers.clone();
    for secret in [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::REFERER,
        header::HOST,
    ] {
        carried.remove(secret);
    }
    carried
}

/// Where the answer sends us, if it is a redirect.
fn redirect(from: &Url, response: &Response) -> Result<Option<Url>, BlockReason> {
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    match response.headers().get(header::LOCATION) {
        Some(location) if redirects.contains(&response.status()) => target(from, location).map(Some),
        _ => Ok(None),
    }
}

/// The URL a `Location` names; relative ones are completed by `from`.
fn target(from: &Url, location: &HeaderValue) -> Result<Url, BlockReason> {
    let location = str::from_utf8(location.as_bytes()).map_err(|_| BlockReason::InvalidUrl)?;
    let next = from.join(location).map_err(|_| BlockReason::InvalidUrl)?;
    if from.scheme() == "https" && next.scheme() == "http" {
        return Err(BlockReason::Downgrade);
    }
    Ok(next)
}
