//! A data directory of reelhook, and the check of what its database holds against what was acknowledged.

use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use crate::rig::callback::KEY;
use crate::rig::server::Server;
use crate::rig::server::get;
use crate::wire::Connection;

/// A server that takes longer is stuck.
const LONGEST_START: Duration = Duration::from_mins(1);

/// Removed when it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir(tempfile::TempDir);

/// What a database holds: a callback that was acknowledged has added one to each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    deliveries: u64,
    tasks: u64,
    downloads: u64,
}

impl DataDir {
    /// An empty one below `parent`. Everything is at its default, logs included, but for what keeps downloads out of the
    /// picture.
    pub(crate) fn below(parent: &Path) -> anyhow::Result<Self> {
        Self::with("", parent)
    }

    /// The same of a server that believes proxies on this machine.
    pub(crate) fn behind_proxies(parent: &Path) -> anyhow::Result<Self> {
        Self::with("trusted_proxies = [\"127.0.0.0/8\"]", parent)
    }

    fn with(keys: &str, parent: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir_in(parent)?;
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = '{}'\n{keys}\n[sources.kie]\nhmac_keys = [\"{KEY}\"]\n\
             [egress]\nallow_cidrs = [\"127.0.0.0/8\"]\n\
             [downloads]\nconcurrency = 1\nper_host = 1\nidle_timeout = \"10m\"\n",
            dir.path().display()
        );
        fs::write(dir.path().join("config.toml"), text)?;
        Ok(Self(dir))
    }

    /// The server on it.
    pub(crate) fn serve(&self) -> anyhow::Result<Server> {
        Server::reelhook(&self.0.path().join("config.toml"))
    }

    /// The server on it, once it says that it is ready, and how long that took from the start of the process.
    pub(crate) async fn serve_until_ready(&self) -> anyhow::Result<(Server, Duration)> {
        self.serve_within(LONGEST_START).await
    }

    /// The same, with more patience or less.
    pub(crate) async fn serve_within(&self, longest: Duration) -> anyhow::Result<(Server, Duration)> {
        let began = Instant::now();
        let server = self.serve()?;
        let mut connection = Connection::open(server.addr).await?;
        while get(&mut connection, "/readyz").await?.0 != 200 {
            ensure!(began.elapsed() < longest, "the server does not get ready");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok((server, began.elapsed()))
    }

    /// Connects to its database, whose server must not run.
    pub(crate) async fn database(&self) -> sqlx::Result<SqliteConnection> {
        SqliteConnectOptions::new()
            .filename(self.database_file())
            .connect()
            .await
    }

    /// The length of its database, in bytes.
    pub(crate) fn database_bytes(&self) -> std::io::Result<u64> {
        Ok(fs::metadata(self.database_file())?.len())
    }

    /// Returns once everything written to the database is on the disk.
    pub(crate) fn sync(&self) -> std::io::Result<()> {
        File::open(self.database_file())?.sync_all()
    }

    fn database_file(&self) -> PathBuf {
        self.0.path().join("reelhook.db")
    }

    /// What its database holds.
    pub(crate) async fn counts(&self) -> anyhow::Result<Counts> {
        let mut database = self.database().await?;
        let (deliveries, tasks, downloads): (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM deliveries WHERE verdict = 'accepted'), (SELECT count(*) FROM tasks),
                    (SELECT count(*) FROM downloads)",
        )
        .fetch_one(&mut database)
        .await?;
        database.close().await?;
        Ok(Counts {
            deliveries: u64::try_from(deliveries)?,
            tasks: u64::try_from(tasks)?,
            downloads: u64::try_from(downloads)?,
        })
    }

    /// Fails unless the database holds what it did `before`, and a delivery, a task and a download for each callback that
    /// was acknowledged since.
    pub(crate) async fn check(&self, before: Counts, acknowledged: u64) -> anyhow::Result<()> {
        let found = self.counts().await?;
        let expected = Counts {
            deliveries: before.deliveries + acknowledged,
            tasks: before.tasks + acknowledged,
            downloads: before.downloads + acknowledged,
        };
        ensure!(
            found == expected,
            "{acknowledged} callbacks were answered 200: {expected:?} had to be in the database, {found:?} are"
        );
        Ok(())
    }
}
