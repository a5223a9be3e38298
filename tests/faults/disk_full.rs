//! Fills the disks under a running server: first that of the stored files, then that of the database.
//!
//! The disks are two small `tmpfs` in a mount namespace of our own, which a process of ours keeps alive while servers in it
//! come and go. There is no `PRAGMA max_page_count` in this: it would need a hook into every connection, and SQLite answers
//! a full file system alike; at which write it fails is varied by `io_errors`.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Api, Harness, temporary};
use crate::server::{Launch, Server};
use crate::{PATIENCE, say, seed, skip, until};

/// Makes the disks: one for the data directory, one within it for the stored files. Their size is that of a test.
const MOUNT: &str = "mount -t tmpfs -o size=24m none \"$0\" && mkdir \"$0/media\" && \
                     mount -t tmpfs -o size=600k none \"$0/media\" && echo ready && exec cat";
/// What is left free when a disk is filled, so that the last of it goes in the middle of something.
const LAST_ROOM: u64 = 200_000;
/// Callbacks that have to be taken, or refused, to be believed to go on so.
const ENOUGH: u64 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_cost_no_acknowledged_callback_and_room_is_all_it_takes_to_go_on() {
    let began = Instant::now();
    let dir = temporary();
    let Some(disks) = Disks::make(&dir.path().join("data")) else {
        return;
    };
    let mut harness = Harness::over(seed("REELHOOK_FULL_SEED"), dir, &disks.inside, &disks.outside()).await;
    harness.launch = disks.launch();
    let (mut server, addr) = harness.start().await;

    // Files have no room, callbacks are taken as usual.
    harness
        .load_until("a file has no room", addr, async |api, _| {
            api.some_file_waits_for_room().await
        })
        .await;
    harness.load_until_taken(addr).await;
    // Callbacks have no room, and are refused; with room they are taken again, and the files are fetched.
    disks.fill();
    harness.load_until_refused(addr).await;
    disks.make_room();
    harness.load_until_taken(addr).await;
    disks.fill();
    harness.load_until_refused(addr).await;
    disks.make_room();
    let files = harness.settle(addr).await;
    // A crash on a full disk, and a start on it, which may fail but must not harm.
    disks.fill();
    harness.load_until_refused(addr).await;
    server.kill_despite_errors();
    harness.check().await;
    let (server, listening) = Server::spawn(&harness.config, &harness.launch);
    let listening = timeout(PATIENCE, listening).await;
    let started = listening.expect("it listens or ends in time").is_ok();
    drop(server);
    harness.check().await;
    disks.make_room();
    harness.finish().await;
    say(&format!(
        "full disks: {} callbacks acknowledged, {} refused, 0 lost, {files} files stored without a restart; \
         a start on a full disk {}, {:.1} s",
        harness.ledger.acknowledged(),
        harness.ledger.refused(),
        if started { "succeeded" } else { "was refused" },
        began.elapsed().as_secs_f64(),
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_media_disk_filled_to_the_brim_pauses_downloads_and_costs_no_attempt() {
    let dir = temporary();
    let Some(disks) = Disks::make(&dir.path().join("data")) else {
        return;
    };
    let mut harness = Harness::over(seed("REELHOOK_FULL_SEED"), dir, &disks.inside, &disks.outside()).await;
    harness.launch = disks.launch();
    let (server, addr) = harness.start().await;
    disks.fill_media();
    let taken = harness.ledger.acknowledged();
    let mut api = Api::of(addr).await;
    harness
        .load_until("downloads are paused", addr, async |api, _| {
            api.json("/v1/stats").await["paused_code"] == "disk_full"
        })
        .await;
    harness.load_until_taken(addr).await;
    assert!(harness.ledger.acknowledged() > taken);
    assert_eq!(
        harness.ledger.refused(),
        0,
        "a full media disk refuses no callback"
    );

    // The reason stands wherever a person looks.
    let stats = api.json("/v1/stats").await;
    let paused = stats["paused"].as_str().expect("a sentence");
    assert!(paused.contains("the disk is full"), "{paused}");
    assert!(server.log().contains("downloads are paused"), "{}", server.log());
    let tasks = api.tasks().await;
    let met = |file: &Value| file["error"]["code"] == "local";
    let files = || tasks.values().flat_map(|task| task["files"].as_array().unwrap());
    assert!(files().any(met));
    for file in files().filter(|file| met(file)) {
        assert_eq!(
            (&file["state"], &file["attempts"]),
            (&json!("queued"), &json!(0)),
            "{file}"
        );
    }
    let waiting = tasks
        .values()
        .find(|task| task["media"] == "queued")
        .expect("some wait");
    let card = Server::command(addr, &["tasks", "show", waiting["task_id"].as_str().unwrap()]);
    assert!(card.contains("nothing is fetched: the disk is full"), "{card}");

    disks.empty_media();
    harness.settle(addr).await;
    assert_eq!(api.json("/v1/stats").await["paused"], Value::Null);
    server.kill();
    harness.check().await;
}

impl Harness {
    /// Calls back until the probe, which may ask the server and sees how many were refused, finds what it looks for.
    async fn load_until(
        &mut self,
        what: &str,
        addr: SocketAddr,
        mut probe: impl AsyncFnMut(&mut Api, (u64, u64)) -> bool,
    ) {
        let ledger = self.ledger.clone();
        let mut api = Api::of(addr).await;
        let found = until(what, async || {
            let counts = (ledger.acknowledged().unsigned_abs(), ledger.refused());
            probe(&mut api, counts).await.then_some(())
        });
        tokio::select! {
            () = self.load(addr) => panic!("the server broke off"),
            () = found => {}
        }
    }

    async fn load_until_taken(&mut self, addr: SocketAddr) {
        let before = self.ledger.acknowledged().unsigned_abs();
        self.load_until("callbacks are taken", addr, async |_, (taken, _)| {
            taken >= before + ENOUGH
        })
        .await;
    }

    async fn load_until_refused(&mut self, addr: SocketAddr) {
        let before = self.ledger.refused();
        self.load_until("callbacks are refused", addr, async |_, (_, refused)| {
            refused >= before + ENOUGH
        })
        .await;
    }
}

impl Api {
    /// Whether a download was put back because of this machine.
    async fn some_file_waits_for_room(&mut self) -> bool {
        let page = self.json("/v1/tasks?media=queued&limit=200").await;
        let tasks = page["tasks"].as_array().unwrap().iter();
        tasks
            .flat_map(|task| task["files"].as_array().unwrap())
            .any(|file| file["error"]["code"] == "local")
    }
}

/// Two small disks, and the process in whose namespace they are mounted.
struct Disks {
    keeper: Child,
    /// The data directory as those in the namespace see it.
    inside: PathBuf,
}

impl Disks {
    /// `None`, and a line that says so, where that is not permitted.
    fn make(data: &Path) -> Option<Self> {
        fs::create_dir(data).unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["-Urm", "sh", "-c", MOUNT]).arg(data);
        let spawned = unshare
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut line = String::new();
        let keeper = spawned.ok().and_then(|mut keeper| {
            let stdout = keeper.stdout.take().expect("it is piped");
            BufReader::new(stdout).read_line(&mut line).ok()?;
            Some(keeper)
        });
        match keeper {
            Some(keeper) if line == "ready\n" => Some(Self {
                keeper,
                inside: data.to_owned(),
            }),
            _ => {
                skip("no namespace for small disks: `unshare -Urm` with a tmpfs is not permitted");
                None
            }
        }
    }

    /// The data directory as everybody else sees it.
    fn outside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(self.inside.strip_prefix("/").expect("the path is absolute"))
    }

    /// The way into the namespace.
    fn nsenter(&self) -> Vec<OsString> {
        let process = self.keeper.id().to_string();
        ["nsenter", "-U", "-m", "--preserve-credentials", "-t", &process]
            .map(OsString::from)
            .into()
    }

    fn launch(&self) -> Launch {
        Launch {
            through: self.nsenter(),
            ..Launch::default()
        }
    }

    /// Fills the disk of the database but for a little.
    fn fill(&self) {
        let mut ballast = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        let piece = vec![0; 64 * 1024];
        let full = loop {
            if let Err(error) = ballast.write(&piece) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        let length = ballast.metadata().unwrap().len();
        ballast.set_len(length.saturating_sub(LAST_ROOM)).unwrap();
    }

    /// Frees what was filled, and gives the stored files as much as they want.
    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
        self.enlarge_media();
    }

    fn enlarge_media(&self) {
        let mut words = self.nsenter().into_iter();
        let mut mount = Command::new(words.next().expect("the program comes first"));
        mount
            .args(words)
            .args(["mount", "-o", "remount,size=1g"])
            .arg(self.inside.join("media"));
        assert!(mount.status().unwrap().success());
    }

    /// Fills the disk of the stored files to the last byte.
    fn fill_media(&self) {
        let mut ballast = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.outside().join("media/ballast"))
            .unwrap();
        while ballast.write(&[0; 4096]).is_ok() {}
    }

    /// Frees what was filled there, and gives it as much as it wants.
    fn empty_media(&self) {
        fs::remove_file(self.outside().join("media/ballast")).unwrap();
        self.enlarge_media();
    }

    fn ballast(&self) -> PathBuf {
        self.outside().join("ballast")
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
