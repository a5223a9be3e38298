//! The records of scrubs: which stored files are to be read again, and what was found wrong with them.

use rusqlite::{OptionalExtension, Row, params};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::writer::{Command, Reply, Tx};
use super::{Store, StoreError, summary};
use crate::clock::{Millis, rfc3339};

/// Findings kept of one scrub; further ones are only counted.
pub const FINDINGS: i64 = 1_000;

/// Scrubs kept.
const SCRUBS: i64 = 20;
/// Rows looked at in one go, whatever their state.
const ROWS: i64 = 200;

/// How a scrub is to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orders {
    /// Whether it came by itself, and leaves the disk to others.
    pub background: bool,
    /// Whether what is damaged or missing is fetched again.
    pub repair: bool,
}

/// A scrub, and how far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrub {
    /// Its row.
    pub id: i64,
    /// When it began.
    pub began_at: Millis,
    /// When it ended, if it did: else it is under way, or was cut off by a stop of the server.
    pub ended_at: Option<Millis>,
    /// Whether it came to its end; one that ended otherwise was stopped by somebody.
    pub complete: bool,
    /// How it is carried out.
    pub orders: Orders,
    /// The download it looked at last.
    pub last: i64,
    /// The last download there was when it began.
    pub upto: i64,
    /// Stored files when it began.
    pub files_total: i64,
    /// Their bytes.
    pub bytes_total: i64,
    /// What it counted.
    pub tally: Tally,
    /// So many files were looked for first, and none was there, so that it ended at once; 0 otherwise.
    pub none_of: i64,
}

impl Scrub {
    /// Why it ended before its time by itself, as a sentence.
    pub fn reason(&self) -> Option<String> {
        (self.none_of > 0).then(|| {
            format!(
                "none of the first {} files is there: is the right storage mounted?",
                self.none_of
            )
        })
    }
}

/// What a scrub counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files looked at.
    pub files: i64,
    /// Bytes they should have.
    pub bytes: i64,
    /// Files that are not what was stored.
    pub damaged: i64,
    /// Files that are not there.
    pub missing: i64,
    /// Files that the storage failed to give.
    pub unreadable: i64,
    /// Files that were queued again, or found whole after somebody put them back.
    pub repaired: i64,
}

impl Tally {
    /// Files that are not as they should be.
    pub fn wrong(&self) -> i64 {
        self.damaged + self.missing + self.unreadable
    }
}

/// A file that should lie in the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// The download's row.
    pub row: i64,
    /// The source's name.
    pub source: String,
    /// The provider's id of the task.
    pub task_id: String,
    /// The file's name.
    pub name: String,
    /// Its length.
    pub bytes: i64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
    /// Where it lies.
    pub storage_key: String,
    /// Whether it failed since it was stored, given up by a scrub or not to be had again: somebody may have put it back.
    pub given_up: bool,
    /// When the row last changed: a file stored again is another one, even of the same content.
    updated_at: Millis,
}

/// A stretch of rows.
#[derive(Debug)]
pub struct Stretch {
    /// The files among them that should lie in the storage.
    pub files: Vec<StoredFile>,
    /// The last row looked at; `None` at the end.
    pub last: Option<i64>,
}

/// What is to be noted about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has other bytes than were stored; the sentence says in what way.
    Damaged(String),
    /// It is not there.
    Missing,
    /// The storage failed to give it; the sentence says why.
    Unreadable(String),
    /// It was given up and is whole again.
    PutBack,
}

impl Verdict {
    /// The verdict for people.
    pub fn sentence(&self) -> String {
        match self {
            Self::Damaged(how) => format!("the stored file is damaged: {how}"),
            Self::Missing => "the stored file is not in the storage".to_owned(),
            Self::Unreadable(why) => why.clone(),
            Self::PutBack => "somebody put the file back, and it is whole".to_owned(),
        }
    }
}

/// A verdict about a file, and the scrub that passed it.
#[derive(Debug)]
pub struct Judged {
    /// As far as it came before this file.
    pub scrub: Scrub,
    /// As it was when it was opened.
    pub file: StoredFile,
    /// What is wrong with it.
    pub verdict: Verdict,
}

/// What became of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It is recorded, and acted upon if that was ordered.
    Done {
        /// How far the scrub is now.
        scrub: Scrub,
        /// Whether the file is fetched again.
        queued: bool,
    },
    /// The row is no longer the one that was judged; nothing was recorded.
    Changed,
}

/// What a scrub found wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The task's source.
    pub source: String,
    /// The task's id.
    pub task_id: String,
    /// The file's name.
    pub name: String,
    /// `damaged`, `missing` or `unreadable`.
    pub wrong: String,
    /// A sentence for people.
    pub detail: String,
    /// Whether it is fetched again.
    pub queued: bool,
}

impl Store {
    /// Begins a scrub; `None` if one is under way, or was cut off and is to be gone on with.
    pub async fn begin_scrub(&self, orders: Orders) -> Result<Option<Scrub>, StoreError> {
        self.write_scrub(Command::BeginScrub(orders)).await
    }

    /// Records how far a scrub came.
    pub async fn note_scrub(&self, scrub: Scrub) -> Result<(), StoreError> {
        self.write_scrub(Command::NoteScrub(scrub)).await.map(drop)
    }

    /// Records that a scrub has come to its end, or that somebody stopped it.
    pub async fn end_scrub(&self, scrub: Scrub, complete: bool) -> Result<Option<Scrub>, StoreError> {
        self.write_scrub(Command::EndScrub { scrub, complete }).await
    }

    /// Records what is wrong with a file. If the scrub is to repair, a damaged or missing one is queued again while its
    /// source has it, and is given up as failed otherwise; what lies at its key stays until a good copy replaces it.
    pub async fn note_judged(&self, judged: Judged) -> Result<Noted, StoreError> {
        match self.write(Command::NoteJudged(Box::new(judged))).await? {
            Reply::Judged(noted) => Ok(noted),
            other => unreachable!("a verdict was answered with {other:?}"),
        }
    }

    async fn write_scrub(&self, command: Command) -> Result<Option<Scrub>, StoreError> {
        match self.write(command).await? {
            Reply::Scrub(scrub) => Ok(scrub),
            other => unreachable!("a scrub was answered with {other:?}"),
        }
    }

    /// Files that should lie in the storage, in the order of their rows, after one row and up to another.
    pub async fn stored_files(&self, after: i64, upto: i64) -> Result<Stretch, StoreError> {
        let rows = sqlx::query(concat!(
            files!(),
            " WHERE d.id > $1 AND d.id <= $2 ORDER BY d.id LIMIT $3"
        ))
        .bind(after)
        .bind(upto)
        .bind(ROWS)
        .fetch_all(&self.readers)
        .await?;
        let mut stretch = Stretch {
            files: Vec::new(),
            last: None,
        };
        for row in &rows {
            stretch.last = Some(row.try_get("id")?);
            stretch.files.extend(stored_file(row)?);
        }
        Ok(stretch)
    }

    /// The file of a download as it is now, if it still should lie in the storage.
    pub async fn stored_file(&self, row: i64) -> Result<Option<StoredFile>, StoreError> {
        let found = sqlx::query(concat!(files!(), " WHERE d.id = $1"))
            .bind(row)
            .fetch_optional(&self.readers)
            .await?;
        Ok(found.as_ref().map(stored_file).transpose()?.flatten())
    }

    /// The scrub that has not ended.
    pub async fn unfinished_scrub(&self) -> Result<Option<Scrub>, StoreError> {
        self.scrub("SELECT * FROM scrubs WHERE ended_at IS NULL").await
    }

    /// The last scrub that ended, in whatever way.
    pub async fn last_scrub(&self) -> Result<Option<Scrub>, StoreError> {
        self.scrub("SELECT * FROM scrubs WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT 1")
            .await
    }

    /// The last scrub that looked at everything.
    pub async fn last_complete_scrub(&self) -> Result<Option<Scrub>, StoreError> {
        self.scrub("SELECT * FROM scrubs WHERE complete ORDER BY id DESC LIMIT 1")
            .await
    }

    async fn scrub(&self, statement: &'static str) -> Result<Option<Scrub>, StoreError> {
        let found = sqlx::query(statement).fetch_optional(&self.readers).await?;
        Ok(found.as_ref().map(scrub_record).transpose()?)
    }

    /// What a scrub found, the first [`FINDINGS`] of it.
    pub async fn scrub_findings(&self, scrub: i64) -> Result<Vec<Finding>, StoreError> {
        let rows = sqlx::query("SELECT * FROM scrub_findings WHERE scrub = $1 ORDER BY n")
            .bind(scrub)
            .fetch_all(&self.readers)
            .await?;
        let finding = |row: &SqliteRow| -> Result<Finding, sqlx::Error> {
            Ok(Finding {
                source: row.try_get("source")?,
                task_id: row.try_get("task_id")?,
                name: row.try_get("name")?,
                wrong: row.try_get("wrong")?,
                detail: row.try_get("detail")?,
                queued: row.try_get("queued")?,
            })
        };
        Ok(rows.iter().map(finding).collect::<Result<_, _>>()?)
    }
}

/// Rows in whatever state: a stretch then costs the same wherever it is.
macro_rules! files {
    () => {
        "SELECT d.id, d.state, d.error_code, d.name, d.bytes, d.sha256, d.storage_key, d.updated_at, t.source, t.task_id
         FROM downloads d CROSS JOIN tasks t ON t.id = d.task"
    };
}
use files;

fn stored_file(row: &SqliteRow) -> Result<Option<StoredFile>, sqlx::Error> {
    let (state, error): (&str, Option<&str>) = (row.try_get("state")?, row.try_get("error_code")?);
    // What a person no longer wants is not to be put back. A failed file that was never stored names no key, see below.
    let given_up = state == "failed" && error != Some("superseded");
    if state != "stored" && !given_up {
        return Ok(None);
    }
    let (sha256, storage_key): (Option<Vec<u8>>, Option<String>) =
        (row.try_get("sha256")?, row.try_get("storage_key")?);
    let sha256 = sha256.and_then(|sha256| <[u8; 32]>::try_from(sha256).ok());
    let (Some(sha256), Some(storage_key)) = (sha256, storage_key) else {
        return Ok(None);
    };
    Ok(Some(StoredFile {
        row: row.try_get("id")?,
        source: row.try_get("source")?,
        task_id: row.try_get("task_id")?,
        name: row.try_get("name")?,
        bytes: row.try_get::<Option<i64>, _>("bytes")?.unwrap_or_default(),
        sha256,
        storage_key,
        given_up,
        updated_at: row.try_get("updated_at")?,
    }))
}

fn scrub_record(row: &SqliteRow) -> Result<Scrub, sqlx::Error> {
    Ok(Scrub {
        id: row.try_get("id")?,
        began_at: row.try_get("began_at")?,
        ended_at: row.try_get("ended_at")?,
        complete: row.try_get("complete")?,
        orders: Orders {
            background: row.try_get("background")?,
            repair: row.try_get("repair")?,
        },
        last: row.try_get("last")?,
        upto: row.try_get("upto")?,
        files_total: row.try_get("files_total")?,
        bytes_total: row.try_get("bytes_total")?,
        tally: Tally {
            files: row.try_get("files")?,
            bytes: row.try_get("bytes")?,
            damaged: row.try_get("damaged")?,
            missing: row.try_get("missing")?,
            unreadable: row.try_get("unreadable")?,
            repaired: row.try_get("repaired")?,
        },
        none_of: row.try_get("none_of")?,
    })
}

pub(super) fn begin(tx: &Tx<'_>, orders: Orders) -> rusqlite::Result<Option<Scrub>> {
    let begun: Option<Scrub> = tx
        .db
        .prepare_cached(
            "INSERT INTO scrubs (id, began_at, complete, background, repair, last, upto, files_total, bytes_total,
                                 files, bytes, damaged, missing, unreadable, repaired)
             SELECT (SELECT COALESCE(max(id), 0) + 1 FROM scrubs), ?1, 0, ?2, ?3, -1,
                    (SELECT COALESCE(max(id), -1) FROM downloads),
                    COALESCE((SELECT value FROM counters WHERE name = 'files.stored'), 0),
                    COALESCE((SELECT value FROM counters WHERE name = 'stored_bytes'), 0), 0, 0, 0, 0, 0, 0
             WHERE NOT EXISTS (SELECT 1 FROM scrubs WHERE ended_at IS NULL)
             RETURNING id, upto, files_total, bytes_total",
        )?
        .query_row(params![tx.now, orders.background, orders.repair], |row| {
            begun(row, orders, tx.now)
        })
        .optional()?;
    tx.execute(
        "DELETE FROM scrub_findings WHERE scrub <= (SELECT max(id) FROM scrubs) - ?1",
        params![SCRUBS],
    )?;
    tx.execute(
        "DELETE FROM scrubs WHERE id <= (SELECT max(id) FROM scrubs) - ?1",
        params![SCRUBS],
    )?;
    Ok(begun)
}

fn begun(row: &Row<'_>, orders: Orders, began_at: Millis) -> rusqlite::Result<Scrub> {
    Ok(Scrub {
        id: row.get(0)?,
        began_at,
        ended_at: None,
        complete: false,
        orders,
        last: -1,
        upto: row.get(1)?,
        files_total: row.get(2)?,
        bytes_total: row.get(3)?,
        tally: Tally::default(),
        none_of: 0,
    })
}

pub(super) fn note(tx: &Tx<'_>, scrub: Scrub) -> rusqlite::Result<Option<Scrub>> {
    let tally = scrub.tally;
    let noted = tx.execute(
        "UPDATE scrubs SET last = ?2, files = ?3, bytes = ?4, damaged = ?5, missing = ?6, unreadable = ?7,
            repaired = ?8 WHERE id = ?1 AND ended_at IS NULL",
        params![
            scrub.id,
            scrub.last,
            tally.files,
            tally.bytes,
            tally.damaged,
            tally.missing,
            tally.unreadable,
            tally.repaired
        ],
    )?;
    Ok((noted == 1).then_some(scrub))
}

pub(super) fn end(tx: &Tx<'_>, scrub: Scrub, complete: bool) -> rusqlite::Result<Option<Scrub>> {
    if note(tx, scrub)?.is_none() {
        return Ok(None);
    }
    tx.execute(
        "UPDATE scrubs SET ended_at = ?2, complete = ?3, none_of = ?4 WHERE id = ?1",
        params![scrub.id, tx.now, complete, scrub.none_of],
    )?;
    Ok(Some(Scrub {
        ended_at: Some(tx.now),
        complete,
        ..scrub
    }))
}

pub(super) fn note_judged(tx: &mut Tx<'_>, judged: &Judged) -> rusqlite::Result<Noted> {
    let (mut scrub, file) = (judged.scrub, &judged.file);
    let Some(deadline) = deadline_of(tx, file)? else {
        return Ok(Noted::Changed);
    };
    scrub.last = file.row;
    if !file.given_up {
        scrub.tally.files += 1;
        scrub.tally.bytes += file.bytes;
    }
    let (wrong, counter) = match &judged.verdict {
        Verdict::PutBack => {
            change(tx, file, ("stored", None))?;
            scrub.tally.repaired += 1;
            note(tx, scrub)?;
            return Ok(Noted::Done { scrub, queued: false });
        }
        Verdict::Damaged(_) => ("damaged", &mut scrub.tally.damaged),
        Verdict::Missing => ("missing", &mut scrub.tally.missing),
        Verdict::Unreadable(_) => ("unreadable", &mut scrub.tally.unreadable),
    };
    *counter += 1;
    let mut detail = judged.verdict.sentence();
    if file.given_up {
        detail = format!("{detail}, and could not be fetched again; {}", what_helps(file));
    }
    let repairs = scrub.orders.repair && wrong != "unreadable" && !file.given_up;
    let queued = repairs && tx.now < deadline;
    if queued {
        change(
            tx,
            file,
            ("queued", Some(&format!("{detail}; it is fetched again"))),
        )?;
        scrub.tally.repaired += 1;
    } else if repairs {
        let lost = given_up(&detail, file, deadline);
        change(tx, file, ("failed", Some(&lost)))?;
    }
    insert_finding(tx, (scrub, file), (wrong, &detail), queued)?;
    note(tx, scrub)?;
    Ok(Noted::Done { scrub, queued })
}

fn given_up(detail: &str, file: &StoredFile, deadline: Millis) -> String {
    format!(
        "{detail}, and its source had it until {} only; {}",
        rfc3339(deadline),
        what_helps(file)
    )
}

fn what_helps(file: &StoredFile) -> String {
    format!(
        "what there is of it lies at {}: put a copy with SHA-256 {} there and run `reelhook scrub --repair`, or try the \
         source nevertheless with `reelhook tasks retry`",
        file.storage_key,
        hex::encode(file.sha256)
    )
}

/// When the source is expected to delete the file; `None` if its row is no longer the one that was judged.
fn deadline_of(tx: &Tx<'_>, file: &StoredFile) -> rusqlite::Result<Option<Millis>> {
    tx.db
        .prepare_cached(
            "SELECT deadline FROM downloads WHERE id = ?1 AND sha256 = ?2 AND storage_key = ?3 AND updated_at = ?4
                AND state = ?5 AND (state = 'stored' OR error_code <> 'superseded')",
        )?
        .query_row(
            params![
                file.row,
                file.sha256,
                file.storage_key,
                file.updated_at,
                if file.given_up { "failed" } else { "stored" }
            ],
            |row| row.get(0),
        )
        .optional()
}

/// Changes the state of the row, which the caller has looked at in this transaction.
fn change(tx: &mut Tx<'_>, file: &StoredFile, (state, error): (&str, Option<&str>)) -> rusqlite::Result<()> {
    let tasks = tx.all(
        "UPDATE downloads SET state = ?2, attempts = CASE ?2 WHEN 'queued' THEN 0 ELSE attempts END, next_at = ?3,
            waits_until = NULL, lease_until = NULL, error_code = ?4, error_detail = ?5, updated_at = ?3, change_seq = ?6
         WHERE id = ?1 RETURNING task",
        params![
            file.row,
            state,
            tx.now,
            error.map(|_| "damaged"),
            error,
            tx.upcoming_change()
        ],
        |row| row.get::<_, i64>(0),
    )?;
    if state == "queued" {
        tx.note_queued();
    }
    tasks.into_iter().try_for_each(|task| {
        if state != "queued" {
            tx.note_ended(task, file.row);
        }
        summary::refresh(tx, task)
    })
}

fn insert_finding(
    tx: &Tx<'_>,
    (scrub, file): (Scrub, &StoredFile),
    (wrong, detail): (&str, &str),
    queued: bool,
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO scrub_findings (scrub, n, source, task_id, name, wrong, detail, queued)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE ?2 <= ?9",
        params![
            scrub.id,
            scrub.tally.wrong(),
            file.source,
            file.task_id,
            file.name,
            wrong,
            detail,
            queued,
            FINDINGS
        ],
    )?;
    Ok(())
}
