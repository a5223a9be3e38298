//! `url`: the callBackUrl of a source.

use serde_json::json;
use url::Url;

use super::address::Address;
use super::{Exit, Session};
use crate::config::{Config, Overrides, Source, SourceName};
use crate::provider::Kind;

/// Arguments of `url`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The source, as configured
    source: SourceName,
    /// What the callback will be about, where its body does not tell: video, 4k, 1080p, …
    #[arg(long)]
    kind: Option<Kind>,
    /// Which of several results of that kind
    #[arg(long)]
    index: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the URL. It contains the source's token, if there is one: that is what it is for.
pub(super) fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    let config = session.config(Overrides::default())?;
    let source = configured(&config, &args.source)?;
    let base = config.public_url.clone();
    let base = base.unwrap_or_else(|| Address::of_callbacks(&config).url);
    let mut url = callback_url(base, &args.source, source);
    let index = args.index.map(|index| index.to_string());
    let pairs = [
        ("kind", args.kind.as_ref().map(Kind::as_str)),
        ("index", index.as_deref()),
    ];
    for (name, value) in pairs {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    if args.json {
        let shown = json!({"url": url, "source": args.source.as_str(), "local": !config.is_exposed()});
        session.print(&shown.to_string())?;
        return Ok(Exit::Fine);
    }
    session.print(url.as_str())?;
    if !config.is_exposed() {
        session.note(
            "note: only this machine can reach that; set public_url to where your proxy or tunnel listens",
        );
    }
    Ok(Exit::Fine)
}

/// A source of the configuration, or an error that names those there are.
pub(super) fn configured<'a>(config: &'a Config, name: &SourceName) -> anyhow::Result<&'a Source> {
    config.sources.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.sources.keys().map(SourceName::as_str).collect();
        anyhow::anyhow!("no source {name} is configured; there is {}", known.join(", "))
    })
}

/// Where callbacks of a source go on a server, with its token.
pub(super) fn callback_url(base: Url, name: &SourceName, source: &Source) -> Url {
    source.callback_url(name, base)
}
