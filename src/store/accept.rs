//! A person settles a conflict in favour of one delivery.

use std::collections::HashSet;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::downloads::{self, NewDownload, touch_task};
use super::record::{ROWS_PER_VERDICT, to_json};
use super::writer::{Command, Reply, Tx, next};
use super::{Store, StoreError};
use crate::clock::Millis;
use crate::provider::encoding::decoded;
use crate::provider::payload::Document;
use crate::provider::rules::{Claim, State};
use crate::provider::{Event, Kind, Media};

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
        "SELECT d.verdict, d.source, d.task_id, d.kind, d.idx, d.received_at, b.bytes
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
    let task = find_or_insert_task(tx, &winner).await?;
    let outcome = find_or_insert_outcome(tx, task, &winner).await?;
    overrule_files(tx, task, &winner).await?;
    settle_outcome(tx, outcome, &winner).await?;
    sqlx::query(
        "UPDATE deliveries SET verdict = 'accepted', reason = 'accepted_by_person', task = $2 WHERE id = $1",
    )
    .bind(delivery)
    .bind(task)
    .execute(&mut *tx.connection)
    .await?;
    // The others of this outcome lost: still to be seen as conflicts, but no longer open.
    sqlx::query(
        "UPDATE deliveries SET reason = 'settled'
         WHERE task = $1 AND verdict = 'conflict' AND source = $2 AND kind = $3 AND idx = $4",
    )
    .bind(task)
    .bind(&winner.source)
    .bind(winner.kind.as_str())
    .bind(winner.index)
    .execute(&mut *tx.connection)
    .await?;
    refresh_task(tx, task).await?;
    Ok(Accepted::Done)
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
        kind: downloads::parsed(row.try_get(3)?)?,
        index: row.try_get(4)?,
        received_at: row.try_get(5)?,
        event: document.event(),
    }))
}

/// A delivery under a reused signature may be about a task that was never made.
async fn find_or_insert_task(tx: &mut Tx<'_>, winner: &Winner) -> Result<i64, sqlx::Error> {
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

/// A file as it stands before.
struct Standing {
    id: i64,
    role: String,
    n: u32,
    url: String,
    stored: bool,
}

async fn overrule_files(tx: &mut Tx<'_>, task: i64, winner: &Winner) -> Result<(), sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, role, n, url, state = 'stored' FROM downloads WHERE task = $1 AND kind = $2 AND idx = $3",
    )
    .bind(task)
    .bind(winner.kind.as_str())
    .bind(winner.index)
    .fetch_all(&mut *tx.connection)
    .await?;
    let standing = rows
        .iter()
        .map(|row| {
            Ok(Standing {
                id: row.try_get(0)?,
                role: row.try_get(1)?,
                n: row.try_get(2)?,
                url: row.try_get(3)?,
                stored: row.try_get(4)?,
            })
        })
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    let wanted = place(&winner.event.media, &standing);
    let named: HashSet<(&str, u32)> = wanted
        .iter()
        .map(|media| (media.role.as_str(), media.n))
        .collect();
    let superseded: Vec<i64> = standing
        .iter()
        .filter(|file| !file.stored && !named.contains(&(file.role.as_str(), file.n)))
        .map(|file| file.id)
        .collect();
    let files: Vec<NewDownload> = wanted
        .iter()
        .map(|media| {
            let id = next(&mut tx.ids.download);
            let mut file =
                NewDownload::announced(id, task, (&winner.kind, winner.index), media, winner.received_at);
            // Settled by hand, perhaps days later: due at once.
            file.due_at(tx.now);
            file
        })
        .collect();
    downloads::insert(tx, &files).await?;
    let change = tx.next_change();
    sqlx::query(
        "UPDATE downloads SET state = 'failed', error_code = 'superseded', lease_until = NULL,
            error_detail = 'a person accepted another delivery, which does not name this file', updated_at = $2,
            change_seq = $3
         WHERE id IN (SELECT value FROM jsonb_each($1))",
    )
    .bind(to_json(&superseded))
    .bind(tx.now)
    .bind(change)
    .execute(&mut *tx.connection)
    .await?;
    Ok(())
}

/// Gives each announced file its place: its own if that is free or not stored yet, none if it is stored already
/// under the same URL, the next free one of its role if another file is stored there.
fn place(announced: &[Media], standing: &[Standing]) -> Vec<Media> {
    let mut taken: HashSet<(String, u32)> = standing
        .iter()
        .filter(|file| file.stored)
        .map(|file| (file.role.clone(), file.n))
        .collect();
    let is_stored = |media: &Media| {
        standing
            .iter()
            .any(|file| file.stored && file.role == media.role.as_str() && file.url == media.url)
    };
    let mut placed = Vec::new();
    for media in announced.iter().filter(|media| !is_stored(media)) {
        let role = media.role.as_str().to_owned();
        let mut n = media.n;
        while taken.contains(&(role.clone(), n)) {
            n += 1;
        }
        taken.insert((role, n));
        placed.push(Media { n, ..media.clone() });
    }
    placed
}

async fn settle_outcome(tx: &mut Tx<'_>, outcome: i64, winner: &Winner) -> Result<(), sqlx::Error> {
    let event = &winner.event;
    let claim = Claim::from(event);
    sqlx::query(
        "UPDATE outcomes SET state = $2, code = $3, msg = $4, failure = $5, resolution = $6, fallback = $7,
            credits = $8, via = (SELECT via FROM deliveries WHERE id = $9), received_at = $10, digest = $11,
            has_media = $12, conflicts = 0, accepted_rows = min(accepted_rows + 1, $13)
         WHERE id = $1",
    )
    .bind(outcome)
    .bind(State::from(event.class).as_str())
    .bind(event.code)
    .bind(event.msg.replace('\0', "\u{fffd}"))
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

/// State and open conflicts of the task follow its outcomes.
async fn refresh_task(tx: &mut Tx<'_>, task: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE tasks SET
            conflicts = (SELECT COALESCE(sum(conflicts), 0) FROM outcomes WHERE task = $1),
            state = (SELECT state FROM outcomes WHERE task = $1
                     ORDER BY kind = 'video' AND idx = 0 DESC, received_at DESC, id DESC LIMIT 1)
         WHERE id = $1",
    )
    .bind(task)
    .execute(&mut *tx.connection)
    .await?;
    touch_task(tx, task).await
}
