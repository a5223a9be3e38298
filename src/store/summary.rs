//! What a task's outcomes and files make of it: state, media and open conflicts, computed in one place.

use rusqlite::params;

use super::ranges::of_task;
use super::writer::Tx;

/// Brings the summary of a task up to date after its outcomes or downloads changed, under a change number that is what
/// [`Tx::upcoming_change`] said before, or a later one.
///
/// The state is that of `(video, 0)` if known, else of the newest outcome.
pub(super) fn refresh(tx: &mut Tx<'_>, task: i64) -> rusqlite::Result<()> {
    let change = tx.next_change(task);
    tx.execute(
        concat!(
            "UPDATE tasks SET updated_at = ?2, change_seq = ?3,
                state = COALESCE((SELECT state FROM outcomes WHERE ",
            of_task!("?1"),
            "                     ORDER BY kind = 'video' AND idx = 0 DESC, received_at DESC, id DESC LIMIT 1), 'pending'),
                conflicts = (SELECT COALESCE(sum(conflicts), 0) FROM outcomes WHERE ",
            of_task!("?1"),
            "),
                media = (
                    SELECT CASE
                        WHEN count(*) = 0 THEN 'none'
                        WHEN sum(state = 'downloading') > 0 THEN 'downloading'
                        WHEN sum(state IN ('queued', 'held', 'needs_url')) > 0 THEN 'queued'
                        WHEN sum(state = 'stored') = count(*) THEN 'stored'
                        WHEN sum(state = 'failed') = count(*) THEN 'failed'
                        ELSE 'partial' END
                    FROM downloads WHERE ",
            of_task!("?1"),
            " AND state <> 'deleted')
             WHERE id = ?1"
        ),
        params![task, tx.now, change],
    )?;
    Ok(())
}
