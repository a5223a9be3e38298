//! Deleting a task: its rows at once, its files under a doom that outlives a crash.

use rusqlite::{OptionalExtension, params};
use sqlx::Row;

use super::ranges::of_task;
use super::writer::{Command, Reply, Tx};
use super::{Store, StoreError, keys, record};

/// What a deletion found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The rows are gone; the files are to be removed, then [`Store::forget_doomed`].
    Done,
    /// The task was gone already; files under its id may belong to a successor.
    Unknown,
}

/// Files that a deleted task left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoomedFiles {
    /// The task's source.
    pub source: String,
    /// The task's id.
    pub task_id: String,
    /// Storage keys of files that belong to the same task, which came back since: these stay.
    pub keep: Vec<String>,
}

impl Store {
    /// Deletes a task's rows and leaves a tombstone. The caller removes the files, and holds the lock on them from before
    /// this call until they are forgotten; should it die before, [`Store::doomed_files`] names them again.
    pub async fn delete_task(&self, task: i64) -> Result<Deletion, StoreError> {
        match self.write(Command::DeleteTask { task }).await? {
            Reply::Deleted(deletion) => Ok(deletion),
            other => unreachable!("a deletion was answered with {other:?}"),
        }
    }

    /// Files of deleted tasks that are still to be removed: for the start, while no download runs that could add to
    /// what is to be kept.
    pub async fn doomed_files(&self) -> Result<Vec<DoomedFiles>, StoreError> {
        let rows = sqlx::query("SELECT source, task_id FROM doomed_files ORDER BY task_id, source")
            .fetch_all(&self.readers)
            .await?;
        let mut doomed = Vec::with_capacity(rows.len());
        for row in rows {
            let (source, task_id): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let successors = self.tasks_by_id(&task_id, Some(&source)).await?;
            let files = successors.into_iter().flat_map(|task| task.files);
            doomed.push(DoomedFiles {
                source,
                task_id,
                keep: files.filter_map(|file| file.storage_key).collect(),
            });
        }
        Ok(doomed)
    }

    /// Notes that the files of a deleted task are removed.
    pub async fn forget_doomed(&self, source: &str, task_id: &str) -> Result<(), StoreError> {
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        self.write(Command::ForgetDoomed { source, task_id })
            .await
            .map(|_| ())
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
    // All that lies in the task's directory, not only what rows name: a file whose settlement was lost has none.
    tx.execute(
        "INSERT INTO doomed_files (task_id, source) SELECT task_id, source FROM tasks WHERE id = ?1
         ON CONFLICT DO NOTHING",
        params![task],
    )?;
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
    tx.execute("DELETE FROM tasks WHERE id = ?1", params![task])?;
    tx.remove_key((keys::hash_of(&task_id), task))?;
    tx.next_change();
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

pub(super) fn forget_doomed(tx: &Tx<'_>, source: &str, task_id: &str) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM doomed_files WHERE task_id = ?1 AND source = ?2",
        params![task_id, source],
    )?;
    Ok(())
}
