//! What `serve` prints when it is up: where callbacks go, what is verified, where data lies, what to try.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::config::{Config, Source};

/// The banner for a server that listens on `addr`.
pub(super) fn of(config: &Config, addr: SocketAddr) -> String {
    let base = config.public_url.as_ref().map_or_else(
        || format!("http://{addr}"),
        |url| url.as_str().trim_end_matches('/').to_owned(),
    );
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
    let data = config.data_dir.display();
    line(
        "data",
        &format!(
            "{data} (database, spool); files in {}",
            config.media_dir().display()
        ),
    );
    let access = if config.api.tokens.is_empty() {
        "no token needed on this machine"
    } else {
        "with a bearer token"
    };
    line("look", &format!("http://{addr}/v1/tasks ({access})"));
    let program = program();
    let source = config.sources.keys().next().map_or("kie", |name| name.as_str());
    let to = format!("http://{addr}/callbacks/{source}");
    let at = if addr.port() == 8080 && addr.ip().is_loopback() {
        ""
    } else {
        " --server http://ADDRESS"
    };
    let at = at.replace("ADDRESS", &addr.to_string());
    if config.is_configless() && at.is_empty() {
        line("try", &format!("{program} trigger veo.success"));
    } else {
        line("try", &format!("{program} trigger veo.success --to {to}"));
    }
    line("then", &format!("{program} tasks list{at}"));
    text.push('\n');
    text
}

fn verified_by(source: &Source) -> String {
    match (source.hmac_keys.len(), source.tokens.len()) {
        (0, 0) if source.allow_unverified => {
            "NOT verified: anybody may send (allow_unverified = true)".to_owned()
        }
        (0, 0) => "NOT verified: taken from this machine only; set hmac_keys or tokens for the real provider"
            .to_owned(),
        (0, _) => "verified by ?token=".to_owned(),
        (keys, 0) => format!("verified by signature ({keys} of our keys)"),
        (keys, _) => format!("verified by signature ({keys} of our keys) and ?token="),
    }
}

/// The program as the person called it, so that the lines can be pasted.
fn program() -> String {
    std::env::args_os().next().map_or_else(
        || "reelhook".to_owned(),
        |path| path.to_string_lossy().into_owned(),
    )
}
