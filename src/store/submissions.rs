//! What was submitted to the provider through us, noted before it went out.
//!
//! Each has a random `ref` that stands in the callback URL we gave the provider. The provider's answer, or the first
//! callback that carries the ref, binds the task: so a submission that was accepted, and whose answer nobody saw, is found
//! all the same.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};
use sqlx::Row as _;

use super::downloads::parsed;
use super::expect::{self, Expectation};
use super::record::Reference;
use super::writer::{Command, Reply, Tx};
use super::{Store, StoreError, tasks};
use crate::clock::{Millis, millis};
use crate::provider::{Kind, TaskId, family};

/// How long the answer to a submission is kept, to be given again under the same key.
pub const ANSWER_KEPT: Duration = Duration::from_hours(24);
/// How long a submission is kept of which nobody knows what came of it: as long as the provider keeps a record.
pub const DOUBT_KEPT: Duration = Duration::from_hours(14 * 24);
/// Most submissions kept: more than a day brings at the provider's own limit of 20 in ten seconds. The oldest go, but for
/// those in doubt and those whose key is still good: these keep a submission from being paid for twice.
const MAX_ROWS: i64 = 200_000;
/// Longest answer kept, in bytes: those to submissions have a few hundred.
const MAX_ANSWER: usize = 64 * 1024;
/// The path of upgrades to 4K, which name the task they upgrade.
const UPGRADE: &str = "veo/get-4k-video";
/// Expired ones removed with each that comes.
const PURGED: i64 = 16;

/// A submission about to go out.
#[derive(Debug, Clone)]
pub struct NewSubmission {
    /// What its callback URL carries.
    pub reference: String,
    /// The source's name.
    pub source: String,
    /// Where it goes, such as `veo/generate`.
    pub path: &'static str,
    /// The provider's API family.
    pub family: &'static str,
    /// Which result will come of it.
    pub kind: Kind,
    /// Which of several.
    pub index: u32,
    /// The request as the caller sent it.
    pub body: String,
    /// SHA-256 of that.
    pub body_digest: [u8; 32],
    /// The prompt in it, if there is one.
    pub prompt: Option<String>,
    /// The caller's own callback URL, if it gave one.
    pub callback_url: Option<String>,
    /// SHA-256 of its Idempotency-Key, if it gave one.
    pub key: Option<[u8; 32]>,
}

/// The provider's answer to a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The type it came with.
    pub content_type: Option<String>,
    /// The body as it came.
    pub body: Bytes,
}

/// What is known of a submission whose key was used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its ref.
    pub reference: String,
    /// The task that came of it, as far as known.
    pub task_id: Option<String>,
    /// The answer, if one was seen.
    pub answer: Option<SubmissionAnswer>,
}

/// A stored file, by where it is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAt {
    /// The provider's id of the task.
    pub task_id: String,
    /// The file's name.
    pub name: String,
}

/// Whether a submission is to go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is noted under this row: send it.
    Noted(i64),
    /// It was sent before, under the same key and with the same body.
    Repeated(Known),
    /// Its key was used for another body.
    KeyReused,
}

/// How a submission ended.
#[derive(Debug, Clone)]
pub enum End {
    /// The provider answered.
    Answered(Verdict, SubmissionAnswer),
    /// It may have reached the provider, and nobody knows what came of it.
    InDoubt,
    /// It never reached the provider, and is forgotten.
    NotSent,
}

/// What the provider said to a submission.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It made this task.
    Accepted(TaskId),
    /// It made none, and would not if asked again.
    Refused,
    /// It made none for now: the same key may be tried again.
    NotNow,
}

impl Store {
    /// Notes a submission before it goes out.
    pub async fn begin_submission(&self, submission: NewSubmission) -> Result<Begun, StoreError> {
        let command = Command::BeginSubmission(Box::new(submission));
        match self.write(command).await? {
            Reply::Begun(begun) => Ok(begun),
            other => unreachable!("a submission was answered with {other:?}"),
        }
    }

    /// Notes how it ended. The task of an accepted one is awaited from then on, and so is an upgrade in doubt: asking for
    /// it is ordering it, once.
    pub async fn end_submission(&self, row: i64, end: End) -> Result<(), StoreError> {
        let end = Box::new(end);
        self.write(Command::EndSubmission { row, end }).await.map(drop)
    }

    /// Upgrades that were being submitted when the process ended, before any is submitted anew.
    pub async fn cut_off_upgrades(&self) -> Result<Vec<i64>, StoreError> {
        let rows = sqlx::query("SELECT id FROM submissions WHERE state = 'sent' AND path = $1 ORDER BY id")
            .bind(UPGRADE)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The stored file of a source that the provider had under a URL.
    pub async fn stored_at(&self, source: &str, url: &str) -> Result<Option<StoredAt>, StoreError> {
        let row = sqlx::query(
            "SELECT t.task_id, d.name FROM stored_urls u
             JOIN downloads d ON d.id = u.download AND d.state = 'stored' JOIN tasks t ON t.id = d.task
             WHERE u.url = $1 AND t.source = $2 ORDER BY d.id LIMIT 1",
        )
        .bind(url)
        .bind(source)
        .fetch_optional(&self.readers)
        .await?;
        let stored = row.map(|row| {
            Ok(StoredAt {
                task_id: row.try_get(0)?,
                name: row.try_get(1)?,
            })
        });
        stored.transpose()
    }

    /// The submission of a source with that ref, by the task that is bound to it; the outer `None` if there is none.
    pub async fn submission(
        &self,
        source: &str,
        reference: &str,
    ) -> Result<Option<Option<String>>, StoreError> {
        let row = sqlx::query("SELECT task_id FROM submissions WHERE ref = $1 AND source = $2")
            .bind(reference)
            .bind(source)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }
}

/// Notes a submission, unless its key was used before.
pub(super) fn begin(tx: &Tx<'_>, new: &NewSubmission) -> rusqlite::Result<Begun> {
    purge(tx)?;
    if let Some(key) = &new.key
        && let Some((same, known)) = by_key(tx, new, key)?
    {
        return Ok(if same {
            Begun::Repeated(known)
        } else {
            Begun::KeyReused
        });
    }
    tx.execute(
        "INSERT INTO submissions (ref, source, path, family, kind, idx, state, body, prompt, callback_url, key,
                                  body_sha256, created_at, keep_until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'sent', ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            new.reference,
            new.source,
            new.path,
            new.family,
            new.kind.as_str(),
            new.index,
            new.body,
            new.prompt,
            new.callback_url,
            new.key,
            new.body_digest,
            tx.now,
            later(tx.now, DOUBT_KEPT)
        ],
    )?;
    Ok(Begun::Noted(tx.db.last_insert_rowid()))
}

/// What is known under that key, and whether it was about the same.
fn by_key(tx: &Tx<'_>, new: &NewSubmission, key: &[u8; 32]) -> rusqlite::Result<Option<(bool, Known)>> {
    // One that is past its time and was not removed yet lets go of its key.
    tx.execute(
        "DELETE FROM submissions WHERE source = ?1 AND key = ?2 AND keep_until < ?3",
        params![new.source, key, tx.now],
    )?;
    tx.db
        .prepare_cached(
            "SELECT ref, task_id, status, content_type, answer, path = ?3 AND body_sha256 = ?4
             FROM submissions WHERE source = ?1 AND key = ?2",
        )?
        .query_row(params![new.source, key, new.path, new.body_digest], |row| {
            Ok((row.get(5)?, known(row)?))
        })
        .optional()
}

fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    let status: Option<u16> = row.get(2)?;
    let body: Option<Vec<u8>> = row.get(4)?;
    let content_type = row.get(3)?;
    Ok(Known {
        reference: row.get(0)?,
        task_id: row.get(1)?,
        answer: status.zip(body).map(|(status, body)| SubmissionAnswer {
            status,
            content_type,
            body: body.into(),
        }),
    })
}

/// Notes how a submission ended.
pub(super) fn end(tx: &mut Tx<'_>, row: i64, end: &End) -> rusqlite::Result<()> {
    match end {
        End::Answered(verdict, answer) => answered(tx, row, (verdict, answer)),
        End::InDoubt => doubt(tx, row),
        End::NotSent => forget(tx, row),
    }
}

fn answered(
    tx: &mut Tx<'_>,
    row: i64,
    (verdict, answer): (&Verdict, &SubmissionAnswer),
) -> rusqlite::Result<()> {
    if let Verdict::Accepted(task_id) = verdict
        && let Some(expected) = expectation(tx, row, task_id)?
    {
        expect::expect(tx, &[expected])?;
    }
    let kept = Some(&answer.body).filter(|body| body.len() <= MAX_ANSWER);
    let (state, task_id, keeps_key) = match verdict {
        // Without its answer the task stands for it.
        Verdict::Accepted(task_id) => ("accepted", Some(task_id.as_str()), true),
        // A refusal that cannot be given again is asked for again.
        Verdict::Refused => ("refused", None, kept.is_some()),
        Verdict::NotNow => ("refused", None, false),
    };
    tx.execute(
        "UPDATE submissions SET state = ?2, task_id = COALESCE(?3, task_id), key = CASE WHEN ?4 THEN key END,
            status = ?5, content_type = ?6, answer = ?7, keep_until = ?8, body = NULL, prompt = NULL
         WHERE id = ?1",
        params![
            row,
            state,
            task_id,
            keeps_key,
            answer.status,
            answer.content_type,
            kept.filter(|_| keeps_key).map(AsRef::as_ref),
            later(tx.now, ANSWER_KEPT)
        ],
    )?;
    Ok(())
}

/// An upgrade is awaited under the id of its video: its answer, at least, was to name no other.
fn doubt(tx: &mut Tx<'_>, row: i64) -> rusqlite::Result<()> {
    let found: Option<Option<String>> = tx
        .db
        .prepare_cached(
            "SELECT CASE WHEN json_valid(body) THEN CAST(json_extract(body, '$.taskId') AS TEXT) END
             FROM submissions WHERE id = ?1 AND state = 'sent' AND path = ?2",
        )?
        .query_row(params![row, UPGRADE], |row| row.get(0))
        .optional()?;
    let Some(about) = found else {
        return Ok(());
    };
    if let Some(task_id) = about.and_then(|id| id.parse().ok())
        && let Some(expected) = expectation(tx, row, &task_id)?
    {
        expect::expect(tx, &[expected])?;
    }
    tx.execute(
        "UPDATE submissions SET state = 'doubtful' WHERE id = ?1",
        params![row],
    )?;
    Ok(())
}

fn forget(tx: &Tx<'_>, row: i64) -> rusqlite::Result<()> {
    // A callback may have come meanwhile and proved that it did reach the provider.
    tx.execute(
        "DELETE FROM submissions WHERE id = ?1 AND task_id IS NULL",
        params![row],
    )?;
    Ok(())
}

/// Binds the submission that a verified callback names to its task, if it is bound to no other: what it says of the task.
pub(super) fn bind(
    tx: &Tx<'_>,
    (source, task_id): (&str, &TaskId),
    reference: &Reference,
) -> rusqlite::Result<Option<Expectation>> {
    let found: Option<(i64, Option<String>)> = tx
        .db
        .prepare_cached("SELECT id, task_id FROM submissions WHERE ref = ?1 AND source = ?2")?
        .query_row(params![reference.text, source], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((row, bound)) = found else {
        tracing::info!(
            source,
            task.id = task_id.as_str(),
            "a callback's ref is none of a known submission; the callback was taken without it"
        );
        return Ok(None);
    };
    if bound.as_deref().is_some_and(|bound| bound != task_id.as_str()) {
        tracing::warn!(
            source,
            task.id = task_id.as_str(),
            "a callback's ref is that of another task; the callback was taken without it"
        );
        return Ok(None);
    }
    let expected = expectation(tx, row, task_id)?;
    if bound.is_none() {
        tx.execute(
            "UPDATE submissions SET state = 'accepted', task_id = ?2, keep_until = ?3, body = NULL, prompt = NULL
             WHERE id = ?1",
            params![row, task_id.as_str(), later(tx.now, ANSWER_KEPT)],
        )?;
    }
    Ok(expected)
}

/// Tells the task, if it is there, what its submission said of it, and that its outcome was ordered.
pub(super) fn describe(tx: &mut Tx<'_>, expected: &Expectation) -> rusqlite::Result<()> {
    match tasks::find(tx, &expected.source, expected.task_id.as_str())? {
        Some(task) => {
            expect::complete(tx, task, expected)?;
            expect::note_ordered(tx, (task, (&expected.kind, expected.index)))
        }
        // It was deleted, and its callback came late.
        None => Ok(()),
    }
}

fn expectation(tx: &Tx<'_>, row: i64, task_id: &TaskId) -> rusqlite::Result<Option<Expectation>> {
    tx.db
        .prepare_cached(
            "SELECT source, kind, idx,
                CASE WHEN path = ?2 AND json_valid(body) AND json_extract(body, '$.taskId') <> ?3 THEN ?4 ELSE family END,
                body, prompt
             FROM submissions WHERE id = ?1",
        )?
        .query_row(params![row, UPGRADE, task_id.as_str(), family::UPGRADE], |row| {
            Ok(Expectation {
                source: row.get(0)?,
                task_id: task_id.clone(),
                kind: parsed(row, 1)?,
                index: row.get(2)?,
                family: row.get(3)?,
                params: row.get(4)?,
                prompt: row.get(5)?,
                ask_now: false,
            })
        })
        .optional()
}

/// Removes what is past its time, and the oldest where there are too many.
fn purge(tx: &Tx<'_>) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM submissions WHERE id IN
            (SELECT id FROM submissions WHERE keep_until < ?1 ORDER BY keep_until LIMIT ?2)",
        params![tx.now, PURGED],
    )?;
    // Ids have gaps only where one was removed: this keeps too few rather than too many.
    tx.execute(
        "DELETE FROM submissions WHERE id IN
            (SELECT id FROM submissions
             WHERE key IS NULL AND state IN ('accepted', 'refused') AND id <= (SELECT max(id) FROM submissions) - ?1
             ORDER BY id LIMIT ?2)",
        params![MAX_ROWS, PURGED],
    )?;
    Ok(())
}

fn later(now: Millis, by: Duration) -> Millis {
    now.saturating_add(millis(by))
}
