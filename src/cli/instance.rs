//! A running server: the parts, wired, from the data directory's lock to the last commit.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::redirect::Policy;
use tokio::sync::Notify;
use url::Url;

use super::address::Address;
use super::listeners::{Certificate, Listeners};
use crate::clock::Clock;
use crate::config::{Config, Live, Media, Source, SourceName};
use crate::download::fetch::{Fetcher, Limits};
use crate::download::{Downloader, Meters, Progress, Rules, Settings as DownloadSettings, SourceRules};
use crate::dropin::{self, Dropin};
use crate::egress::{EgressPolicy, GuardedClient};
use crate::failpoint::{self, Step};
use crate::file_urls::FileUrls;
use crate::http::{self, App, Parts};
use crate::ingest::Ingest;
use crate::provider_api::{ProviderApi, Settings as ApiSettings};
use crate::reconcile::{Apis, Reconciler, Settings as ReconcileSettings};
use crate::retention::{Retention, Settings as RetentionSettings};
use crate::retry::Backoff;
use crate::roots;
use crate::scrub::{Scrubber, Settings as ScrubSettings};
use crate::shutdown::Tasks;
use crate::storage::{InBucket, Reserve, Storage};
use crate::store::Store;
use crate::store::data_dir::DataDir;
use crate::telemetry::Pulse;
use crate::telemetry::traces::{Collector, Exporter, Sent, Share, Tracer};

/// How long a claimed download may go without renewal; renewed every third of it.
const LEASE: Duration = Duration::from_mins(1);
/// How long the writer may take for its last commits and the checkpoint.
const LAST_COMMITS: Duration = Duration::from_secs(10);
/// How long the collector of traces may take for the last of them.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// How long one request to a provider's API may take.
const API_TIMEOUT: Duration = Duration::from_secs(30);
/// Most who follow events at one time.
const MAX_READERS: usize = 1_000;
/// After how long a silence those who follow events get a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A server that accepts callbacks and carries out downloads until it is stopped.
#[derive(Debug)]
pub struct Instance {
    /// Where it takes callbacks; the port is real even if 0 was asked for.
    pub addr: SocketAddr,
    /// Where it serves the API: the same, unless `admin_listen` is set.
    pub api_addr: SocketAddr,
    app: App,
    rules: Live<Rules>,
    apis: Live<Apis>,
    clock: Clock,
    /// Has the certificate looked at at once.
    certificate_again: Arc<Notify>,
    tasks: Tasks,
    writer: Tasks,
    /// Sends spans until everybody who has some to tell of is done.
    exporter: Tasks,
    grace: Duration,
    _data: DataDir,
}

impl Instance {
    /// Locks the data directory, opens everything, tidies up after a predecessor that was killed, and serves.
    ///
    /// Errors name what to do; nothing is left running.
    pub async fn start(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let data = DataDir::open(&config.data_dir)?;
        let (tasks, writer) = (Tasks::new(), Tasks::new());
        let ground = Ground::open(config, &data, clock.clone(), (&tasks, &writer)).await?;
        let listeners = Listeners::bind(config)?;
        let (addr, api_addr) = (listeners.addr()?, listeners.api_addr()?);
        let certificate_again = Arc::new(Notify::new());
        let certificate = Certificate::of(config, &data, clock.clone(), certificate_again.clone())?;
        let apis = Live::new(apis(config, &clock, &Apis::new())?);
        let rules = Live::new(rules(config));
        let downloader = ground.downloader(config, addr, rules.clone())?;
        let (retention, scrubber) = (ground.retention(config), ground.scrubber(config));
        let (reconciler, time) = (ground.reconciler(config, apis.clone()), ground.clock.clone());
        let instance_key = ground.store.url_key().await?;
        let file_urls = FileUrls::new(instance_key, config.files.url_ttl);
        let dropin = ground.dropin(config, (file_urls.clone(), apis.clone()));
        dropin.take_up_upgrades().await?;
        let app = App::new(Parts {
            ingest: ground.ingest(config),
            progress: downloader.progress(),
            pause: downloader.pause(),
            scrubber: scrubber.clone(),
            dropin,
            apis: apis.clone(),
            file_urls,
            store: ground.store,
            storage: ground.storage,
            clock: ground.clock,
            tasks: ground.tasks,
            pulse: ground.pulse,
            tracer: ground.tracer,
            spans: ground.spans,
            downloads: downloader.meters(),
            certificate: certificate.as_ref().map(Certificate::served),
            settings: http_settings(config, (addr, api_addr)),
            instance_key,
        });
        listeners.serve(config, &app, certificate, &tasks);
        tasks.spawn(try_bucket(config.media(), app.storage.clone(), tasks.clone()));
        tasks.spawn(downloader.run());
        tasks.spawn(app.store.clone().index_prompts(tasks.clone()));
        tasks.spawn(retention.run());
        tasks.spawn(scrubber.run());
        tasks.spawn(reconciler.run());
        Ok(Self {
            addr,
            api_addr,
            app,
            rules,
            apis,
            clock: time,
            certificate_again,
            tasks,
            writer,
            exporter: ground.exporter,
            grace: config.shutdown_grace,
            _data: data,
        })
    }

    /// Takes over the sources and tokens of another configuration, and has the certificate looked at; everything else
    /// stays until the next start.
    pub fn reload(&self, config: &Config) {
        self.app.ingest.replace_sources(config.sources.clone());
        self.app.count_sources();
        self.rules.replace(rules(config));
        match apis(config, &self.clock, &self.apis.now()) {
            Ok(apis) => {
                self.apis.replace(apis);
                self.app.store.asks_due().notify_one();
            }
            Err(error) => tracing::error!(%error, "the providers are asked as before: {error:#}"),
        }
        self.app
            .replace_secrets(config.api.tokens.clone(), &config.secrets());
        self.certificate_again.notify_one();
    }

    /// Two-stage stop: accepts nothing more, lets requests and downloads finish within the grace period, returns the
    /// rest to the queue, commits what is left and closes the database. `true` if nothing had to be cut short.
    pub async fn stop(self) -> bool {
        let in_time = self.tasks.drain(self.grace).await;
        // What it does not get rid of by then is lost, which is no reason to call the stop a bad one.
        self.exporter.drain(LAST_SPANS).await;
        // The last handles on the store: without them the writer ends.
        drop(self.app);
        self.writer.drain(LAST_COMMITS).await && in_time
    }

    /// Resolves if nothing can be recorded any more, and only a new start helps.
    pub async fn broke(&self) {
        self.app.store.writer_died().await;
    }

    /// The tracker, to watch for the stop from outside.
    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }
}

/// What every worker stands on.
struct Ground {
    store: Store,
    storage: Storage,
    clock: Clock,
    tasks: Tasks,
    pulse: Pulse,
    tracer: Tracer,
    spans: Arc<Sent>,
    exporter: Tasks,
}

impl Ground {
    /// Opens the store, whose writer belongs to `writer`, and the storage, and tidies up.
    async fn open(
        config: &Config,
        data: &DataDir,
        clock: Clock,
        (tasks, writer): (&Tasks, &Tasks),
    ) -> anyhow::Result<Self> {
        let storage = storage_of(config, tasks)?;
        storage.take_over_uploads()?;
        let store = Store::open(&data.database(), clock.clone(), writer).await?;
        store.set_silence(config.reconcile.after);
        tidy_up(&store, &storage).await?;
        let (spans, exporter) = (Arc::<Sent>::default(), Tasks::new());
        Ok(Self {
            store,
            storage,
            clock,
            tasks: tasks.clone(),
            pulse: Pulse::default(),
            tracer: tracer(config, &spans, &exporter)?,
            spans,
            exporter,
        })
    }

    fn ingest(&self, config: &Config) -> Ingest {
        Ingest::new(
            self.store.clone(),
            self.clock.clone(),
            config.sources.clone(),
            config.ingest.max_body,
        )
    }

    fn downloader(
        &self,
        config: &Config,
        addr: SocketAddr,
        rules: Live<Rules>,
    ) -> anyhow::Result<Downloader> {
        let fetcher = Fetcher {
            client: GuardedClient::new(egress_policy(config, addr))?,
            storage: self.storage.clone(),
            tasks: self.tasks.clone(),
            progress: Progress::default(),
            meters: Meters::new(self.pulse.clone(), self.clock.clone()),
            tracer: self.tracer.clone(),
            limits: download_limits(config),
        };
        Ok(Downloader::new(
            self.store.clone(),
            self.clock.clone(),
            fetcher,
            download_settings(config),
            rules,
        ))
    }

    fn dropin(&self, config: &Config, (file_urls, apis): (FileUrls, Live<Apis>)) -> Dropin {
        Dropin::new(dropin::Parts {
            store: self.store.clone(),
            clock: self.clock.clone(),
            tasks: self.tasks.clone(),
            file_urls,
            apis,
            public_url: config.public_url.clone(),
            source: config.dropin.source.clone(),
        })
    }

    fn retention(&self, config: &Config) -> Retention {
        let settings = RetentionSettings {
            deliveries: config.retention.deliveries,
            rejected: config.retention.rejected,
            tasks: config.retention.tasks,
            media: config.retention.media,
            media_bytes: config.retention.media_bytes,
        };
        Retention::new(self.store.clone(), self.storage.clone(), self.time(), settings)
    }

    fn scrubber(&self, config: &Config) -> Scrubber {
        let settings = ScrubSettings {
            every: config.scrub.every,
            rate: config.scrub.rate,
            repair: config.scrub.repair,
        };
        Scrubber::new(self.store.clone(), self.storage.clone(), self.time(), settings)
    }

    fn reconciler(&self, config: &Config, apis: Live<Apis>) -> Reconciler {
        let settings = ReconcileSettings {
            every: config.reconcile.every,
            give_up_after: config.reconcile.give_up_after,
            max_per_second: config.reconcile.max_per_second,
        };
        Reconciler::new(self.store.clone(), self.time(), settings, apis)
    }

    fn time(&self) -> (Clock, Tasks) {
        (self.clock.clone(), self.tasks.clone())
    }
}

/// The storage that a configuration names, with nothing asked of it yet.
pub(super) fn storage_of(config: &Config, tasks: &Tasks) -> anyhow::Result<Storage> {
    let spool = DataDir::spool_in(&config.data_dir);
    let storage = match &config.media() {
        Media::Directory(media) => Storage::open(media, &spool).with_context(|| {
            format!(
                "the media directory {} cannot be used; make it writable or set another storage.url",
                media.display()
            )
        })?,
        Media::Bucket(bucket) => {
            let place = InBucket {
                bucket,
                variables: &config.storage.variables,
                notes: &DataDir::uploads_in(&config.data_dir),
                tasks,
            };
            Storage::open_bucket(&place, &spool)?
        }
    };
    let reserve = config.storage.reserve.map_or(Reserve::Usual, Reserve::Bytes);
    Ok(storage
        .with_layout(config.storage.layout.clone())
        .with_reserve(reserve))
}

/// The same for those who only look at what a server stored: a media directory that is missing is not made.
pub(super) fn existing_storage_of(config: &Config, tasks: &Tasks) -> anyhow::Result<Storage> {
    if let Media::Directory(media) = &config.media() {
        anyhow::ensure!(
            media.is_dir(),
            "there is no media directory {}: is its file system mounted? Make it if the files are really gone",
            media.display()
        );
    }
    storage_of(config, tasks)
}

/// Says at once what is wrong with the bucket, if anything is. No reason not to start: callbacks are taken all the same, and
/// the downloads wait.
async fn try_bucket(media: Media, storage: Storage, tasks: Tasks) {
    if matches!(media, Media::Directory(_)) {
        return;
    }
    let tried = tokio::select! {
        tried = storage.probe() => tried,
        () = tasks.draining() => return,
    };
    if let Err(error) = tried {
        let sentence = error.sentence();
        tracing::error!(%error, "files cannot be stored for now: {sentence}");
    }
}

/// The lock proves that nobody else works here: every lease is void, and the spool is what a predecessor left.
async fn tidy_up(store: &Store, storage: &Storage) -> anyhow::Result<()> {
    store.release_downloads().await?;
    failpoint::step(Step::LeasesReleased);
    let wanted = store.downloads_wanted(&storage.spooled()?).await?;
    let swept = storage.sweep_spool(&wanted)?;
    if swept.kept + swept.removed > 0 {
        tracing::info!(
            kept = swept.kept,
            removed = swept.removed,
            "found partial files of an earlier run: {} will be gone on with, {} were of no use",
            swept.kept,
            swept.removed
        );
    }
    failpoint::step(Step::SpoolSwept);
    Ok(())
}

fn egress_policy(config: &Config, addr: SocketAddr) -> EgressPolicy {
    EgressPolicy {
        ports: config.egress.ports.clone(),
        allow_cidrs: config.egress.allow_cidrs.clone(),
        exempt_url: offers_sample(config).then(|| sample_url(addr)).flatten(),
        connect_timeout: config.downloads.connect_timeout,
        idle_timeout: config.downloads.idle_timeout,
    }
}

/// Where there is a configuration, or a certificate that does not fit a loopback address, there is no sample.
fn offers_sample(config: &Config) -> bool {
    config.is_configless() && !config.tls.is_on()
}

/// Our own sample video, the one loopback URL that a config-less server fetches.
fn sample_url(addr: SocketAddr) -> Option<Url> {
    Url::parse(&format!("http://{addr}/sample.mp4")).ok()
}

fn download_settings(config: &Config) -> DownloadSettings {
    let downloads = &config.downloads;
    DownloadSettings {
        concurrency: downloads.concurrency,
        per_host: u32::try_from(downloads.per_host).unwrap_or(u32::MAX),
        lease: LEASE,
        max_attempts: downloads.max_attempts,
        give_up_after: downloads.give_up_after,
        backoff: Backoff {
            base: downloads.retry_base,
            cap: downloads.retry_cap,
        },
    }
}

fn download_limits(config: &Config) -> Limits {
    let downloads = &config.downloads;
    Limits {
        max_size: downloads.max_size,
        total_timeout: downloads.total_timeout,
        min_speed: downloads.min_speed,
        stall_timeout: downloads.stall_timeout,
    }
}

/// The providers that can be asked: those of the sources that have an API key. One in `former` that is set as before stays,
/// with what it knows of limits and pauses.
fn apis(config: &Config, clock: &Clock, former: &Apis) -> anyhow::Result<Apis> {
    let with_key = config.sources.iter().filter_map(|(name, source)| {
        let key = source.api_key.clone()?;
        Some((name, source, key))
    });
    let api = |(name, source, key): (&SourceName, &Source, _)| {
        let settings = ApiSettings {
            base: source.api_url.clone(),
            key,
            queries_per_second: source.api_queries,
            submissions_per_10s: source.api_submissions,
            timeout: API_TIMEOUT,
        };
        let known = former.get(name.as_str()).filter(|api| api.is_of(&settings));
        if let Some(known) = known {
            return Ok((name.to_string(), known.clone()));
        }
        let api = ProviderApi::new(settings, clock.clone())
            .with_context(|| format!("the API of source {name} cannot be used"))?;
        Ok((name.to_string(), api))
    };
    with_key.map(api).collect()
}

fn rules(config: &Config) -> Rules {
    let of = |(name, source): (&SourceName, &Source)| {
        let rules = SourceRules {
            allowed_hosts: source.allowed_hosts.clone(),
            can_refresh: source.api_key.is_some(),
        };
        (name.to_string(), rules)
    };
    config.sources.iter().map(of).collect()
}

fn http_settings(config: &Config, addresses: (SocketAddr, SocketAddr)) -> http::Settings {
    http::Settings {
        api_tokens: config.api.tokens.clone(),
        secrets: config.secrets(),
        trusted_proxies: config.trusted_proxies.clone(),
        max_body: config.ingest.max_body,
        max_inflight: config.ingest.max_inflight,
        body_timeout: config.ingest.body_timeout,
        max_connections_per_address: config.ingest.max_connections_per_address,
        sample: offers_sample(config),
        serve: config.storage.serve,
        events: event_settings(config),
        dashboard: config.dashboard.enabled,
        session_ttl: config.dashboard.session_ttl,
        directories: directories(config),
        public_url: config.public_url.clone(),
        reach: reach(config, addresses),
    }
}

/// With the ports that were bound, where any would do.
fn reach(config: &Config, (addr, api_addr): (SocketAddr, SocketAddr)) -> http::Reach {
    let bound = &Config {
        listen: addr,
        admin_listen: config.admin_listen.map(|_| api_addr),
        ..config.clone()
    };
    let callbacks = Address::of_callbacks(bound);
    let public = config
        .public_url
        .clone()
        .filter(|_| config.admin_listen.is_none());
    http::Reach {
        callbacks: callbacks.url,
        callbacks_at: callbacks.at,
        api: public.unwrap_or_else(|| Address::of_api(bound).url),
        warnings: config.origin.warnings.clone(),
    }
}

/// Those who follow events hold connections without end: most of the connections are for others. And none of them is taken
/// for dead because nothing happens.
fn event_settings(config: &Config) -> http::EventSettings {
    http::EventSettings {
        max_readers: MAX_READERS.min(config.ingest.max_connections / 4).max(1),
        heartbeat: HEARTBEAT.min(config.ingest.write_timeout / 2),
    }
}

/// Where the database lies, and the files, if they do not lie in a bucket.
fn directories(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let media = match config.media() {
        Media::Directory(media) => Some(("media", media)),
        Media::Bucket(_) => None,
    };
    [("data", config.data_dir.clone())]
        .into_iter()
        .chain(media)
        .collect()
}

/// What traces are told to; nobody, if no collector is configured. What it is told is sent on `exporter`, until that drains.
fn tracer(config: &Config, sent: &Arc<Sent>, exporter: &Tasks) -> anyhow::Result<Tracer> {
    let Some((url, headers)) = config.collector() else {
        return Ok(Tracer::default());
    };
    let client = roots::client(|| reqwest::Client::builder().redirect(Policy::none()))
        .context("the collector in telemetry.otlp_endpoint cannot be asked")?;
    let collector = Collector { client, url, headers };
    let share = Share::of_millionths(config.telemetry.sample_ratio.millionths());
    let (tracer, waiting) = Tracer::new(share, sent.clone());
    let (ending, sending) = (exporter.clone(), Exporter::new(waiting, collector, sent.clone()));
    exporter.spawn(async move {
        tokio::select! {
            () = sending.run(ending.draining()) => {}
            () = ending.stopping() => {}
        }
    });
    Ok(tracer)
}
