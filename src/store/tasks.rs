//! Tasks: found, made, listed and shown; and the counts of all.

use std::collections::BTreeMap;
use std::time::Instant;

use rusqlite::params;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::ranges::of_task;
use super::record::{state_from, to_json};
use super::writer::{Tx, next};
use super::{Store, StoreError, keys, prompts};
use crate::clock::Millis;
use crate::provider::rules::State;

/// How many rows one page may examine before it returns short with a cursor.
pub const ROWS_EXAMINED: i64 = 10_000;

/// A task as recorded.
#[derive(Debug, Clone)]
pub struct TaskRecord {
    /// Row id: the order of lists, and the cursor.
    pub row: i64,
    /// The source's name.
    pub source: String,
    /// The provider's id.
    pub task_id: String,
    /// Of `(video, 0)` if known, else of the newest outcome.
    pub state: State,
    /// Summary over all files: `none`, `queued`, `downloading`, `stored`, `partial` or `failed`.
    pub media: String,
    /// The request as JSON, where somebody told.
    pub params: Option<String>,
    /// The prompt, where known.
    pub prompt: Option<String>,
    /// When it was first heard of.
    pub created_at: Millis,
    /// When its first delivery came.
    pub received_at: Option<Millis>,
    /// When anything of it last changed.
    pub updated_at: Millis,
    /// Deliveries that were not rejected.
    pub deliveries: i64,
    /// Open conflicts.
    pub conflicts: i64,
    /// What is believed, by kind and index.
    pub outcomes: Vec<OutcomeRecord>,
    /// Its files.
    pub files: Vec<FileRecord>,
    /// What the provider is asked about it.
    pub asks: Vec<AskRecord>,
}

impl TaskRecord {
    /// Whether nothing more is awaited: the task is terminal and every file is stored or failed.
    pub fn is_settled(&self) -> bool {
        self.state.is_terminal() && !matches!(self.media.as_str(), "queued" | "downloading")
    }

    /// The outcome that speaks for the task: `(video, 0)` if known, else the newest.
    pub fn main_outcome(&self) -> Option<&OutcomeRecord> {
        self.outcomes
            .iter()
            .find(|outcome| outcome.kind == "video" && outcome.index == 0)
            .or_else(|| {
                self.outcomes
                    .iter()
                    .max_by_key(|outcome| (outcome.received_at, outcome.row))
            })
    }
}

/// An outcome as recorded.
#[derive(Debug, Clone)]
pub struct OutcomeRecord {
    row: i64,
    /// Which result.
    pub kind: String,
    /// Which of several.
    pub index: i64,
    /// What we believe.
    pub state: State,
    /// The provider's body code.
    pub code: Option<i64>,
    /// The provider's sentence.
    pub msg: Option<String>,
    /// The failure as JSON, if it failed.
    pub failure: Option<String>,
    /// Such as `1080p`.
    pub resolution: Option<String>,
    /// Whether the fallback model made it.
    pub fallback: Option<bool>,
    /// Credits consumed.
    pub credits: Option<f64>,
    /// How the delivery it stands on came.
    pub via: Option<String>,
    /// When that came.
    pub received_at: Option<Millis>,
}

/// A file as recorded.
#[derive(Debug, Clone)]
pub struct FileRecord {
    /// The download's row id.
    pub id: i64,
    /// Its name in URLs, with extension.
    pub name: String,
    /// What it is to the task.
    pub role: String,
    /// Of which outcome.
    pub kind: String,
    /// Of which outcome.
    pub index: i64,
    /// Its place in the role.
    pub n: i64,
    /// `queued`, `held`, `needs_url`, `downloading`, `stored`, `failed` or `deleted`.
    pub state: String,
    /// Where the provider keeps it.
    pub provider_url: String,
    /// Attempts that counted.
    pub attempts: i64,
    /// Not before.
    pub next_at: Millis,
    /// When the provider is expected to delete it.
    pub deadline: Millis,
    /// Length, once stored.
    pub bytes: Option<i64>,
    /// SHA-256, once stored.
    pub sha256: Option<Vec<u8>>,
    /// MIME type by content, once stored.
    pub content_type: Option<String>,
    /// How long it plays, if it says.
    pub duration_ms: Option<i64>,
    /// In pixels, if it says.
    pub width: Option<i64>,
    /// In pixels, if it says.
    pub height: Option<i64>,
    /// How it is encoded, if it says.
    pub codec: Option<String>,
    /// When its row last changed: of a stored one, when it was stored.
    pub updated_at: Millis,
    /// Where it lies in the storage, once stored.
    pub storage_key: Option<String>,
    /// Code and sentence of the last failure.
    pub error: Option<(String, String)>,
}

/// A question to the provider that is open: one for each outcome at most.
#[derive(Debug, Clone)]
pub struct AskRecord {
    /// About which outcome.
    pub kind: String,
    /// About which of several.
    pub index: i64,
    /// Why it is asked: `silent`, `full`, `stale`, `needs_url`, `held` or `conflict`, the most urgent.
    pub reason: String,
    /// Since when that is open.
    pub since: Millis,
    /// Not asked before.
    pub ask_at: Option<Millis>,
    /// How often it was asked.
    pub asks: i64,
    /// When last.
    pub asked_at: Option<Millis>,
    /// What came of that: a stable word and a sentence.
    pub note: Option<(String, String)>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Only these states.
    pub state: Option<String>,
    /// Only this media summary.
    pub media: Option<String>,
    /// Only this source.
    pub source: Option<String>,
    /// Only ids that begin so.
    pub prefix: Option<String>,
    /// Only prompts that have all these words, in any case; the last one may be only the beginning of a word.
    pub words: Option<String>,
    /// Created at or after.
    pub since: Option<Millis>,
    /// Created before.
    pub until: Option<Millis>,
    /// Only rows before this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

/// A page, and where the next begins.
#[derive(Debug)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// `None` at the end.
    pub next: Option<i64>,
}

/// Counts of everything.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Tasks by state.
    pub tasks: BTreeMap<String, i64>,
    /// Files by state.
    pub files: BTreeMap<String, i64>,
    /// When the longest waiting download was queued.
    pub oldest_queued_at: Option<Millis>,
    /// Bytes of all stored files.
    pub stored_bytes: i64,
    /// Open questions to the provider by reason.
    pub asks: BTreeMap<String, i64>,
    /// Tasks whose first terminal outcome came by asking.
    pub repaired: i64,
}

impl TaskFilter {
    /// Whether it leaves anything out but by its place in the list.
    fn selects(&self) -> bool {
        let texts = [&self.state, &self.media, &self.source, &self.prefix];
        texts.iter().any(|text| text.is_some()) || self.since.is_some() || self.until.is_some()
    }
}

/// What a filter asks of a row of `tasks`.
macro_rules! chosen {
    () => {
        " AND ($3 IS NULL OR state = $3) AND ($4 IS NULL OR media = $4) AND ($5 IS NULL OR source = $5)
          AND ($6 IS NULL OR substr(task_id, 1, length($6)) = $6)
          AND ($7 IS NULL OR created_at >= $7) AND ($8 IS NULL OR created_at < $8)
          ORDER BY id DESC LIMIT $9"
    };
}

const LIST: &str = concat!(
    "SELECT * FROM tasks WHERE id < $1 AND id >= $2 AND $10 IS NULL",
    chosen!()
);

/// The rows come from the index in their order, and no more of them than the page takes.
const LIST_BY_WORDS: &str = concat!(
    "SELECT t.* FROM (SELECT rowid AS found FROM prompts
                      WHERE prompts MATCH $10 AND rowid < $1 AND rowid >= $2 ORDER BY rowid DESC)
     CROSS JOIN tasks t ON t.id = found WHERE 1",
    chosen!()
);

const NEWEST: &str = "SELECT max(id) FROM tasks WHERE id < $1";

/// Cuts rows, of which one more was asked for, to a page; whether there were more.
pub(super) fn cut(rows: &mut Vec<SqliteRow>, limit: i64) -> bool {
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}

impl Store {
    /// The tasks of that id, one for each source that has it (or of `source` only).
    pub async fn tasks_by_id(
        &self,
        task_id: &str,
        source: Option<&str>,
    ) -> Result<Vec<TaskRecord>, StoreError> {
        let hash = keys::hash_of(task_id);
        // Before the table: keys move there.
        let recent = self.keys.recent(hash);
        let mut reader = self.readers.begin().await?;
        let rows = sqlx::query(
            "SELECT * FROM tasks
             WHERE id IN (SELECT task FROM task_keys WHERE hash = $1 UNION ALL SELECT value FROM jsonb_each($2))
                AND task_id = $3 AND ($4 IS NULL OR source = $4) ORDER BY source",
        )
        .bind(hash)
        .bind(to_json(&recent))
        .bind(task_id)
        .bind(source)
        .fetch_all(&mut *reader)
        .await?;
        with_details(&mut reader, &rows).await
    }

    /// The tasks of these rows, in any order, without those that are gone.
    pub async fn tasks_by_row(&self, rows: &[i64]) -> Result<Vec<TaskRecord>, StoreError> {
        let mut reader = self.readers.begin().await?;
        let rows = sqlx::query("SELECT t.* FROM jsonb_each($1) w CROSS JOIN tasks t ON t.id = w.value")
            .bind(to_json(rows))
            .fetch_all(&mut *reader)
            .await?;
        with_details(&mut reader, &rows).await
    }

    /// A page of tasks, newest row first. Examines at most [`ROWS_EXAMINED`] rows (of those that have the words, where there are
    /// any), then returns short with a cursor.
    pub async fn list_tasks(&self, filter: &TaskFilter) -> Result<Page<TaskRecord>, StoreError> {
        let before = filter.before.unwrap_or(i64::MAX);
        let words = filter.words.as_deref().and_then(prompts::expression);
        let floor = match &words {
            Some(words) => self.floor_by_words(words, before).await?,
            None if filter.selects() => self.floor(NEWEST, before).await?,
            None => i64::MIN,
        };
        let mut reader = self.readers.begin().await?;
        let sql = if words.is_some() { LIST_BY_WORDS } else { LIST };
        let mut rows = sqlx::query(sql)
            .bind(before)
            .bind(floor)
            .bind(&filter.state)
            .bind(&filter.media)
            .bind(&filter.source)
            .bind(&filter.prefix)
            .bind(filter.since)
            .bind(filter.until)
            .bind(filter.limit + 1)
            .bind(&words)
            .fetch_all(&mut *reader)
            .await?;
        let more = cut(&mut rows, filter.limit);
        let items = with_details(&mut reader, &rows).await?;
        drop(reader);
        let next = match items.last() {
            Some(last) if more => Some(last.row),
            _ if words.is_some() => Some(floor).filter(|floor| *floor > i64::MIN),
            _ => self.newest_before(NEWEST, floor).await?.map(|older| older + 1),
        };
        Ok(Page { items, next })
    }

    /// The last row that a page may examine of those that have the words; the smallest of all numbers if that is every one.
    async fn floor_by_words(&self, words: &str, before: i64) -> Result<i64, StoreError> {
        let last = sqlx::query(
            "SELECT rowid FROM prompts WHERE prompts MATCH $1 AND rowid < $2 ORDER BY rowid DESC LIMIT 1 OFFSET $3",
        )
        .bind(words)
        .bind(before)
        .bind(ROWS_EXAMINED - 1)
        .fetch_optional(&self.readers)
        .await?;
        Ok(last.map_or(Ok(i64::MIN), |row| row.try_get(0))?)
    }

    /// The last row that a page may examine: rows are counted by their ids, which have few gaps.
    pub(super) async fn floor(&self, newest: &'static str, before: i64) -> Result<i64, StoreError> {
        let newest = self.newest_before(newest, before).await?;
        Ok(newest.map_or(i64::MIN, |newest| newest.saturating_sub(ROWS_EXAMINED - 1)))
    }

    /// The newest row before another, as the statement finds it. Where a page ended at its floor, the next begins there,
    /// however wide the gap is that deleted rows left.
    pub(super) async fn newest_before(
        &self,
        newest: &'static str,
        before: i64,
    ) -> Result<Option<i64>, StoreError> {
        let row = sqlx::query(newest).bind(before).fetch_one(&self.readers).await?;
        Ok(row.try_get(0)?)
    }

    /// Counts of everything, as the writer keeps them.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        let mut counts = Counts::default();
        let rows = sqlx::query("SELECT name, value FROM counters")
            .fetch_all(&self.readers)
            .await?;
        for row in rows {
            let (name, value): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            match name.split_once('.') {
                Some((_, _)) if value == 0 => {}
                Some(("tasks", state)) => drop(counts.tasks.insert(state.to_owned(), value)),
                Some(("files", state)) => drop(counts.files.insert(state.to_owned(), value)),
                Some(("asks", reason)) => drop(counts.asks.insert(reason.to_owned(), value)),
                _ if name == "stored_bytes" => counts.stored_bytes = value,
                _ if name == "repaired" => counts.repaired = value,
                _ => {}
            }
        }
        if counts.files.contains_key("queued") {
            counts.oldest_queued_at = self.oldest_queued().await?;
        }
        Ok(counts)
    }

    /// When the longest waiting download was queued. That is a walk along the queue's indexes: one of many rows is not
    /// repeated at once, but takes a twentieth of the time at most, whoever asks how often.
    async fn oldest_queued(&self) -> Result<Option<Millis>, StoreError> {
        let mut known = self.oldest_queued.lock().await;
        let began = Instant::now();
        if known.until.is_some_and(|until| began < until) {
            return Ok(known.oldest);
        }
        known.oldest = sqlx::query(
            "SELECT min(at) FROM (
                SELECT min(created_at) AS at FROM downloads INDEXED BY downloads_by_host
                WHERE state = 'queued' AND waits_until IS NULL
                UNION ALL SELECT min(created_at) FROM downloads INDEXED BY downloads_waiting
                WHERE waits_until IS NOT NULL)",
        )
        .fetch_one(&self.readers)
        .await?
        .try_get(0)?;
        let ended = Instant::now();
        known.until = Some(ended + (ended - began) * 19);
        Ok(known.oldest)
    }
}

/// Adds outcomes, files and asks to task rows, three queries for the whole page. All read the same state of the database: a
/// task is never seen half changed.
pub(super) async fn with_details(
    reader: &mut SqliteConnection,
    rows: &[SqliteRow],
) -> Result<Vec<TaskRecord>, StoreError> {
    let mut tasks = rows.iter().map(task_record).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<i64> = tasks.iter().map(|task| task.row).collect();
    if ids.is_empty() {
        return Ok(tasks);
    }
    let at: BTreeMap<i64, usize> = ids.iter().enumerate().map(|(at, id)| (*id, at)).collect();
    let ids = to_json(&ids);
    let outcomes = sqlx::query(concat!(
        "SELECT o.* FROM jsonb_each($1) t CROSS JOIN outcomes o ON ",
        of_task!("o", "t.value"),
        " ORDER BY o.id"
    ))
    .bind(&ids)
    .fetch_all(&mut *reader)
    .await?;
    for row in &outcomes {
        if let Some(&at) = at.get(&row.try_get::<i64, _>("task")?) {
            tasks[at].outcomes.push(outcome_record(row)?);
        }
    }
    let files = sqlx::query(concat!(
        "SELECT d.* FROM jsonb_each($1) t CROSS JOIN downloads d ON ",
        of_task!("d", "t.value"),
        " ORDER BY d.id"
    ))
    .bind(&ids)
    .fetch_all(&mut *reader)
    .await?;
    for row in &files {
        if let Some(&at) = at.get(&row.try_get::<i64, _>("task")?) {
            tasks[at].files.push(file_record(row)?);
        }
    }
    for row in &asks_of(reader, &ids).await? {
        if let Some(&at) = at.get(&row.try_get::<i64, _>("task")?) {
            tasks[at].asks.push(ask_record(row)?);
        }
    }
    Ok(tasks)
}

/// What is asked about tasks, of which the row ids are a JSON array.
async fn asks_of(reader: &mut SqliteConnection, ids: &str) -> Result<Vec<SqliteRow>, sqlx::Error> {
    sqlx::query(
        "SELECT a.* FROM jsonb_each($1) t CROSS JOIN asks a ON a.task = t.value ORDER BY a.task, a.kind, a.idx",
    )
    .bind(ids)
    .fetch_all(&mut *reader)
    .await
}

/// When the longest waiting download was queued, as far as known, and until when that is not asked again.
#[derive(Debug, Default)]
pub(super) struct OldestQueued {
    oldest: Option<Millis>,
    until: Option<Instant>,
}

/// A task that has the id in question, in some source.
#[derive(Debug)]
pub(super) struct Namesake {
    pub(super) task: i64,
    pub(super) source: String,
}

/// The tasks of that id in all sources; the hash is that of [`keys::hash_of`].
pub(super) fn namesakes(tx: &Tx<'_>, (hash, task_id): (i64, &str)) -> rusqlite::Result<Vec<Namesake>> {
    let mut candidates = tx.keys.recent(hash);
    let settled = "SELECT task FROM task_keys WHERE hash = ?1";
    candidates.extend(tx.all(settled, params![hash], |row| row.get::<_, i64>(0))?);
    let mut namesakes = Vec::new();
    for task in candidates {
        let found = "SELECT id, source FROM tasks WHERE id = ?1 AND task_id = ?2";
        namesakes.extend(tx.all(found, params![task, task_id], |row| {
            Ok(Namesake {
                task: row.get(0)?,
                source: row.get(1)?,
            })
        })?);
    }
    Ok(namesakes)
}

/// The task of that id in one source.
pub(super) fn find(tx: &Tx<'_>, source: &str, task_id: &str) -> rusqlite::Result<Option<i64>> {
    let namesakes = namesakes(tx, (keys::hash_of(task_id), task_id))?;
    let same = namesakes.into_iter().find(|namesake| namesake.source == source);
    Ok(same.map(|namesake| namesake.task))
}

/// The API family that somebody announced a task with.
pub(super) fn family(tx: &Tx<'_>, task: i64) -> rusqlite::Result<Option<String>> {
    let found: Vec<Option<String>> =
        tx.all("SELECT family FROM tasks WHERE id = ?1", params![task], |row| {
            row.get(0)
        })?;
    Ok(found.into_iter().flatten().next())
}

/// Counts a task whose first final outcome is this one, and came by asking.
pub(super) fn count_repaired(tx: &Tx<'_>, task: i64, outcome: i64) -> rusqlite::Result<()> {
    tx.execute(
        concat!(
            "UPDATE counters SET value = value + 1 WHERE name = 'repaired' AND NOT EXISTS (
                SELECT 1 FROM outcomes WHERE ",
            of_task!("?1"),
            " AND id <> ?2 AND state <> 'pending')"
        ),
        params![task, outcome],
    )?;
    Ok(())
}

/// A task that was not known, as its first delivery makes it. The caller has looked for it.
#[derive(Debug)]
pub(super) struct NewTask<'d> {
    pub(super) source: &'d str,
    pub(super) task_id: &'d str,
    pub(super) state: State,
    pub(super) media: &'static str,
    pub(super) prompt: Option<&'d str>,
    pub(super) received_at: Millis,
}

impl NewTask<'_> {
    pub(super) fn insert(&self, tx: &mut Tx<'_>, hash: i64) -> rusqlite::Result<i64> {
        let id = next(&mut tx.ids.task);
        let change = tx.next_change(id);
        tx.execute(
            "INSERT INTO tasks (id, source, task_id, state, media, prompt, created_at, received_at, updated_at,
                                deliveries, conflicts, change_seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, 1, 0, ?9)",
            params![
                id,
                self.source,
                self.task_id,
                self.state.as_str(),
                self.media,
                self.prompt,
                self.received_at,
                tx.now,
                change
            ],
        )?;
        tx.add_key((hash, id));
        tx.note_inserted(counter_of(self.state));
        Ok(id)
    }
}

/// The counter of tasks in a state.
pub(super) fn counter_of(state: State) -> &'static str {
    match state {
        State::Pending => "tasks.pending",
        State::Succeeded => "tasks.succeeded",
        State::Failed => "tasks.failed",
    }
}

/// Counts a delivery on a task that is there.
pub(super) fn count_delivery(
    tx: &mut Tx<'_>,
    task: i64,
    received_at: Millis,
    prompt: Option<&str>,
) -> rusqlite::Result<()> {
    let change = tx.next_change(task);
    tx.execute(
        "UPDATE tasks SET deliveries = deliveries + 1, prompt = COALESCE(prompt, ?2),
            received_at = COALESCE(received_at, ?3), updated_at = ?4, change_seq = ?5 WHERE id = ?1",
        params![task, prompt, received_at, tx.now, change],
    )?;
    Ok(())
}

fn task_record(row: &SqliteRow) -> Result<TaskRecord, sqlx::Error> {
    Ok(TaskRecord {
        row: row.try_get("id")?,
        source: row.try_get("source")?,
        task_id: row.try_get("task_id")?,
        state: state_from(row.try_get("state")?),
        media: row.try_get("media")?,
        params: row.try_get("params")?,
        prompt: row.try_get("prompt")?,
        created_at: row.try_get("created_at")?,
        received_at: row.try_get("received_at")?,
        updated_at: row.try_get("updated_at")?,
        deliveries: row.try_get("deliveries")?,
        conflicts: row.try_get("conflicts")?,
        outcomes: Vec::new(),
        files: Vec::new(),
        asks: Vec::new(),
    })
}

fn outcome_record(row: &SqliteRow) -> Result<OutcomeRecord, sqlx::Error> {
    Ok(OutcomeRecord {
        row: row.try_get("id")?,
        kind: row.try_get("kind")?,
        index: row.try_get("idx")?,
        state: state_from(row.try_get("state")?),
        code: row.try_get("code")?,
        msg: row.try_get("msg")?,
        failure: row.try_get("failure")?,
        resolution: row.try_get("resolution")?,
        fallback: row.try_get("fallback")?,
        credits: row.try_get("credits")?,
        via: row.try_get("via")?,
        received_at: row.try_get("received_at")?,
    })
}

fn file_record(row: &SqliteRow) -> Result<FileRecord, sqlx::Error> {
    let code: Option<String> = row.try_get("error_code")?;
    let detail: Option<String> = row.try_get("error_detail")?;
    Ok(FileRecord {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        role: row.try_get("role")?,
        kind: row.try_get("kind")?,
        index: row.try_get("idx")?,
        n: row.try_get("n")?,
        state: row.try_get("state")?,
        provider_url: row.try_get("url")?,
        attempts: row.try_get("attempts")?,
        next_at: row.try_get("next_at")?,
        deadline: row.try_get("deadline")?,
        bytes: row.try_get("bytes")?,
        sha256: row.try_get("sha256")?,
        content_type: row.try_get("content_type")?,
        duration_ms: row.try_get("duration_ms")?,
        width: row.try_get("width")?,
        height: row.try_get("height")?,
        codec: row.try_get("codec")?,
        updated_at: row.try_get("updated_at")?,
        storage_key: row.try_get("storage_key")?,
        error: code.map(|code| (code, detail.unwrap_or_default())),
    })
}

fn ask_record(row: &SqliteRow) -> Result<AskRecord, sqlx::Error> {
    let code: Option<String> = row.try_get("note_code")?;
    let sentence: Option<String> = row.try_get("note")?;
    Ok(AskRecord {
        kind: row.try_get("kind")?,
        index: row.try_get("idx")?,
        reason: row.try_get("reason")?,
        since: row.try_get("since")?,
        ask_at: row.try_get("ask_at")?,
        asks: row.try_get("asks")?,
        asked_at: row.try_get("asked_at")?,
        note: code.map(|code| (code, sentence.unwrap_or_default())),
    })
}
