//! What a signature is bound to: the source, kind, index and body of its first use.
//!
//! The row of the delivery that used it first says so. Only where that has no row of its own (it was counted only, or the row
//! went with its task or by age) the binding stands in the table `bindings`.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::{Binding, NewDelivery, Verified};
use crate::clock::{Millis, millis};
use crate::store::ranges::of_task;
use crate::store::tasks::Namesake;
use crate::store::writer::{Expired, Tx};

/// Freshness is judged a moment before recording, and clocks are set: a binding outlasts its signature by this.
const GRACE: Duration = Duration::from_hours(1);
/// Expired bindings removed with one commit, beside twice those that it writes.
const PURGED: usize = 64;

/// What a use of a signature is.
pub(super) enum Use {
    First,
    /// The same delivery again.
    Again,
    Other(Bound),
}

/// The first use of a signature.
pub(super) struct Bound {
    /// The task and outcome that it is counted on; `None` once they are gone.
    pub(super) place: Option<(i64, i64)>,
    /// Whether that outcome stands on a delivery, or is only expected (again).
    stands: bool,
    /// Conflicts of it that were kept although its task is gone.
    pub(super) orphans: i64,
}

/// A first use as it is found.
struct Found {
    source: String,
    kind: String,
    idx: u32,
    body: [u8; 32],
    bound: Bound,
}

/// Looks up what the delivery's signature is bound to, among the tasks of its id in whatever source.
pub(super) fn look_up(
    tx: &Tx<'_>,
    delivery: &NewDelivery,
    verified: &Verified,
    namesakes: &[Namesake],
) -> rusqlite::Result<Use> {
    let Some(binding) = &verified.binding else {
        return Ok(Use::First);
    };
    let mut found = None;
    for namesake in namesakes {
        found = found.or(in_delivery(tx, namesake.task, binding)?);
    }
    if found.is_none() && tx.rare.bindings {
        found = in_table(tx, binding, namesakes)?;
    }
    let Some(found) = found else {
        return Ok(Use::First);
    };
    let same = found.source == delivery.source
        && found.kind == verified.kind.as_str()
        && found.idx == verified.index
        && found.body == delivery.body_digest;
    Ok(match (same, found.bound.stands) {
        (true, true) => Use::Again,
        // Deleted and perhaps expected again meanwhile: the very same delivery is then news.
        (true, false) => Use::First,
        (false, _) => Use::Other(found.bound),
    })
}

fn in_delivery(tx: &Tx<'_>, task: i64, binding: &Binding) -> rusqlite::Result<Option<Found>> {
    tx.db
        .prepare_cached(
            "SELECT source, kind, idx, body_sha256, task, outcome FROM deliveries
             WHERE task = ?1 AND verdict <> 'rejected' AND binding = ?2",
        )?
        .query_row(params![task, binding.key], |row| {
            let bound = Bound {
                place: Some((row.get(4)?, row.get(5)?)),
                stands: true,
                orphans: 0,
            };
            found(row, bound)
        })
        .optional()
}

fn in_table(tx: &Tx<'_>, binding: &Binding, namesakes: &[Namesake]) -> rusqlite::Result<Option<Found>> {
    let found = tx
        .db
        .prepare_cached("SELECT source, kind, idx, body, orphans FROM bindings WHERE key = ?1")?
        .query_row(params![binding.key], |row| {
            let bound = Bound {
                place: None,
                stands: false,
                orphans: row.get(4)?,
            };
            found(row, bound)
        })
        .optional()?;
    let Some(mut found) = found else { return Ok(None) };
    let task = namesakes.iter().find(|namesake| namesake.source == found.source);
    if let Some(Namesake { task, .. }) = task {
        let outcome: Option<(i64, bool)> = tx
            .db
            .prepare_cached(concat!(
                "SELECT id, digest IS NOT NULL FROM outcomes WHERE ",
                of_task!("?1"),
                " AND kind = ?2 AND idx = ?3"
            ))?
            .query_row(params![task, found.kind, found.idx], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        if let Some((outcome, stands)) = outcome {
            found.bound.place = Some((*task, outcome));
            found.bound.stands = stands;
        }
    }
    Ok(Some(found))
}

fn found(row: &Row<'_>, bound: Bound) -> rusqlite::Result<Found> {
    Ok(Found {
        source: row.get(0)?,
        kind: row.get(1)?,
        idx: row.get(2)?,
        body: row.get(3)?,
        bound,
    })
}

/// Binds a signature whose first delivery gets no row.
pub(super) fn insert(
    tx: &mut Tx<'_>,
    binding: &Binding,
    delivery: &NewDelivery,
    verified: &Verified,
) -> rusqlite::Result<()> {
    let written = tx.execute(
        "INSERT OR IGNORE INTO bindings (key, source, kind, idx, body, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            binding.key,
            delivery.source,
            verified.kind.as_str(),
            verified.index,
            delivery.body_digest,
            binding.expires_at
        ],
    )?;
    tx.note_bindings(written);
    Ok(())
}

/// Counts a conflict that is kept although the task of the signature's first use is gone.
pub(super) fn count_orphan(tx: &Tx<'_>, binding: &Binding) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE bindings SET orphans = orphans + 1 WHERE key = ?1",
        params![binding.key],
    )?;
    Ok(())
}

/// Keeps the bindings of deliveries of a task that are about to go, from one row to another: those that may still be used
/// again.
pub(in crate::store) fn keep(tx: &mut Tx<'_>, task: i64, (first, last): (i64, i64)) -> rusqlite::Result<()> {
    let written = tx.execute(
        "INSERT OR IGNORE INTO bindings (key, source, kind, idx, body, expires_at)
         SELECT binding, source, kind, idx, body_sha256, bound_until FROM deliveries
         WHERE task = ?1 AND verdict <> 'rejected' AND id BETWEEN ?2 AND ?3 AND binding IS NOT NULL AND bound_until >= ?4",
        params![task, first, last, expired_before(tx.now)],
    )?;
    tx.note_bindings(written);
    Ok(())
}

/// Removes bindings whose signatures nobody accepts any more, faster than `written` in the same transaction come; whether
/// there may be more of them.
pub(in crate::store) fn purge(tx: &Tx<'_>, written: usize) -> rusqlite::Result<Expired> {
    let most = PURGED + 2 * written;
    let removed = tx.execute(
        "DELETE FROM bindings WHERE key IN
            (SELECT key FROM bindings WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)",
        params![expired_before(tx.now), i64::try_from(most).unwrap_or(i64::MAX)],
    )?;
    Ok(if removed == most {
        Expired::Left
    } else {
        Expired::Gone
    })
}

fn expired_before(now: Millis) -> Millis {
    now.saturating_sub(millis(GRACE))
}
