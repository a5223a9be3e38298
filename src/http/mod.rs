//! The server: one route table, one file per resource, and the only place that knows status codes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use axum::middleware::from_fn_with_state;
use ipnet::IpNet;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use url::Url;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::clock::{Clock, Millis};
use crate::config::{Live, Secret, Serve, SourceName};
use crate::download::{self, Pause, Progress};
use crate::dropin::Dropin;
use crate::file_urls::FileUrls;
use crate::ingest::{Ingest, Memory};
use crate::provider_api::ProviderApi;
use crate::scrub::Scrubber;
use crate::shutdown::Tasks;
use crate::storage::Storage;
use crate::store::Store;
use crate::telemetry::Pulse;
use crate::telemetry::traces::{Sent, Tracer};
use crate::tls;

mod access;
mod archive;
mod attempts;
mod callbacks;
mod challenges;
mod client_addr;
mod dashboard;
mod deliveries;
mod dropin;
mod events;
mod files;
mod health;
mod listener;
mod meters;
mod metrics;
mod openapi;
mod problem;
mod redact;
mod scrub;
mod span;
mod tasks;
mod views;

pub use challenges::challenge_router;
pub(crate) use dashboard::{Arrived, Proof, pretty};
pub use events::Settings as EventSettings;
pub use listener::{Limits, Transport, listen, serve};
pub use openapi::openapi_json;
pub use scrub::scrub_json;

use dashboard::{Sessions, Throttle, Trials};
use events::Feed;
use listener::Places;
use meters::Meters;
use problem::Problem;
use redact::Redactor;

/// Largest body of our own API: a thousand expected tasks with their parameters.
const MAX_API_BODY: usize = 8 * 1024 * 1024;

/// The route of a stored file.
const FILE: &str = "/v1/tasks/{task_id}/files/{name}";

/// Everything the handlers share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App(Arc<Shared>);

/// What the server is made of.
#[derive(Debug)]
pub struct Parts {
    /// Takes callbacks.
    pub ingest: Ingest,
    /// Answers queries.
    pub store: Store,
    /// Serves files.
    pub storage: Storage,
    /// Speaks the provider's API.
    pub dropin: Dropin,
    /// Tell which providers are left alone, and why; by the name of their source.
    pub apis: Live<BTreeMap<String, ProviderApi>>,
    /// Judges URLs of files.
    pub file_urls: FileUrls,
    /// Reads stored files again.
    pub scrubber: Scrubber,
    /// Tells the time.
    pub clock: Clock,
    /// Tells whether we are draining.
    pub tasks: Tasks,
    /// Tells how far running downloads are.
    pub progress: Progress,
    /// Tells why none runs.
    pub pause: Pause,
    /// Tell what downloads did.
    pub downloads: download::Meters,
    /// Whom callbacks are told to.
    pub tracer: Tracer,
    /// What became of what it was told.
    pub spans: Arc<Sent>,
    /// Counts what happens by the minute.
    pub pulse: Pulse,
    /// The certificate that is served, if one is.
    pub certificate: Option<tls::Served>,
    /// How it is set.
    pub settings: Settings,
    /// What only this installation knows: sessions are proven by it.
    pub instance_key: [u8; 32],
}

/// What of the configuration the server needs.
#[derive(Debug)]
pub struct Settings {
    /// Bearer tokens of the API; none means loopback only.
    pub api_tokens: Vec<Secret>,
    /// Everything that must not leave in an answer.
    pub secrets: Vec<Secret>,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bytes of one callback body.
    pub max_body: u64,
    /// Bytes of all callback bodies held at one time.
    pub max_inflight: u64,
    /// How long a callback body may take to arrive.
    pub body_timeout: Duration,
    /// Bodies from one address that proxies may be bringing at one time.
    pub max_connections_per_address: usize,
    /// Whether `/sample.mp4` is offered.
    pub sample: bool,
    /// How files in a bucket are handed out.
    pub serve: Serve,
    /// How events are told.
    pub events: EventSettings,
    /// Whether there are pages for people.
    pub dashboard: bool,
    /// How long somebody who signed in stays so.
    pub session_ttl: Duration,
    /// How the world reaches us, if through a proxy or tunnel.
    pub public_url: Option<Url>,
    /// Directories whose disks are watched, by what they are for.
    pub directories: Vec<(&'static str, PathBuf)>,
    /// How we do.
    pub reach: Reach,
}

/// How this machine reaches its own server, and what was odd about its configuration.
#[derive(Debug)]
pub struct Reach {
    /// Where callbacks are taken.
    pub callbacks: Url,
    /// Where to connect to for that, if the URL has a name for the sake of a certificate.
    pub callbacks_at: Option<SocketAddr>,
    /// Where the API is, as those would call it who use it.
    pub api: Url,
    /// What deserves a word: one sentence each.
    pub warnings: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    parts: Parts,
    tokens: Live<Vec<Secret>>,
    redactor: Live<Redactor>,
    memory: Memory,
    /// Bodies that proxies are still bringing, by whom they bring them for.
    arriving: Places,
    /// Refusals of a flood that are held back.
    pauses: Semaphore,
    events: Feed,
    sessions: Sessions,
    throttle: Throttle,
    meters: Meters,
    started_at: Millis,
    trials: Trials,
}

impl App {
    /// Puts the parts together, and starts to feed those who follow the events.
    pub fn new(parts: Parts) -> Self {
        let meters = Meters::new(parts.pulse.clone(), parts.clock.clone());
        meters.add_sources(parts.ingest.sources().keys().map(SourceName::as_str));
        let app = Self(Arc::new(Shared {
            tokens: Live::new(parts.settings.api_tokens.clone()),
            redactor: Live::new(Redactor::new(&parts.settings.secrets)),
            memory: Memory::of(parts.settings.max_inflight),
            arriving: Places::new(usize::MAX, parts.settings.max_connections_per_address),
            pauses: Semaphore::new(callbacks::FLOOD_PAUSES),
            events: Feed::new(parts.settings.events.max_readers),
            sessions: Sessions::new(&parts.instance_key, parts.settings.session_ttl),
            throttle: Throttle::new(),
            meters,
            started_at: parts.clock.now(),
            trials: Trials::default(),
            parts,
        }));
        app.tasks.spawn(events::feed(app.clone()));
        app
    }

    /// Replaces the API's tokens and what is kept out of answers, for requests from now on.
    pub fn replace_secrets(&self, api_tokens: Vec<Secret>, secrets: &[Secret]) {
        self.0.tokens.replace(api_tokens);
        self.0.redactor.replace(Redactor::new(secrets));
        // Who follows the events was let in by a token that may be gone.
        self.0.events.hang_up();
    }

    /// Counts by the sources as they are now, too.
    pub fn count_sources(&self) {
        let sources = self.ingest.sources();
        self.0.meters.add_sources(sources.keys().map(SourceName::as_str));
    }

    fn meters(&self) -> &Meters {
        &self.0.meters
    }

    fn started_at(&self) -> Millis {
        self.0.started_at
    }

    fn tokens(&self) -> Arc<Vec<Secret>> {
        self.0.tokens.now()
    }

    fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// Counts who tried tokens in vain.
    fn throttle(&self) -> &Throttle {
        &self.0.throttle
    }

    /// What test callbacks came to.
    fn trials(&self) -> &Trials {
        &self.0.trials
    }

    fn redactor(&self) -> Arc<Redactor> {
        self.0.redactor.now()
    }

    fn events(&self) -> &Feed {
        &self.0.events
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

/// What a listener serves, besides the health that every one tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routes {
    /// Everything.
    All,
    /// What strangers may reach: callbacks, and files by their links.
    Callbacks,
    /// All the rest.
    Api,
}

/// What one listener serves.
#[derive(Debug, Clone)]
pub struct Served {
    /// Callbacks go past the router: it would cost them as much as reading them does.
    callbacks: Option<App>,
    router: Router,
}

impl From<Router> for Served {
    fn from(router: Router) -> Self {
        Self {
            callbacks: None,
            router,
        }
    }
}

/// What a listener with these routes serves.
pub fn served(app: &App, routes: Routes) -> Served {
    let with_api = matches!(routes, Routes::All | Routes::Api);
    let with_callbacks = matches!(routes, Routes::All | Routes::Callbacks);
    let mut all = table(health_routes()).merge(files(app, with_api));
    if with_api {
        all = all.merge(api(app)).merge(dropin::table()).merge(about(app));
    }
    if with_api && app.settings.dashboard {
        all = all.merge(dashboard::routes(app)).fallback(dashboard::no_page);
    } else {
        all = all.fallback(not_found);
    }
    if with_callbacks {
        all = all.merge(table(sample_routes()));
    }
    Served {
        callbacks: with_callbacks.then(|| app.clone()),
        router: all
            .layer(CatchPanicLayer::custom(problem::of_panic))
            .with_state(app.clone()),
    }
}

/// Every route with its description, in the order in which they are described; callbacks go past the router.
fn routes() -> OpenApiRouter<App> {
    api_routes()
        .merge(file_routes())
        .merge(health_routes())
        .merge(about_routes())
        .merge(sample_routes())
        .merge(dropin::routes())
}

fn api_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(tasks::list, tasks::expect))
        .routes(routes!(tasks::show, tasks::delete))
        .routes(routes!(tasks::retry))
        .routes(routes!(archive::serve))
        .routes(routes!(attempts::of_task))
        .routes(routes!(deliveries::of_task))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::show))
        .routes(routes!(deliveries::accept))
        .routes(routes!(deliveries::reverify))
        .routes(routes!(deliveries::reverify_all))
        .routes(routes!(events::follow))
        .routes(routes!(tasks::stats))
        .routes(routes!(metrics::show))
        .routes(routes!(scrub::show, scrub::begin, scrub::stop))
}

fn file_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(files::serve))
}

fn sample_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(files::sample))
}

fn health_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

/// What tells of the API itself: it is no secret.
fn about_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(openapi::serve))
}

/// Routes as they are served.
fn table(routes: OpenApiRouter<App>) -> Router<App> {
    Router::from(routes).method_not_allowed_fallback(method_not_allowed)
}

fn about(app: &App) -> Router<App> {
    table(about_routes()).layer(from_fn_with_state(
        app.clone(),
        access::require_local_without_tokens,
    ))
}

fn api(app: &App) -> Router<App> {
    table(api_routes())
        .layer(DefaultBodyLimit::max(MAX_API_BODY))
        .layer(from_fn_with_state(app.clone(), access::require))
}

/// Stored files, for those who have a link and, where the API is served, for those who may use it.
fn files(app: &App, with_api: bool) -> Router<App> {
    if with_api {
        return table(file_routes()).layer(from_fn_with_state(app.clone(), access::require_link_or_token));
    }
    table(file_routes()).layer(from_fn_with_state(app.clone(), access::require_link))
}

async fn not_found(uri: Uri) -> Problem {
    access::no_route(&uri)
}

async fn method_not_allowed(uri: Uri) -> Problem {
    Problem::method_not_allowed(format!("{} takes another method", uri.path()))
}
