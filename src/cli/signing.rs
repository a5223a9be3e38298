//! `sign` and `verify`: the provider's signature by hand.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::callback_url::configured;
use super::{Exit, Session, UsageError};
use crate::config::{Overrides, Secret, SourceName};
use crate::provider::TaskId;
use crate::provider::payload::Document;
use crate::provider::signature::{self, SignatureError, Signed};

/// How far from now a timestamp may be if neither flag nor configuration says.
const USUAL_TOLERANCE: Duration = Duration::from_mins(5);

/// Arguments of `sign`.
#[expect(clippy::doc_markdown, reason = "clap prints the docs as they are")]
#[derive(Debug, clap::Args)]
pub(super) struct SignArgs {
    /// The task id the callback is about
    task_id: TaskId,
    /// The key to sign with [default: the first of the source's hmac_keys]
    #[arg(long)]
    key: Option<Secret>,
    /// The source whose key is used
    #[arg(long, value_name = "NAME", default_value = "kie")]
    source: SourceName,
    /// The time to sign, in Unix seconds [default: now]
    #[arg(long)]
    timestamp: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Arguments of `verify`.
#[expect(clippy::doc_markdown, reason = "clap prints the docs as they are")]
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// The task id the callback is about
    #[arg(required_unless_present = "body", conflicts_with = "body")]
    task_id: Option<TaskId>,
    /// A file with the callback's body, to take the task id from; - is standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// What X-Webhook-Timestamp says
    #[arg(long)]
    timestamp: String,
    /// What X-Webhook-Signature says
    #[arg(long)]
    signature: String,
    /// The key to verify with [default: all hmac_keys of the source]
    #[arg(long)]
    key: Option<Secret>,
    /// The source whose keys are used
    #[arg(long, value_name = "NAME", default_value = "kie")]
    source: SourceName,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the two headers.
pub(super) fn sign(args: &SignArgs, session: &mut Session) -> anyhow::Result<Exit> {
    let (keys, _) = keys(args.key.as_ref(), &args.source, session)?;
    let timestamp = args
        .timestamp
        .map_or_else(|| now_seconds(session), |seconds| seconds.to_string());
    let signature = signature::sign(keys[0].expose(), args.task_id.as_str(), &timestamp);
    if args.json {
        let headers = json!({ "X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": signature });
        session.print(&headers.to_string())?;
    } else {
        session.print(&format!(
            "X-Webhook-Timestamp: {timestamp}\nX-Webhook-Signature: {signature}"
        ))?;
    }
    Ok(Exit::Fine)
}

/// Says whether the headers hold, and if not, why.
pub(super) fn verify(args: &VerifyArgs, session: &mut Session) -> anyhow::Result<Exit> {
    let task_id = match (&args.task_id, &args.body) {
        (Some(task_id), _) => task_id.clone(),
        (None, Some(file)) => task_id_of(file)?,
        (None, None) => return Err(UsageError("name a task id or a --body".to_owned()).into()),
    };
    let (keys, tolerance) = keys(args.key.as_ref(), &args.source, session)?;
    let signed = Signed {
        task_id: task_id.as_str(),
        timestamp: &args.timestamp,
        signature: &args.signature,
    };
    let now = session.clock.now();
    let verdict = signature::verify(keys.iter().map(Secret::expose), &signed, now, tolerance);
    let (word, sentence) = match &verdict {
        Ok(_) => (
            "valid",
            format!("valid: a key of ours made this signature for task {task_id}"),
        ),
        Err(error @ SignatureError::Stale { mac_valid: true, .. }) => (
            "stale",
            format!("stale: a key of ours made this signature, but {error}"),
        ),
        Err(error @ SignatureError::Stale { .. }) => {
            ("stale", format!("stale, and made by no key of ours: {error}"))
        }
        Err(error @ SignatureError::Bad) => ("bad_signature", format!("bad: {error}")),
    };
    if args.json {
        let result = json!({ "task_id": task_id, "valid": verdict.is_ok(), "result": word });
        session.print(&result.to_string())?;
    } else {
        session.print(&sentence)?;
    }
    Ok(if verdict.is_ok() { Exit::Fine } else { Exit::Failed })
}

/// The key given, or those of the source; never none. And how far from now a timestamp may be.
fn keys(
    given: Option<&Secret>,
    name: &SourceName,
    session: &Session,
) -> anyhow::Result<(Vec<Secret>, Duration)> {
    if let Some(key) = given {
        return Ok((vec![key.clone()], USUAL_TOLERANCE));
    }
    let config = session.config(Overrides::default())?;
    let source = configured(&config, name)?;
    if source.hmac_keys.is_empty() {
        anyhow::bail!("source {name} has no hmac_keys; give one by --key, or set sources.{name}.hmac_keys");
    }
    Ok((source.hmac_keys.clone(), source.timestamp_tolerance))
}

fn task_id_of(file: &PathBuf) -> anyhow::Result<TaskId> {
    let mut body = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin()
            .read_to_end(&mut body)
            .context("cannot read standard input")?;
    } else {
        body = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    Ok(Document::parse(&body)?.task_id().clone())
}

/// The present moment as the provider writes it.
pub(super) fn now_seconds(session: &Session) -> String {
    (session.clock.now() / 1000).to_string()
}
