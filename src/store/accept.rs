//! A person settles a conflict in favour of one delivery, or has files fetched that the provider did not confirm.

use rusqlite::{OptionalExtension, Row, params};

use super::downloads::parsed;
use super::overrule::{self, Overruling};
use super::record::{ROWS_PER_VERDICT, to_json};
use super::writer::{Command, Reply, Tx};
use super::{Store, StoreError, asks, bodies, expect, keys, summary, tasks};
use crate::clock::Millis;
use crate::provider::encoding::decoded;
use crate::provider::payload::Document;
use crate::provider::rules::{Claim, State};
use crate::provider::{Event, Kind, OutcomeClass};

/// What came of accepting a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The outcome is now what the delivery says.
    Done,
    /// There is no such delivery.
    NotFound,
    /// It is no conflict and no files of it wait, or its body is no longer kept: nothing to settle.
    NotAConflict,
}

/// Far above any `ingest.max_body` that was in force when the delivery came.
const MAX_UNPACKED: u64 = 256 * 1024 * 1024;

impl Store {
    /// Makes a delivery the one that is believed: one in conflict, or one whose files wait to be confirmed. Stored files stay; of the others, those it names are
    /// queued and the rest fail as `superseded`.
    pub async fn accept_delivery(&self, delivery: i64) -> Result<Accepted, StoreError> {
        match self.write(Command::Accept { delivery }).await? {
            Reply::Accepted(accepted) => Ok(accepted),
            other => unreachable!("an acceptance was answered with {other:?}"),
        }
    }
}

/// The delivery that is accepted and the outcome it is about.
struct Winner {
    delivery: i64,
    /// Whether it was a conflict, and not one whose files wait to be confirmed.
    conflict: bool,
    source: String,
    task_id: String,
    kind: Kind,
    index: u32,
    received_at: Millis,
    event: Event,
}

pub(super) fn accept(tx: &mut Tx<'_>, delivery: i64) -> rusqlite::Result<Accepted> {
    let found = tx
        .db
        .prepare_cached(
            "SELECT d.verdict = 'conflict', d.source, d.task_id, d.kind, d.idx, d.received_at, COALESCE(d.body, o.body),
                    d.task, d.outcome,
                    d.verdict = 'accepted' AND EXISTS (
                        SELECT 1 FROM downloads f WHERE f.id BETWEEN d.task << 24 AND (d.task << 24) + 16777215
                            AND f.kind = d.kind AND f.idx = d.idx AND f.state = 'held')
             FROM deliveries d LEFT JOIN deliveries o ON o.id = d.body_of WHERE d.id = ?1",
        )?
        .query_row(params![delivery], |row| {
            Ok((winner(delivery, row)?, (row.get(7)?, row.get(8)?)))
        })
        .optional()?;
    let Some((winner, counted_on)) = found else {
        return Ok(Accepted::NotFound);
    };
    let Some(winner) = winner else {
        return Ok(Accepted::NotAConflict);
    };
    let task = find_or_insert_task(tx, &winner)?;
    let outcome = expect::outcome(tx, task, (&winner.kind, winner.index))?;
    let by = Overruling {
        kind: &winner.kind,
        index: winner.index,
        media: &winner.event.media,
        received_at: winner.received_at,
        hold: false,
    };
    overrule::files(tx, task, &by)?;
    believe(tx, outcome, &winner)?;
    // One under a reused signature was counted where the signature was first used: both are settled.
    settle_conflicts(tx, task, outcome)?;
    let mut elsewhere = None;
    if let (Some(counted_task), Some(counted_outcome)) = counted_on {
        settle_conflicts(tx, counted_task, counted_outcome)?;
        if winner.conflict {
            // Its row is one conflict less: there is room for another.
            tx.execute(
                "UPDATE outcomes SET conflict_rows = max(conflict_rows - 1, 0) WHERE id = ?1",
                params![counted_outcome],
            )?;
        }
        asks::review_outcome(tx, (counted_task, counted_outcome))?;
        elsewhere = Some(counted_task).filter(|counted| *counted != task);
    }
    if elsewhere.is_some() {
        bodies::part(tx, delivery)?;
    }
    tx.execute(
        "UPDATE deliveries SET verdict = 'accepted', reason = 'accepted_by_person', task = ?2, outcome = ?3 WHERE id = ?1",
        params![delivery, task, outcome],
    )?;
    asks::review_outcome(tx, (task, outcome))?;
    summary::refresh(tx, task)?;
    if let Some(elsewhere) = elsewhere {
        summary::refresh(tx, elsewhere)?;
    }
    Ok(Accepted::Done)
}

/// The conflicts that were counted on an outcome: still to be seen as such, but no longer open.
fn settle_conflicts(tx: &Tx<'_>, task: i64, outcome: i64) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE outcomes SET conflicts = 0 WHERE id = ?1",
        params![outcome],
    )?;
    mark_settled(tx, task, outcome)
}

/// Marks the conflicts of an outcome as settled.
pub(super) fn mark_settled(tx: &Tx<'_>, task: i64, outcome: i64) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE deliveries SET reason = 'settled'
         WHERE task = ?1 AND verdict <> 'rejected' AND outcome = ?2 AND verdict = 'conflict'",
        params![task, outcome],
    )?;
    Ok(())
}

fn winner(delivery: i64, row: &Row<'_>) -> rusqlite::Result<Option<Winner>> {
    let bytes: Option<Vec<u8>> = row.get(6)?;
    let (conflict, holds): (bool, Option<bool>) = (row.get(0)?, row.get(9)?);
    let holds = holds.unwrap_or(false);
    let (Some(bytes), true) = (bytes, conflict || holds) else {
        return Ok(None);
    };
    // It was read once to become a conflict; only a later, stricter reader could refuse it now.
    let Ok(body) = decoded(&bytes, MAX_UNPACKED) else {
        return Ok(None);
    };
    let Ok(document) = Document::parse(&body) else {
        return Ok(None);
    };
    let event = document.event();
    // What waits to be confirmed is the files of a success.
    if !conflict && event.class != OutcomeClass::Success {
        return Ok(None);
    }
    Ok(Some(Winner {
        delivery,
        conflict,
        source: row.get(1)?,
        task_id: row.get(2)?,
        kind: parsed(row, 3)?,
        index: row.get(4)?,
        received_at: row.get(5)?,
        event,
    }))
}

/// A delivery under a reused signature may be about a task that was never made.
fn find_or_insert_task(tx: &mut Tx<'_>, winner: &Winner) -> rusqlite::Result<i64> {
    // A person believes it: that lifts a tombstone.
    tx.execute(
        "DELETE FROM tombstones WHERE task_id = ?1 AND source = ?2",
        params![winner.task_id, winner.source],
    )?;
    if let Some(task) = tasks::find(tx, &winner.source, &winner.task_id)? {
        return Ok(task);
    }
    let first = tasks::NewTask {
        source: &winner.source,
        task_id: &winner.task_id,
        state: State::Pending,
        media: "none",
        prompt: winner.event.prompt.as_deref(),
        received_at: winner.received_at,
    };
    first.insert(tx, keys::hash_of(&winner.task_id))
}

fn believe(tx: &Tx<'_>, outcome: i64, winner: &Winner) -> rusqlite::Result<()> {
    let event = &winner.event;
    let claim = Claim::from(event);
    tx.execute(
        "UPDATE outcomes SET state = ?2, code = ?3, msg = ?4, failure = ?5, resolution = ?6, fallback = ?7,
            credits = ?8, via = (SELECT via FROM deliveries WHERE id = ?9), received_at = ?10, digest = ?11,
            has_media = ?12, accepted_rows = min(accepted_rows + 1, ?13)
         WHERE id = ?1",
        params![
            outcome,
            State::from(event.class).as_str(),
            event.code,
            event.msg,
            event.failure.as_ref().map(to_json),
            event.resolution,
            event.fallback,
            event.credits.filter(|credits| credits.is_finite()),
            winner.delivery,
            winner.received_at,
            claim.digest,
            claim.has_media,
            ROWS_PER_VERDICT
        ],
    )?;
    Ok(())
}
