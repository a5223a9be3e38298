//! Deleting a task, or a file: the rows at once, the files by notes of their keys that outlive a crash.

use rusqlite::{OptionalExtension, params};
use sqlx::Row;

use super::downloads::Lease;
use super::ranges::of_task;
use super::writer::{Command, Reply, Tx};
use super::{Store, StoreError, asks, attempts, keys, prompts, record, summary};
use crate::clock::Millis;

/// Whether a noted key is of no claim that still stands and may settle its file.
macro_rules! abandoned {
    ($note:literal) => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM downloads d WHERE d.id = ",
            $note,
            ".download AND d.lease_token = ",
            $note,
            ".lease_token AND d.state = 'downloading')"
        )
    };
}

/// What a deletion found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The rows are changed, and the keys of their files doomed; the files are to be removed.
    Done,
    /// There was nothing to delete; files under that id may belong to a successor.
    Unknown,
}

/// Files to be removed that rows of one task named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DoomedFiles {
    /// Their storage keys, which no row names any more.
    pub keys: Vec<String>,
    /// All in the task's own directory but these, which its rows name: doomed by a version that noted no keys.
    pub all_but: Option<Vec<String>>,
}

impl DoomedFiles {
    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.all_but.is_none()
    }
}

impl Store {
    /// Deletes a task's rows, dooms the files that they name, and leaves a tombstone. The caller removes the files, and
    /// holds the lock on them from before this call until they are forgotten; should it die before,
    /// [`Store::doomed_tasks`] names the task again.
    pub async fn delete_task(&self, task: i64) -> Result<Deletion, StoreError> {
        self.delete(Command::DeleteTask { task }).await
    }

    /// Dooms one stored file, if it is still the one that was stored at that moment: its row says `deleted` and keeps what
    /// is known of it but for the key. The caller removes it under the same rules as the files of a deleted task.
    pub async fn delete_file(&self, download: i64, stored_at: Millis) -> Result<Deletion, StoreError> {
        self.delete(Command::DeleteFile { download, stored_at }).await
    }

    async fn delete(&self, command: Command) -> Result<Deletion, StoreError> {
        match self.write(command).await? {
            Reply::Deleted(deletion) => Ok(deletion),
            other => unreachable!("a deletion was answered with {other:?}"),
        }
    }

    /// Sources and ids of the tasks that files are still to be removed of, whether or not they are there themselves.
    pub async fn doomed_tasks(&self) -> Result<Vec<(String, String)>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT DISTINCT source, task_id FROM doomed_keys k WHERE ",
            abandoned!("k"),
            " ORDER BY task_id, source"
        ))
        .fetch_all(&self.readers)
        .await?;
        let tasks = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        tasks.collect()
    }

    /// What is to be removed of a task, for whoever holds the lock on its files: nobody else dooms or publishes one then.
    pub async fn doomed_files(&self, source: &str, task_id: &str) -> Result<DoomedFiles, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT storage_key FROM doomed_keys k WHERE task_id = $1 AND source = $2 AND ",
            abandoned!("k"),
            " ORDER BY 1"
        ))
        .bind(task_id)
        .bind(source)
        .fetch_all(&self.readers)
        .await?;
        let mut doomed = DoomedFiles::default();
        for row in rows {
            let key: String = row.try_get(0)?;
            if key.is_empty() {
                let successors = self.tasks_by_id(task_id, Some(source)).await?;
                let files = successors.into_iter().flat_map(|task| task.files);
                doomed.all_but = Some(files.filter_map(|file| file.storage_key).collect());
            } else {
                doomed.keys.push(key);
            }
        }
        Ok(doomed)
    }

    /// Notes that files of a task are removed; an empty key stands for all that [`DoomedFiles::all_but`] meant.
    pub async fn forget_doomed(
        &self,
        source: &str,
        task_id: &str,
        keys: Vec<String>,
    ) -> Result<(), StoreError> {
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        let forget = Command::ForgetDoomed {
            source,
            task_id,
            keys,
        };
        self.write(forget).await.map(|_| ())
    }
}

pub(super) fn delete(tx: &mut Tx<'_>, task: i64) -> rusqlite::Result<Deletion> {
    tx.rare.tombstones = true;
    tx.execute(
        "INSERT INTO tombstones (task_id, source, deleted_at) SELECT task_id, source, ?2 FROM tasks WHERE id = ?1
         ON CONFLICT DO UPDATE SET deleted_at = excluded.deleted_at",
        params![task, tx.now],
    )?;
    remove(tx, task)
}

/// Deletes the rows of a task and dooms its files, without a tombstone.
pub(super) fn remove(tx: &mut Tx<'_>, task: i64) -> rusqlite::Result<Deletion> {
    let task_id: Option<String> = tx
        .db
        .prepare_cached("SELECT task_id FROM tasks WHERE id = ?1")?
        .query_row(params![task], |row| row.get(0))
        .optional()?;
    let Some(task_id) = task_id else {
        return Ok(Deletion::Unknown);
    };
    tx.execute(
        concat!(
            "INSERT INTO doomed_keys (task_id, source, storage_key)
             SELECT t.task_id, t.source, d.storage_key FROM tasks t, downloads d
             WHERE t.id = ?1 AND ",
            of_task!("d", "?1"),
            " AND d.storage_key IS NOT NULL ON CONFLICT DO NOTHING"
        ),
        params![task],
    )?;
    attempts::forget(tx, task)?;
    prompts::forget(tx, task)?;
    record::keep_bindings(tx, task, (i64::MIN, i64::MAX))?;
    delete_deliveries(tx, task)?;
    tx.execute(
        concat!("DELETE FROM downloads WHERE ", of_task!("?1")),
        params![task],
    )?;
    tx.execute(
        concat!("DELETE FROM outcomes WHERE ", of_task!("?1")),
        params![task],
    )?;
    asks::forget(tx, task)?;
    tx.execute("DELETE FROM tasks WHERE id = ?1", params![task])?;
    tx.remove_key((keys::hash_of(&task_id), task))?;
    tx.next_change(task);
    Ok(Deletion::Done)
}

fn delete_deliveries(tx: &mut Tx<'_>, task: i64) -> rusqlite::Result<()> {
    // In two: each by its index.
    tx.execute(
        "DELETE FROM deliveries WHERE task = ?1 AND verdict <> 'rejected'",
        params![task],
    )?;
    let mut rejected = tx.db.prepare_cached(
        "DELETE FROM deliveries WHERE task = ?1 AND verdict = 'rejected' RETURNING reason, net, size",
    )?;
    let mut rows = rejected.query(params![task])?;
    while let Some(row) = rows.next()? {
        let (reason, net): (String, Option<String>) = (row.get(0)?, row.get(1)?);
        tx.ring().forget_row(&reason, net.as_deref(), row.get(2)?);
    }
    Ok(())
}

/// Dooms the file that was stored at a moment and keeps its row.
pub(super) fn delete_file(tx: &mut Tx<'_>, download: i64, stored_at: Millis) -> rusqlite::Result<Deletion> {
    tx.execute(
        "INSERT INTO doomed_keys (task_id, source, storage_key)
         SELECT t.task_id, t.source, d.storage_key FROM downloads d JOIN tasks t ON t.id = d.task
         WHERE d.id = ?1 AND d.state = 'stored' AND d.updated_at = ?2
         ON CONFLICT DO UPDATE SET download = NULL, lease_token = NULL",
        params![download, stored_at],
    )?;
    let task: Option<i64> = tx
        .db
        .prepare_cached(
            "UPDATE downloads SET state = 'deleted', storage_key = NULL, updated_at = ?2, change_seq = ?3
             WHERE id = ?1 AND state = 'stored' AND updated_at = ?4 RETURNING task",
        )?
        .query_row(
            params![download, tx.now, tx.upcoming_change(), stored_at],
            |row| row.get(0),
        )
        .optional()?;
    let Some(task) = task else {
        return Ok(Deletion::Unknown);
    };
    summary::refresh(tx, task)?;
    Ok(Deletion::Done)
}

/// Records under which key a leased download is about to be published. The row names it from then on, unless it names
/// another one, which perhaps was published without being settled: that may be the only copy until this one is settled,
/// and the new key is noted beside it. `false` if the lease is lost.
pub(super) fn name_key(tx: &Tx<'_>, lease: Lease, key: &str) -> rusqlite::Result<bool> {
    let beside = tx.execute(
        "INSERT INTO doomed_keys (task_id, source, storage_key, download, lease_token)
         SELECT t.task_id, t.source, ?3, d.id, d.lease_token FROM downloads d JOIN tasks t ON t.id = d.task
         WHERE d.id = ?1 AND d.lease_token = ?2 AND d.state = 'downloading' AND d.storage_key <> ?3
         ON CONFLICT DO UPDATE SET download = excluded.download, lease_token = excluded.lease_token",
        params![lease.download, lease.token, key],
    )?;
    if beside == 1 {
        return Ok(true);
    }
    let named = tx.execute(
        "UPDATE downloads SET storage_key = ?3 WHERE id = ?1 AND lease_token = ?2 AND state = 'downloading'",
        params![lease.download, lease.token, key],
    )?;
    if named == 1 {
        spare(tx, lease.download)?;
    }
    Ok(named == 1)
}

/// Has the row of a leased download name the key that it is settled under, and dooms the one that it named before.
pub(super) fn settle_key(tx: &Tx<'_>, lease: Lease, key: &str) -> rusqlite::Result<()> {
    let doomed = tx.execute(
        "INSERT INTO doomed_keys (task_id, source, storage_key)
         SELECT t.task_id, t.source, d.storage_key FROM downloads d JOIN tasks t ON t.id = d.task
         WHERE d.id = ?1 AND d.lease_token = ?2 AND d.state = 'downloading' AND d.storage_key <> ?3
         ON CONFLICT DO UPDATE SET download = NULL, lease_token = NULL",
        params![lease.download, lease.token, key],
    )?;
    if doomed == 1 {
        tx.execute(
            "UPDATE downloads SET storage_key = ?2 WHERE id = ?1",
            params![lease.download, key],
        )?;
        spare(tx, lease.download)?;
    }
    Ok(())
}

/// Dooms no more what a row names.
fn spare(tx: &Tx<'_>, download: i64) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM doomed_keys WHERE (task_id, source, storage_key) IN (
             SELECT t.task_id, t.source, d.storage_key FROM downloads d JOIN tasks t ON t.id = d.task WHERE d.id = ?1)",
        params![download],
    )?;
    Ok(())
}

pub(super) fn forget_doomed(
    tx: &Tx<'_>,
    (source, task_id): (&str, &str),
    keys: &[String],
) -> rusqlite::Result<()> {
    for key in keys {
        tx.execute(
            "DELETE FROM doomed_keys WHERE task_id = ?1 AND source = ?2 AND storage_key = ?3",
            params![task_id, source, key],
        )?;
    }
    Ok(())
}
