//! Configuration: read once, checked once, typed.
//!
//! [`Config::load`] lays defaults, file, environment and flags over each other, in that order. Every value is checked on
//! its own as it is read, so that a mistake is reported with its file and line or its variable; then all of them
//! together by [`Config::check`]. What comes out of `load` can be used without further questions.
//!
//! This is the one place that reads the environment; the rest of the program gets what it needs from here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

mod bucket;
mod check;
mod environment;
mod error;
mod file;
mod keys;
mod layout;
mod live;
mod load;
mod name;
mod ratio;
mod reload;
mod secret;
mod secret_files;
mod sections;
mod values;

#[cfg(test)]
mod tests;

pub use bucket::{BadBucket, Bucket, Scheme, Variables};
pub use environment::Environment;
pub use error::{Error, Place, Problem};
pub use layout::{BadLayout, Layout, Placeholder};
pub use live::Live;
pub use load::{Inputs, Overrides};
pub use name::{BadSourceName, SourceName};
pub use ratio::Ratio;
pub use secret::{REDACTED, Secret};
pub use sections::{
    Acme, Api, BadLogFormat, Dashboard, Downloads, Dropin, Egress, Files, Ingest, Log, LogFormat, Reconcile,
    Retention, Scrub, Serve, Source, Storage, Telemetry, Tls,
};

/// The example file: every key at its default, commented out, with its explanation.
pub const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address and port we listen on.
    #[serde(deserialize_with = "values::address")]
    pub listen: SocketAddr,
    /// Where everything but callbacks is served instead, if anywhere: then `listen` takes callbacks only.
    #[serde(
        deserialize_with = "values::blank_address",
        serialize_with = "values::blank::serialize"
    )]
    pub admin_listen: Option<SocketAddr>,
    /// How the world reaches `listen`, if through a proxy or tunnel. URLs for others start with it.
    #[serde(
        deserialize_with = "values::blank_url",
        serialize_with = "values::blank::serialize"
    )]
    pub public_url: Option<Url>,
    /// The directory of database, spool and (by default) media. A relative path starts at the working directory.
    #[serde(deserialize_with = "values::path")]
    pub data_dir: PathBuf,
    /// Proxies whose `X-Forwarded-For` and `Forwarded` are believed.
    #[serde(deserialize_with = "values::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// How long running requests and downloads get to end by themselves after a stop signal.
    #[serde(with = "values::duration")]
    pub shutdown_grace: Duration,
    /// Who may send callbacks. Never empty after [`Config::load`].
    pub sources: BTreeMap<SourceName, Source>,
    /// Our own API and dashboard.
    pub api: Api,
    /// Pages for people.
    pub dashboard: Dashboard,
    /// The certificate of `listen`.
    pub tls: Tls,
    /// Limits on incoming callbacks.
    pub ingest: Ingest,
    /// Fetching files.
    pub downloads: Downloads,
    /// Asking the provider what its callbacks left open.
    pub reconcile: Reconcile,
    /// The provider's own API, spoken by us.
    pub dropin: Dropin,
    /// URLs of stored files.
    pub files: Files,
    /// Where fetching may go.
    pub egress: Egress,
    /// Where files are kept.
    pub storage: Storage,
    /// What goes by age.
    pub retention: Retention,
    /// Reading stored files again.
    pub scrub: Scrub,
    /// Traces.
    pub telemetry: Telemetry,
    /// Log lines.
    pub log: Log,
    /// Where all this came from.
    #[serde(skip)]
    pub origin: Origin,
}

/// Where a configuration came from, and what was odd about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// What deserves a word but does not stop the start: one sentence each.
    pub warnings: Vec<String>,
    /// Where each key that is not at its default was set.
    pub places: BTreeMap<String, Place>,
    /// Whether the one source is ours, because nobody configured any.
    configless: bool,
}

/// Where finished files are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// A directory.
    Directory(PathBuf),
    /// A bucket of an object store.
    Bucket(Bucket),
}

impl std::fmt::Display for Media {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

impl Default for Config {
    /// Every key at its default, and no source at all. [`Config::load`] adds `kie` if nobody configured one.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            admin_listen: None,
            public_url: None,
            data_dir: PathBuf::from("data"),
            trusted_proxies: Vec::new(),
            shutdown_grace: Duration::from_secs(20),
            sources: BTreeMap::new(),
            api: Api::default(),
            dashboard: Dashboard::default(),
            tls: Tls::default(),
            ingest: Ingest::default(),
            downloads: Downloads::default(),
            reconcile: Reconcile::default(),
            dropin: Dropin::default(),
            files: Files::default(),
            egress: Egress::default(),
            storage: Storage::default(),
            retention: Retention::default(),
            scrub: Scrub::default(),
            telemetry: Telemetry::default(),
            log: Log::default(),
            origin: Origin::default(),
        }
    }
}

impl Config {
    /// Whether no source was configured anywhere, so that there is just `kie`, unverified, on loopback.
    pub fn is_configless(&self) -> bool {
        self.origin.configless
    }

    /// Whether others than this machine can send callbacks: `listen` is off loopback, or `public_url` or a domain of
    /// the certificate names a host that is (a proxy, a tunnel or a forwarded port makes loopback public).
    pub fn is_exposed(&self) -> bool {
        self.exposure().is_some()
    }

    /// Where the API is served.
    pub fn api_listen(&self) -> SocketAddr {
        self.admin_listen.unwrap_or(self.listen)
    }

    /// Whether the API is served by TLS: on `listen` if that is; on `admin_listen` unless that is on loopback, where
    /// nobody listens in and no certificate fits the address.
    pub fn api_speaks_tls(&self) -> bool {
        let off_loopback = |address: SocketAddr| !is_loopback(address.ip());
        self.tls.is_on() && self.admin_listen.is_none_or(off_loopback)
    }

    /// Where an authority finds the answers to its questions: port 80 of the address in `listen`, unless written.
    pub fn acme_listen(&self) -> SocketAddr {
        let usual = SocketAddr::new(self.listen.ip(), 80);
        self.tls.acme.http_listen.unwrap_or(usual)
    }

    /// Where finished files are kept: where `storage.url` says, else in `media` in `data_dir`.
    pub fn media(&self) -> Media {
        let url = self.storage.url.as_deref();
        match url.and_then(|url| url.parse().ok()) {
            Some(bucket) => Media::Bucket(bucket),
            None => Media::Directory(
                url.and_then(check::file_path)
                    .unwrap_or_else(|| self.data_dir.join("media")),
            ),
        }
    }

    /// Where spans are sent, if anywhere: the whole URL, and the headers.
    pub fn collector(&self) -> Option<(Url, HeaderMap)> {
        let mut url = self.telemetry.otlp_endpoint.clone()?;
        let path = url.path().trim_end_matches('/').to_owned();
        if !path.ends_with("/v1/traces") {
            url.set_path(&format!("{path}/v1/traces"));
        }
        let headers = self.telemetry.otlp_headers.iter().filter_map(check::header_of);
        Some((url, headers.collect()))
    }

    /// All configured secrets. What we show of bodies that came from outside must contain none of them.
    pub fn secrets(&self) -> Vec<Secret> {
        let of_sources = self.sources.values().flat_map(|source| {
            let keys = source.hmac_keys.iter().chain(&source.tokens);
            keys.chain(source.api_key.as_ref())
        });
        let of_bucket = self.storage.variables.secrets();
        of_sources
            .chain(&self.api.tokens)
            .chain(&self.telemetry.otlp_headers)
            .chain(of_bucket)
            .cloned()
            .collect()
    }

    /// The configuration in effect as TOML that could be read again, except that secrets read [`REDACTED`]. Those from
    /// files are shown by the file's path as well.
    pub fn redacted_toml(&self) -> String {
        let mut shown = self.clone();
        for source in shown.sources.values_mut() {
            source.confirm = Some(source.confirm());
        }
        toml::to_string(&shown).expect("every field has a TOML form")
    }
}

/// Who listens everywhere listens also on loopback; as a destination the address itself is not portable.
pub fn as_destination(listen: SocketAddr) -> SocketAddr {
    let ip = match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other.ip(),
    };
    SocketAddr::new(ip, listen.port())
}

/// Whether an address is this machine's own; `0.0.0.0` and `::` are not, for they stand for every address it has.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether a URL's host is this machine: a loopback address, `localhost`, or a name under it.
pub fn names_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => is_loopback(address.into()),
        Some(Host::Ipv6(address)) => is_loopback(address.into()),
        Some(Host::Domain(name)) => is_local_name(name),
        None => false,
    }
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}
