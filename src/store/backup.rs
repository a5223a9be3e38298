//! A copy of the database while it is written to, and what is read from such a copy.
//!
//! Copied by `VACUUM INTO`, in one read transaction. SQLite's backup interface would begin anew after each commit of
//! another process, and under load never end, unless it copied everything in one step; then it holds the same
//! transaction, and copies the pages of what was deleted as well. While it lasts, the write-ahead log only grows.
//!
//! Everything here blocks.

use std::io::{self, Write};
use std::path::Path;

use rusqlite::{Connection, InterruptHandle, OpenFlags, params};
use serde::Serialize;

use super::BUSY;
use super::scrub::StoredFile;

/// Why there is no copy, or no good one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database failed, or what it should write to did.
    #[error("the database failed")]
    Database(#[from] rusqlite::Error),
    /// The manifest could not be written.
    #[error("the manifest cannot be written")]
    Write(#[from] io::Error),
    /// SQLite finds the copy damaged.
    #[error("the copy is damaged: {0}")]
    Damaged(String),
}

/// A database to be copied, perhaps of a running server.
#[derive(Debug)]
pub struct Source(Connection);

impl Source {
    /// Opens it for reading only.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        Ok(Self(read(path)?))
    }

    /// Bytes of the database as it is, free pages among them; a copy has fewer.
    pub fn bytes(&self) -> Result<u64, BackupError> {
        let bytes: i64 = self.0.query_row(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
            [],
            |row| row.get(0),
        )?;
        Ok(bytes.unsigned_abs())
    }

    /// Bytes of the pages that a copy has, those that are in the write-ahead log yet among them.
    pub fn used_bytes(&self) -> Result<u64, BackupError> {
        let bytes: i64 = self.0.query_row(
            "SELECT (page_count - freelist_count) * page_size
             FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
            [],
            |row| row.get(0),
        )?;
        Ok(bytes.unsigned_abs())
    }

    /// What ends a copy that is under way, from another thread.
    pub fn interrupter(&self) -> InterruptHandle {
        self.0.get_interrupt_handle()
    }

    /// Writes what is committed by now to a file that must not exist yet. It is not synced.
    pub fn copy_into(&self, path: &Path) -> Result<(), BackupError> {
        let path = path.to_string_lossy();
        self.0.execute("VACUUM INTO ?1", params![path])?;
        Ok(())
    }

    /// Whether a file of a copy is still what this database says of it: else it went, or was stored anew, since.
    pub fn still_has(&self, file: &StoredFile) -> Result<bool, BackupError> {
        Ok(self.0.query_row(
            "SELECT EXISTS (SELECT 1 FROM downloads
                            WHERE id = ?1 AND state = 'stored' AND storage_key = ?2 AND sha256 = ?3)",
            params![file.row, file.storage_key, file.sha256],
            |row| row.get(0),
        )?)
    }
}

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Tasks.
    pub tasks: i64,
    /// Deliveries.
    pub deliveries: i64,
    /// Files in whatever state.
    pub downloads: i64,
    /// Those that are stored.
    pub stored: i64,
    /// Their bytes.
    pub stored_bytes: i64,
}

/// Counts what a copy holds, row by row.
pub fn contents(copy: &Path) -> Result<Contents, BackupError> {
    Ok(read(copy)?.query_row(
        "SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM deliveries), count(*),
                COALESCE(sum(state = 'stored'), 0), COALESCE(sum(bytes) FILTER (WHERE state = 'stored'), 0)
         FROM downloads",
        [],
        |row| {
            Ok(Contents {
                tasks: row.get(0)?,
                deliveries: row.get(1)?,
                downloads: row.get(2)?,
                stored: row.get(3)?,
                stored_bytes: row.get(4)?,
            })
        },
    )?)
}

/// The last migration that a copy has.
pub fn migration(copy: &Path) -> Result<i64, BackupError> {
    let last = "SELECT max(version) FROM _sqlx_migrations";
    Ok(read(copy)?.query_row(last, [], |row| row.get(0))?)
}

/// Ids and sources of the newest tasks of a copy: a start reads their keys from the rows.
pub fn newest_tasks(copy: &Path, count: u16) -> Result<Vec<(String, String)>, BackupError> {
    let copy = read(copy)?;
    let mut tasks = copy.prepare("SELECT task_id, source FROM tasks ORDER BY id DESC LIMIT ?1")?;
    let rows = tasks.query_map(params![count], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Has SQLite look through all of a copy.
pub fn check_integrity(copy: &Path) -> Result<(), BackupError> {
    let found: String = read(copy)?.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    match found.as_str() {
        "ok" => Ok(()),
        _ => Err(BackupError::Damaged(found)),
    }
}

/// A line of the manifest.
#[derive(Serialize)]
struct Line<'r> {
    source: &'r str,
    task_id: &'r str,
    name: &'r str,
    storage_key: &'r str,
    bytes: i64,
    sha256: String,
}

/// Writes a line of JSON for each stored file of a copy; how many, and how many bytes they have.
pub fn write_manifest(copy: &Path, out: &mut impl Write) -> Result<(i64, i64), BackupError> {
    let copy = read(copy)?;
    let mut files = copy.prepare(
        "SELECT t.source, t.task_id, d.name, d.storage_key, d.bytes, lower(hex(d.sha256))
         FROM downloads d CROSS JOIN tasks t ON t.id = d.task WHERE d.state = 'stored' ORDER BY d.id",
    )?;
    let mut rows = files.query([])?;
    let (mut count, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
        let line = Line {
            source: text(0)?,
            task_id: text(1)?,
            name: text(2)?,
            storage_key: text(3)?,
            bytes: row.get(4)?,
            sha256: row.get(5)?,
        };
        serde_json::to_writer(&mut *out, &line).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
        (count, bytes) = (count + 1, bytes + line.bytes);
    }
    Ok((count, bytes))
}

fn read(path: &Path) -> Result<Connection, BackupError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    Ok(db)
}
