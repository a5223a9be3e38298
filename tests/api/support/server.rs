//! A real server with a data directory of its own. When it is dropped it is stopped, and what must always hold is
//! asserted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reelhook::cli::instance::Instance;
use reelhook::clock::Clock;
use reelhook::config::{Config, Secret, Source, Variables};
use reqwest::Method;
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _, SqliteConnection};
use tempfile::TempDir;

use super::{Answer, Call, Follower, PATIENCE, RUNTIME};
use crate::soundness::WRONGS;

/// A server to be started.
pub(crate) struct Setup {
    config: Config,
    clock: Clock,
    _dir: TempDir,
}

impl Setup {
    /// A server with this configuration; without any source, `kie` takes unverified callbacks.
    pub(crate) fn new(toml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config: Config = toml::from_str(toml).unwrap();
        config.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.data_dir = dir.path().join("data");
        if config.sources.is_empty() {
            config.sources.insert("kie".parse().unwrap(), Source::default());
        }
        assert_eq!(config.check(), [], "a configuration that serve would take");
        let asks_strangers = |source: &Source| {
            let host = source.api_url.host_str().unwrap_or_default();
            source.api_key.is_some() && !host.starts_with("127.") && !host.ends_with(".invalid")
        };
        assert!(
            !config.sources.values().any(asks_strangers),
            "tests ask nobody but this machine: set api_url"
        );
        Self {
            config,
            clock: Clock::system(),
            _dir: dir,
        }
    }

    pub(crate) fn clock(self, clock: &Clock) -> Self {
        Self {
            clock: clock.clone(),
            ..self
        }
    }

    /// With these ways into its bucket.
    pub(crate) fn variables(mut self, variables: Variables) -> Self {
        self.config.storage.variables = variables;
        self
    }

    /// Storing under other keys from now on.
    pub(crate) fn layout(mut self, layout: &str) -> Self {
        self.config.storage.layout = layout.parse().unwrap();
        self
    }

    /// Where another server left off.
    pub(crate) fn data_dir(mut self, data_dir: &Path) -> Self {
        data_dir.clone_into(&mut self.config.data_dir);
        self
    }

    /// Whether what was halted left nothing half done.
    pub(crate) fn spool_is_empty(&self) -> bool {
        files_under(&self.config.data_dir.join("spool")).is_empty()
    }

    pub(crate) async fn start(self) -> TestServer {
        let (config, clock) = (self.config.clone(), self.clock.clone());
        // What it spawns belongs to the runtime that it is started on.
        let start = move || RUNTIME.block_on(Instance::start(&config, clock));
        let instance = tokio::task::spawn_blocking(start)
            .await
            .unwrap()
            .unwrap_or_else(|error| panic!("the server does not start: {error:#}"));
        TestServer {
            addr: instance.addr,
            http: client(),
            instance: Some(instance),
            setup: Some(self),
        }
    }
}

/// A client of any server here.
pub(crate) fn client() -> reqwest::Client {
    client_builder().build().unwrap()
}

/// The same, to be told more.
pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    // An error means that another test was first.
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder().no_proxy().timeout(PATIENCE)
}

/// A running server.
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    http: reqwest::Client,
    instance: Option<Instance>,
    setup: Option<Setup>,
}

impl TestServer {
    /// A server that takes unverified callbacks and may download from loopback.
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// The same, with more configuration.
    pub(crate) async fn with(toml: &str) -> Self {
        Setup::new(&format!("egress.allow_cidrs = [\"127.0.0.0/8\"]\n{toml}"))
            .start()
            .await
    }

    /// A callback to `kie`.
    pub(crate) fn callback(&self, body: &Value) -> Call {
        self.callback_to("kie", body)
    }

    /// A callback to the end of `/callbacks/`, which may have a query.
    pub(crate) fn callback_to(&self, rest: &str, body: &Value) -> Call {
        let task_id = body["data"]["taskId"].as_str().unwrap_or_default();
        self.callback_of(rest, body.to_string(), task_id)
    }

    /// A callback of any bytes, signed (if it is) for `task_id`.
    pub(crate) fn callback_of(&self, rest: &str, body: impl Into<reqwest::Body>, task_id: &str) -> Call {
        let request = self.bare(Method::POST, &format!("/callbacks/{rest}"));
        let now = self.setup().clock.now() / 1000;
        Call::new(request.body(body), task_id, now)
    }

    /// A request without a token.
    pub(crate) fn bare(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.addr))
    }

    /// A request with a token, if there is one.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.bare(method, path);
        match self.setup().config.api.tokens.first().map(Secret::expose) {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = headers
            .iter()
            .fold(self.request(Method::GET, path), |request, (name, value)| {
                request.header(*name, *value)
            });
        Answer::of(request).await
    }

    /// The answer itself, wherever it leads.
    pub(crate) async fn get_without_following(&self, path: &str) -> Answer {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none());
        let url = format!("http://{}{path}", self.addr);
        Answer::of(client.build().unwrap().get(url)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self
            .request(Method::POST, path)
            .header("content-type", "application/json")
            .body(body.to_string());
        Answer::of(request).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    /// Follows the events that a query selects, from now on or from the last one that was seen.
    pub(crate) async fn follow(&self, query: &str, last_id: Option<&str>) -> Follower {
        let request = self.request(Method::GET, &format!("/v1/events{query}"));
        Follower::of(match last_id {
            Some(id) => request.header("last-event-id", id),
            None => request,
        })
        .await
    }

    /// The task as the API shows it.
    pub(crate) async fn task(&self, id: &str) -> Value {
        self.get(&format!("/v1/tasks/{id}")).await.fine()
    }

    /// The task once nothing more is awaited of it.
    pub(crate) async fn wait_settled(&self, id: &str) -> Value {
        let task = self.get(&format!("/v1/tasks/{id}?wait=15s")).await.fine();
        let media = task["media"].as_str().unwrap();
        assert!(!matches!(media, "queued" | "downloading"), "{task}");
        task
    }

    /// Deliveries of a verdict as (task, reason), oldest first.
    pub(crate) async fn deliveries(&self, verdict: &str) -> Vec<(String, String)> {
        let page = self
            .get(&format!("/v1/deliveries?limit=200&verdict={verdict}"))
            .await
            .fine();
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let mut all: Vec<_> = page["deliveries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|delivery| (text(&delivery["task_id"]), text(&delivery["reason"])))
            .collect();
        all.reverse();
        all
    }

    /// A single number from a second connection to the database.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        let mut connection = connect(&self.data_dir()).await;
        let row = sqlx::query(sql).fetch_one(&mut connection).await.unwrap();
        row.try_get(0).unwrap()
    }

    /// A single text, likewise.
    pub(crate) async fn word(&self, sql: &'static str) -> String {
        let mut connection = connect(&self.data_dir()).await;
        let row = sqlx::query(sql).fetch_one(&mut connection).await.unwrap();
        row.try_get(0).unwrap()
    }

    /// Changes the database behind the server's back.
    pub(crate) async fn sabotage(&self, sql: &'static str) {
        let mut connection = connect(&self.data_dir()).await;
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.setup().config.data_dir.clone()
    }

    /// Everything in a directory of the data directory, as relative paths.
    pub(crate) fn files_in(&self, directory: &str) -> Vec<String> {
        files_under(&self.data_dir().join(directory))
    }

    /// Where it serves its API.
    pub(crate) fn api_addr(&self) -> SocketAddr {
        self.instance.as_ref().expect("it runs").api_addr
    }

    /// What SIGHUP does, with the configuration as it was.
    pub(crate) fn look_again(&self) {
        self.instance
            .as_ref()
            .expect("it runs")
            .reload(&self.setup().config);
    }

    /// What SIGHUP does, with other sources.
    pub(crate) fn take_over(&self, sources: &str) {
        let mut config = self.setup().config.clone();
        let given: Config = toml::from_str(sources).unwrap();
        config.sources = given.sources;
        assert_eq!(config.check(), [], "a configuration that serve would take");
        self.instance.as_ref().expect("it runs").reload(&config);
    }

    /// The same, with these tokens of the API.
    pub(crate) fn replace_tokens(&self, tokens: &[&str]) {
        let mut config = self.setup().config.clone();
        config.api.tokens = tokens.iter().copied().map(Secret::new).collect();
        self.instance.as_ref().expect("it runs").reload(&config);
    }

    /// The ordinary stop, begun; the receiver is told when it is done.
    pub(crate) fn begin_stop(&mut self) -> tokio::task::JoinHandle<bool> {
        let instance = self.instance.take().expect("it runs");
        RUNTIME.spawn(instance.stop())
    }

    /// The hard stop: nothing is waited for. What is left can be started again.
    pub(crate) async fn halt(mut self) -> Setup {
        let instance = self.instance.take().expect("it runs");
        let halt = async move {
            instance.tasks().drain(Duration::ZERO).await;
            instance.stop().await
        };
        RUNTIME.spawn(halt).await.unwrap();
        self.setup.take().expect("it was started")
    }

    fn setup(&self) -> &Setup {
        self.setup.as_ref().expect("it was started")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let (instance, Some(setup)) = (self.instance.take(), self.setup.take()) else {
            return;
        };
        let data_dir = setup.config.data_dir.clone();
        // On a thread of its own: this one may be in the middle of another runtime.
        let stop = move || {
            RUNTIME.block_on(async {
                if let Some(instance) = instance {
                    instance.stop().await;
                }
                wrongs(&data_dir).await
            })
        };
        let wrongs = std::thread::spawn(stop).join();
        if !std::thread::panicking() {
            let wrongs = wrongs.expect("the server stops");
            assert!(wrongs.is_empty(), "what must always hold does not: {wrongs:?}");
        }
    }
}

async fn connect(data_dir: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(data_dir.join("reelhook.db"))
        .connect()
        .await
        .unwrap()
}

/// What must always hold of a server that was stopped, and does not.
async fn wrongs(data_dir: &Path) -> Vec<String> {
    let mut connection = connect(data_dir).await;
    let mut wrongs = Vec::new();
    let downloading = (
        "downloads are left downloading",
        "SELECT count(*) FROM downloads WHERE state = 'downloading'",
    );
    for (what, sql) in WRONGS.into_iter().chain([downloading]) {
        let row = sqlx::query(sql).fetch_one(&mut connection).await.unwrap();
        match row.try_get::<i64, _>(0).unwrap() {
            0 => {}
            count => wrongs.push(format!("{count} {what}")),
        }
    }
    let waiting = sqlx::query("SELECT id FROM downloads WHERE state IN ('queued', 'needs_url')");
    let waiting = waiting.fetch_all(&mut connection).await.unwrap();
    let waiting: Vec<i64> = waiting.iter().map(|row| row.try_get(0).unwrap()).collect();
    for file in files_under(&data_dir.join("spool")) {
        let download = file
            .split_once('-')
            .and_then(|(download, _)| download.parse().ok());
        if !download.is_some_and(|download| waiting.contains(&download)) {
            wrongs.push(format!("{file} is left in the spool"));
        }
    }
    let stored = sqlx::query("SELECT storage_key FROM downloads WHERE state = 'stored' ORDER BY storage_key");
    let stored = stored.fetch_all(&mut connection).await.unwrap();
    let stored: Vec<String> = stored.iter().map(|row| row.try_get(0).unwrap()).collect();
    let there = files_under(&data_dir.join("media"));
    // Without that directory they are in a bucket, which tests look into themselves.
    if there != stored && data_dir.join("media").exists() {
        wrongs.push(format!(
            "the files on disk are {there:?}, the rows say {stored:?}"
        ));
    }
    wrongs
}

/// All files below, by their paths from there; none if there is no such directory.
pub(super) fn files_under(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = Vec::from_iter(root.exists().then(|| root.to_owned()));
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}
