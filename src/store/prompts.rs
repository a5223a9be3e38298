//! The words of prompts: put into their index beside everything else, and found again.
//!
//! A callback waits for none of this. Tasks are looked at in the order of their rows, some at a time, by small commands
//! with pauses between them; what is not in the index yet is not found by its words, and the answer says how much that is.

use std::time::{Duration, Instant};

use rusqlite::params;
use sqlx::Row as _;
use tokio::sync::watch;

use super::writer::{Command, Reply, Tx};
use super::{Store, StoreError};
use crate::shutdown::Tasks;

/// Tasks that one command looks at.
const ROWS: i64 = 64;
/// Characters of prompts that it takes, beyond the first.
const CHARACTERS: i64 = 16 * 1024;
/// Prompts that became known late, of which it takes no more: each may be as long as prompts are.
const LATE: i64 = 4;
/// Pages of the index that it merges.
const MERGED: i64 = 24;
/// After a change, until nothing has changed for so long: callbacks come first, and more may be taken along.
const QUIET: Duration = Duration::from_secs(2);
/// But no longer than this.
const LONGEST: Duration = Duration::from_secs(30);
/// Between two commands, at least, and as a multiple of what one took.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_FACTOR: u32 = 4;
/// After a failure of the database.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Words of a search that count.
const MAX_WORDS: usize = 16;

impl Store {
    /// Keeps the index of prompts up to date until the soft stop.
    pub async fn index_prompts(self, tasks: Tasks) {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            let began = Instant::now();
            let wait = match self.index_some_prompts().await {
                Ok(true) => Some(PAUSE.max(began.elapsed() * PAUSE_FACTOR)),
                Ok(false) => None,
                Err(error) => {
                    tracing::warn!(%error, "prompts cannot be found by their words for now: {error}");
                    Some(AFTER_FAILURE)
                }
            };
            let pause = async {
                if let Some(wait) = wait {
                    tokio::time::sleep(wait).await;
                } else if changes.changed().await.is_ok() {
                    // However that ends, it is time.
                    let _ = tokio::time::timeout(LONGEST, quiet(&mut changes)).await;
                }
            };
            tokio::select! {
                () = pause => {}
                () = tasks.draining() => return,
            }
        }
    }

    /// Puts the next prompts into the index; whether there were any.
    pub async fn index_some_prompts(&self) -> Result<bool, StoreError> {
        // Asked of a reader first: a command in vain would cost the writer a turn.
        if self.prompts_left().await? == 0 {
            return Ok(false);
        }
        self.write(Command::IndexPrompts).await?;
        Ok(true)
    }

    /// About how many tasks the index does not know yet, or not as they are.
    pub async fn prompts_left(&self) -> Result<i64, StoreError> {
        let row = sqlx::query(
            "SELECT max(0, COALESCE((SELECT max(id) FROM tasks), 0) - (SELECT value FROM counters WHERE name = 'prompts'))
                  + (SELECT count(*) FROM (SELECT 1 FROM prompts_due LIMIT 10000))",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok(row.try_get(0)?)
    }
}

/// Until nothing has changed for a while.
async fn quiet(changes: &mut watch::Receiver<i64>) {
    while let Ok(Ok(())) = tokio::time::timeout(QUIET, changes.changed()).await {}
}

pub(super) fn index_some(tx: &Tx<'_>) -> rusqlite::Result<Reply> {
    let due: Vec<i64> = tx.all("SELECT task FROM prompts_due LIMIT ?1", params![LATE], |row| {
        row.get(0)
    })?;
    for task in due {
        tx.execute("DELETE FROM prompts WHERE rowid = ?1", params![task])?;
        add(tx, (task - 1, task))?;
        tx.execute("DELETE FROM prompts_due WHERE task = ?1", params![task])?;
    }
    let from: i64 = tx
        .db
        .prepare_cached("SELECT value FROM counters WHERE name = 'prompts'")?
        .query_row([], |row| row.get(0))?;
    let next = tx.all(
        "SELECT id, COALESCE(length(prompt), 0) FROM tasks WHERE id > ?1 ORDER BY id LIMIT ?2",
        params![from, ROWS],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
    )?;
    let mut upto = from;
    let mut characters = 0;
    for (task, length) in next {
        characters += length;
        if characters > CHARACTERS && upto > from {
            break;
        }
        upto = task;
    }
    add(tx, (from, upto))?;
    tx.execute(
        "UPDATE counters SET value = ?1 WHERE name = 'prompts'",
        params![upto],
    )?;
    tx.execute(
        "INSERT INTO prompts (prompts, rank) VALUES ('merge', ?1)",
        params![MERGED],
    )?;
    Ok(Reply::Done)
}

/// Adds the prompts of the tasks after one row up to another.
fn add(tx: &Tx<'_>, (after, upto): (i64, i64)) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO prompts (rowid, prompt)
         SELECT id, prompt FROM tasks WHERE id > ?1 AND id <= ?2 AND prompt IS NOT NULL",
        params![after, upto],
    )?;
    Ok(())
}

/// Forgets the words of a task that is deleted.
pub(super) fn forget(tx: &Tx<'_>, task: i64) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM prompts WHERE rowid = ?1", params![task])?;
    tx.execute("DELETE FROM prompts_due WHERE task = ?1", params![task])?;
    Ok(())
}

/// What people typed, in the language of the index: all words, the last of them perhaps only begun. Every word is quoted, so
/// that none of it is taken for an operator. `None` if there is no word in it.
pub(super) fn expression(typed: &str) -> Option<String> {
    let words: Vec<String> = typed
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .take(MAX_WORDS)
        .map(|word| format!("\"{}\"", word.replace('"', " ")))
        .collect();
    (!words.is_empty()).then(|| format!("{} *", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_typed_is_an_operator() {
        for (typed, expected) in [
            ("red fox", Some("\"red\" \"fox\" *")),
            ("  red\u{a0}\u{0}fox\n", Some("\"red\" \"fox\" *")),
            ("a OR b", Some("\"a\" \"OR\" \"b\" *")),
            ("NEAR(a b) ^c", Some("\"NEAR(a\" \"b)\" \"^c\" *")),
            ("\"x\" prompt:y*", Some("\" x \" \"prompt:y*\" *")),
            ("*", None),
            ("\" -- \"", None),
            ("", None),
        ] {
            assert_eq!(expression(typed).as_deref(), expected, "{typed:?}");
        }
    }
}
