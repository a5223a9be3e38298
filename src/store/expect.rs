//! Tasks that somebody announced before their callbacks came.

use rusqlite::{OptionalExtension, params};

use super::asks::Reason;
use super::ranges::{self, of_task};
use super::record::LAST_OUTCOME;
use super::writer::{Command, Reply, Tx, next};
use super::{Store, StoreError, asks, keys, summary, tasks};
use crate::provider::rules::State;
use crate::provider::{Kind, TaskId, family};

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
    /// Whether the provider is to be asked at once: its callback is not to be expected any more.
    pub ask_now: bool,
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

pub(super) fn expect(tx: &mut Tx<'_>, expected: &[Expectation]) -> rusqlite::Result<u64> {
    let mut created = 0;
    for expected in expected {
        let task_id = expected.task_id.as_str();
        tx.execute(
            "DELETE FROM tombstones WHERE task_id = ?1 AND source = ?2",
            params![task_id, expected.source],
        )?;
        let task = match tasks::find(tx, &expected.source, task_id)? {
            Some(task) => {
                complete(tx, task, expected)?;
                order(tx, task, expected)?;
                // It may look different now that more is awaited of it.
                summary::refresh(tx, task)?;
                continue;
            }
            None => insert(tx, expected)?,
        };
        order(tx, task, expected)?;
        created += 1;
    }
    Ok(created)
}

/// Has the outcome awaited.
fn order(tx: &mut Tx<'_>, task: i64, expected: &Expectation) -> rusqlite::Result<()> {
    let about = (&expected.kind, expected.index);
    outcome(tx, task, about)?;
    note_ordered(tx, (task, about))?;
    asks::review(tx, (task, about), None)?;
    if expected.ask_now {
        asks::hurry(tx, (task, about))?;
    }
    Ok(())
}

/// Notes that somebody announced an outcome, if it is there: the provider may be asked for it, though that order one.
pub(super) fn note_ordered(tx: &Tx<'_>, (task, (kind, index)): asks::Place<'_>) -> rusqlite::Result<()> {
    tx.execute(
        concat!(
            "UPDATE outcomes SET ordered = 1 WHERE ",
            of_task!("?1"),
            " AND kind = ?2 AND idx = ?3 AND ordered IS NULL"
        ),
        params![task, kind.as_str(), index],
    )?;
    Ok(())
}

/// A task that nobody announced and of which no delivery was believed yet.
pub(super) fn insert_heard_of(tx: &mut Tx<'_>, source: &str, task_id: &TaskId) -> rusqlite::Result<i64> {
    let heard_of = Expectation {
        source: source.to_owned(),
        task_id: task_id.clone(),
        kind: Kind::video(),
        index: 0,
        family: None,
        params: None,
        prompt: None,
        ask_now: false,
    };
    insert(tx, &heard_of)
}

fn insert(tx: &mut Tx<'_>, expected: &Expectation) -> rusqlite::Result<i64> {
    let id = next(&mut tx.ids.task);
    let change = tx.next_change(id);
    tx.execute(
        "INSERT INTO tasks (id, source, task_id, state, media, family, params, prompt, created_at, updated_at,
                            deliveries, conflicts, change_seq)
         VALUES (?1, ?2, ?3, 'pending', 'none', ?4, ?5, ?6, ?7, ?7, 0, 0, ?8)",
        params![
            id,
            expected.source,
            expected.task_id.as_str(),
            expected.family,
            expected.params,
            expected.prompt,
            tx.now,
            change
        ],
    )?;
    tx.add_key((keys::hash_of(expected.task_id.as_str()), id));
    tx.note_inserted(tasks::counter_of(State::Pending));
    Ok(id)
}

/// Fills in what a callback that came first lacked.
pub(super) fn complete(tx: &mut Tx<'_>, task: i64, expected: &Expectation) -> rusqlite::Result<()> {
    if expected.family.as_deref() == Some(family::EXTENSION) && tasks::family(tx, task)?.is_none() {
        ask_for_the_whole(tx, task)?;
    }
    tx.execute(
        "UPDATE tasks SET family = COALESCE(family, ?2), params = COALESCE(params, ?3), prompt = COALESCE(prompt, ?4)
         WHERE id = ?1",
        params![task, expected.family, expected.params, expected.prompt],
    )?;
    Ok(())
}

/// Has the provider asked for the whole film of an extension whose callback came before anybody knew it for one.
fn ask_for_the_whole(tx: &mut Tx<'_>, task: i64) -> rusqlite::Result<()> {
    let kind = Kind::video();
    let called_back = tx
        .db
        .prepare_cached(concat!(
            "SELECT 1 FROM outcomes WHERE ",
            of_task!("?1"),
            " AND kind = ?2 AND idx = 0 AND state = 'succeeded' AND via = 'callback'"
        ))?
        .exists(params![task, kind.as_str()])?;
    if called_back {
        asks::open(tx, (task, (&kind, 0)), Reason::Full)?;
    }
    Ok(())
}

/// The outcome of that kind and index; one that is only expected if there was none.
pub(super) fn outcome(tx: &Tx<'_>, task: i64, (kind, index): (&Kind, u32)) -> rusqlite::Result<i64> {
    let found = tx
        .db
        .prepare_cached(concat!(
            "SELECT id FROM outcomes WHERE ",
            of_task!("?1"),
            " AND kind = ?2 AND idx = ?3"
        ))?
        .query_row(params![task, kind.as_str(), index], |row| row.get(0))
        .optional()?;
    if let Some(found) = found {
        return Ok(found);
    }
    let id = ranges::next(tx, task, LAST_OUTCOME)?;
    tx.execute(
        "INSERT INTO outcomes (id, kind, idx, state, has_media, accepted_rows, duplicate_rows, conflict_rows, conflicts)
         VALUES (?1, ?2, ?3, 'pending', 0, 0, 0, 0, 0)",
        params![id, kind.as_str(), index],
    )?;
    Ok(id)
}
