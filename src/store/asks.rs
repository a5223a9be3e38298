//! What is open about an outcome, and when the provider is asked about it.
//!
//! A row for each outcome that something is open about, whatever that is: the most urgent reason stands in it. It comes
//! and goes with what it is about, in the same transaction (`changes::review`), so that nothing is forgotten and nothing asked
//! in vain. It is no lease: there is one who asks, asking does no harm, and an answer names the question it is to.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::ranges::of_task;
use super::writer::Command;
use super::{Store, StoreError};
use crate::clock::{Millis, millis};
use crate::provider::{Kind, TaskId};

mod changes;

use changes::Answered;
pub(super) use changes::{Change, Place, apply, forget, hurry, open, review, review_outcome, usual_silence};

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
