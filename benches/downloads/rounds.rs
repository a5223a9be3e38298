//! The rounds: reelhook and a downloader in turn, each in a directory of its own that is gone afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::film::Film;
use crate::host::Host;
use crate::peer::{self, Tool};
use crate::report::{Ours, Pair, Report, Theirs};
use crate::rig::callback::{Callbacks, KEY};
use crate::rig::disk;
use crate::rig::machine::Machine;
use crate::rig::progress::Progress;
use crate::rig::server::{Server, get};
use crate::wire::Connection;
use crate::{Args, Part};

/// The length of each of many files.
const SMALL: u64 = 2 << 20;
/// A server that takes longer is stuck.
const LONGEST: Duration = Duration::from_mins(10);
/// How exactly the end of a round is seen.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Bytes a second that either side is expected to reach, for the estimate only.
const PACE: f64 = 300e6;

/// One part: what is fetched, and by whom else.
struct Task<'a> {
    name: &'static str,
    count: u16,
    /// Lines of its configuration's `[downloads]`.
    limits: &'static str,
    tool: Tool,
    film: Film,
    sha256: [u8; 32],
    host: Host,
    rounds: u8,
    /// Under `target`, where a disk is: /tmp may be memory, and syncing memory is no feat.
    dir: &'a Path,
}

/// Runs the chosen parts.
pub(crate) async fn measure(args: &Args) -> anyhow::Result<Report> {
    let machine = Machine::this();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut report = Report::new(machine, disk::measure(dir.path())?);
    let rounds = args.or(args.rounds, 1, 5);
    let task = |name, count, limits, tool, length| -> anyhow::Result<Task<'_>> {
        let film = Film::new(length);
        Ok(Task {
            name,
            count,
            limits,
            tool,
            sha256: film.sha256(),
            host: Host::of(&film)?,
            film,
            rounds,
            dir: dir.path(),
        })
    };
    let large = args.or(args.bytes, 64 << 20, 2 << 30);
    let many = args.or(args.files, 32, 500);
    let mut tasks = Vec::new();
    if args.wants(Part::Large) {
        tasks.push(task("large", 1, "", Tool::Curl, large)?);
    }
    if args.wants(Part::Many) {
        let limits = "concurrency = 16\nper_host = 16";
        tasks.push(task("many", many, limits, Tool::Aria2, SMALL)?);
    }
    let progress = Progress::new(
        tasks
            .iter()
            .map(|task| 2.0 * f64::from(rounds) * task.planned())
            .sum(),
    );
    for task in tasks {
        let pair = task.run(&progress).await?;
        match task.tool {
            Tool::Curl => report.large = Some(pair),
            Tool::Aria2 => report.many = Some(pair),
        }
    }
    report.judge();
    Ok(report)
}

impl Task<'_> {
    /// All bytes of a round.
    fn bytes(&self) -> u64 {
        self.film.length * u64::from(self.count)
    }

    /// The seconds that a round is expected to take.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn planned(&self) -> f64 {
        1.0 + self.bytes() as f64 / PACE
    }

    /// All rounds of both sides. A tool that cannot be had costs nothing but the comparison.
    async fn run(&self, progress: &Progress) -> anyhow::Result<Pair> {
        let version = self.tool.version();
        let mut pair = Pair::of(self.count, self.film.length, version.as_ref().ok().cloned());
        if let Err(error) = &version {
            Progress::note(&format!("not compared with {}: {error:#}", self.tool.name()));
        }
        for round in 1..=self.rounds {
            let ours = self.ours().await?;
            let text = format!("{}, round {round}: reelhook {:.2} s", self.name, ours.seconds);
            progress.step(self.planned(), &text);
            pair.ours.push(ours);
            if version.is_ok() {
                let theirs = self.theirs()?;
                let text = format!(
                    "{}, round {round}: {} {:.2} s",
                    self.name,
                    self.tool.name(),
                    theirs.seconds()
                );
                progress.step(self.planned(), &text);
                pair.theirs.push(theirs);
            }
        }
        Ok(pair)
    }

    fn theirs(&self) -> anyhow::Result<Theirs> {
        let dir = tempfile::tempdir_in(self.dir)?;
        peer::sync(dir.path())?;
        self.tool
            .run(self.host.addr, self.count, &self.sha256, dir.path())
    }

    /// One round of the real program on a fresh data directory, from the callback's 200, or with several from the first
    /// callback, to the moment when all files are stored.
    async fn ours(&self) -> anyhow::Result<Ours> {
        let dir = tempfile::tempdir_in(self.dir)?;
        let mut server = self.serve(dir.path())?;
        let mut connection = Connection::open(server.addr).await?;
        until(&mut server, async || {
            Ok(get(&mut connection, "/readyz").await?.0 == 200)
        })
        .await?;
        peer::sync(dir.path())?;
        let cpu_before = server.cpu_time()?;
        forget_peak_memory(&server)?;
        let resident = server.resident_memory()?;
        let began = self.call_back(&mut connection).await?;
        until(&mut server, async || self.all_stored(&mut connection).await).await?;
        let seconds = began.elapsed().as_secs_f64();
        let ours = Ours {
            seconds,
            cpu_seconds: server.cpu_time()?.saturating_sub(cpu_before).as_secs_f64(),
            grown: server.peak_memory()?.saturating_sub(resident),
        };
        drop(server);
        self.check(dir.path()).await?;
        Ok(ours)
    }

    fn serve(&self, dir: &Path) -> anyhow::Result<Server> {
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = '{}'\n[sources.kie]\nhmac_keys = [\"{KEY}\"]\n\
             [egress]\nallow_cidrs = [\"127.0.0.0/8\"]\n[downloads]\n{}\n",
            dir.display(),
            self.limits
        );
        let config = dir.join("config.toml");
        std::fs::write(&config, text)?;
        Server::reelhook(&config)
    }

    /// Sends the callbacks one after the other; returns when the clock started.
    async fn call_back(&self, connection: &mut Connection) -> anyhow::Result<Instant> {
        let mut callbacks = Callbacks::new(1, self.host.addr.port());
        let began = Instant::now();
        for _ in 0..self.count {
            let status = connection.status_of(callbacks.next()).await?;
            ensure!(status == 200, "a callback was answered {status}");
            connection.body().await?;
        }
        Ok(if self.count == 1 { Instant::now() } else { began })
    }

    async fn all_stored(&self, connection: &mut Connection) -> anyhow::Result<bool> {
        let (_, stats) = get(connection, "/v1/stats").await?;
        let stats: Value = serde_json::from_slice(&stats)?;
        ensure!(
            stats["files"]["failed"].as_u64().unwrap_or(0) == 0,
            "files failed: {stats}"
        );
        Ok(stats["files"]["stored"] == self.count)
    }

    /// Fails unless the database of a server that was killed says that every file is stored as it was sent.
    async fn check(&self, dir: &Path) -> anyhow::Result<()> {
        let mut database = SqliteConnectOptions::new()
            .filename(dir.join("reelhook.db"))
            .connect()
            .await?;
        let right: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM downloads WHERE state = 'stored' AND sha256 = ? AND bytes = ?",
        )
        .bind(self.sha256.as_slice())
        .bind(i64::try_from(self.film.length)?)
        .fetch_one(&mut database)
        .await?;
        database.close().await?;
        ensure!(
            right == i64::from(self.count),
            "{right} of {} files are stored as they were sent",
            self.count
        );
        Ok(())
    }
}

/// Counts the most memory it ever held from now on.
fn forget_peak_memory(server: &Server) -> std::io::Result<()> {
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5")
}

/// Waits until `done`, and no longer than it makes sense.
async fn until(
    server: &mut Server,
    mut done: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + LONGEST;
    while !done().await? {
        if server.ended() || Instant::now() > deadline {
            bail!("the server is gone, or stuck");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
