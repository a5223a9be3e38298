//! Kills the real server at random moments under load, starts it again on what it left, and holds it to its promise.
//!
//! `REELHOOK_KILL_CYCLES` says how often (20), `REELHOOK_KILL_SEED` repeats the choices of an earlier run; the moments
//! at which the machine's own timing lets the kills fall are never quite the same again.

mod cdn;
mod ledger;
mod load;
mod random;
mod remains;
mod server;
#[path = "../soundness/mod.rs"]
mod soundness;
#[path = "../wire/mod.rs"]
mod wire;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use cdn::Cdn;
use ledger::Ledger;
use random::Random;
use remains::Remains;
use server::Server;
use wire::Connection;

const CYCLES: u64 = 20;
/// How long the last server may take to fetch what all others left undone.
const SETTLING: Duration = Duration::from_mins(2);
/// Stored files that are fetched through the API at the end.
const FETCHED: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_no_acknowledged_callback_and_shows_no_half_file() {
    let began = Instant::now();
    let cycles = variable("REELHOOK_KILL_CYCLES").unwrap_or(CYCLES);
    let seed = variable("REELHOOK_KILL_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    say(&format!("kill harness: REELHOOK_KILL_SEED={seed}"));
    let mut harness = Harness::new(seed).await;
    for cycle in 0..cycles {
        harness.kill_under_load().await;
        if cycle % 4 == 3 {
            harness.kill_while_starting().await;
        }
    }
    let files = harness.finish().await;
    say(&format!(
        "kill harness: {cycles} cycles, {} callbacks acknowledged, 0 lost, {files} files stored and whole \
         ({} checks), {:.1} s",
        harness.ledger.acknowledged(),
        harness.remains.files_checked,
        began.elapsed().as_secs_f64(),
    ));
}

/// Past the test harness, which hides what a passing test prints.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "the length of the run is set from outside"
)]
fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {value}")),
    )
}

struct Harness {
    config: PathBuf,
    cdn: Arc<Cdn>,
    ledger: Arc<Ledger>,
    random: Random,
    remains: Remains,
    _dir: TempDir,
}

impl Harness {
    async fn new(seed: u64) -> Self {
        // Under `target`, where a disk is: /tmp may be memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let data = dir.path().join("data");
        let config = dir.path().join("config.toml");
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = '{}'\n\
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
            cdn: Arc::new(Cdn::start().await),
            ledger: Arc::default(),
            random: Random::new(seed),
            remains: Remains::of(data),
            _dir: dir,
        }
    }

    /// Starts a server, lets clients call back, kills it at a random moment, and looks at what is left.
    async fn kill_under_load(&mut self) {
        let (server, addr) = self.start().await;
        let random = Random::new(self.random.next());
        let load = load::run(addr, Arc::clone(&self.cdn), Arc::clone(&self.ledger), random);
        // A timer, not a condition: that nobody can say what the server is doing right then is the point.
        let moment = Duration::from_millis(20 + self.random.below(680));
        let kill = async {
            tokio::time::sleep(moment).await;
            server.kill();
        };
        tokio::join!(load, kill);
        self.remains.check(&self.ledger.tasks()).await;
    }

    /// Kills a server before, while or shortly after it tidies up behind its predecessor.
    async fn kill_while_starting(&mut self) {
        let (server, _) = Server::spawn(&self.config);
        tokio::time::sleep(Duration::from_millis(self.random.below(120))).await;
        server.kill();
        self.remains.check(&self.ledger.tasks()).await;
    }

    /// Starts a server; what its predecessor left unfinished must be gone once it listens.
    async fn start(&self) -> (Server, SocketAddr) {
        let left = if self.config.with_file_name("data").exists() {
            self.remains.spool()
        } else {
            HashSet::new()
        };
        let (server, addr) = Server::start(&self.config).await;
        let stale: Vec<_> = self.remains.spool().intersection(&left).cloned().collect();
        assert!(stale.is_empty(), "partial files outlived the restart: {stale:?}");
        (server, addr)
    }

    /// Lets a last server finish everything, compares it with the ledger, and says how many files there are.
    async fn finish(&mut self) -> usize {
        let (server, addr) = self.start().await;
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
        server.kill();
        self.remains.check(&self.ledger.tasks()).await;
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

fn files(task: &Value) -> impl Iterator<Item = &Value> {
    task["files"].as_array().unwrap().iter()
}

/// The server's own API.
struct Api {
    addr: SocketAddr,
    connection: Connection,
}

impl Api {
    async fn of(addr: SocketAddr) -> Self {
        let connection = Connection::open(addr).await.unwrap();
        Self { addr, connection }
    }

    async fn get(&mut self, path: &str) -> Vec<u8> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let status = if let Ok(status) = self.connection.status_of(request.as_bytes()).await {
            status
        } else {
            // Comparing a long run with its ledger outlasts the time for which a connection may idle.
            self.connection = Connection::open(self.addr).await.unwrap();
            self.connection.status_of(request.as_bytes()).await.unwrap()
        };
        let body = self.connection.body().await.unwrap().to_owned();
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        body
    }

    async fn json(&mut self, path: &str) -> Value {
        serde_json::from_slice(&self.get(path).await).unwrap()
    }

    /// All tasks, by id.
    async fn tasks(&mut self) -> HashMap<String, Value> {
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
    async fn settle(&mut self) {
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
    async fn check_files(&mut self, tasks: &HashMap<String, Value>) -> usize {
        let all: Vec<&Value> = tasks.values().flat_map(files).collect();
        for file in all.iter().take(FETCHED) {
            let content = self.get(file["url"].as_str().unwrap()).await;
            assert_eq!(file["sha256"], hex::encode(Sha256::digest(content)), "{file:#}");
        }
        all.len()
    }
}
