//! What every fault is followed by: a start, an examination of what lies on disk, and in the end a comparison of what the
//! server shows with what it promised.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reelhook::clock::Clock;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::cdn::{self, Cdn};
use crate::ledger::Ledger;
use crate::load::{self, Provider};
use crate::random::Random;
use crate::remains::Remains;
use crate::server::{Launch, Server};
use crate::wire::Connection;

/// How long the last server may take to fetch what all others left undone. A download that met a fault of this machine
/// waits for 30 seconds.
const SETTLING: Duration = Duration::from_mins(2);
/// Stored files that are fetched through the API at the end.
const FETCHED: usize = 20;

/// A data directory, the provider, and what the server promised it so far.
pub(crate) struct Harness {
    pub(crate) config: PathBuf,
    /// How its servers are started, unless they are started otherwise.
    pub(crate) launch: Launch,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) random: Random,
    pub(crate) remains: Remains,
    cdn: Arc<Cdn>,
    _dir: TempDir,
}

impl Harness {
    pub(crate) async fn new(seed: u64) -> Self {
        let dir = temporary();
        let data = dir.path().join("data");
        Self::over(seed, dir, &data, &data).await
    }

    /// A harness whose server sees its data at `data` while it is ours at `outside`, and whose configuration lies in `dir`.
    pub(crate) async fn over(seed: u64, dir: TempDir, data: &Path, outside: &Path) -> Self {
        let config = dir.path().join("config.toml");
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = '{}'\nshutdown_grace = \"2s\"\n\
             [sources.kie]\nhmac_keys = [\"{}\"]\n\
             [egress]\nallow_cidrs = [\"127.0.0.0/8\"]\n\
             [downloads]\nconcurrency = 16\nper_host = 16\nretry_base = \"50ms\"\nretry_cap = \"500ms\"\n\
             [log]\nformat = \"json\"\nlevel = \"warn,reelhook::cli=info\"\n",
            data.display(),
            load::KEY
        );
        fs::write(&config, text).unwrap();
        Self {
            config,
            launch: Launch::default(),
            ledger: Arc::default(),
            random: Random::new(seed),
            remains: Remains::of(outside.to_owned()),
            cdn: Arc::new(Cdn::start().await),
            _dir: dir,
        }
    }

    /// A provider that calls back whenever it is told to.
    pub(crate) fn provider(&mut self) -> Provider {
        Provider {
            cdn: Arc::clone(&self.cdn),
            ledger: Arc::clone(&self.ledger),
            clock: Clock::system(),
            excuses_stale: false,
            random: Random::new(self.random.next()),
        }
    }

    /// Callbacks to this address for as long as anybody answers there.
    pub(crate) fn load(&mut self, addr: SocketAddr) -> impl Future<Output = ()> + use<> {
        load::run(addr, self.provider())
    }

    /// Starts a server; what its predecessor left unfinished must be gone once it listens, but for what has a note and is gone
    /// on with.
    pub(crate) async fn start(&self) -> (Server, SocketAddr) {
        let left = self.remains.spool();
        let (server, addr) = Server::start(&self.config, &self.launch).await;
        let spool = self.remains.spool();
        let is_noted = |path: &PathBuf| {
            let (note, part) = (path.with_extension("note"), path.with_extension("part"));
            spool.contains(&note) && spool.contains(&part)
        };
        let stale: Vec<_> = spool
            .intersection(&left)
            .filter(|path| !is_noted(path))
            .cloned()
            .collect();
        assert!(stale.is_empty(), "useless files outlived the restart: {stale:?}");
        (server, addr)
    }

    /// Compares what lies on disk, while no server runs, with what was promised.
    pub(crate) async fn check(&mut self) {
        self.remains.check(&self.ledger.tasks()).await;
    }

    /// Lets a last server finish everything, compares it with the ledger, and says how many files there are.
    pub(crate) async fn finish(&mut self) -> usize {
        let (server, addr) = self.start().await;
        let files = self.settle(addr).await;
        server.kill();
        self.remains.forget_what_was_read();
        self.check().await;
        files
    }

    /// Lets the server finish everything, compares it with the ledger, and says how many files there are.
    pub(crate) async fn settle(&mut self, addr: SocketAddr) -> usize {
        let mut api = Api::of(addr).await;
        tokio::time::timeout(SETTLING, api.settle())
            .await
            .expect("everything is fetched in time");
        let tasks = api.tasks().await;
        self.check_tasks(&tasks);
        let files = api.check_files(&tasks).await;
        let unfinished = self.remains.spool();
        assert!(
            unfinished.is_empty(),
            "partial files with nothing to do: {unfinished:?}"
        );
        files
    }

    /// Everything acknowledged is there and stored with the right checksum; nothing at all is still under way.
    fn check_tasks(&self, tasks: &HashMap<String, Value>) {
        for (task_id, task) in self.ledger.tasks() {
            let found = tasks.get(&task_id).unwrap_or_else(|| panic!("{task_id} is lost"));
            let media = if task.files.is_empty() { "none" } else { "stored" };
            assert_eq!(found["media"], media, "{found:#}");
            assert!(found["deliveries"].as_i64() >= Some(task.times), "{found:#}");
            let names: HashSet<&str> = files(found).map(|file| file["name"].as_str().unwrap()).collect();
            let announced: HashSet<&str> = task.files.iter().map(String::as_str).collect();
            assert_eq!(names, announced, "{found:#}");
        }
        for (task_id, task) in tasks {
            for file in files(task) {
                let name = file["name"].as_str().unwrap();
                assert_eq!(file["state"], "stored", "{file:#}");
                assert_eq!(file["sha256"], cdn::sha256_of(task_id, name), "{file:#}");
            }
        }
    }
}

/// Under `target`, where a disk is: /tmp may be memory.
pub(crate) fn temporary() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn files(task: &Value) -> impl Iterator<Item = &Value> {
    task["files"].as_array().unwrap().iter()
}

/// The server's own API.
pub(crate) struct Api {
    addr: SocketAddr,
    connection: Connection,
}

impl Api {
    pub(crate) async fn of(addr: SocketAddr) -> Self {
        let connection = Connection::open(addr).await.unwrap();
        Self { addr, connection }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Vec<u8> {
        let first = self.ask("GET", path).await;
        let (status, body) = if let Ok(answer) = first {
            answer
        } else {
            // Comparing a long run with its ledger outlasts the time for which a connection may idle.
            self.connection = Connection::open(self.addr).await.unwrap();
            self.ask("GET", path).await.unwrap()
        };
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        body
    }

    /// Sends a request without a body and returns status and body of the answer.
    pub(crate) async fn ask(&mut self, method: &str, path: &str) -> io::Result<(u16, Vec<u8>)> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let status = self.connection.status_of(request.as_bytes()).await?;
        Ok((status, self.connection.body().await?.to_owned()))
    }

    pub(crate) async fn json(&mut self, path: &str) -> Value {
        serde_json::from_slice(&self.get(path).await).unwrap()
    }

    /// All tasks, by id.
    pub(crate) async fn tasks(&mut self) -> HashMap<String, Value> {
        let mut tasks = HashMap::new();
        let mut path = "/v1/tasks?limit=200".to_owned();
        loop {
            let page = self.json(&path).await;
            for task in page["tasks"].as_array().unwrap() {
                tasks.insert(task["task_id"].as_str().unwrap().to_owned(), task.clone());
            }
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/tasks?limit=200&cursor={cursor}"),
                None => return tasks,
            }
        }
    }

    /// Waits for every task with files until they are all fetched or given up.
    pub(crate) async fn settle(&mut self) {
        let waiting = |task: &Value| matches!(task["media"].as_str(), Some("queued" | "downloading"));
        let tasks = self.tasks().await;
        for task_id in tasks
            .iter()
            .filter(|(_, task)| waiting(task))
            .map(|(task_id, _)| task_id)
        {
            while waiting(&self.json(&format!("/v1/tasks/{task_id}?wait=30s")).await) {}
        }
    }

    /// Fetches some of the stored files as a user would, and says how many there are in all.
    pub(crate) async fn check_files(&mut self, tasks: &HashMap<String, Value>) -> usize {
        let all: Vec<&Value> = tasks.values().flat_map(files).collect();
        for file in all.iter().take(FETCHED) {
            let content = self.get(file["url"].as_str().unwrap()).await;
            assert_eq!(file["sha256"], hex::encode(Sha256::digest(content)), "{file:#}");
        }
        all.len()
    }
}
