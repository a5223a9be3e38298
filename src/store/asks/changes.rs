//! How questions come and go: the writer's side of them.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{About, EVERY_4K, FreshLink, Note, Reason, Then};
use crate::clock::{Millis, millis};
use crate::provider::rules::{State, digest};
use crate::provider::{Failure, Kind, OutcomeClass, TaskId};
use crate::store::downloads::{self, parsed};
use crate::store::ranges::of_task;
use crate::store::record::to_json;
use crate::store::writer::Tx;
use crate::store::{expect, summary, tasks};

/// What the writer is told about questions.
#[derive(Debug)]
pub(in crate::store) enum Change {
    Answered(Answered),
    Refreshed {
        download: i64,
        fresh: FreshLink,
    },
    HeardTooLate {
        source: String,
        task_id: TaskId,
        kind: Kind,
        index: u32,
    },
    BroughtForward(Duration),
}

pub(in crate::store) fn apply(tx: &mut Tx<'_>, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Answered(answered) => note_answer(tx, answered),
        Change::Refreshed { download, fresh } => downloads::refresh_link(tx, *download, fresh),
        Change::HeardTooLate {
            source,
            task_id,
            kind,
            index,
        } => after_stale(tx, (source, task_id), (kind, *index)),
        Change::BroughtForward(by) => bring_forward(tx, *by),
    }
}

/// An answer, and the question that it is to.
#[derive(Debug)]
pub(in crate::store) struct Answered {
    pub(super) about: About,
    pub(super) since: Millis,
    pub(super) asks: i64,
    pub(super) then: Then,
    pub(super) family: Option<&'static str>,
}

/// How long nothing may be heard of a task, unless somebody sets it.
pub(in crate::store) fn usual_silence() -> AtomicI64 {
    AtomicI64::new(millis(Duration::from_mins(3)))
}

/// An outcome of a task, as the writer's commands name it.
pub(in crate::store) type Place<'a> = (i64, (&'a Kind, u32));

/// Opens, keeps or closes the question about an outcome, by what is open about it now. A question that is urgent is due at
/// `due`, or at once.
pub(in crate::store) fn review(
    tx: &mut Tx<'_>,
    (task, (kind, index)): Place<'_>,
    due: Option<Millis>,
) -> rusqlite::Result<()> {
    let asked = standing(tx, (task, (kind, index)))?;
    // A conflict that was given up is left to a person; what else comes up is asked.
    let skipped = asked.filter(|asked| asked.given_up).map(|asked| asked.reason);
    let reasons = open_reasons(tx, (task, (kind, index)))?;
    let open = reasons
        .iter()
        .find(|reason| Some(**reason) != skipped)
        .or(reasons.first())
        .copied();
    match (open, asked.map(|asked| asked.reason)) {
        (None, None) => Ok(()),
        (Some(open), Some(asked)) if open == asked => Ok(()),
        // What stands alone is asked at once as well, and answers silence, too.
        (None | Some(Reason::Silent), Some(asked)) if asked.stands_alone() => Ok(()),
        (None, Some(_)) => close(tx, (task, (kind, index))),
        (Some(open), _) => {
            let due = match open {
                Reason::Silent => tx.now.saturating_add(tx.silence),
                _ => due.unwrap_or(tx.now),
            };
            put(tx, (task, (kind, index)), open, due)
        }
    }
}

/// The same of the outcome in a row.
pub(in crate::store) fn review_outcome(tx: &mut Tx<'_>, (task, outcome): (i64, i64)) -> rusqlite::Result<()> {
    let found: Option<(Kind, u32)> = tx
        .db
        .prepare_cached("SELECT kind, idx FROM outcomes WHERE id = ?1")?
        .query_row(params![outcome], |row| Ok((parsed(row, 0)?, row.get(1)?)))
        .optional()?;
    match found {
        Some((kind, index)) => review(tx, (task, (&kind, index)), None),
        None => Ok(()),
    }
}

/// Opens a question that only its row says is open, unless a more urgent one is.
pub(in crate::store) fn open(tx: &mut Tx<'_>, place: Place<'_>, reason: Reason) -> rusqlite::Result<()> {
    match standing_reason(tx, place)? {
        Some(asked) if asked >= reason => Ok(()),
        _ => put(tx, place, reason, tx.now),
    }
}

/// Has a question that is open asked now, whatever came of it before.
pub(in crate::store) fn hurry(tx: &mut Tx<'_>, (task, (kind, index)): Place<'_>) -> rusqlite::Result<()> {
    let hurried = tx.execute(
        "UPDATE asks SET ask_at = CASE kind WHEN '4k' THEN max(?4, COALESCE(asked_at, 0) + ?5) ELSE ?4 END,
            note_code = NULL, note = NULL
         WHERE task = ?1 AND kind = ?2 AND idx = ?3 AND COALESCE(ask_at, ?4 + 1) > ?4",
        params![task, kind.as_str(), index, tx.now, millis(EVERY_4K)],
    )?;
    if hurried > 0 {
        tx.note_ask_due();
    }
    Ok(())
}

/// Removes all questions about a task.
pub(in crate::store) fn forget(tx: &Tx<'_>, task: i64) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM asks WHERE task = ?1", params![task])?;
    Ok(())
}

/// What is open about an outcome by its rows, the most urgent first.
fn open_reasons(tx: &Tx<'_>, (task, (kind, index)): Place<'_>) -> rusqlite::Result<Vec<Reason>> {
    let found = tx.all(
        concat!(
            "SELECT conflicts > 0, EXISTS (SELECT 1 FROM downloads WHERE ",
            of_task!("?1"),
            "           AND kind = ?2 AND idx = ?3 AND state = 'held'),
                EXISTS (SELECT 1 FROM downloads WHERE ",
            of_task!("?1"),
            "           AND kind = ?2 AND idx = ?3 AND state = 'needs_url'),
                state = 'pending'
             FROM outcomes WHERE ",
            of_task!("?1"),
            " AND kind = ?2 AND idx = ?3"
        ),
        params![task, kind.as_str(), index],
        |row| {
            let mut open = Vec::new();
            for (column, reason) in [Reason::Conflict, Reason::Held, Reason::NeedsUrl, Reason::Silent]
                .into_iter()
                .enumerate()
            {
                if row.get(column)? {
                    open.push(reason);
                }
            }
            Ok(open)
        },
    )?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// What is asked about an outcome at the moment.
#[derive(Debug, Clone, Copy)]
struct Standing {
    reason: Reason,
    given_up: bool,
}

fn standing(tx: &Tx<'_>, (task, (kind, index)): Place<'_>) -> rusqlite::Result<Option<Standing>> {
    let found = tx.all(
        "SELECT reason, ask_at IS NULL FROM asks WHERE task = ?1 AND kind = ?2 AND idx = ?3",
        params![task, kind.as_str(), index],
        |row| {
            Ok(Standing {
                reason: Reason::from_word(row.get_ref(0)?.as_str()?),
                given_up: row.get(1)?,
            })
        },
    )?;
    Ok(found.into_iter().next())
}

fn standing_reason(tx: &Tx<'_>, place: Place<'_>) -> rusqlite::Result<Option<Reason>> {
    Ok(standing(tx, place)?.map(|asked| asked.reason))
}

fn put(
    tx: &mut Tx<'_>,
    (task, (kind, index)): Place<'_>,
    reason: Reason,
    due: Millis,
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO asks (task, kind, idx, source, reason, since, ask_at, asks)
         SELECT id, ?2, ?3, source, ?4, ?5, ?6, 0 FROM tasks WHERE id = ?1
         ON CONFLICT DO UPDATE SET reason = excluded.reason, since = excluded.since, ask_at = excluded.ask_at",
        params![task, kind.as_str(), index, reason.as_str(), tx.now, due],
    )?;
    tx.note_ask_due();
    Ok(())
}

fn close(tx: &Tx<'_>, (task, (kind, index)): Place<'_>) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM asks WHERE task = ?1 AND kind = ?2 AND idx = ?3",
        params![task, kind.as_str(), index],
    )?;
    Ok(())
}

fn note_answer(tx: &mut Tx<'_>, answered: &Answered) -> rusqlite::Result<()> {
    let About { task, kind, index } = &answered.about;
    let place = (*task, (kind, *index));
    if let Some(family) = answered.family {
        tx.execute(
            "UPDATE tasks SET family = COALESCE(family, ?2) WHERE id = ?1",
            params![task, family],
        )?;
    }
    let (at, note) = match &answered.then {
        Then::Again { at, note } | Then::Answered { at, note } => (Some(*at), note),
        Then::GivenUp { note } => (None, note),
        Then::Later { at } => return put_off(tx, answered, *at),
    };
    let noted = tx.execute(
        "UPDATE asks SET asks = asks + 1, asked_at = ?5, ask_at = ?6, note_code = ?7, note = ?8
         WHERE task = ?1 AND kind = ?2 AND idx = ?3 AND asks = ?4 AND since = ?9",
        params![
            task,
            kind.as_str(),
            index,
            answered.asks,
            tx.now,
            at,
            note.code,
            note.detail,
            answered.since
        ],
    )?;
    if noted == 0 {
        return Ok(());
    }
    match &answered.then {
        Then::Again { .. } | Then::Later { .. } => {}
        Then::Answered { .. } => {
            if standing_reason(tx, place)?.is_some_and(Reason::stands_alone) {
                close(tx, place)?;
            }
            review(tx, place, at)?;
        }
        Then::GivenUp { note } => give_up(tx, place, note)?,
    }
    // Who waits for the task sees what is asked.
    let change = tx.next_change(*task);
    tx.execute(
        "UPDATE tasks SET change_seq = ?2 WHERE id = ?1",
        params![task, change],
    )?;
    Ok(())
}

/// The question is as it was, but for when it is put.
fn put_off(tx: &Tx<'_>, answered: &Answered, at: Millis) -> rusqlite::Result<()> {
    let About { task, kind, index } = &answered.about;
    tx.execute(
        "UPDATE asks SET ask_at = ?5 WHERE task = ?1 AND kind = ?2 AND idx = ?3 AND asks = ?4 AND since = ?6",
        params![task, kind.as_str(), index, answered.asks, at, answered.since],
    )?;
    Ok(())
}

/// Nobody is asked any more, and what waited for the answer ends. A conflict stays, with its question as the place of the
/// note.
fn give_up(tx: &mut Tx<'_>, place: Place<'_>, note: &Note) -> rusqlite::Result<()> {
    lose(tx, place, note)?;
    downloads::fail_waiting(tx, place, "held", ("unconfirmed", &note.detail))?;
    downloads::fail_waiting(tx, place, "needs_url", ("expired", &note.detail))?;
    summary::refresh(tx, place.0)?;
    if standing_reason(tx, place)?.is_some_and(Reason::stands_alone) {
        close(tx, place)?;
    }
    review(tx, place, None)
}

/// A pending outcome has failed: nobody knows what became of it.
fn lose(tx: &Tx<'_>, (task, (kind, index)): Place<'_>, note: &Note) -> rusqlite::Result<()> {
    tx.execute(
        concat!(
            "UPDATE outcomes SET state = ?4, code = NULL, msg = ?5, failure = ?6, via = 'poll', received_at = ?7,
                digest = ?8 WHERE ",
            of_task!("?1"),
            " AND kind = ?2 AND idx = ?3 AND state = 'pending'"
        ),
        params![
            task,
            kind.as_str(),
            index,
            State::Failed.as_str(),
            note.detail,
            to_json(&Failure::lost()),
            tx.now,
            digest(OutcomeClass::Failure, &[]),
        ],
    )?;
    Ok(())
}

/// A task of which a stale callback came. Its query is not signed: it opens no outcome that is not there, and of a task that
/// nobody had heard of, the video is expected from now on. Nothing is asked about one that succeeded, that was deleted or
/// that failed a moment ago, nor about an upgrade that ended: the question could order another.
fn after_stale(
    tx: &mut Tx<'_>,
    (source, task_id): (&str, &TaskId),
    (kind, index): (&Kind, u32),
) -> rusqlite::Result<()> {
    let buried = tx
        .db
        .prepare_cached("SELECT 1 FROM tombstones WHERE task_id = ?1 AND source = ?2")?
        .exists(params![task_id.as_str(), source])?;
    if buried {
        return Ok(());
    }
    let Some(task) = tasks::find(tx, source, task_id.as_str())? else {
        let task = expect::insert_heard_of(tx, source, task_id)?;
        let video = Kind::video();
        expect::outcome(tx, task, (&video, 0))?;
        return open(tx, (task, (&video, 0)), Reason::Stale);
    };
    let known: Option<(String, Option<Millis>)> = tx
        .db
        .prepare_cached(concat!(
            "SELECT state, received_at FROM outcomes WHERE ",
            of_task!("?1"),
            " AND kind = ?2 AND idx = ?3"
        ))?
        .query_row(params![task, kind.as_str(), index], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let long_ago = |at: Millis| tx.now.saturating_sub(at) > tx.silence;
    let is_open = known.is_some_and(|(state, heard_at)| match state.as_str() {
        "pending" => true,
        "failed" => *kind == Kind::video() && heard_at.is_none_or(long_ago),
        _ => false,
    });
    if is_open {
        open(tx, (task, (kind, index)), Reason::Stale)?;
    }
    Ok(())
}

fn bring_forward(tx: &Tx<'_>, by: Duration) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE asks SET ask_at = max(?1, ask_at - ?2), since = min(since, ?1) WHERE ask_at > ?1",
        params![tx.now, millis(by)],
    )?;
    Ok(())
}
