//! What `serve` prints when it is up: where callbacks go, what is verified, where data lies, what to try.

use std::fmt::Write as _;
use std::net::SocketAddr;

use url::Url;

use super::address::Address;
use super::human;
use crate::config::{Config, Source};

/// The banner for a server that takes callbacks on `addr` and serves its API on `api_addr`.
pub(super) fn of(config: &Config, addr: SocketAddr, api_addr: SocketAddr) -> String {
    let config = &Config {
        listen: addr,
        admin_listen: config.admin_listen.map(|_| api_addr),
        ..config.clone()
    };
    let callbacks = Address::of_callbacks(config).url;
    let base = config.public_url.as_ref().unwrap_or(&callbacks);
    let base = base.as_str().trim_end_matches('/');
    let mut text = format!("reelhook {}\n", env!("CARGO_PKG_VERSION"));
    let mut line = |label: &str, value: &str| {
        let _ = write!(text, "\n  {label:<10} {value}");
    };
    for (name, source) in &config.sources {
        let label = if Some(name) == config.sources.keys().next() {
            "callbacks"
        } else {
            ""
        };
        line(label, &format!("POST {base}/callbacks/{name}"));
        line("", &format!("     {}", verified_by(source)));
    }
    if let Some(certificate) = certificate(config) {
        line("tls", &certificate);
    }
    let data = config.data_dir.display();
    line(
        "data",
        &format!("{data} (database, spool); files in {}", config.media()),
    );
    let access = if config.api.tokens.is_empty() {
        "no token needed on this machine"
    } else {
        "with a bearer token"
    };
    let api = Address::of_api(config).url;
    line("look", &format!("{api}v1/tasks ({access})"));
    let (trigger, list) = to_try(config, &callbacks, &api);
    line("try", &trigger);
    line("then", &list);
    text.push('\n');
    text
}

/// A callback to send, and where to see what became of it. With a configuration the commands find address, key and
/// token there; without one they only know the default address.
fn to_try(config: &Config, callbacks: &Url, api: &Url) -> (String, String) {
    let program = human::program();
    if !config.is_configless() {
        let file = config
            .origin
            .file
            .as_ref()
            .filter(|file| file.as_os_str() != "config.toml");
        let file = file.map_or_else(String::new, |file| format!(" --config {}", file.display()));
        return (
            format!("{program}{file} trigger veo.success"),
            format!("{program}{file} tasks list"),
        );
    }
    if *callbacks == Address::of_callbacks(&Config::default()).url && api == callbacks {
        return (
            format!("{program} trigger veo.success"),
            format!("{program} tasks list"),
        );
    }
    (
        format!("{program} trigger veo.success --to {callbacks}callbacks/kie"),
        format!(
            "{program} tasks list --server {}",
            api.as_str().trim_end_matches('/')
        ),
    )
}

/// Where the certificate comes from, if `listen` has one.
fn certificate(config: &Config) -> Option<String> {
    let acme = &config.tls.acme;
    if acme.is_on() {
        let authority = acme.directory_url.host_str().unwrap_or_default();
        return Some(format!("{}, certified by {authority}", acme.domains.join(", ")));
    }
    let path = config.tls.cert_file.as_ref()?;
    Some(format!("certificate in {}", path.display()))
}

fn verified_by(source: &Source) -> String {
    match (source.hmac_keys.len(), source.tokens.len()) {
        (0, 0) if source.allow_unverified => {
            "NOT verified: anybody may send (allow_unverified = true)".to_owned()
        }
        (0, 0) => "NOT verified: taken from this machine only; set hmac_keys or tokens for the real provider"
            .to_owned(),
        (0, _) => "verified by ?token=".to_owned(),
        (keys, 0) => format!("verified by signature ({})", human::counted(keys as u64, "key")),
        (keys, _) => format!(
            "verified by signature ({}) and ?token=",
            human::counted(keys as u64, "key")
        ),
    }
}
