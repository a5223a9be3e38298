//! What goes by age: found by readers in the order it came, removed by the writer a little at a time.

use rusqlite::{OptionalExtension, params};
use sqlx::Row;

use super::deletion::{self, Deletion};
use super::writer::{Command, Reply, Tx};
use super::{Store, StoreError, bodies, record};
use crate::clock::Millis;

/// Rows looked at in one go, and removed with one commit at most: a few milliseconds of the writer's time.
const ROWS: i64 = 100;
/// Bytes of bodies removed with one commit, more or less: SQLite reads the whole chain of a body's pages to free them.
const BYTES: i64 = 4 * 1024 * 1024;

/// Which deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that were rejected.
    Rejected,
    /// All others.
    Taken,
}

/// A stretch of what came before a moment.
#[derive(Debug)]
pub struct Stretch<T> {
    /// What of it may go.
    pub aged: Vec<T>,
    /// Its last row, if it has any: the next stretch begins after that.
    pub last: Option<i64>,
    /// Whether there may be more behind it.
    pub more: bool,
}

/// A task that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgedTask {
    /// Its row.
    pub row: i64,
    /// The source's name.
    pub source: String,
    /// The provider's id.
    pub task_id: String,
}

/// A stored file that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgedFile {
    /// The download's row.
    pub row: i64,
    /// The source's name.
    pub source: String,
    /// The provider's id of the task.
    pub task_id: String,
    /// Its length.
    pub bytes: i64,
    /// When it was stored.
    pub stored_at: Millis,
}

impl Store {
    /// Stored files, the first stored first; as many as are removed in one go.
    pub async fn oldest_files(&self) -> Result<Vec<AgedFile>, StoreError> {
        let rows = sqlx::query(FILES).bind(ROWS).fetch_all(&self.readers).await?;
        let aged = rows.iter().map(|row| {
            Ok(AgedFile {
                row: row.try_get(0)?,
                stored_at: row.try_get(1)?,
                bytes: row.try_get(2)?,
                source: row.try_get(3)?,
                task_id: row.try_get(4)?,
            })
        });
        aged.collect()
    }

    /// Bytes of all stored files.
    pub async fn stored_bytes(&self) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT COALESCE(sum(value), 0) FROM counters WHERE name = 'stored_bytes'")
            .fetch_one(&self.readers)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Deliveries after a row that came before a moment and may go: all but conflicts that are still open.
    pub async fn aged_deliveries(
        &self,
        which: Which,
        before: Millis,
        after: i64,
    ) -> Result<Stretch<i64>, StoreError> {
        let statement = match which {
            Which::Taken => TAKEN,
            Which::Rejected => REJECTED,
        };
        let rows = sqlx::query(statement)
            .bind(after)
            .bind(ROWS)
            .fetch_all(&self.readers)
            .await?;
        let (now, mut bytes) = (self.clock.now(), 0);
        let mut walk = Walk::over(rows.len());
        for row in &rows {
            let (id, received_at): (i64, Millis) = (row.try_get(0)?, row.try_get(1)?);
            if bytes >= BYTES || is_young(received_at, before, now) {
                walk.stretch.more = bytes >= BYTES;
                break;
            }
            let may_go: bool = row.try_get(2)?;
            walk.pass(id, (may_go && received_at < before).then_some(id));
            if may_go {
                bytes += row.try_get::<i64, _>(3)?;
            }
        }
        Ok(walk.stretch)
    }

    /// Removes such deliveries; how many there still were.
    pub async fn prune_deliveries(&self, rows: Vec<i64>) -> Result<u64, StoreError> {
        match self.write(Command::PruneDeliveries(rows)).await? {
            Reply::Pruned(removed) => Ok(removed),
            other => unreachable!("a pruning was answered with {other:?}"),
        }
    }

    /// Tasks after a row that were made before a moment and have not changed since, if nothing more is awaited of them:
    /// terminal, every download ended, and no conflict open.
    pub async fn aged_tasks(&self, before: Millis, after: i64) -> Result<Stretch<AgedTask>, StoreError> {
        let rows = sqlx::query(TASKS)
            .bind(after)
            .bind(ROWS)
            .bind(before)
            .fetch_all(&self.readers)
            .await?;
        let now = self.clock.now();
        let mut walk = Walk::over(rows.len());
        for row in &rows {
            let id: i64 = row.try_get(0)?;
            if is_young(row.try_get(1)?, before, now) {
                walk.stretch.more = false;
                break;
            }
            let aged = AgedTask {
                row: id,
                source: row.try_get(3)?,
                task_id: row.try_get(4)?,
            };
            walk.pass(id, row.try_get::<bool, _>(2)?.then_some(aged));
        }
        Ok(walk.stretch)
    }

    /// Deletes the rows of such a task if it still is one. The caller holds the lock on its files and removes them, as
    /// with [`Store::delete_task`]; but no tombstone is left.
    pub async fn prune_task(&self, task: i64, before: Millis) -> Result<Deletion, StoreError> {
        match self.write(Command::PruneTask { task, before }).await? {
            Reply::Deleted(deletion) => Ok(deletion),
            other => unreachable!("a pruning was answered with {other:?}"),
        }
    }
}

/// Rows come in order of arrival, so that behind the first young one there is nothing old. One that seems to come from
/// the future says only that the clock was set back since: it hides nothing.
fn is_young(at: Millis, before: Millis, now: Millis) -> bool {
    before <= at && at <= now
}

/// A stretch as it grows.
struct Walk<T> {
    stretch: Stretch<T>,
}

impl<T> Walk<T> {
    fn over(rows: usize) -> Self {
        Self {
            stretch: Stretch {
                aged: Vec::new(),
                last: None,
                more: i64::try_from(rows).is_ok_and(|rows| rows == ROWS),
            },
        }
    }

    fn pass(&mut self, row: i64, aged: Option<T>) {
        self.stretch.last = Some(row);
        self.stretch.aged.extend(aged);
    }
}

/// A conflict that a person may still settle: its outcome counts open ones, and it was not settled with an earlier one.
macro_rules! is_open {
    () => {
        "(d.verdict = 'conflict' AND d.reason IS NOT 'settled' AND EXISTS (
            SELECT 1 FROM outcomes o WHERE o.id = d.outcome AND o.conflicts > 0))"
    };
}

const TAKEN: &str = concat!(
    "SELECT d.id, d.received_at, d.verdict <> 'rejected' AND NOT ",
    is_open!(),
    ", COALESCE(length(d.body), 0) FROM deliveries d WHERE d.id > $1 ORDER BY d.id LIMIT $2"
);

const REJECTED: &str = "
    SELECT id, received_at, true, COALESCE(length(body), 0) FROM deliveries
    WHERE verdict = 'rejected' AND id > $1 ORDER BY id LIMIT $2";

/// ?3 the moment since which it must not have changed.
macro_rules! may_go {
    () => {
        "state IN ('succeeded', 'failed') AND media NOT IN ('queued', 'downloading') AND conflicts = 0 AND updated_at < ?3"
    };
}

const TASKS: &str = concat!(
    "SELECT id, created_at, ",
    may_go!(),
    ", source, task_id FROM tasks WHERE id > ?1 ORDER BY id LIMIT ?2"
);

const FILES: &str = "
    SELECT d.id, d.updated_at, COALESCE(d.bytes, 0), t.source, t.task_id
    FROM downloads d INDEXED BY downloads_stored CROSS JOIN tasks t ON t.id = d.task
    WHERE d.state = 'stored' ORDER BY d.updated_at, d.id LIMIT ?1";

/// What a delivery is that may go.
struct Aged {
    task: Option<i64>,
    outcome: Option<i64>,
    verdict: String,
    /// What the ring counts of it, if it was rejected.
    share: Option<(String, Option<String>, i64)>,
}

pub(super) fn prune_deliveries(tx: &mut Tx<'_>, deliveries: &[i64]) -> rusqlite::Result<u64> {
    let mut removed = 0;
    // The latest first: of those that share a body the one that has it goes last, and hands it on once at most.
    for delivery in deliveries.iter().rev() {
        let Some(aged) = aged(tx, *delivery)? else {
            continue;
        };
        if let Some(task) = aged.task {
            record::keep_bindings(tx, task, (*delivery, *delivery))?;
            bodies::hand_on(tx, *delivery)?;
        }
        tx.execute("DELETE FROM deliveries WHERE id = ?1", params![delivery])?;
        if let Some((reason, net, size)) = &aged.share {
            tx.ring().forget_row(reason, net.as_deref(), *size);
        }
        make_room(tx, &aged)?;
        removed += 1;
    }
    Ok(removed)
}

/// The delivery, if it is still there and is no open conflict.
fn aged(tx: &Tx<'_>, delivery: i64) -> rusqlite::Result<Option<Aged>> {
    tx.db
        .prepare_cached(concat!(
            "SELECT task, outcome, verdict, reason, net, size FROM deliveries d WHERE id = ?1 AND NOT ",
            is_open!()
        ))?
        .query_row(params![delivery], |row| {
            let verdict: String = row.get(2)?;
            let share = match &*verdict {
                "rejected" => Some((row.get(3)?, row.get(4)?, row.get(5)?)),
                _ => None,
            };
            Ok(Aged {
                task: row.get(0)?,
                outcome: row.get(1)?,
                verdict,
                share,
            })
        })
        .optional()
}

/// The outcome keeps one row less, so that there is room for another.
fn make_room(tx: &Tx<'_>, aged: &Aged) -> rusqlite::Result<()> {
    if let Some(outcome) = aged.outcome {
        tx.execute(
            "UPDATE outcomes SET accepted_rows = max(accepted_rows - (?2 = 'accepted'), 0),
                duplicate_rows = max(duplicate_rows - (?2 = 'duplicate'), 0),
                conflict_rows = max(conflict_rows - (?2 = 'conflict'), 0)
             WHERE id = ?1",
            params![outcome, aged.verdict],
        )?;
    }
    Ok(())
}

pub(super) fn prune_task(tx: &mut Tx<'_>, task: i64, before: Millis) -> rusqlite::Result<Deletion> {
    let may_go: bool = tx
        .db
        .prepare_cached(concat!(
            "SELECT EXISTS (SELECT 1 FROM tasks WHERE id = ?1 AND created_at < ?2 AND ",
            may_go!(),
            ")"
        ))?
        .query_row(params![task, before, before], |row| row.get(0))?;
    if !may_go {
        return Ok(Deletion::Unknown);
    }
    deletion::remove(tx, task)
}
