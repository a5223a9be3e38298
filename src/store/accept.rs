//! A person settles a conflict in favour of one delivery.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::downloads::parsed;
use super::overrule::{self, Overruling};
use super::record::{ROWS_PER_VERDICT, to_json};
use super::writer::{Command, Reply, Tx, next};
use super::{Store, StoreError, summary};
use crate::clock::Millis;
use crate::provider::encoding::decoded;
use crate::provider::payload::Document;
use crate::provider::rules::{Claim, State};
use crate::provider::{Event, Kind};

/// What came of accepting a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The outcome is now what the delivery says.
    Done,
    /// There is no such delivery.
    NotFound,
    /// It is no conflict, or its body is no longer kept: nothing to settle.
    NotAConflict,
}

/// Far above any `ingest.max_body` that was in force when the delivery came.
const MAX_UNPACKED: u64 = 256 * 1024 * 1024;

impl Store {
    /// Makes a conflicting delivery the one that is believed. Stored files stay; of the others, those it names are
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
    source: String,
    task_id: String,
    kind: Kind,
    index: u32,
    received_at: Millis,
    event: Event,
}

pub(super) async fn accept(tx: &mut Tx<'_>, delivery: i64) -> Result<Accepted, sqlx::Error> {
    let row = sqlx::query(
        "SELECT d.verdict, d.source, d.task_id, d.kind, d.idx, d.received_at, b.bytes, d.task, d.outcome
         FROM deliveries d LEFT JOIN bodies b ON b.id = d.body WHERE d.id = $1",
    )
    .bind(delivery)
    .fetch_optional(&mut *tx.connection)
    .await?;
    let Some(row) = row else {
        return Ok(Accepted::NotFound);
    };
    let Some(winner) = winner(delivery, &row)? else {
        return Ok(Accepted::NotAConflict);
    };
    let (counted_task, counted_outcome): (Option<i64>, Option<i64>) = (row.try_get(7)?, row.try_get(8)?);
    let task = find_or_insert_task(tx, &winner).await?;
    let outcome = find_or_insert_outcome(tx, task, &winner).await?;
    let by = Overruling {
        kind: &winner.kind,
        index: winner.index,
        media: &winner.event.media,
        received_at: winner.received_at,
    };
    overrule::files(tx, task, &by).await?;
    believe(tx, outcome, &winner).await?;
    // One under a reused signature was counted where the signature was first used: both are settled.
    settle_conflicts(tx, task, outcome).await?;
    if let (Some(task), Some(outcome)) = (counted_task, counted_outcome) {
        settle_conflicts(tx, task, outcome).await?;
        // Its row is one conflict less: there is room for another.
        sqlx::query("UPDATE outcomes SET conflict_rows = max(conflict_rows - 1, 0) WHERE id = $1")
            .bind(outcome)
            .execute(&mut *tx.connection)
            .await?;
    }
    sqlx::query(
        "UPDATE deliveries SET verdict = 'accepted', reason = 'accepted_by_person', task = $2, outcome = $3 WHERE id = $1",
    )
    .bind(delivery)
    .bind(task)
    .bind(outcome)
    .execute(&mut *tx.connection)
    .await?;
    let mut touched = vec![task];
    touched.extend(counted_task.filter(|counted| *counted != task));
    summary::refresh(tx, &touched).await?;
    Ok(Accepted::Done)
}

/// The conflicts that were counted on an outcome: still to be seen as such, but no longer open.
async fn settle_conflicts(tx: &mut Tx<'_>, task: i64, outcome: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE outcomes SET conflicts = 0 WHERE id = $1")
        .bind(outcome)
        .execute(&mut *tx.connection)
        .await?;
    sqlx::query(
        "UPDATE deliveries SET reason = 'settled' WHERE task = $1 AND outcome = $2 AND verdict = 'conflict'",
    )
    .bind(task)
    .bind(outcome)
    .execute(&mut *tx.connection)
    .await?;
    Ok(())
}

fn winner(delivery: i64, row: &SqliteRow) -> Result<Option<Winner>, sqlx::Error> {
    let bytes: Option<Vec<u8>> = row.try_get(6)?;
    let conflict = row.try_get::<&str, _>(0)? == "conflict";
    let (Some(bytes), true) = (bytes, conflict) else {
        return Ok(None);
    };
    // It was read once to become a conflict; only a later, stricter reader could refuse it now.
    let Ok(body) = decoded(&bytes, MAX_UNPACKED) else {
        return Ok(None);
    };
    let Ok(document) = Document::parse(&body) else {
        return Ok(None);
    };
    Ok(Some(Winner {
        delivery,
        source: row.try_get(1)?,
        task_id: row.try_get(2)?,
        kind: parsed(row.try_get(3)?)?,
        index: row.try_get(4)?,
        received_at: row.try_get(5)?,
        event: document.event(),
    }))
}

/// A delivery under a reused signature may be about a task that was never made.
async fn find_or_insert_task(tx: &mut Tx<'_>, winner: &Winner) -> Result<i64, sqlx::Error> {
    // A person believes it: that lifts a tombstone.
    sqlx::query("DELETE FROM tombstones WHERE task_id = $1 AND source = $2")
        .bind(&winner.task_id)
        .bind(&winner.source)
        .execute(&mut *tx.connection)
        .await?;
    let (id, change) = (next(&mut tx.ids.task), tx.next_change());
    sqlx::query(
        "INSERT INTO tasks (id, source, task_id, state, media, prompt, created_at, received_at, updated_at, deliveries,
                            conflicts, change_seq)
         VALUES ($1, $2, $3, 'pending', 'none', $4, $5, $5, $6, 1, 0, $7)
         ON CONFLICT DO UPDATE SET change_seq = excluded.change_seq RETURNING id",
    )
    .bind(id)
    .bind(&winner.source)
    .bind(&winner.task_id)
    .bind(&winner.event.prompt)
    .bind(winner.received_at)
    .bind(tx.now)
    .bind(change)
    .fetch_one(&mut *tx.connection)
    .await?
    .try_get(0)
}

async fn find_or_insert_outcome(tx: &mut Tx<'_>, task: i64, winner: &Winner) -> Result<i64, sqlx::Error> {
    sqlx::query(
        "INSERT INTO outcomes (id, task, kind, idx, state, has_media, accepted_rows, duplicate_rows, conflict_rows)
         VALUES ($1, $2, $3, $4, 'pending', 0, 0, 0, 0)
         ON CONFLICT DO UPDATE SET state = state RETURNING id",
    )
    .bind(next(&mut tx.ids.outcome))
    .bind(task)
    .bind(winner.kind.as_str())
    .bind(winner.index)
    .fetch_one(&mut *tx.connection)
    .await?
    .try_get(0)
}

async fn believe(tx: &mut Tx<'_>, outcome: i64, winner: &Winner) -> Result<(), sqlx::Error> {
    let event = &winner.event;
    let claim = Claim::from(event);
    sqlx::query(
        "UPDATE outcomes SET state = $2, code = $3, msg = $4, failure = $5, resolution = $6, fallback = $7,
            credits = $8, via = (SELECT via FROM deliveries WHERE id = $9), received_at = $10, digest = $11,
            has_media = $12, accepted_rows = min(accepted_rows + 1, $13)
         WHERE id = $1",
    )
    .bind(outcome)
    .bind(State::from(event.class).as_str())
    .bind(event.code)
    .bind(&event.msg)
    .bind(event.failure.as_ref().map(to_json))
    .bind(&event.resolution)
    .bind(event.fallback)
    .bind(event.credits)
    .bind(winner.delivery)
    .bind(winner.received_at)
    .bind(claim.digest.as_slice())
    .bind(claim.has_media)
    .bind(ROWS_PER_VERDICT)
    .execute(&mut *tx.connection)
    .await?;
    Ok(())
}
