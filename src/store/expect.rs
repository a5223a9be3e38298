//! Tasks that somebody announced before their callbacks came.

use serde::Serialize;
use sqlx::Row;

use super::record::to_json;
use super::writer::{Command, Reply, Tx, next};
use super::{Store, StoreError, summary};
use crate::provider::{Kind, TaskId};

/// A task that somebody submitted and whose callback is awaited.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// The source's name.
    pub source: String,
    /// The provider's id.
    pub task_id: TaskId,
    /// Which result is awaited.
    pub kind: Kind,
    /// Which of several.
    pub index: u32,
    /// The provider's API family, such as `veo`.
    pub family: Option<String>,
    /// The request as JSON, for people.
    pub params: Option<String>,
    /// The prompt in it, if there is one.
    pub prompt: Option<String>,
}

impl Store {
    /// Records tasks whose callbacks are awaited; how many of them were unknown. A tombstone of one is lifted.
    pub async fn expect_tasks(&self, expected: Vec<Expectation>) -> Result<u64, StoreError> {
        match self.write(Command::Expect(expected)).await? {
            Reply::Expected { created } => Ok(created),
            other => unreachable!("an expectation was answered with {other:?}"),
        }
    }
}

#[derive(Debug, Serialize)]
struct ExpectedRow<'a> {
    task: i64,
    outcome: i64,
    source: &'a str,
    task_id: &'a str,
    kind: &'a str,
    idx: u32,
    family: Option<&'a str>,
    params: Option<&'a str>,
    prompt: Option<&'a str>,
    change_seq: i64,
}

pub(super) async fn expect(tx: &mut Tx<'_>, expected: &[Expectation]) -> Result<u64, sqlx::Error> {
    let rows: Vec<ExpectedRow<'_>> = expected
        .iter()
        .map(|expected| ExpectedRow {
            task: next(&mut tx.ids.task),
            outcome: next(&mut tx.ids.outcome),
            source: &expected.source,
            task_id: expected.task_id.as_str(),
            kind: expected.kind.as_str(),
            idx: expected.index,
            family: expected.family.as_deref(),
            params: expected.params.as_deref(),
            prompt: expected.prompt.as_deref(),
            change_seq: tx.next_change(),
        })
        .collect();
    let rows = to_json(&rows);
    sqlx::query(
        "DELETE FROM tombstones WHERE (task_id, source) IN
            (SELECT value->>'task_id', value->>'source' FROM jsonb_each($1))",
    )
    .bind(&rows)
    .execute(&mut *tx.connection)
    .await?;
    let created = write_tasks(tx, &rows).await?;
    // Those that were there may look different now that more is awaited of them.
    let known = sqlx::query(
        "SELECT DISTINCT t.id FROM jsonb_each($1) e
         JOIN tasks t ON t.task_id = e.value->>'task_id' AND t.source = e.value->>'source' 
         WHERE t.id NOT IN (SELECT value->>'task' FROM jsonb_each($1))",
    )
    .bind(&rows)
    .fetch_all(&mut *tx.connection)
    .await?;
    let known = known
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<Vec<_>, _>>()?;
    summary::refresh(tx, &known).await?;
    Ok(created)
}

/// Inserts what is unknown and fills in what a callback that came first lacked; how many tasks were unknown.
async fn write_tasks(tx: &mut Tx<'_>, rows: &str) -> Result<u64, sqlx::Error> {
    let created = sqlx::query(
        "INSERT INTO tasks (id, source, task_id, state, media, family, params, prompt, created_at, updated_at,
                            deliveries, conflicts, change_seq)
         SELECT value->>'task', value->>'source', value->>'task_id', 'pending', 'none', value->>'family',
                value->>'params', value->>'prompt', $2, $2, 0, 0, value->>'change_seq'
         FROM jsonb_each($1) WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(rows)
    .bind(tx.now)
    .execute(&mut *tx.connection)
    .await?
    .rows_affected();
    sqlx::query(
        "UPDATE tasks SET family = COALESCE(family, e.value->>'family'), params = COALESCE(params, e.value->>'params'),
                          prompt = COALESCE(prompt, e.value->>'prompt')
         FROM jsonb_each($1) e WHERE tasks.task_id = e.value->>'task_id' AND tasks.source = e.value->>'source'",
    )
    .bind(rows)
    .execute(&mut *tx.connection)
    .await?;
    sqlx::query(
        "INSERT INTO outcomes (id, task, kind, idx, state, has_media, accepted_rows, duplicate_rows, conflict_rows)
         SELECT e.value->>'outcome', t.id, e.value->>'kind', e.value->>'idx', 'pending', 0, 0, 0, 0
         FROM jsonb_each($1) e
         JOIN tasks t ON t.task_id = e.value->>'task_id' AND t.source = e.value->>'source'
         WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(rows)
    .execute(&mut *tx.connection)
    .await?;
    Ok(created)
}
