//! What is open about an outcome, and when the provider is asked about it.
//!
//! A row for each outcome that something is open about, whatever that is: the most urgent reason stands in it. It comes
//! and goes with what it is about, in the same transaction (`review`), so that nothing is forgotten and nothing asked
//! in vain. It is no lease: there is one who asks, asking does no harm, and an answer names the question it is to.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::downloads::parsed;
use super::ranges::of_task;
use super::record::to_json;
use super::writer::{Command, Tx};
use super::{Store, StoreError, downloads, summary};
use crate::clock::{Millis, millis};
use crate::provider::rules::{State, digest};
use crate::provider::{Failure, Kind, OutcomeClass, TaskId};

/// The least time between two requests for the same 4K video, as its page recommends.
pub const EVERY_4K: Duration = Duration::from_secs(30);

/// The first questions of a source, `$3` at most: about silent tasks if `$2`, else the urgent ones.
macro_rules! first_asks {
    () => {
        "SELECT a.task, a.kind, a.idx, a.source, a.reason, a.since, a.ask_at, a.asks, t.task_id, t.family
         FROM asks a JOIN tasks t ON t.id = a.task
         WHERE a.source = $1 AND (a.reason = 'silent') = $2 AND a.ask_at IS NOT NULL ORDER BY a.ask_at LIMIT $3"
    };
}

/// Why the provider is to be asked, the least urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Nothing final was heard.
    Silent,
    /// The whole film that an extension belongs to is named by the provider's record only.
    Full,
    /// A failure was heard that the provider is to confirm.
    Unconfirmed,
    /// A callback came whose signature holds and whose time does not.
    Stale,
    /// The link to a file expired.
    NeedsUrl,
    /// Files are fetched only once the provider confirmed what the callback said.
    Held,
    /// Callbacks contradict each other.
    Conflict,
}

impl Reason {
    /// The word in JSON and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Full => "full",
            Self::Unconfirmed => "unconfirmed",
            Self::Stale => "stale",
            Self::NeedsUrl => "needs_url",
            Self::Held => "held",
            Self::Conflict => "conflict",
        }
    }

    fn from_word(word: &str) -> Self {
        [
            Self::Full,
            Self::Unconfirmed,
            Self::Stale,
            Self::NeedsUrl,
            Self::Held,
            Self::Conflict,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == word)
        .unwrap_or(Self::Silent)
    }

    /// Whether only the row itself says it: nothing else that is recorded does.
    fn stands_alone(self) -> bool {
        matches!(self, Self::Full | Self::Unconfirmed | Self::Stale)
    }
}

/// Which outcome a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct About {
    /// The task's row.
    pub task: i64,
    /// Which result of it.
    pub kind: Kind,
    /// Which of several.
    pub index: u32,
}

/// A question that waits.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What it is about.
    pub about: About,
    /// The source's name.
    pub source: String,
    /// The provider's id of the task.
    pub task_id: TaskId,
    /// The API family, where somebody told.
    pub family: Option<String>,
    /// Why it is asked.
    pub reason: Reason,
    /// Since when it is open.
    pub since: Millis,
    /// Not before.
    pub ask_at: Millis,
    /// How often it was asked.
    pub asks: i64,
}

/// What came of asking: a stable word and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Such as `running`, `unknown`, `unauthorized`.
    pub code: &'static str,
    /// One sentence, without secrets.
    pub detail: String,
}

/// What is to be done with a question after an answer, or instead of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// It is asked again.
    Again {
        /// Not before.
        at: Millis,
        /// What came of it.
        note: Note,
    },
    /// The answer was final, and recorded. Whatever it left open is asked again, not before `at`.
    Answered {
        /// Not before.
        at: Millis,
        /// What came of it, if anything is left open.
        note: Note,
    },
    /// Nothing was sent: it is asked when the provider may be asked again.
    Later {
        /// Not before.
        at: Millis,
    },
    /// Nobody is asked any more: a silent task is lost, files that waited for the answer fail, a conflict is left to a
    /// person.
    GivenUp {
        /// Why.
        note: Note,
    },
}

/// A link that expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLink {
    /// The download's row.
    pub download: i64,
    /// What the provider announced; no fresh link that it gave since.
    pub url: String,
}

/// What is known of a link that expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FreshLink {
    /// Another link leads there.
    Link {
        /// The link.
        url: String,
        /// When it is expected to expire, too.
        until: Millis,
    },
    /// There is none: the announced URL is tried again by and by, as if nobody could be asked.
    None,
}

impl Store {
    /// Sets how long nothing may be heard of a task before the provider is asked; of tasks from now on.
    pub fn set_silence(&self, after: Duration) {
        self.signals.silence.store(millis(after), Ordering::Relaxed);
    }

    /// Rung after every commit that made a question due at once.
    pub fn asks_due(&self) -> &tokio::sync::Notify {
        &self.signals.asks
    }

    /// The question of a source that is to be asked first, due or not, but for those in `except`: an urgent one that is due
    /// at `now` goes before all silent tasks.
    pub async fn next_ask(
        &self,
        source: &str,
        except: &[About],
        now: Millis,
    ) -> Result<Option<Ask>, StoreError> {
        let urgent = self.first_ask(source, except, false).await?;
        if urgent.as_ref().is_some_and(|ask| ask.ask_at <= now) {
            return Ok(urgent);
        }
        let silent = self.first_ask(source, except, true).await?;
        Ok(urgent.into_iter().chain(silent).min_by_key(|ask| ask.ask_at))
    }

    async fn first_ask(
        &self,
        source: &str,
        except: &[About],
        silent: bool,
    ) -> Result<Option<Ask>, StoreError> {
        let limit = i64::try_from(except.len()).map_or(i64::MAX, |except| except.saturating_add(1));
        let rows = sqlx::query(first_asks!())
            .bind(source)
            .bind(silent)
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        for row in &rows {
            let ask = ask_from(row)?;
            if !except.contains(&ask.about) {
                return Ok(Some(ask));
            }
        }
        Ok(None)
    }

    /// Whether asking for an upgrade orders no other: somebody announced it, and it is not known to have ended, or its end is
    /// to be confirmed.
    pub async fn is_awaited(&self, about: &About) -> Result<bool, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT EXISTS (SELECT 1 FROM outcomes WHERE ",
            of_task!("$1"),
            " AND kind = $2 AND idx = $3 AND ordered = 1 AND (state = 'pending' OR EXISTS (
                SELECT 1 FROM downloads WHERE ",
            of_task!("$1"),
            " AND kind = $2 AND idx = $3 AND state = 'held')))"
        ))
        .bind(about.task)
        .bind(about.kind.as_str())
        .bind(about.index)
        .fetch_one(&self.readers)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// The links of an outcome's files that expired.
    pub async fn dead_links(&self, about: &About) -> Result<Vec<DeadLink>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT id, url FROM downloads WHERE ",
            of_task!("$1"),
            " AND kind = $2 AND idx = $3 AND state = 'needs_url'"
        ))
        .bind(about.task)
        .bind(about.kind.as_str())
        .bind(about.index)
        .fetch_all(&self.readers)
        .await?;
        let link = |row: &SqliteRow| {
            Ok(DeadLink {
                download: row.try_get(0)?,
                url: row.try_get(1)?,
            })
        };
        rows.iter().map(link).collect()
    }

    /// Notes what came of a question. Nothing, if it is no longer the one that was asked. `family` is what the provider
    /// turned out to know the task as, if nobody had told.
    pub async fn note_answer(
        &self,
        ask: &Ask,
        then: Then,
        family: Option<&'static str>,
    ) -> Result<(), StoreError> {
        let answered = Answered {
            about: ask.about.clone(),
            since: ask.since,
            asks: ask.asks,
            then,
            family,
        };
        self.change_asks(Change::Answered(answered)).await
    }

    /// Gives a file whose link expired another one, and has it fetched. Nothing, if it does not wait for one.
    pub async fn refresh_link(&self, link: &DeadLink, fresh: FreshLink) -> Result<(), StoreError> {
        let download = link.download;
        self.change_asks(Change::Refreshed { download, fresh }).await
    }

    /// Has questions fall due so much earlier, for a clock that was set back; none before now.
    pub async fn bring_asks_forward(&self, by: Duration) -> Result<(), StoreError> {
        self.change_asks(Change::BroughtForward(by)).await
    }

    /// Has the provider asked about a task because a callback about it was stale: its signature holds, so that the
    /// provider did speak about the task at some time.
    pub async fn ask_after_stale(
        &self,
        source: &str,
        task_id: &TaskId,
        (kind, index): (Kind, u32),
    ) -> Result<(), StoreError> {
        let stale = Change::HeardTooLate {
            source: source.to_owned(),
            task_id: task_id.clone(),
            kind,
            index,
        };
        self.change_asks(stale).await
    }

    async fn change_asks(&self, change: Change) -> Result<(), StoreError> {
        self.write(Command::Asks(Box::new(change))).await.map(|_| ())
    }
}

fn ask_from(row: &SqliteRow) -> Result<Ask, StoreError> {
    let damaged = |error: Box<dyn std::error::Error + Send + Sync>| StoreError::Database(error.into());
    let (kind, task_id): (String, String) = (row.try_get(1)?, row.try_get(8)?);
    Ok(Ask {
        about: About {
            task: row.try_get(0)?,
            kind: kind.parse().map_err(|error| damaged(Box::new(error)))?,
            index: row.try_get(2)?,
        },
        source: row.try_get(3)?,
        task_id: task_id.parse().map_err(|error| damaged(Box::new(error)))?,
        family: row.try_get(9)?,
        reason: Reason::from_word(row.try_get(4)?),
        since: row.try_get(5)?,
        ask_at: row.try_get(6)?,
        asks: row.try_get(7)?,
    })
}

/// What the writer is told about questions.
#[derive(Debug)]
pub(super) enum Change {
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

pub(super) fn apply(tx: &mut Tx<'_>, change: &Change) -> rusqlite::Result<()> {
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
pub(super) struct Answered {
    about: About,
    since: Millis,
    asks: i64,
    then: Then,
    family: Option<&'static str>,
}

/// How long nothing may be heard of a task, unless somebody sets it.
pub(super) fn usual_silence() -> AtomicI64 {
    AtomicI64::new(millis(Duration::from_mins(3)))
}

/// An outcome of a task, as the writer's commands name it.
pub(super) type Place<'a> = (i64, (&'a Kind, u32));

/// Opens, keeps or closes the question about an outcome, by what is open about it now. A question that is urgent is due at
/// `due`, or at once.
pub(super) fn review(
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
pub(super) fn review_outcome(tx: &mut Tx<'_>, (task, outcome): (i64, i64)) -> rusqlite::Result<()> {
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
pub(super) fn open(tx: &mut Tx<'_>, place: Place<'_>, reason: Reason) -> rusqlite::Result<()> {
    match standing_reason(tx, place)? {
        Some(asked) if asked >= reason => Ok(()),
        _ => put(tx, place, reason, tx.now),
    }
}

/// Has a question that is open asked now, whatever came of it before.
pub(super) fn hurry(tx: &mut Tx<'_>, (task, (kind, index)): Place<'_>) -> rusqlite::Result<()> {
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
pub(super) fn forget(tx: &Tx<'_>, task: i64) -> rusqlite::Result<()> {
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
    let change = tx.next_change();
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
    let Some(task) = super::tasks::find(tx, source, task_id.as_str())? else {
        let task = super::expect::insert_heard_of(tx, source, task_id)?;
        let video = Kind::video();
        super::expect::outcome(tx, task, (&video, 0))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::shutdown::Tasks;
    use crate::store::expect::Expectation;

    fn awaited(n: u32) -> Expectation {
        Expectation {
            source: if n.is_multiple_of(2) { "kie" } else { "other" }.to_owned(),
            task_id: format!("t{n}").parse().unwrap(),
            kind: Kind::video(),
            index: 0,
            family: None,
            params: None,
            prompt: None,
            ask_now: n.is_multiple_of(3),
        }
    }

    #[tokio::test]
    async fn what_is_due_first_is_found_by_its_index_however_much_waits() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_795_284_446_000);
        let store = Store::open(&dir.path().join("reelhook.db"), clock.clone(), &Tasks::new())
            .await
            .unwrap();
        store
            .expect_tasks((0..1_000).map(awaited).collect())
            .await
            .unwrap();
        let plan = sqlx::query(concat!("EXPLAIN QUERY PLAN ", first_asks!()))
            .bind("kie")
            .bind(true)
            .bind(5)
            .fetch_all(&store.readers)
            .await
            .unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
        // Nothing is scanned, and nothing sorted.
        assert_eq!(
            plan,
            [
                "SEARCH a USING INDEX asks_due (source=? AND <expr>=? AND ask_at>?)",
                "SEARCH t USING INTEGER PRIMARY KEY (rowid=?)",
            ]
        );
        assert_eq!(
            store
                .next_ask("kie", &[], clock.now())
                .await
                .unwrap()
                .unwrap()
                .task_id
                .as_str(),
            "t0"
        );
    }
}
