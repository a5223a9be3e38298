//! `trigger`: a realistic callback, sent as the provider would send it.

use std::time::Instant;

use serde_json::{Value, json};
use url::Url;

use super::address::Address;
use super::callback_url::{callback_url, configured};
use super::client::{cause, client};
use super::human::{self, FAINT, painted};
use super::signing::now_seconds;
use super::{Exit, Session, UsageError};
use crate::config::{Overrides, REDACTED, Secret, SourceName};
use crate::provider::TaskId;
use crate::provider::samples::{self, Sample};
use crate::provider::signature;

/// Arguments of `trigger`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which callback to send; --list shows all
    #[arg(required_unless_present = "list")]
    event: Option<String>,
    /// List the callbacks there are
    #[arg(long)]
    list: bool,
    /// Where to send it [default: the configured callback URL on this machine, with the source's key and token]
    #[arg(long, value_name = "URL")]
    to: Option<Url>,
    /// The source to send it to, if --to does not say
    #[arg(long, value_name = "NAME", default_value = "kie", conflicts_with = "to")]
    source: SourceName,
    /// The key to sign with; without one it is sent unsigned
    #[arg(long)]
    key: Option<Secret>,
    /// Send it unsigned even if the configuration has a key
    #[arg(long, conflicts_with = "key")]
    unsigned: bool,
    /// The ?token= of the callback URL
    #[arg(long)]
    token: Option<Secret>,
    /// The task it is about [default: a random one]
    #[arg(long, value_name = "ID")]
    task_id: Option<TaskId>,
    /// A media URL it announces; may be repeated [default: /sample.mp4 on the target]
    #[arg(long = "video-url", value_name = "URL")]
    video_urls: Vec<Url>,
    /// Print what was sent and what came back as one JSON object
    #[arg(long)]
    json: bool,
}

/// Where a callback goes, and what makes it genuine.
struct Target {
    url: Url,
    /// The server it stands for: where it is, and where to see what became of the callback.
    taker: Address,
    api: Url,
    key: Option<Secret>,
}

/// A callback ready to be sent.
struct Callback {
    task_id: TaskId,
    headers: Vec<(&'static str, String)>,
    body: Value,
}

/// What came back.
struct Reply {
    status: u16,
    body: String,
    millis: u128,
}

/// Sends the callback; fine if it was answered 200.
pub(super) async fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    if args.list {
        return list(args.json, session);
    }
    let name = args.event.as_deref().unwrap_or_default();
    let sample = Sample::find(name).ok_or_else(|| unknown(name))?;
    let target = target(&args, sample, session)?;
    let callback = callback(&args, sample, &target, session)?;
    if !args.json {
        session.print(&sent(&target.url, &callback))?;
    }
    let reply = send(&target, &callback).await?;
    if args.json {
        session.print(&as_json(&target.url, &callback, &reply).to_string())?;
    } else {
        session.print(&received(&reply))?;
        if reply.status == 200 {
            session.note(&next_step(&target, &callback.task_id));
        }
    }
    Ok(if reply.status == 200 {
        Exit::Fine
    } else {
        Exit::Failed
    })
}

/// Names those of the same family, if there is one: all of them are too many for a sentence.
fn unknown(name: &str) -> UsageError {
    let family = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let names = samples::all().iter().map(|sample| sample.name);
    let related: Vec<&str> = names.filter(|known| family(known) == family(name)).collect();
    let related = match related.len() {
        0 => String::new(),
        _ => format!("there are {}; ", related.join(", ")),
    };
    UsageError(format!(
        "no callback is called {name:?}; {related}`reelhook trigger --list` shows all"
    ))
}

fn list(json: bool, session: &mut Session) -> anyhow::Result<Exit> {
    if json {
        let all = samples::all()
            .iter()
            .map(|sample| json!({ "name": sample.name, "summary": sample.summary }));
        session.print(&all.collect::<Value>().to_string())?;
    } else {
        let row = |sample: &Sample| vec![sample.name.to_owned(), sample.summary.to_owned()];
        session.print(&human::table(
            &["EVENT", "WHAT IT SAYS"],
            samples::all().iter().map(row).collect(),
        ))?;
    }
    Ok(Exit::Fine)
}

/// The target as named by the flags. What the configuration knows is sent only where the configuration points.
fn target(args: &Args, sample: &Sample, session: &Session) -> anyhow::Result<Target> {
    let mut target = match &args.to {
        Some(url) if matches!(url.scheme(), "http" | "https") => Target {
            url: url.clone(),
            taker: Address::named(url.clone()),
            api: url.clone(),
            key: None,
        },
        Some(_) => return Err(UsageError("--to must be an http or https URL".to_owned()).into()),
        None => {
            let config = session.config(Overrides::default())?;
            let source = configured(&config, &args.source)?;
            // This machine's own server: the way round through a proxy proves less and fails more.
            let taker = Address::of_callbacks(&config);
            Target {
                url: callback_url(taker.url.clone(), &args.source, source),
                taker,
                api: Address::of_api(&config).url,
                key: source.hmac_keys.first().cloned(),
            }
        }
    };
    if let Some(key) = &args.key {
        target.key = Some(key.clone());
    }
    if args.unsigned {
        target.key = None;
    }
    if let Some(token) = &args.token {
        set_query(&mut target.url, "token", token.expose());
    }
    if let Some(kind) = sample.kind().filter(|_| !has_query(&target.url, "kind")) {
        set_query(&mut target.url, "kind", kind);
    }
    Ok(target)
}

fn has_query(url: &Url, name: &str) -> bool {
    url.query_pairs().any(|(other, _)| other == name)
}

/// Sets one query parameter, in place of the one there may be.
fn set_query(url: &mut Url, name: &str, value: &str) {
    let others: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(other, _)| other != name)
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(others)
        .append_pair(name, value);
}

fn callback(args: &Args, sample: &Sample, target: &Target, session: &Session) -> anyhow::Result<Callback> {
    let task_id = match &args.task_id {
        Some(task_id) => task_id.clone(),
        None => random_task_id()?,
    };
    let mut media: Vec<String> = args.video_urls.iter().map(Url::to_string).collect();
    if media.is_empty() {
        media.push(target.url.join("/sample.mp4")?.to_string());
    }
    let mut headers = vec![("Content-Type", "application/json".to_owned())];
    if let Some(key) = &target.key {
        let timestamp = now_seconds(session);
        headers.push((
            "X-Webhook-Signature",
            signature::sign(key.expose(), task_id.as_str(), &timestamp),
        ));
        headers.push(("X-Webhook-Timestamp", timestamp));
    }
    let body = sample.body(task_id.as_str(), &media);
    Ok(Callback {
        task_id,
        headers,
        body,
    })
}

/// An id that nobody takes for one of the provider's.
fn random_task_id() -> anyhow::Result<TaskId> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(format!("test_{}", hex::encode(bytes)).parse()?)
}

async fn send(target: &Target, callback: &Callback) -> anyhow::Result<Reply> {
    let url = &target.url;
    let mut request = client(&target.taker)?
        .post(url.clone())
        .body(callback.body.to_string());
    for (name, value) in &callback.headers {
        request = request.header(*name, value);
    }
    let started = Instant::now();
    let failed = |error: reqwest::Error| {
        let origin = url.origin().ascii_serialization();
        anyhow::anyhow!(
            "no answer from {origin} ({}); start a server with `{} serve`",
            cause(&error),
            human::program()
        )
    };
    // The provider gives up after 15 seconds, by its callback page.
    let response = request
        .timeout(std::time::Duration::from_secs(15))
        .send()
        .await
        .map_err(failed)?;
    let status = response.status().as_u16();
    let body = response.text().await.map_err(failed)?;
    Ok(Reply {
        status,
        body,
        millis: started.elapsed().as_millis(),
    })
}

/// The target without its token, which is a secret.
fn shown(url: &Url) -> Url {
    let mut url = url.clone();
    if has_query(&url, "token") {
        set_query(&mut url, "token", REDACTED);
    }
    url
}

fn sent(url: &Url, callback: &Callback) -> String {
    let header = |(name, value): &(&str, String)| format!("{} {value}", painted(FAINT, &format!("{name}:")));
    let headers: Vec<String> = callback.headers.iter().map(header).collect();
    format!(
        "POST {}\n{}\n\n{:#}\n",
        shown(url),
        headers.join("\n"),
        callback.body
    )
}

fn received(reply: &Reply) -> String {
    // Duplicates and conflicts are answered 200 as well: only the server knows what it took it for.
    let verdict = if reply.status == 200 {
        human::painted(human::GOOD, "answered")
    } else {
        human::state("rejected")
    };
    format!(
        "{verdict}: {} in {} ms\n{}",
        reply.status,
        reply.millis,
        human::clean_lines(&reply.body)
    )
}

fn next_step(target: &Target, task_id: &TaskId) -> String {
    let server = target.api.origin().ascii_serialization();
    let source = target
        .url
        .path_segments()
        .and_then(Iterator::last)
        .filter(|name| name.parse::<SourceName>().is_ok());
    let source = source.map(|name| format!(" --source {name}")).unwrap_or_default();
    format!(
        "\nWhat became of it: {} tasks show {task_id} --server {server}{source}",
        human::program()
    )
}

fn as_json(url: &Url, callback: &Callback, reply: &Reply) -> Value {
    let headers: serde_json::Map<String, Value> = callback
        .headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
        .collect();
    let body = serde_json::from_str(&reply.body).unwrap_or_else(|_| Value::from(reply.body.as_str()));
    json!({
        "task_id": callback.task_id,
        "sent": { "url": shown(url), "headers": headers, "body": callback.body },
        "received": { "status": reply.status, "body": body, "milliseconds": u64::try_from(reply.millis).ok() },
    })
}
