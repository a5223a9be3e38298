//! A callback that we send ourselves, step by step, so that what is in its way can be named.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::{TcpStream, lookup_host};
use url::Url;

use crate::config::{Source, SourceName};
use crate::http::App;
use crate::ingest::{Ailing, remedy};
use crate::provider::samples::Sample;
use crate::provider::{TaskId, signature};
use crate::roots;

/// How long the provider waits for an answer, by its callback page.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A test callback, and what came of it.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    pub(super) source: String,
    pub(super) task_id: TaskId,
    /// Where it was sent, without secrets.
    pub(super) to: String,
    /// The status, if there was an answer.
    pub(super) status: Option<u16>,
    /// How long that took, in milliseconds.
    pub(super) took: i64,
    /// What it means.
    pub(super) verdict: String,
    /// What to do, unless all is well.
    pub(super) advice: Option<String>,
}

impl Trial {
    pub(super) fn is_fine(&self) -> bool {
        self.advice.is_none()
    }
}

/// Where a test callback goes.
struct Target {
    url: Url,
    /// Where to connect to, if that is known better than by the name.
    at: Option<SocketAddr>,
}

/// What a step found in the way, and what to do about it.
struct Obstacle {
    status: Option<u16>,
    verdict: String,
    advice: String,
}

/// Sends a callback to where the provider would, or to our own listener if nothing says where that is.
pub(super) async fn run(app: &App, name: &SourceName, source: &Source) -> Trial {
    let target = target(app, name, source);
    let task_id = test_id();
    let started = Instant::now();
    let outcome = send(app, (name, source), &target, &task_id).await;
    let took = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
    let (status, verdict, advice) = match outcome {
        Ok(()) => (
            Some(200),
            "It was accepted and is on disk: the provider's callbacks take the same way.".to_owned(),
            None,
        ),
        Err(found) => (found.status, found.verdict, Some(found.advice)),
    };
    Trial {
        source: name.to_string(),
        task_id,
        to: format!(
            "{}{}",
            target.url.origin().ascii_serialization(),
            target.url.path()
        ),
        status,
        took,
        verdict,
        advice,
    }
}

fn target(app: &App, name: &SourceName, source: &Source) -> Target {
    let settings = &app.settings;
    let (base, at) = match &settings.public_url {
        Some(url) => (url.clone(), None),
        None => (settings.reach.callbacks.clone(), settings.reach.callbacks_at),
    };
    Target {
        url: source.callback_url(name, base),
        at,
    }
}

/// An id that nobody takes for one of the provider's.
fn test_id() -> TaskId {
    let mut bytes = [0; 8];
    // Without random numbers the id is one that was used before, which is answered as a repetition.
    let _ = getrandom::fill(&mut bytes);
    format!("test_{}", hex::encode(bytes))
        .parse()
        .expect("letters and digits make an id")
}

/// A success without a file: it is a whole task, wants nothing fetched and nothing asked, and leaves nothing that failed.
/// Where the sample video is there to be fetched, it comes with that.
fn body(app: &App, task_id: &TaskId) -> Value {
    let sample = Sample::find("veo.success").expect("it is the first of all");
    let video = app.settings.reach.callbacks.join("/sample.mp4");
    if let (true, Ok(video)) = (app.settings.sample, video) {
        return sample.body(task_id.as_str(), &[video.into()]);
    }
    let mut body = sample.body(task_id.as_str(), &[]);
    for list in ["resultUrls", "originUrls"] {
        body["data"]["info"][list] = json!([]);
    }
    body["msg"] = json!("A test callback of reelhook's dashboard, without a video.");
    body
}

/// Every step on the way there, and whether it arrived.
async fn send(
    app: &App,
    (name, source): (&SourceName, &Source),
    target: &Target,
    task_id: &TaskId,
) -> Result<(), Obstacle> {
    let addresses = resolve(target).await?;
    connect(&addresses).await?;
    let response = request(app, source, target, task_id).await?;
    let status = response.status().as_u16();
    let text = tokio::time::timeout(PATIENCE, response.text()).await;
    let text = text.ok().and_then(Result::ok).unwrap_or_default();
    if status != 200 {
        return Err(refused(app, name, status, &text));
    }
    let tasks = app.store.tasks_by_id(task_id.as_str(), Some(name.as_str())).await;
    if tasks.is_ok_and(|tasks| tasks.is_empty()) {
        return Err(Obstacle {
            status: Some(status),
            verdict: "Somebody answered 200, but not this server: nothing arrived here.".to_owned(),
            advice: "public_url leads to another server; set it to where your proxy or tunnel passes on to this one.".to_owned(),
        });
    }
    Ok(())
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, Obstacle> {
    if let Some(at) = target.at {
        return Ok(vec![at]);
    }
    let host = target.url.host_str().unwrap_or_default();
    let port = target.url.port_or_known_default().unwrap_or(443);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::time::timeout(CONNECT, lookup_host((bare, port))).await;
    let found: Vec<SocketAddr> = found.ok().and_then(Result::ok).into_iter().flatten().collect();
    if found.is_empty() {
        return Err(Obstacle {
            status: None,
            verdict: format!("No address is known of {host}."),
            advice: format!(
                "Add a DNS record for {host}, or correct public_url; new records may take some minutes."
            ),
        });
    }
    Ok(found)
}

async fn connect(addresses: &[SocketAddr]) -> Result<(), Obstacle> {
    let tried = tokio::time::timeout(CONNECT, TcpStream::connect(addresses)).await;
    let said = match tried {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer within 5 seconds".to_owned(),
    };
    let all: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    Err(Obstacle {
        status: None,
        verdict: format!("No connection to {}: {said}.", all.join(", ")),
        advice: "Check that the address is this machine's or its proxy's, that the proxy runs, and that firewall and router \
                 let the port through. Some routers lead nobody from inside back in: then try it from outside."
            .to_owned(),
    })
}

async fn request(
    app: &App,
    source: &Source,
    target: &Target,
    task_id: &TaskId,
) -> Result<reqwest::Response, Obstacle> {
    let is_tls = target.url.scheme() == "https";
    let settings = || {
        let settings = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("reelhook/", env!("CARGO_PKG_VERSION")));
        match (target.url.host_str(), target.at) {
            (Some(host), Some(at)) => settings.resolve(host, at),
            _ => settings,
        }
    };
    let failed = |error: reqwest::Error| broken(is_tls, &error);
    let mut request = roots::client(settings)
        .map_err(failed)?
        .post(target.url.clone())
        .timeout(PATIENCE)
        .header("Content-Type", "application/json")
        .body(body(app, task_id).to_string());
    if let Some(key) = source.hmac_keys.first() {
        let timestamp = (app.clock.now() / 1000).to_string();
        let signed = signature::sign(key.expose(), task_id.as_str(), &timestamp);
        request = request
            .header("X-Webhook-Signature", signed)
            .header("X-Webhook-Timestamp", timestamp);
    }
    request.send().await.map_err(failed)
}

/// A connection that came to nothing.
fn broken(is_tls: bool, error: &reqwest::Error) -> Obstacle {
    let said = innermost(error);
    let (verdict, advice) = if error.is_timeout() {
        (
            "No answer within 15 seconds, after which the provider gives up.".to_owned(),
            "Look into the proxy's log: it takes the connection and passes nothing on.",
        )
    } else if is_tls && error.is_connect() {
        (
            format!("The connection was made, but not encrypted: {said}."),
            "Check that the certificate is for this name, has not expired, and comes with those that vouch for it; \
             `reelhook check` shows our own.",
        )
    } else {
        (
            format!("The connection broke off: {said}."),
            "Check that what listens there speaks the scheme of public_url (http or https).",
        )
    };
    Obstacle {
        status: None,
        verdict,
        advice: advice.to_owned(),
    }
}

/// The innermost reason, without the URL, which may hold a token.
fn innermost(error: &reqwest::Error) -> String {
    let mut found: &dyn std::error::Error = match std::error::Error::source(error) {
        Some(source) => source,
        None => return "the request failed".to_owned(),
    };
    while let Some(source) = found.source() {
        found = source;
    }
    found.to_string()
}

/// What another status than 200 means: ours say a code, those of a proxy do not.
fn refused(app: &App, name: &SourceName, status: u16, text: &str) -> Obstacle {
    let code = serde_json::from_str::<Value>(text)
        .ok()
        .and_then(|problem| Some(problem.get("code")?.as_str()?.to_owned()));
    let ours = code.as_deref().and_then(|code| {
        let ailing = Ailing {
            source: name.as_str(),
            verdict: "rejected",
            reason: code,
            received_at: app.clock.now(),
            headers: "{}",
        };
        remedy(&app.ingest.sources(), &ailing).filter(|_| crate::ingest::REASONS.contains(&code))
    });
    let advice = ours.unwrap_or_else(|| of_status(status).to_owned());
    let code = code
        .filter(|code| code.len() <= 64)
        .map_or(String::new(), |code| format!(" ({code})"));
    Obstacle {
        status: Some(status),
        verdict: format!("It was refused with status {status}{code}."),
        advice,
    }
}

fn of_status(status: u16) -> &'static str {
    match status {
        300..=399 => {
            "The proxy redirects, which the provider does not follow: set public_url to where the redirect leads, with its scheme."
        }
        401 | 407 => {
            "The proxy wants a password: let /callbacks/ through without one; callbacks are verified here."
        }
        403 => {
            "If it is loopback_only: verify the source (hmac_keys or tokens), as it came through a proxy. Else the proxy \
             forbids it: let POST /callbacks/ through."
        }
        404 => "The proxy has no such path, or strips a part of it: pass /callbacks/ on as it is.",
        413 => "The proxy takes smaller bodies only: let it take as much as ingest.max_body.",
        502 | 504 => "The proxy does not reach this server: check its upstream address against `listen`.",
        503 => "This server is busy or stopping; try again in a moment.",
        _ => "Look into the proxy's log and ours for this moment.",
    }
}
