//! How each file came: every attempt to fetch it, and every other link to it, the newest of each file.

use rusqlite::params;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::downloads::{Lease, Settlement};
use super::ranges::of_task;
use super::writer::Tx;
use super::{Store, StoreError};
use crate::clock::Millis;

/// Steps that are kept of each file. (A row takes a hundred bytes or two, and a file that fails for weeks makes dozens.)
const KEPT: i64 = 20;

/// What a file went through, between two moments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// The download's row id.
    pub download: i64,
    /// The file's name now.
    pub name: String,
    /// Which step of the file it was, counting from 1; the first ones may be gone.
    pub n: i64,
    /// When it began.
    pub began_at: Millis,
    /// When it was over.
    pub ended_at: Millis,
    /// `stored`; the error's code; `stopped` or `interrupted`, with the server; `refreshed` or `not_refreshed`, of a link.
    pub outcome: String,
    /// A sentence about it, where there is more to say.
    pub detail: Option<String>,
    /// Bytes of the file that were there in the end, those of earlier attempts included.
    pub bytes: Option<i64>,
}

impl Store {
    /// What the files of a task went through, in the order in which it ended; the newest of each file.
    pub async fn attempts(&self, task: i64) -> Result<Vec<AttemptRecord>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT a.*, d.name FROM downloads d JOIN attempts a ON a.download = d.id WHERE ",
            of_task!("d", "$1"),
            " ORDER BY a.ended_at, a.began_at, a.download, a.n"
        ))
        .bind(task)
        .fetch_all(&self.readers)
        .await?;
        let attempts = rows.iter().map(attempt_record);
        Ok(attempts.collect::<Result<_, sqlx::Error>>()?)
    }
}

fn attempt_record(row: &SqliteRow) -> Result<AttemptRecord, sqlx::Error> {
    Ok(AttemptRecord {
        download: row.try_get("download")?,
        name: row.try_get("name")?,
        n: row.try_get("n")?,
        began_at: row.try_get("began_at")?,
        ended_at: row.try_get("ended_at")?,
        outcome: row.try_get("outcome")?,
        detail: row.try_get("detail")?,
        bytes: row.try_get("bytes")?,
    })
}

/// Adds a step to the downloads that `$which` selects; it began when their rows last changed.
macro_rules! add_step {
    ($which:literal) => {
        concat!(
            "INSERT INTO attempts (download, n, began_at, ended_at, outcome, detail, bytes)
             SELECT id, COALESCE((SELECT max(n) FROM attempts WHERE download = downloads.id), 0) + 1,
                    min(updated_at, ?1), ?1, ?2, ?3, ?4
             FROM downloads WHERE ",
            $which
        )
    };
}

/// Notes how the attempt under a lease ended, if it still stands; to be called before the row says so. `received` is how many
/// bytes were there.
pub(super) fn note_settled(
    tx: &Tx<'_>,
    lease: Lease,
    settlement: &Settlement,
    received: Option<u64>,
) -> rusqlite::Result<()> {
    let (outcome, detail, bytes) = match settlement {
        Settlement::Stored { bytes, .. } => ("stored", None, Some(*bytes)),
        Settlement::Released { error: None, .. } => (
            "stopped",
            Some("the server was being stopped; it is gone on with later"),
            received,
        ),
        Settlement::Retry { error, .. }
        | Settlement::Expired { error, .. }
        | Settlement::Failed { error, .. }
        | Settlement::Released {
            error: Some(error), ..
        } => (error.code, Some(error.detail.as_str()), received),
    };
    let bytes = bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    tx.execute(
        add_step!("id = ?5 AND lease_token = ?6 AND state = 'downloading'"),
        params![tx.now, outcome, detail, bytes, lease.download, lease.token],
    )?;
    drop_old(tx, lease.download)
}

/// Notes that the attempt under way ended without a word: its holder let the lease run out.
pub(super) fn note_lost(tx: &Tx<'_>, download: i64) -> rusqlite::Result<()> {
    tx.execute(
        add_step!("id = ?5 AND state = 'downloading'"),
        params![
            tx.now,
            "interrupted",
            "nothing was heard of it for a whole lease",
            None::<i64>,
            download
        ],
    )?;
    drop_old(tx, download)
}

/// Notes of all that are under way that they ended with the process that fetched them.
pub(super) fn note_interrupted(tx: &Tx<'_>) -> rusqlite::Result<()> {
    let (outcome, detail) = ("interrupted", "the server ended while it was fetched");
    tx.execute(
        add_step!("state = 'downloading'"),
        params![tx.now, outcome, detail, None::<i64>],
    )?;
    let interrupted = tx.all(
        "SELECT id FROM downloads WHERE state = 'downloading'",
        [],
        |row| row.get(0),
    )?;
    interrupted
        .into_iter()
        .try_for_each(|download| drop_old(tx, download))
}

/// Notes what came of waiting for another link, if the file waits for one; to be called before its row says so.
pub(super) fn note_refreshed(tx: &Tx<'_>, download: i64, found: bool) -> rusqlite::Result<()> {
    let (outcome, detail) = if found {
        ("refreshed", "the provider gave a fresh link")
    } else {
        (
            "not_refreshed",
            "the provider gave no other link; the announced one is tried again",
        )
    };
    tx.execute(
        add_step!("id = ?5 AND state = 'needs_url'"),
        params![tx.now, outcome, detail, None::<i64>, download],
    )?;
    drop_old(tx, download)
}

/// Keeps the newest steps of a file.
fn drop_old(tx: &Tx<'_>, download: i64) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM attempts WHERE download = ?1 AND n <= (SELECT max(n) FROM attempts WHERE download = ?1) - ?2",
        params![download, KEPT],
    )?;
    Ok(())
}

/// Removes what is known of the files of a task that is deleted.
pub(super) fn forget(tx: &Tx<'_>, task: i64) -> rusqlite::Result<()> {
    tx.execute(
        concat!("DELETE FROM attempts WHERE ", of_task!(by "download", "?1")),
        params![task],
    )?;
    Ok(())
}
