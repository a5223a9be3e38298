//! What must hold between the values of a configuration before anything starts.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::error::{Place, Problem};
use super::secret::Secret;
use super::{Acme, Bucket, Config, Scheme, Serve, Source, SourceName, is_local_name, is_loopback};

/// Characters that a token must at least have: 24 of a 64-letter alphabet are 144 bits.
const MIN_TOKEN: usize = 24;

const DAY: Duration = Duration::from_hours(24);

/// A signature may lie a day ahead of our clock and be accepted until a day after its time, and what it is bound to is
/// kept an hour longer: only then a replay of it cannot bring a task back that has gone by age.
const MIN_TASK_AGE: Duration = Duration::from_hours(3 * 24);

impl Config {
    /// All reasons not to start with this configuration; none if it is fine.
    pub fn check(&self) -> Vec<Problem> {
        let mut checks = Checks {
            config: self,
            problems: Vec::new(),
        };
        checks.admin_listen();
        checks.public_url();
        for (name, source) in &self.sources {
            checks.source(name, source);
        }
        checks.api();
        checks.above_zero("dashboard.session_ttl", self.dashboard.session_ttl);
        checks.tls();
        checks.ingest();
        checks.downloads();
        checks.reconcile();
        checks.dropin();
        checks.egress();
        checks.storage();
        checks.retention();
        checks.scrub();
        checks.telemetry();
        checks.problems
    }

    /// A problem with a key, at the place where the key was set or its section opened.
    pub(super) fn problem(&self, key: String, message: String) -> Problem {
        let place = self.place(&key).cloned();
        Problem { key, place, message }
    }

    fn place(&self, key: &str) -> Option<&Place> {
        let section = key.rsplit_once('.').map(|(section, _)| section);
        self.origin
            .places
            .get(key)
            .or_else(|| self.origin.places.get(section?))
    }

    /// Why others can send callbacks, as the beginning of a sentence; `None` if they cannot.
    pub(super) fn exposure(&self) -> Option<String> {
        if !is_loopback(self.listen.ip()) {
            return Some(format!(
                "listen = \"{}\" can be reached from other machines",
                self.listen
            ));
        }
        if let Some(url) = self.public_url.as_ref().filter(|url| !super::names_loopback(url)) {
            let host = url.host_str().unwrap_or_default();
            return Some(format!(
                "public_url names {host}, and the proxy or tunnel behind it makes a loopback address public"
            ));
        }
        let domain = self.tls.acme.domains.iter().find(|name| !is_local_name(name))?;
        Some(format!(
            "tls.acme.domains names {domain}, and the port forwarded for it makes a loopback address public"
        ))
    }

    /// The same of the API, which `admin_listen` takes out of what `listen` and `public_url` lead to.
    fn api_exposure(&self) -> Option<String> {
        let Some(admin) = self.admin_listen else {
            return self.exposure();
        };
        (!is_loopback(admin.ip()))
            .then(|| format!("admin_listen = \"{admin}\" can be reached from other machines"))
    }
}

/// The path a `file:` URL names on this machine.
pub(super) fn file_path(url: &str) -> Option<PathBuf> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "file")?;
    url.to_file_path().ok()
}

/// Whether an authority could certify it by http-01: labels of letters, digits and inner hyphens, the last no number.
fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// A header as it is written in one line.
pub(super) fn header_of(line: &Secret) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.expose().split_once(':')?;
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

struct Checks<'a> {
    config: &'a Config,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    fn refuse(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problems
            .push(self.config.problem(key.into(), message.into()));
    }

    fn admin_listen(&mut self) {
        let admin = self.config.admin_listen;
        if admin == Some(self.config.listen) && self.config.listen.port() != 0 {
            self.refuse(
                "admin_listen",
                "is the same as listen; give it another port, or leave it empty",
            );
        }
    }

    fn public_url(&mut self) {
        if let Some(url) = &self.config.public_url {
            self.web_url("public_url", url);
        }
    }

    /// A URL that others are appended to.
    fn web_url(&mut self, key: &str, url: &Url) {
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            self.refuse(key, "must be an http or https URL");
        }
        if url.query().is_some() || url.fragment().is_some() {
            self.refuse(
                key,
                "must have no query and no fragment: other paths are appended to it",
            );
        }
        if !url.username().is_empty() || url.password().is_some() {
            self.refuse(key, "must have no user name and no password");
        }
    }

    fn source(&mut self, name: &SourceName, source: &Source) {
        let key = |key: &str| format!("sources.{name}.{key}");
        if let Some(exposure) = self.config.exposure()
            && source.is_unverified()
            && !source.allow_unverified
        {
            let message = format!(
                "{exposure}, and source {name} takes callbacks from anyone: set this to the keys the provider signs \
                 with, or {} if it does not sign, or {} = true to accept forged callbacks",
                key("tokens"),
                key("allow_unverified"),
            );
            self.refuse(key("hmac_keys"), message);
        }
        self.hmac_keys(&key("hmac_keys"), &source.hmac_keys);
        self.tokens(&key("tokens"), &source.tokens);
        self.api_key(&key("api_key"), source.api_key.as_ref());
        self.web_url(&key("api_url"), &source.api_url);
        if source.api_queries == 0 || source.api_submissions == 0 {
            self.refuse(
                key("api_queries"),
                "and api_submissions must be more than 0; remove api_key to ask nothing",
            );
        }
        self.confirm(name, source);
        if source.timestamp_tolerance.is_zero() || source.timestamp_tolerance > DAY {
            self.refuse(
                key("timestamp_tolerance"),
                "must be more than 0 and at most 24h; 5m is usual",
            );
        }
        let host = |host: &String| !host.is_empty() && !host.contains(['/', '@', ' ', '?', '#']);
        if !source.allowed_hosts.iter().all(host) {
            self.refuse(
                key("allowed_hosts"),
                "lists host names such as \"cdn.example.com\", without scheme and path",
            );
        }
    }

    fn hmac_keys(&mut self, key: &str, keys: &[Secret]) {
        if keys.iter().any(|secret| secret.expose().is_empty()) {
            self.refuse(
                key,
                "contains an empty key, with which anyone could sign; remove it",
            );
        }
        if keys
            .iter()
            .any(|secret| secret.expose().trim() != secret.expose())
        {
            self.refuse(key, "contains a key with blanks around it; remove them");
        }
    }

    fn tokens(&mut self, key: &str, tokens: &[Secret]) {
        let permitted = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        for (n, token) in tokens.iter().map(Secret::expose).enumerate() {
            if token.len() < MIN_TOKEN || !token.bytes().all(permitted) {
                let message = format!(
                    "token {} must be {MIN_TOKEN} or more characters of A-Z a-z 0-9 _ -; make one with \
                     `openssl rand -hex 24`",
                    n + 1
                );
                self.refuse(key, message);
            }
        }
    }

    fn api_key(&mut self, key: &str, api_key: Option<&Secret>) {
        if api_key.is_some_and(|secret| !secret.expose().bytes().all(|b| b.is_ascii_graphic())) {
            self.refuse(key, "contains blanks or characters that cannot stand in a header");
        }
    }

    fn confirm(&mut self, name: &SourceName, source: &Source) {
        if !source.confirm() {
            return;
        }
        if source.api_key.is_none() {
            self.refuse(
                format!("sources.{name}.confirm"),
                format!("nobody can be asked without a key for the provider's API; set sources.{name}.api_key, or this to false"),
            );
        }
    }

    fn api(&mut self) {
        let tokens = &self.config.api.tokens;
        if let Some(exposure) = self.config.api_exposure()
            && tokens.is_empty()
        {
            let message = format!(
                "{exposure}, and without a token anyone could read and delete tasks and files: set at least one, or \
                 admin_listen to an address on loopback"
            );
            self.refuse("api.tokens", message);
        }
        self.tokens("api.tokens", tokens);
        for (name, source) in &self.config.sources {
            if source.tokens.iter().any(|token| tokens.contains(token)) {
                self.refuse(
                    format!("sources.{name}.tokens"),
                    "shares a token with api.tokens; the provider sees and logs the callback URL, so use another",
                );
            }
        }
    }

    fn tls(&mut self) {
        let tls = &self.config.tls;
        match (&tls.cert_file, &tls.key_file) {
            (Some(_), None) => self.refuse("tls.key_file", "must be set along with tls.cert_file"),
            (None, Some(_)) => self.refuse("tls.cert_file", "must be set along with tls.key_file"),
            (Some(_), Some(_)) if tls.acme.is_on() => self.refuse(
                "tls.acme.domains",
                "obtains a certificate where tls.cert_file already names one; empty one of the two",
            ),
            _ => {}
        }
        self.acme(&tls.acme);
    }

    fn acme(&mut self, acme: &Acme) {
        if !acme.is_on() {
            if *acme != Acme::default() {
                self.refuse(
                    "tls.acme.domains",
                    "is empty, so that no certificate is obtained; set it, or remove the other keys of [tls.acme]",
                );
            }
            return;
        }
        for domain in acme.domains.iter().filter(|domain| !is_domain(domain)) {
            let message = format!(
                "lists {domain:?}; an authority that asks port 80 certifies names such as \"hooks.example.com\", in \
                 lower case, and neither addresses nor wildcards"
            );
            self.refuse("tls.acme.domains", message);
        }
        self.web_url("tls.acme.directory_url", &acme.directory_url);
        if acme.directory_url.scheme() != "https" {
            self.refuse(
                "tls.acme.directory_url",
                "must begin with https: the answers decide what we sign",
            );
        }
        let mail = |mail: &String| mail.contains('@') && !mail.contains([' ', ':', ',', '?']);
        if !acme.contact.iter().all(mail) {
            self.refuse("tls.acme.contact", "must be one e-mail address");
        }
        let http_listen = self.config.acme_listen();
        if [Some(self.config.listen), self.config.admin_listen].contains(&Some(http_listen))
            && http_listen.port() != 0
        {
            self.refuse(
                "tls.acme.http_listen",
                "is an address that something else listens on; authorities ask port 80 of the domain",
            );
        }
    }

    fn ingest(&mut self) {
        let ingest = &self.config.ingest;
        self.above_zero("ingest.body_timeout", ingest.body_timeout);
        self.above_zero("ingest.header_timeout", ingest.header_timeout);
        self.above_zero("ingest.write_timeout", ingest.write_timeout);
        if ingest.max_body == 0 {
            self.refuse("ingest.max_body", "must be more than 0");
        }
        if ingest.max_inflight < ingest.max_body {
            self.refuse(
                "ingest.max_inflight",
                "must be at least ingest.max_body, else not even one such body gets in",
            );
        }
    }

    fn downloads(&mut self) {
        let downloads = &self.config.downloads;
        self.above_zero("downloads.connect_timeout", downloads.connect_timeout);
        self.above_zero("downloads.idle_timeout", downloads.idle_timeout);
        self.above_zero("downloads.total_timeout", downloads.total_timeout);
        self.above_zero("downloads.stall_timeout", downloads.stall_timeout);
        self.above_zero("downloads.give_up_after", downloads.give_up_after);
        self.above_zero("downloads.retry_base", downloads.retry_base);
        if downloads.concurrency == 0 {
            self.refuse("downloads.concurrency", "must be more than 0");
        }
        if downloads.per_host == 0 {
            self.refuse("downloads.per_host", "must be more than 0");
        }
        if downloads.max_size == 0 {
            self.refuse("downloads.max_size", "must be more than 0");
        }
        if downloads.retry_cap < downloads.retry_base {
            self.refuse("downloads.retry_cap", "must be at least downloads.retry_base");
        }
    }

    fn reconcile(&mut self) {
        let reconcile = &self.config.reconcile;
        self.above_zero("reconcile.after", reconcile.after);
        self.above_zero("reconcile.every", reconcile.every);
        self.above_zero("reconcile.give_up_after", reconcile.give_up_after);
        if reconcile.max_per_second == 0 {
            self.refuse("reconcile.max_per_second", "must be more than 0");
        }
    }

    fn dropin(&mut self) {
        self.above_zero("files.url_ttl", self.config.files.url_ttl);
        let Some(name) = &self.config.dropin.source else {
            return;
        };
        if !self.config.sources.keys().any(|source| source.as_str() == name) {
            self.refuse("dropin.source", format!("there is no [sources.{name}]"));
        }
    }

    fn egress(&mut self) {
        let egress = &self.config.egress;
        if egress.ports.is_empty() && egress.allow_cidrs.is_empty() {
            self.refuse(
                "egress.ports",
                "is empty, so that nothing could be downloaded; [80, 443] is usual",
            );
        }
    }

    fn storage(&mut self) {
        let storage = &self.config.storage;
        let serve = storage.serve;
        match storage.url.as_deref().filter(|url| file_path(url).is_none()) {
            Some(url) if Scheme::of(url).is_some() => {
                if let Err(error) = url.parse::<Bucket>() {
                    self.refuse("storage.url", error.to_string());
                }
            }
            Some(_) => self.refuse(
                "storage.url",
                "must be \"\" for data_dir/media, file:///path with three slashes, or a bucket: s3://, gs:// or az://",
            ),
            None if serve == Serve::Redirect => self.refuse(
                "storage.serve",
                "\"redirect\" leads into a bucket; set storage.url to one, or use \"proxy\"",
            ),
            None => {}
        }
    }

    fn retention(&mut self) {
        let retention = &self.config.retention;
        let hour = Duration::from_hours(1);
        for (key, age, least, shown) in [
            ("retention.deliveries", retention.deliveries, hour, "1h"),
            ("retention.rejected", retention.rejected, hour, "1h"),
            ("retention.tasks", retention.tasks, MIN_TASK_AGE, "3d"),
            ("retention.media", retention.media, hour, "1h"),
        ] {
            if age.is_some_and(|age| age < least) {
                self.refuse(key, format!("must be at least {shown}, or \"off\""));
            }
        }
    }

    fn scrub(&mut self) {
        let scrub = &self.config.scrub;
        if scrub.every.is_some_and(|every| every < Duration::from_hours(1)) {
            self.refuse("scrub.every", "must be at least 1h, or \"off\"");
        }
        if scrub.rate == 0 {
            self.refuse("scrub.rate", "must be more than 0");
        }
    }

    fn telemetry(&mut self) {
        let telemetry = &self.config.telemetry;
        let speaks_http = |url: &Url| matches!(url.scheme(), "http" | "https");
        if telemetry
            .otlp_endpoint
            .as_ref()
            .is_some_and(|url| !speaks_http(url))
        {
            self.refuse("telemetry.otlp_endpoint", "must begin with http:// or https://");
        }
        if !telemetry
            .otlp_headers
            .iter()
            .all(|header| header_of(header).is_some())
        {
            self.refuse(
                "telemetry.otlp_headers",
                "must be headers such as \"Authorization: Basic …\"",
            );
        }
    }

    fn above_zero(&mut self, key: &str, duration: Duration) {
        if duration.is_zero() {
            self.refuse(key, "must be more than 0");
        }
    }
}
