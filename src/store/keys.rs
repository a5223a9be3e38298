//! From a task id to its rows, without a random write for each new task.
//!
//! An index over random ids costs the writer a page a row. So the keys of the newest tasks stay in memory, and go into
//! `task_keys` in sorted order, some with each commit: a page is then written once for all the keys that fall into it.
//! The tasks' own rows are the log of what is in memory; a start reads the last of them again.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};

/// Keys gathered in memory before they are written: the more, the fewer pages for each; also what a start has to read.
const GATHERED: usize = 32 * 1024;
/// Keys written with one commit at least, once there are enough.
const SLICE: usize = 64;

/// The hash of a task id, and the row of a task that has it.
pub(super) type Key = (i64, i64);

/// Where a task id's key is found. Ids may share one: who looks compares the id itself.
pub(super) fn hash_of(task_id: &str) -> i64 {
    let digest = Sha256::digest(task_id);
    let (first, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
    i64::from_be_bytes(*first)
}

/// The keys that are not in the table yet; shared by the writer and the readers.
#[derive(Debug, Default)]
pub(super) struct Keys(RwLock<Recent>);

#[derive(Debug, Default)]
struct Recent {
    gathering: BTreeSet<Key>,
    /// Being written, the smallest first.
    settling: BTreeSet<Key>,
    /// The last row of those.
    settling_to: i64,
}

/// What a commit writes into the table.
#[derive(Debug, Default)]
pub(super) struct Slice {
    keys: Vec<Key>,
    /// Set if these are the last: every task up to this row is then in the table.
    keyed: Option<i64>,
}

impl Keys {
    /// Reads the keys that are not in the table; fills the table first if there are more of them than memory should hold
    /// (after a migration).
    pub(super) fn load(db: &mut Connection) -> rusqlite::Result<Self> {
        loop {
            let (keyed, last): (i64, i64) = db.query_row(
                "SELECT (SELECT value FROM counters WHERE name = 'keyed'), (SELECT COALESCE(max(id), 0) FROM tasks)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            let many = i64::try_from(2 * GATHERED).unwrap_or(i64::MAX);
            let to = if last - keyed > many { keyed + many } else { last };
            let keys = keys_between(db, keyed, to)?;
            if to == last {
                let recent = Recent {
                    gathering: keys,
                    ..Recent::default()
                };
                return Ok(Self(RwLock::new(recent)));
            }
            let tx = db.transaction()?;
            let slice = Slice {
                keys: keys.into_iter().collect(),
                keyed: Some(to),
            };
            slice.write(&tx)?;
            tx.commit()?;
        }
    }

    /// Rows of tasks with this hash that the table may not have. To be asked before the table: keys move there.
    pub(super) fn recent(&self, hash: i64) -> Vec<i64> {
        let recent = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let range = (hash, i64::MIN)..=(hash, i64::MAX);
        let found = |keys: &BTreeSet<Key>| {
            keys.range(range.clone())
                .map(|(_, task)| *task)
                .collect::<Vec<_>>()
        };
        let mut rows = found(&recent.gathering);
        rows.extend(found(&recent.settling));
        rows
    }

    /// Adds the key of a task that the running transaction makes; [`Keys::forget`] it if that is rolled back.
    pub(super) fn add(&self, key: Key) {
        self.write().gathering.insert(key);
    }

    /// What the running transaction, which added `added` keys, should write.
    pub(super) fn due(&self, added: usize) -> Slice {
        let mut recent = self.write();
        if recent.settling.is_empty() {
            if recent.gathering.len() < GATHERED {
                return Slice::default();
            }
            recent.settling = std::mem::take(&mut recent.gathering);
            let last = recent.settling.iter().map(|(_, task)| *task).max();
            recent.settling_to = last.unwrap_or_default();
        }
        let keys: Vec<Key> = recent
            .settling
            .iter()
            // Faster than new ones come.
            .take(SLICE.max(2 * added))
            .copied()
            .collect();
        let keyed = (keys.len() == recent.settling.len()).then_some(recent.settling_to);
        Slice { keys, keyed }
    }

    /// Forgets what a committed transaction wrote into the table or removed from it, and what a failed one had added.
    pub(super) fn forget(&self, keys: &[Key]) {
        if keys.is_empty() {
            return;
        }
        let mut recent = self.write();
        for key in keys {
            if !recent.settling.remove(key) {
                recent.gathering.remove(key);
            }
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Recent> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slice {
    /// Leaves out keys of tasks that the running transaction deletes.
    pub(super) fn leave_out(&mut self, removed: &[Key]) {
        self.keys.retain(|key| !removed.contains(key));
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Puts the keys into the table; some may be there already, from before a crash.
    pub(super) fn write(&self, db: &Connection) -> rusqlite::Result<()> {
        if self.keys.is_empty() && self.keyed.is_none() {
            return Ok(());
        }
        let mut insert = db.prepare_cached("INSERT OR IGNORE INTO task_keys (hash, task) VALUES (?1, ?2)")?;
        for (hash, task) in &self.keys {
            insert.execute(params![hash, task])?;
        }
        if let Some(keyed) = self.keyed {
            db.prepare_cached("UPDATE counters SET value = ?1 WHERE name = 'keyed'")?
                .execute(params![keyed])?;
        }
        Ok(())
    }
}

/// The keys of the tasks after one row up to another.
fn keys_between(db: &Connection, after: i64, to: i64) -> rusqlite::Result<BTreeSet<Key>> {
    let mut tasks = db.prepare("SELECT id, task_id FROM tasks WHERE id > ?1 AND id <= ?2")?;
    let mut rows = tasks.query(params![after, to])?;
    let mut keys = BTreeSet::new();
    while let Some(row) = rows.next()? {
        keys.insert((hash_of(row.get_ref(1)?.as_str()?), row.get(0)?));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_task_that_goes_while_keys_are_written_is_not_written() {
        let keys = Keys::default();
        for task in 1..=i64::try_from(GATHERED).unwrap() {
            keys.add((-task, task));
        }
        let mut slice = keys.due(0);
        let (gone, stays) = (slice.keys()[0], slice.keys()[1]);
        slice.leave_out(&[gone]);
        assert!(!slice.keys().contains(&gone) && slice.keys().contains(&stays));
    }
}
