//! Everything recorded: all SQL, one writer, and queries in the words of the domain.
//!
//! Writes go through one thread that owns the only write connection and commits whatever has gathered while the last
//! commit ran (`writer`). Reads use a small pool of read-only connections. No method holds a transaction across
//! anything but SQL.

use std::cmp::Ordering;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
};
use sqlx::{ConnectOptions, Connection as _, Row, SqlSafeStr};
use tokio::sync::{Mutex, Notify, oneshot, watch};

use crate::clock::Clock;
use crate::shutdown::Tasks;

pub mod accept;
pub mod asks;
pub mod attempts;
pub mod backup;
pub mod changes;
pub mod data_dir;
pub mod deletion;
pub mod deliveries;
pub mod downloads;
pub mod expect;
mod prompts;
pub mod record;
pub mod retention;
pub mod reverify;
pub mod scrub;
pub mod submissions;
pub mod tasks;
pub mod troubles;

mod bodies;
mod checkpoints;
mod claim;
mod keys;
mod meters;
mod overrule;
mod ranges;
mod rejected;
mod statements;
mod summary;
mod writer;

pub use meters::Meters;

use changes::Changes;
use keys::Keys;
use tasks::OldestQueued;
use writer::{Command, Job, Queue, Reply};

/// Why the store could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The writer's queue is full: more arrives than the disk can commit.
    #[error("the store is busy")]
    Busy,
    /// The writer has stopped.
    #[error("the store is closed")]
    Closed,
    /// The database refused or failed; nothing of the request was kept.
    #[error("the database failed: {0}")]
    Database(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A later reelhook has migrated it.
    #[error(
        "the database {path} was written by a newer version of reelhook (migration {version}); \
         start that version, or restore a backup made before the upgrade"
    )]
    Newer {
        /// The file.
        path: String,
        /// The migration this version does not know.
        version: i64,
    },
    /// The linked SQLite has known faults in the write-ahead log.
    #[error("SQLite {found} is too old: reelhook needs {MIN_SQLITE} or later")]
    SqliteTooOld {
        /// What is linked.
        found: String,
    },
    /// Anything else: not a database, no room, no right.
    #[error(
        "the database {path} cannot be opened; free some space if the disk is full, restore a backup if it is damaged"
    )]
    Database {
        /// The file.
        path: String,
        /// What SQLite said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A migration failed and was undone; those before it stay.
    #[error(
        "the database {path} cannot be migrated; the migration that failed was undone, the next start tries it again"
    )]
    Migrate {
        /// The file.
        path: String,
        /// What went wrong.
        source: MigrateError,
    },
}

impl OpenError {
    fn database(path: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Database {
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// The first SQLite without the WAL-reset fault that can corrupt a database.
const MIN_SQLITE: &str = "3.51.3";

/// Version, name and text of each migration, in order.
const MIGRATIONS: [(i64, &str, &str); 6] = [
    (1, "init", include_str!("../../migrations/0001_init.sql")),
    (
        2,
        "lean_ingest",
        include_str!("../../migrations/0002_lean_ingest.sql"),
    ),
    (
        3,
        "clustered_rows",
        include_str!("../../migrations/0003_clustered_rows.sql"),
    ),
    (
        4,
        "stored_files",
        include_str!("../../migrations/0004_stored_files.sql"),
    ),
    (
        5,
        "the_providers_side",
        include_str!("../../migrations/0005_the_providers_side.sql"),
    ),
    (
        LATEST_MIGRATION,
        "what_people_look_at",
        include_str!("../../migrations/0006_what_people_look_at.sql"),
    ),
];
const LATEST_MIGRATION: i64 = 6;

/// Bytes of a page of a new database: what a callback brings is appended, and takes fewer writes the larger a page is.
const PAGE_SIZE: u32 = 8192;
/// Bytes of the write-ahead log at which it is written back: the larger, the more changes of one page are written back
/// as one.
const LOG_BYTES: i64 = 32 * 1024 * 1024;

/// How long a connection waits for another one's lock.
const BUSY: Duration = Duration::from_secs(5);

/// The store. Cheap to clone; clones share the writer and the readers.
#[derive(Debug, Clone)]
pub struct Store {
    queue: Queue,
    readers: SqlitePool,
    keys: Arc<Keys>,
    clock: Clock,
    signals: Arc<Signals>,
    oldest_queued: Arc<Mutex<OldestQueued>>,
}

/// What [`Store::probe`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// No database yet.
    Missing,
    /// One of this version.
    Current,
    /// One that [`Store::open`] would migrate.
    Older,
}

/// What the writer rings after a commit.
#[derive(Debug)]
struct Signals {
    downloads: Notify,
    asks: Notify,
    /// How long nothing may be heard of a task before the provider is asked, in milliseconds.
    silence: AtomicI64,
    changes: watch::Sender<i64>,
    /// What changed, told before the number of the last change is.
    latest: Changes,
    meters: Meters,
}

impl Store {
    /// Opens (and if needed creates and migrates) the database at `path` and starts the writer on `tasks`.
    ///
    /// The writer ends, and closes the database, when the last `Store` is dropped; give it a tracker of its own, that
    /// is drained after everything which may still want to record something.
    pub async fn open(path: &Path, clock: Clock, tasks: &Tasks) -> Result<Self, OpenError> {
        let shown = path.display().to_string();
        prepare(path, &shown).await?;
        let signals = Arc::new(Signals {
            downloads: Notify::new(),
            asks: Notify::new(),
            silence: asks::usual_silence(),
            changes: watch::Sender::new(0),
            latest: Changes::new(),
            meters: Meters::new(),
        });
        let (queue, jobs) = Queue::bounded();
        let open = {
            let path = path.to_owned();
            move || write_connection(&path)
        };
        let (keys, ended) = writer::start(open, signals.clone(), clock.clone(), jobs)
            .await
            .map_err(|error| OpenError::database(&shown, error))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(reading_options(path))
            .await
            .map_err(|error| OpenError::database(&shown, error))?;
        tasks.spawn(ended);
        Ok(Self {
            queue,
            readers,
            keys,
            clock,
            signals,
            oldest_queued: Arc::default(),
        })
    }

    /// Looks at the database at `path` without changing it: whether [`Store::open`] would take it.
    pub async fn probe(path: &Path) -> Result<Probe, OpenError> {
        if !path.exists() {
            return Ok(Probe::Missing);
        }
        let shown = path.display().to_string();
        let failed = |source: sqlx::Error| OpenError::database(&shown, source);
        let mut connection = reading_options(path).connect().await.map_err(failed)?;
        let applied: i64 = sqlx::query("SELECT COALESCE(max(version), 0) FROM _sqlx_migrations")
            .fetch_one(&mut connection)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed)?;
        match applied.cmp(&LATEST_MIGRATION) {
            Ordering::Less => Ok(Probe::Older),
            Ordering::Equal => Ok(Probe::Current),
            Ordering::Greater => Err(OpenError::Newer {
                path: shown,
                version: applied,
            }),
        }
    }

    /// The key that URLs of files are signed with; made up at the first start, and as old as the database.
    pub async fn url_key(&self) -> Result<[u8; 32], StoreError> {
        let row = sqlx::query("SELECT value FROM instance WHERE name = 'url_key'")
            .fetch_one(&self.readers)
            .await?;
        let key: Vec<u8> = row.try_get(0)?;
        key.try_into()
            .map_err(|_| StoreError::from(sqlx::Error::RowNotFound))
    }

    /// Whether the database answers a query and the writer still runs.
    pub async fn is_ready(&self) -> bool {
        let alive = sqlx::query("SELECT 1").execute(&self.readers).await.is_ok();
        alive && !self.queue.is_closed()
    }

    /// Resolves if the writer ends although this store is still there: it panicked, and nothing can be recorded any more.
    pub async fn writer_died(&self) {
        self.queue.closed().await;
    }

    /// Resolves to a new value after every commit that changed a task; for those who wait for one.
    pub fn changes(&self) -> watch::Receiver<i64> {
        self.signals.changes.subscribe()
    }

    /// What the writer did since the start.
    pub fn meters(&self) -> &Meters {
        &self.signals.meters
    }

    /// Commands that wait for the writer.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Rung after every commit that made a download claimable.
    pub fn downloads_queued(&self) -> &Notify {
        &self.signals.downloads
    }

    /// Puts a command into the writer's queue and waits for its commit. Dropping the future does not cancel it.
    async fn write(&self, command: Command) -> Result<Reply, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Job { command, reply }).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// Creates the database if there is none, and brings it to this version.
async fn prepare(path: &Path, shown: &str) -> Result<(), OpenError> {
    let failed = |source: sqlx::Error| OpenError::database(shown, source);
    let options = base_options(path)
        .create_if_missing(true)
        .page_size(PAGE_SIZE)
        .journal_mode(SqliteJournalMode::Wal);
    let mut connection = options.connect().await.map_err(failed)?;
    check_version(&mut connection)
        .await
        .map_err(|error| match error {
            Ok(found) => OpenError::SqliteTooOld { found },
            Err(source) => failed(source),
        })?;
    migrate(&mut connection, shown).await?;
    make_up_key(&mut connection, shown).await?;
    connection.close().await.map_err(failed)
}

/// At the first start, makes up the key that URLs of files are signed with.
async fn make_up_key(connection: &mut SqliteConnection, shown: &str) -> Result<(), OpenError> {
    let mut key = [0_u8; 32];
    getrandom::fill(&mut key).map_err(|error| OpenError::database(shown, error))?;
    sqlx::query("INSERT OR IGNORE INTO instance (name, value) VALUES ('url_key', $1)")
        .bind(&key[..])
        .execute(connection)
        .await
        .map_err(|error| OpenError::database(shown, error))?;
    Ok(())
}

fn base_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY)
        .foreign_keys(false)
        .disable_statement_logging()
}

fn reading_options(path: &Path) -> SqliteConnectOptions {
    base_options(path).read_only(true).pragma("cache_size", "-4000")
}

/// The one connection that writes.
fn write_connection(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    // NORMAL may lose the last commits on power loss, and those were answered 200.
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    let page_size: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
    db.pragma_update(None, "wal_autocheckpoint", LOG_BYTES / page_size.max(1))?;
    db.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    db.pragma_update(None, "cache_size", -32_000)?;
    // Statements that may fail half way keep a journal of their own: in memory, not in a file that is made anew each time.
    db.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(db)
}

/// `Err(Ok(version))` if SQLite is too old.
async fn check_version(connection: &mut SqliteConnection) -> Result<(), Result<String, sqlx::Error>> {
    let found: String = sqlx::query("SELECT sqlite_version()")
        .fetch_one(connection)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(Err)?;
    // Compared as numbers: as text, 3.9 would be later than 3.51.
    let numbers = |text: &str| -> Vec<u32> {
        text.split('.')
            .map(|part| u32::from_str(part).unwrap_or(0))
            .collect()
    };
    if numbers(&found) < numbers(MIN_SQLITE) {
        return Err(Ok(found));
    }
    Ok(())
}

async fn migrate(connection: &mut SqliteConnection, path: &str) -> Result<(), OpenError> {
    let migrator = Migrator::with_migrations(
        MIGRATIONS
            .into_iter()
            .map(|(version, name, sql)| {
                Migration::new(
                    version,
                    name.into(),
                    MigrationType::Simple,
                    sql.into_sql_str(),
                    false,
                )
            })
            .collect(),
    );
    migrator.run(connection).await.map_err(|source| match source {
        MigrateError::VersionMissing(version) => OpenError::Newer {
            path: path.to_owned(),
            version,
        },
        source => OpenError::Migrate {
            path: path.to_owned(),
            source,
        },
    })
}
