//! What a task's outcomes and files make of it: state, media and open conflicts, computed in one place.

use super::record::to_json;
use super::writer::Tx;

/// Brings the summaries of tasks up to date after their outcomes or downloads changed, each with a change number of its
/// own; the first one gets what [`Tx::upcoming_change`] said before.
///
/// The state is that of `(video, 0)` if known, else of the newest outcome.
pub(super) async fn refresh(tx: &mut Tx<'_>, tasks: &[i64]) -> Result<(), sqlx::Error> {
    if tasks.is_empty() {
        return Ok(());
    }
    let changes: Vec<(i64, i64)> = tasks.iter().map(|task| (*task, tx.next_change())).collect();
    sqlx::query(
        "UPDATE tasks SET updated_at = $2, change_seq = r.value->>1,
            state = COALESCE((SELECT state FROM outcomes WHERE task = tasks.id
                              ORDER BY kind = 'video' AND idx = 0 DESC, received_at DESC, id DESC LIMIT 1), 'pending'),
            conflicts = (SELECT COALESCE(sum(conflicts), 0) FROM outcomes WHERE task = tasks.id),
            media = (
                SELECT CASE
                    WHEN count(*) = 0 THEN 'none'
                    WHEN sum(state = 'downloading') > 0 THEN 'downloading'
                    WHEN sum(state IN ('queued', 'held', 'needs_url')) > 0 THEN 'queued'
                    WHEN sum(state = 'stored') = count(*) THEN 'stored'
                    WHEN sum(state = 'failed') = count(*) THEN 'failed'
                    ELSE 'partial' END
                FROM downloads WHERE task = tasks.id AND state <> 'deleted')
         FROM jsonb_each($1) r WHERE tasks.id = r.value->>0",
    )
    .bind(to_json(&changes))
    .bind(tx.now)
    .execute(&mut *tx.connection)
    .await?;
    Ok(())
}
