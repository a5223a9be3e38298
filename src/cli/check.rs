//! `check`: the configuration, and what it needs from this machine, before anything is started.

use std::path::Path;

use serde_json::{Value, json};

use super::instance::storage_of;
use super::listeners::pair;
use super::{Exit, Session, human, serve};
use crate::clock::{Clock, Millis, rfc3339};
use crate::config::{Bucket, Config, Media, Place};
use crate::shutdown::Tasks;
use crate::storage::Storage;
use crate::store::data_dir::{DataDir, DataDirError};
use crate::store::{Probe, Store};
use crate::{telemetry, tls};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    #[command(flatten)]
    serve: serve::Args,
    /// Print one JSON object with the configuration and the findings
    #[arg(long)]
    json: bool,
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
    if args.json {
        return print_json(&config, session).await;
    }
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

async fn print_json(config: &Config, session: &mut Session) -> anyhow::Result<Exit> {
    let findings = findings(config).await;
    let is_fine = findings.iter().all(|finding| finding.result.is_ok());
    let finding = |Finding { subject, result }: &Finding| {
        let (Ok(detail) | Err(detail)) = result;
        json!({"subject": subject, "ok": result.is_ok(), "detail": detail})
    };
    let shown = json!({
        "ok": is_fine,
        "origin": origin(config),
        "config": toml::from_str::<Value>(&config.redacted_toml())?,
        "warnings": config.origin.warnings,
        "findings": findings.iter().map(finding).collect::<Value>(),
    });
    session.print(&shown.to_string())?;
    Ok(if is_fine { Exit::Fine } else { Exit::Failed })
}

/// All probes, in the order in which `serve` would meet what they try.
async fn findings(config: &Config) -> Vec<Finding> {
    let findings = [
        Some(log_level(config)),
        Some(sources(config)),
        Some(clock()),
        certificate(config, Clock::system().now()),
        Some(data_dir(config)),
        Some(database(config).await),
        Some(files(config).await),
    ];
    findings.into_iter().flatten().collect()
}

/// Any honest clock is past this: the day this was written.
const NOT_BEFORE: Millis = 1_795_219_200_000;

fn clock() -> Finding {
    let now = Clock::system().now();
    let shown = rfc3339(now);
    let result = if now < NOT_BEFORE {
        Err(format!(
            "it shows {shown}, which is past; set it, or every signed callback is refused as stale"
        ))
    } else {
        Ok(shown)
    };
    Finding {
        subject: "clock",
        result,
    }
}

/// What `listen` is served with, unless it speaks plain HTTP.
fn certificate(config: &Config, now: Millis) -> Option<Finding> {
    let acme = &config.tls.acme;
    let result = match pair(config) {
        Some(pair) => match pair.read_valid(now) {
            Ok(certificate) => Ok(certificate.summary(now)),
            Err(unusable) => Err(unusable.to_string()),
        },
        None if acme.is_on() => match acme.directory_ca_file.as_deref().map_or(Ok(()), tls::check_roots) {
            Ok(()) => Ok(obtained(config, now)),
            Err(error) => Err(error.to_string()),
        },
        None => return None,
    };
    Some(Finding {
        subject: "certificate",
        result,
    })
}

/// The certificate that an authority gave, if any: having none is what `serve` mends.
fn obtained(config: &Config, now: Millis) -> String {
    let acme = &config.tls.acme;
    let dir = DataDir::acme_in(&config.data_dir);
    match tls::cached(&tls::cache_dir(&dir, acme.directory_url.as_str())) {
        Some(certificate) => certificate.summary(now),
        None => format!(
            "none yet; serve will ask {} for {}",
            acme.directory_url,
            acme.domains.join(", ")
        ),
    }
}

fn data_dir(config: &Config) -> Finding {
    let path = config.data_dir.display();
    let result = match DataDir::open(&config.data_dir) {
        Ok(_) => Ok(format!("{path} can be written{}", free_space(&config.data_dir))),
        Err(DataDirError::InUse(_)) => Ok(format!("{path} is in use by a running reelhook")),
        Err(error) => Err(told(&error)),
    };
    Finding {
        subject: "data directory",
        result,
    }
}

async fn database(config: &Config) -> Finding {
    let path = DataDir::database_in(&config.data_dir);
    let result = match Store::probe(&path).await {
        Ok(Probe::Missing) => Ok(format!("{} will be made at the first start", path.display())),
        Ok(Probe::Current) => Ok(format!("{} is up to date", path.display())),
        Ok(Probe::Older) => Ok(format!("{} will be migrated at the next start", path.display())),
        Err(error) => Err(told(&error)),
    };
    Finding {
        subject: "database",
        result,
    }
}

async fn files(config: &Config) -> Finding {
    let spool = DataDir::spool_in(&config.data_dir);
    let result = match &config.media() {
        Media::Directory(media) => match Storage::open(media, &spool) {
            Ok(_) => Ok(format!("{} can be written{}", media.display(), free_space(media))),
            Err(error) => Err(error.sentence()),
        },
        Media::Bucket(bucket) => try_bucket(config, bucket).await,
    };
    Finding {
        subject: "files",
        result,
    }
}

async fn try_bucket(config: &Config, bucket: &Bucket) -> Result<String, String> {
    let storage = storage_of(config, &Tasks::new()).map_err(|error| error.to_string())?;
    match storage.probe().await {
        Ok(()) => Ok(format!("{bucket} takes files and removes them")),
        Err(error) => Err(error.sentence()),
    }
}

/// An error with its causes, on one line.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

/// How much room is left, where the system says so.
fn free_space(path: &Path) -> String {
    rustix::fs::statvfs(path).map_or_else(
        |_| String::new(),
        |found| {
            let free = bytesize::ByteSize(found.f_bavail.saturating_mul(found.f_frsize));
            format!(", {} free", free.display().iec())
        },
    )
}

fn log_level(config: &Config) -> Finding {
    let result = match telemetry::check(&config.log.level) {
        Ok(()) => Ok(config.log.level.clone()),
        Err(error) => Err(told(&error)),
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
