//! The tasks that want somebody's attention.

use sqlx::Row as _;

use super::ranges::of_task;
use super::tasks::{ROWS_EXAMINED, TaskRecord, with_details};
use super::{Store, StoreError};
use crate::clock::Millis;

/// What is wrong with a row of `tasks`, as far as anything can be done about it: a file that another delivery took the place
/// of is nobody's loss.
macro_rules! troubled {
    () => {
        concat!(
            "(state = 'failed' OR conflicts > 0 OR media IN ('failed', 'partial') AND EXISTS (
                SELECT 1 FROM downloads WHERE ",
            of_task!("tasks.id"),
            " AND downloads.state = 'failed' AND error_code IS NOT 'superseded'))"
        )
    };
}

/// What wants somebody's attention, and how much there is of what the lists of tasks show.
#[derive(Debug, Default)]
pub struct Troubles {
    /// Tasks that changed lately.
    pub tasks: Vec<TaskRecord>,
    /// Tasks that would be among them, had they changed lately.
    pub older: i64,
    /// Tasks that failed.
    pub failed: i64,
    /// Tasks of which every file failed.
    pub lost: i64,
    /// Tasks of which some files failed.
    pub partial: i64,
}

impl Store {
    /// Tasks that failed, or of which a file did, or whose deliveries contradict each other; at most `limit` of those that
    /// changed since `since`, the last to change first. Only the newest [`ROWS_EXAMINED`] tasks are looked at, so that the
    /// answer costs the same with any number.
    pub async fn troubles(&self, since: Millis, limit: i64) -> Result<Troubles, StoreError> {
        let mut reader = self.readers.begin().await?;
        let rows = sqlx::query(concat!(
            "SELECT * FROM tasks WHERE id IN (
                SELECT id FROM tasks
                WHERE id > (SELECT max(id) FROM tasks) - $1 AND updated_at >= $2 AND ",
            troubled!(),
            "    ORDER BY updated_at DESC, id DESC LIMIT $3)
             ORDER BY updated_at DESC, id DESC",
        ))
        .bind(ROWS_EXAMINED)
        .bind(since)
        .bind(limit)
        .fetch_all(&mut *reader)
        .await?;
        let counts = sqlx::query(concat!(
            "SELECT count(*) FILTER (WHERE updated_at < $2 AND ",
            troubled!(),
            "    ), count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE media = 'failed'),
                count(*) FILTER (WHERE media = 'partial')
             FROM tasks WHERE id > (SELECT max(id) FROM tasks) - $1",
        ))
        .bind(ROWS_EXAMINED)
        .bind(since)
        .fetch_one(&mut *reader)
        .await?;
        Ok(Troubles {
            tasks: with_details(&mut reader, &rows).await?,
            older: counts.try_get(0)?,
            failed: counts.try_get(1)?,
            lost: counts.try_get(2)?,
            partial: counts.try_get(3)?,
        })
    }
}
