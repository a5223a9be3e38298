//! The tasks that want somebody's attention.

use super::tasks::{ROWS_EXAMINED, TaskRecord, with_details};
use super::{Store, StoreError};

impl Store {
    /// Tasks that failed, or of which a file did, or whose deliveries contradict each other; those that changed last come
    /// first. Only the newest [`ROWS_EXAMINED`] tasks are looked at, so that the answer costs the same with any number.
    pub async fn troubled_tasks(&self, limit: i64) -> Result<Vec<TaskRecord>, StoreError> {
        let mut reader = self.readers.begin().await?;
        let rows = sqlx::query(
            "SELECT * FROM tasks WHERE id IN (
                SELECT id FROM tasks
                WHERE id > (SELECT max(id) FROM tasks) - $1
                    AND (state = 'failed' OR media IN ('failed', 'partial') OR conflicts > 0)
                ORDER BY updated_at DESC, id DESC LIMIT $2)
             ORDER BY updated_at DESC, id DESC",
        )
        .bind(ROWS_EXAMINED)
        .bind(limit)
        .fetch_all(&mut *reader)
        .await?;
        with_details(&mut reader, &rows).await
    }
}
