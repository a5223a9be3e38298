//! `/setup`: where callbacks go, what proves them, and whether they get here.

use std::sync::{Mutex, PoisonError};

use askama::Template;
use axum::extract::{Form, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use tokio::sync::Semaphore;
use url::Url;

use super::frame::Frame;
use super::page;
use super::show::{Ago, Copy, Took};
use super::trouble::MayTell;
use super::trouble_list::task_path;
use crate::clock::Millis;
use crate::config::{Source, SourceName};
use crate::http::App;
use crate::http::problem::Problem;
use crate::provider_api::ProviderApi;

mod trial;

use trial::Trial;

#[derive(Template)]
#[template(path = "setup.html")]
struct Setup {
    frame: Frame,
    warnings: Vec<String>,
    sources: Vec<Known>,
    /// Where the provider's own API is spoken.
    dropin: String,
    tested: Option<Tested>,
    is_public: bool,
    tokens: bool,
}

/// A source as it is configured.
struct Known {
    name: String,
    url: String,
    /// Where the URL holds a secret: the same without it.
    url_without_token: Option<String>,
    proofs: Vec<String>,
    is_verified: bool,
    confirm: bool,
    api: Api,
}

/// Whether the provider can be asked.
struct Api {
    url: String,
    has_key: bool,
    pause: Option<(String, Ago)>,
}

/// The last test callback, as it is shown.
struct Tested {
    trial: Trial,
    when: Ago,
    took: Took,
    task_path: String,
}

/// The last test callback. One is on its way at a time.
#[derive(Debug)]
pub(in crate::http) struct Trials {
    last: Mutex<Option<(Trial, Millis)>>,
    turn: Semaphore,
}

impl Default for Trials {
    fn default() -> Self {
        Self {
            last: Mutex::default(),
            turn: Semaphore::new(1),
        }
    }
}

impl Trials {
    fn last(&self) -> Option<(Trial, Millis)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, trial: Trial, at: Millis) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((trial, at));
    }
}

pub(super) async fn show(State(app): State<App>, frame: Frame) -> Result<Response, Problem> {
    let now = frame.now;
    let apis = app.apis.now();
    let sources = app.ingest.sources();
    let known = sources
        .iter()
        .map(|(name, source)| known(&app, (name, source), (apis.get(name.as_str()), now)));
    let sources = known.collect();
    let dropin = app.settings.reach.api.join("api/v1").map(String::from);
    let template = Setup {
        warnings: warnings(&app),
        sources,
        dropin: dropin.unwrap_or_default(),
        tested: app.trials().last().map(|(trial, at)| Tested {
            when: Ago { at, now },
            took: Took(trial.took),
            task_path: task_path(&trial.source, trial.task_id.as_str()),
            trial,
        }),
        is_public: app.settings.public_url.is_some(),
        tokens: !app.tokens().is_empty(),
        frame,
    };
    let mut response = page(&template)?;
    // Whoever got here may do all that the callback URL is good for, and came to copy it.
    response.extensions_mut().insert(MayTell);
    Ok(response)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Chosen {
    source: Option<String>,
}

/// Sends a callback as the provider would; what came of it is shown on the page.
pub(super) async fn test(State(app): State<App>, Form(chosen): Form<Chosen>) -> Result<Response, Problem> {
    let sources = app.ingest.sources();
    let named = |name: &&SourceName| {
        chosen
            .source
            .as_deref()
            .is_none_or(|chosen| chosen == name.as_str())
    };
    let found = sources.iter().find(|(name, _)| named(name));
    let (name, source) = found.ok_or_else(|| Problem::bad_request("no source of that name is configured"))?;
    // Who comes while one is under way sees how that one went.
    if let Ok(_turn) = app.trials().turn.try_acquire() {
        let trial = trial::run(&app, name, source).await;
        app.trials().keep(trial, app.clock.now());
    }
    Ok(Redirect::to("/setup#test").into_response())
}

fn known(
    app: &App,
    (name, source): (&SourceName, &Source),
    (api, now): (Option<&ProviderApi>, Millis),
) -> Known {
    let url = source.callback_url(name, base(app));
    let pause = api.and_then(ProviderApi::pause);
    let pause = pause.map(|pause| {
        let detail = app.redactor().text(&pause.detail).into_owned();
        (detail, Ago { at: pause.since, now })
    });
    Known {
        name: name.to_string(),
        url_without_token: url.query().is_some().then(|| without_query(&url)),
        url: url.into(),
        proofs: proofs(source),
        is_verified: !source.is_unverified(),
        confirm: source.confirm(),
        api: Api {
            url: source.api_url.origin().ascii_serialization(),
            has_key: api.is_some(),
            pause,
        },
    }
}

/// Where the provider reaches us.
fn base(app: &App) -> Url {
    let public = app.settings.public_url.clone();
    public.unwrap_or_else(|| app.settings.reach.callbacks.clone())
}

fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    format!("{url}?token=…")
}

/// What a callback of a source has to prove, in words.
fn proofs(source: &Source) -> Vec<String> {
    let mut proofs = Vec::new();
    if !source.hmac_keys.is_empty() {
        let keys = match source.hmac_keys.len() {
            1 => "its key".to_owned(),
            count => format!("one of {count} keys"),
        };
        let tolerance = i64::try_from(source.timestamp_tolerance.as_millis()).unwrap_or(i64::MAX);
        proofs.push(format!(
            "a signature with {keys}, made within {} of now",
            Took(tolerance)
        ));
    }
    if !source.tokens.is_empty() {
        proofs.push("the token in the callback URL".to_owned());
    }
    proofs
}

/// What `serve` warns of at its start, and what is so by now.
fn warnings(app: &App) -> Vec<String> {
    let sources = app.ingest.sources();
    let unverified = sources.iter().filter(|(_, source)| source.is_unverified());
    let unverified = unverified.map(|(name, source)| {
        let from = if source.allow_unverified { "anywhere" } else { "this machine only" };
        format!(
            "Source {name} verifies nothing and takes any callback from {from}: set sources.{name}.hmac_keys to the key that \
             the provider signs with."
        )
    });
    unverified
        .chain(app.settings.reach.warnings.iter().cloned())
        .collect()
}
