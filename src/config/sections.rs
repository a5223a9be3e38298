//! The sections of the configuration, one struct each, with their defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

use super::secret::Secret;
use super::values;
use super::{Layout, Ratio, SourceName, Variables};

/// `[sources.NAME]`: one sender of callbacks, with what proves that they are its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Keys of the callback signature. Several may be valid at once, so that one can be rotated without a gap.
    #[serde(deserialize_with = "values::secrets")]
    pub hmac_keys: Vec<Secret>,
    /// A file with more of them, one per line; its keys are in `hmac_keys` once loaded.
    #[serde(with = "values::blank_path")]
    pub hmac_keys_file: Option<PathBuf>,
    /// How far a signature's timestamp may lie from our clock, in either direction.
    #[serde(with = "values::duration")]
    pub timestamp_tolerance: Duration,
    /// One of these must equal `?token=` of the callback URL, if there are any. For senders that do not sign.
    #[serde(deserialize_with = "values::secrets")]
    pub tokens: Vec<Secret>,
    /// A file with more of them, one per line; its tokens are in `tokens` once loaded.
    #[serde(with = "values::blank_path")]
    pub tokens_file: Option<PathBuf>,
    /// Whether callbacks that prove nothing may come from anywhere.
    #[serde(deserialize_with = "values::flag")]
    pub allow_unverified: bool,
    /// The provider's API.
    #[serde(deserialize_with = "values::url")]
    pub api_url: Url,
    /// The key for that API.
    #[serde(with = "values::blank_secret")]
    pub api_key: Option<Secret>,
    /// A file with that key; it is in `api_key` once loaded.
    #[serde(with = "values::blank_path")]
    pub api_key_file: Option<PathBuf>,
    /// Questions a second that this API is asked at most, whoever wants to know.
    #[serde(deserialize_with = "values::count")]
    pub api_queries: u32,
    /// Submissions that it is sent at most in ten seconds.
    #[serde(deserialize_with = "values::count")]
    pub api_submissions: u32,
    /// What was written for `confirm`; [`Source::confirm`] adds the default.
    #[serde(deserialize_with = "values::choice", skip_serializing_if = "Option::is_none")]
    pub confirm: Option<bool>,
    /// Host names that files may come from; empty means any public host. Redirects are held to it, too.
    #[serde(deserialize_with = "values::texts")]
    pub allowed_hosts: Vec<String>,
}

impl Source {
    /// Where callbacks of this source, which is called `name`, go on a server at `base`: with its token, if it has one.
    pub fn callback_url(&self, name: &SourceName, base: Url) -> Url {
        let mut url = base;
        url.path_segments_mut()
            .expect("the address is http or https")
            .pop_if_empty()
            .extend(["callbacks", name.as_str()]);
        if let Some(token) = self.tokens.first() {
            url.query_pairs_mut().append_pair("token", token.expose());
        }
        url
    }

    /// Whether nothing proves that a callback comes from the provider: neither signature nor token.
    pub fn is_unverified(&self) -> bool {
        self.hmac_keys.is_empty() && self.tokens.is_empty()
    }

    /// Whether the provider is asked before anything is downloaded: as written, else exactly if there is an API key to
    /// ask with and no signature to rely on.
    pub fn confirm(&self) -> bool {
        self.confirm
            .unwrap_or(self.api_key.is_some() && self.hmac_keys.is_empty())
    }
}

impl Default for Source {
    fn default() -> Self {
        Self {
            hmac_keys: Vec::new(),
            hmac_keys_file: None,
            timestamp_tolerance: Duration::from_mins(5),
            tokens: Vec::new(),
            tokens_file: None,
            allow_unverified: false,
            api_url: Url::parse("https://api.kie.ai").expect("the constant is a URL"),
            api_key: None,
            api_key_file: None,
            api_queries: 10,
            api_submissions: 20,
            confirm: None,
            allowed_hosts: Vec::new(),
        }
    }
}

/// `[api]`: our own API and dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Bearer tokens for everything but callbacks and health. None means that only loopback gets in.
    #[serde(deserialize_with = "values::secrets")]
    pub tokens: Vec<Secret>,
    /// A file with more of them, one per line; its tokens are in `tokens` once loaded.
    #[serde(with = "values::blank_path")]
    pub tokens_file: Option<PathBuf>,
}

/// `[dashboard]`: pages for people, served where the API is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dashboard {
    /// Whether there are any.
    #[serde(deserialize_with = "values::flag")]
    pub enabled: bool,
    /// How long whoever signed in with a token stays so.
    #[serde(with = "values::duration")]
    pub session_ttl: Duration,
}

impl Default for Dashboard {
    fn default() -> Self {
        Self {
            enabled: true,
            session_ttl: 7 * DAY,
        }
    }
}

/// `[tls]`: the certificate that `listen` is served with. Without one it speaks plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with our certificate, then those that vouch for it. Watched, as is the key's.
    #[serde(with = "values::blank_path")]
    pub cert_file: Option<PathBuf>,
    /// A PEM file with its key.
    #[serde(with = "values::blank_path")]
    pub key_file: Option<PathBuf>,
    /// An authority to obtain one from instead.
    pub acme: Acme,
}

impl Tls {
    /// Whether `listen` speaks TLS.
    pub fn is_on(&self) -> bool {
        self.cert_file.is_some() || self.acme.is_on()
    }
}

/// `[tls.acme]`: a certificate from an authority that verifies names by asking port 80 (ACME, http-01).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Acme {
    /// The names the certificate is for. Empty means that none is asked for.
    #[serde(deserialize_with = "values::texts")]
    pub domains: Vec<String>,
    /// An e-mail address for the authority to write to.
    #[serde(with = "values::blank")]
    pub contact: Option<String>,
    /// The authority's directory.
    #[serde(deserialize_with = "values::url")]
    pub directory_url: Url,
    /// A PEM file with the roots that vouch for the authority's own server, if the system does not know them.
    #[serde(with = "values::blank_path")]
    pub directory_ca_file: Option<PathBuf>,
    /// What was written for `http_listen`; [`Config::acme_listen`](super::Config::acme_listen) adds the default.
    #[serde(
        deserialize_with = "values::blank_address",
        serialize_with = "values::blank::serialize"
    )]
    pub http_listen: Option<SocketAddr>,
}

impl Acme {
    /// Whether a certificate is to be obtained.
    pub fn is_on(&self) -> bool {
        !self.domains.is_empty()
    }
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            contact: None,
            directory_url: Url::parse("https://acme-v02.api.letsencrypt.org/directory")
                .expect("the constant is a URL"),
            directory_ca_file: None,
            http_listen: None,
        }
    }
}

/// `[ingest]`: what one callback, and all of them together, may cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// Bytes of one body, counted after decompression; more is 413.
    #[serde(with = "values::size")]
    pub max_body: u64,
    /// Bytes of all bodies being read or waiting for their commit; beyond it the answer is 503.
    #[serde(with = "values::size")]
    pub max_inflight: u64,
    /// How long a body may take to arrive; then 408.
    #[serde(with = "values::duration")]
    pub body_timeout: Duration,
    /// How long the head of a request or a TLS handshake may take, and how long a connection may idle between requests;
    /// then it is closed.
    #[serde(with = "values::duration")]
    pub header_timeout: Duration,
    /// How long a peer may take nothing of an answer; then the connection is closed.
    #[serde(with = "values::duration")]
    pub write_timeout: Duration,
    /// Connections open at one time. For further ones those are closed that have kept us waiting longest.
    #[serde(deserialize_with = "values::count")]
    pub max_connections: usize,
    /// Connections, or requests that proxies are still bringing, of one address; for further ones its own oldest of those
    /// that keep us waiting are closed.
    #[serde(deserialize_with = "values::count")]
    pub max_connections_per_address: usize,
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            max_body: 4 << 20,
            max_inflight: 64 << 20,
            body_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            max_connections: 4096,
            max_connections_per_address: 256,
        }
    }
}

/// `[downloads]`: fetching the files that callbacks announce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Downloads {
    /// Files fetched at one time.
    #[serde(deserialize_with = "values::count")]
    pub concurrency: usize,
    /// Files fetched at one time from one host.
    #[serde(deserialize_with = "values::count")]
    pub per_host: usize,
    /// Bytes of one file; a larger one fails as `too_large`.
    #[serde(with = "values::size")]
    pub max_size: u64,
    /// How long a connection may take to be made.
    #[serde(with = "values::duration")]
    pub connect_timeout: Duration,
    /// How long a transfer may stand still.
    #[serde(with = "values::duration")]
    pub idle_timeout: Duration,
    /// How long one attempt may take in all.
    #[serde(with = "values::duration")]
    pub total_timeout: Duration,
    /// Bytes a second that a transfer must bring, on average over each stretch of `stall_timeout`; a slower one is cut and
    /// gone on with later. 0: any speed will do.
    #[serde(with = "values::size")]
    pub min_speed: u64,
    /// Length of that stretch.
    #[serde(with = "values::duration")]
    pub stall_timeout: Duration,
    /// Attempts before a file is `failed`. Only failures of the remote side count.
    #[serde(deserialize_with = "values::count")]
    pub max_attempts: u32,
    /// How long after it was announced a file that still cannot be had is `failed`, attempts left or not; never before its
    /// deadline.
    #[serde(with = "values::duration")]
    pub give_up_after: Duration,
    /// The wait after the first failed attempt, before jitter; it doubles with each further one.
    #[serde(with = "values::duration")]
    pub retry_base: Duration,
    /// The longest wait between two attempts.
    #[serde(with = "values::duration")]
    pub retry_cap: Duration,
}

impl Default for Downloads {
    fn default() -> Self {
        Self {
            concurrency: 8,
            per_host: 4,
            max_size: 4 << 30,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_hours(6),
            min_speed: 1 << 10,
            stall_timeout: Duration::from_secs(30),
            max_attempts: 24,
            give_up_after: 14 * DAY,
            retry_base: Duration::from_secs(2),
            retry_cap: Duration::from_hours(6),
        }
    }
}

/// `[reconcile]`: asking the provider about what its callbacks left open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reconcile {
    /// How long a task may be silent before the provider is asked.
    #[serde(with = "values::duration")]
    pub after: Duration,
    /// The least time between two questions about the same; the longer it has been open, the longer they grow.
    #[serde(with = "values::duration")]
    pub every: Duration,
    /// How long a question may stay open; a task that is still silent then has failed as `lost`.
    #[serde(with = "values::duration")]
    pub give_up_after: Duration,
    /// Questions a second of each source, out of what its `api_queries` allows.
    #[serde(deserialize_with = "values::count")]
    pub max_per_second: u32,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self {
            after: Duration::from_mins(3),
            every: Duration::from_secs(30),
            give_up_after: 14 * DAY,
            max_per_second: 5,
        }
    }
}

/// `[dropin]`: the provider's own API, spoken by us.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dropin {
    /// The source that callers with one of `api.tokens` submit to; empty for the only one that has an API key.
    #[serde(with = "values::blank")]
    pub source: Option<String>,
}

/// `[files]`: URLs of stored files for those who have no token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Files {
    /// How long such a URL opens.
    #[serde(with = "values::duration")]
    pub url_ttl: Duration,
}

impl Default for Files {
    fn default() -> Self {
        Self { url_ttl: 7 * DAY }
    }
}

/// `[egress]`: where requests that a callback causes may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Ports that files may be fetched from. Addresses in `allow_cidrs` are exempt.
    #[serde(deserialize_with = "values::ports")]
    pub ports: Vec<u16>,
    /// Non-public networks that files may be fetched from.
    #[serde(deserialize_with = "values::networks")]
    pub allow_cidrs: Vec<IpNet>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            ports: vec![80, 443],
            allow_cidrs: Vec::new(),
        }
    }
}

/// `[storage]`: where finished files are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// `file:///…`, a bucket such as `s3://bucket/prefix`, or none for `data_dir/media`.
    #[serde(with = "values::blank")]
    pub url: Option<String>,
    /// Bytes of each disk that no download touches, so that callbacks can be recorded; `None` for a gibibyte or a twentieth
    /// of the disk, whichever is less.
    #[serde(with = "values::auto_size")]
    pub reserve: Option<u64>,
    /// Under which keys.
    #[serde(
        deserialize_with = "values::layout",
        serialize_with = "values::display::serialize"
    )]
    pub layout: Layout,
    /// How files in a bucket are handed out.
    #[serde(deserialize_with = "values::serve")]
    pub serve: Serve,
    /// How to get into the bucket, if `url` names one.
    #[serde(skip)]
    pub variables: Variables,
}

/// How files in a bucket are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Serve {
    /// Through this server.
    #[default]
    Proxy,
    /// By a URL of the bucket that opens for a few minutes; to browsers still through this server.
    Redirect,
}

/// `[retention]`: what goes by age.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// How long deliveries are kept, with their raw bodies. Tasks, outcomes and files stay. Open conflicts do, too.
    #[serde(with = "values::age")]
    pub deliveries: Option<Duration>,
    /// How long rejected deliveries are kept, if their ring has room for them that long.
    #[serde(with = "values::age")]
    pub rejected: Option<Duration>,
    /// How long after its last change a task is kept of which nothing more is awaited, with its deliveries and files.
    #[serde(with = "values::age")]
    pub tasks: Option<Duration>,
    /// How long a file is kept since it was stored; its task stays.
    #[serde(with = "values::age")]
    pub media: Option<Duration>,
    /// Bytes of all stored files together; past that those go which were stored first.
    #[serde(with = "values::bound")]
    pub media_bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            deliveries: Some(90 * DAY),
            rejected: Some(30 * DAY),
            tasks: None,
            media: None,
            media_bytes: None,
        }
    }
}

const DAY: Duration = Duration::from_hours(24);

/// `[scrub]`: reading all stored files again by itself, to see whether they are still whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scrub {
    /// From the beginning of one scrub to that of the next.
    #[serde(with = "values::age")]
    pub every: Option<Duration>,
    /// Bytes per second that it reads.
    #[serde(with = "values::size")]
    pub rate: u64,
    /// Whether what it finds damaged or missing is fetched again.
    #[serde(deserialize_with = "values::flag")]
    pub repair: bool,
}

impl Default for Scrub {
    fn default() -> Self {
        Self {
            every: None,
            rate: 32 << 20,
            repair: false,
        }
    }
}

/// `[telemetry]`: traces, for a collector of `OpenTelemetry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Where it takes OTLP over HTTP; `/v1/traces` is appended unless it is there. None: nothing is traced.
    #[serde(
        deserialize_with = "values::blank_url",
        serialize_with = "values::blank::serialize"
    )]
    pub otlp_endpoint: Option<Url>,
    /// Headers of every request to it, as `Name: value`.
    #[serde(deserialize_with = "values::secrets")]
    pub otlp_headers: Vec<Secret>,
    /// A file with more of them, one per line; they are in `otlp_headers` once loaded.
    #[serde(with = "values::blank_path")]
    pub otlp_headers_file: Option<PathBuf>,
    /// The part of all tasks that is traced.
    pub sample_ratio: Ratio,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            otlp_headers: Vec::new(),
            otlp_headers_file: None,
            sample_ratio: Ratio::ALL,
        }
    }
}

/// `[log]`: log lines, which go to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// For people or for programs.
    #[serde(deserialize_with = "values::log_format")]
    pub format: LogFormat,
    /// A level for our own lines (`info`), or filter directives (`info,reelhook::download=debug`).
    #[serde(deserialize_with = "values::text")]
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

/// The shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for a person.
    Text,
    /// One JSON object per line.
    Json,
}

/// Neither `text` nor `json`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a log format is text or json")]
pub struct BadLogFormat;

impl FromStr for LogFormat {
    type Err = BadLogFormat;

    fn from_str(text: &str) -> Result<Self, BadLogFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(BadLogFormat),
        }
    }
}
