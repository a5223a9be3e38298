//! Bodies that several deliveries of a task share: kept in the row of the earliest, and handed on when that goes.

use rusqlite::{OptionalExtension, params};

use super::writer::Tx;

/// Makes the row of a delivery independent of others: it gets a body of its own, and those that shared its body get
/// another owner.
pub(super) fn part(tx: &Tx<'_>, delivery: i64) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE deliveries SET body_of = NULL, body = (SELECT o.body FROM deliveries o WHERE o.id = deliveries.body_of)
         WHERE id = ?1 AND body_of IS NOT NULL",
        params![delivery],
    )?;
    hand_on(tx, delivery)
}

/// Makes a delivery that came earlier the owner of a body that it has as well.
pub(super) fn pass(tx: &Tx<'_>, task: i64, (owner, earlier): (i64, i64)) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE deliveries SET body = NULL, body_of = ?3
         WHERE task = ?1 AND verdict <> 'rejected' AND id > ?3 AND (id = ?2 OR body_of = ?2)",
        params![task, owner, earlier],
    )?;
    Ok(())
}

/// Gives the body of a delivery to the next that shares it, if any does.
pub(super) fn hand_on(tx: &Tx<'_>, delivery: i64) -> rusqlite::Result<()> {
    let heir: Option<(i64, i64)> = tx
        .db
        .prepare_cached(
            "SELECT s.id, s.task FROM deliveries d JOIN deliveries s ON s.task = d.task AND s.id > d.id
             WHERE d.id = ?1 AND s.verdict <> 'rejected' AND s.body_of = d.id ORDER BY s.id LIMIT 1",
        )?
        .query_row(params![delivery], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((heir, task)) = heir else { return Ok(()) };
    tx.execute(
        "UPDATE deliveries SET body_of = NULL, body = (SELECT o.body FROM deliveries o WHERE o.id = ?2) WHERE id = ?1",
        params![heir, delivery],
    )?;
    tx.execute(
        "UPDATE deliveries SET body_of = ?1 WHERE task = ?3 AND verdict <> 'rejected' AND id > ?1 AND body_of = ?2",
        params![heir, delivery, task],
    )?;
    Ok(())
}
