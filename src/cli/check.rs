//! `check`: the configuration, and what it needs from this machine, before anything is started.

use super::{Exit, Session, human, serve};
use crate::config::{Config, Place};
use crate::telemetry;

/// Arguments of `check`: those of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    serve: serve::Args,
}

/// What one probe found: a sentence either way.
struct Finding {
    /// What was probed.
    subject: &'static str,
    /// What is fine, or what is wrong and what to do.
    result: Result<String, String>,
}

/// Shows the effective configuration on standard output, and the findings on standard error.
pub(super) async fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let config = session.config(args.serve.into())?;
    session.print(&format!(
        "# {}\n{}",
        origin(&config),
        config.redacted_toml().trim_end()
    ))?;
    for warning in &config.origin.warnings {
        session.note(&format!("warning: {warning}"));
    }
    let mut exit = Exit::Fine;
    for Finding { subject, result } in findings(&config).await {
        let (word, sentence) = match &result {
            Ok(sentence) => (human::state("stored").replace("stored", "ok"), sentence),
            Err(sentence) => (human::state("failed"), sentence),
        };
        session.note(&format!("{word} {subject}: {sentence}"));
        if result.is_err() {
            exit = Exit::Failed;
        }
    }
    Ok(exit)
}

/// All probes, in the order in which `serve` would meet what they try.
#[expect(
    clippy::unused_async,
    reason = "the probes of database, storage and clock wait for theirs"
)]
async fn findings(config: &Config) -> Vec<Finding> {
    vec![log_level(config), sources(config)]
}

fn log_level(config: &Config) -> Finding {
    let result = match telemetry::check(&config.log.level) {
        Ok(()) => Ok(config.log.level.clone()),
        Err(error) => Err(error.to_string()),
    };
    Finding {
        subject: "log level",
        result,
    }
}

fn sources(config: &Config) -> Finding {
    let each = config.sources.iter().map(|(name, source)| {
        let by = match (source.hmac_keys.len(), source.tokens.len()) {
            (0, 0) => "unverified".to_owned(),
            (0, _) => "verified by token".to_owned(),
            (keys, 0) => format!("verified by {}", human::counted(keys as u64, "key")),
            (keys, _) => format!("verified by {} and by token", human::counted(keys as u64, "key")),
        };
        format!("{name} {by}")
    });
    Finding {
        subject: "sources",
        result: Ok(each.collect::<Vec<_>>().join(", ")),
    }
}

/// Where the configuration came from, in a line.
fn origin(config: &Config) -> String {
    let file = match &config.origin.file {
        Some(path) => path.display().to_string(),
        None => "no file".to_owned(),
    };
    let mut places: Vec<String> = config
        .origin
        .places
        .values()
        .filter(|place| !matches!(place, Place::File { .. }))
        .map(Place::to_string)
        .collect();
    places.sort();
    places.dedup();
    places.insert(0, file);
    format!(
        "in effect, from {}; all else is at its default",
        places.join(", ")
    )
}
