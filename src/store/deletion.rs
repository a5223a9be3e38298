//! Deleting a task: its rows at once, its files under a doom that outlives a crash.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::writer::{Command, Reply, Tx};
use super::{Store, StoreError};

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
        let rows = sqlx::query(
            "SELECT source, task_id, (
                SELECT json_group_array(f.storage_key) FROM tasks t JOIN downloads f ON f.task = t.id
                WHERE t.task_id = d.task_id AND t.source = d.source AND f.storage_key IS NOT NULL)
             FROM doomed_files d ORDER BY task_id, source",
        )
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.iter().map(doomed_files).collect::<Result<_, _>>()?)
    }

    /// Notes that the files of a deleted task are removed.
    pub async fn forget_doomed(&self, source: &str, task_id: &str) -> Result<(), StoreError> {
        let (source, task_id) = (source.to_owned(), task_id.to_owned());
        self.write(Command::ForgetDoomed { source, task_id })
            .await
            .map(|_| ())
    }
}

fn doomed_files(row: &SqliteRow) -> Result<DoomedFiles, sqlx::Error> {
    let keep = serde_json::from_str(row.try_get(2)?);
    Ok(DoomedFiles {
        source: row.try_get(0)?,
        task_id: row.try_get(1)?,
        keep: keep.map_err(|error| sqlx::Error::Decode(error.into()))?,
    })
}

pub(super) async fn delete(tx: &mut Tx<'_>, task: i64) -> Result<Deletion, sqlx::Error> {
    let buried = sqlx::query(
        "INSERT INTO tombstones (task_id, source, deleted_at) SELECT task_id, source, $2 FROM tasks WHERE id = $1
         ON CONFLICT DO UPDATE SET deleted_at = excluded.deleted_at",
    )
    .bind(task)
    .bind(tx.now)
    .execute(&mut *tx.connection)
    .await?;
    if buried.rows_affected() == 0 {
        return Ok(Deletion::Unknown);
    }
    // All that lies in the task's directory, not only what rows name: a file whose settlement was lost has none.
    sqlx::query(
        "INSERT INTO doomed_files (task_id, source) SELECT task_id, source FROM tasks WHERE id = $1
         ON CONFLICT DO NOTHING",
    )
    .bind(task)
    .execute(&mut *tx.connection)
    .await?;
    let gone = sqlx::query("DELETE FROM deliveries WHERE task = $1 RETURNING verdict, reason, net, size")
        .bind(task)
        .fetch_all(&mut *tx.connection)
        .await?;
    for row in gone {
        if row.try_get::<&str, _>(0)? == "rejected" {
            let (reason, net): (String, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
            tx.ring().forget_row(&reason, net.as_deref(), row.try_get(3)?);
        }
    }
    sqlx::query("DELETE FROM tasks WHERE id = $1")
        .bind(task)
        .execute(&mut *tx.connection)
        .await?;
    tx.next_change();
    Ok(Deletion::Done)
}

pub(super) async fn forget_doomed(tx: &mut Tx<'_>, source: &str, task_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM doomed_files WHERE task_id = $1 AND source = $2")
        .bind(task_id)
        .bind(source)
        .execute(&mut *tx.connection)
        .await?;
    Ok(())
}
