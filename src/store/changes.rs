//! What changed lately, in the order of the commits, in memory only: for those who follow it live.
//!
//! A restart begins with nothing: whoever has seen the last change before it has missed none, and everybody else is told so.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::Row;

use super::{Store, StoreError};

/// Changes that are kept: about a minute of the most that can be recorded, in two megabytes.
const KEPT: usize = 65_536;

/// A change of a task, or of one file of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Its number; later ones are greater.
    pub seq: i64,
    /// The task's row. It may be gone by now.
    pub task: i64,
    /// The download's row, if the change is that it was stored or that it failed.
    pub file: Option<i64>,
}

/// The changes of a transaction.
#[derive(Debug, Default)]
pub(super) struct Noted(Vec<Change>);

impl Noted {
    /// Notes that a task changed. Changes of one task that follow each other are one.
    pub(super) fn task(&mut self, seq: i64, task: i64) {
        match self.0.last_mut() {
            Some(last) if last.task == task && last.file.is_none() => last.seq = seq,
            _ => self.0.push(Change {
                seq,
                task,
                file: None,
            }),
        }
    }

    /// Notes that a file was stored, or failed.
    pub(super) fn file(&mut self, seq: i64, (task, download): (i64, i64)) {
        let file = Some(download);
        self.0.push(Change { seq, task, file });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The last changes of all.
#[derive(Debug)]
pub(super) struct Changes(Mutex<Ring>);

#[derive(Debug)]
struct Ring {
    /// In ascending order.
    kept: VecDeque<Change>,
    most: usize,
    /// The last change that is not kept any more.
    gone: i64,
    /// The last change.
    last: i64,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self::keeping(KEPT)
    }

    fn keeping(most: usize) -> Self {
        Self(Mutex::new(Ring {
            kept: VecDeque::new(),
            most,
            gone: 0,
            last: 0,
        }))
    }

    /// Nothing is known of changes up to this one.
    pub(super) fn begin_after(&self, last: i64) {
        let mut ring = self.lock();
        (ring.gone, ring.last) = (last, last);
    }

    /// Adds those of a transaction that is committed.
    pub(super) fn append(&self, noted: &mut Noted) {
        let mut ring = self.lock();
        for change in mem::take(&mut noted.0) {
            if ring.kept.len() == ring.most
                && let Some(oldest) = ring.kept.pop_front()
            {
                ring.gone = oldest.seq;
            }
            ring.last = change.seq;
            ring.kept.push_back(change);
        }
    }

    fn last(&self) -> i64 {
        self.lock().last
    }

    fn after(&self, seq: i64, most: usize) -> Option<Vec<Change>> {
        let ring = self.lock();
        if seq < ring.gone || seq > ring.last {
            return None;
        }
        let first = ring.kept.partition_point(|change| change.seq <= seq);
        Some(ring.kept.range(first..).take(most).copied().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What people call a file, and its task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    /// The download's row.
    pub download: i64,
    /// The task's id.
    pub task_id: String,
    /// The task's source.
    pub source: String,
    /// The file's name.
    pub name: String,
}

impl Store {
    /// The number of the last change.
    pub fn last_change(&self) -> i64 {
        self.signals.latest.last()
    }

    /// The changes after one, in their order and at most so many; `None` if not all of them are known any more, or if there
    /// was no such change yet.
    pub fn changes_after(&self, seq: i64, most: usize) -> Option<Vec<Change>> {
        self.signals.latest.after(seq, most)
    }

    /// What some downloads are called, in any order, without those that are gone.
    pub async fn file_names(&self, downloads: &[i64]) -> Result<Vec<FileName>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.id, d.name, t.task_id, t.source
             FROM jsonb_each($1) w CROSS JOIN downloads d ON d.id = w.value JOIN tasks t ON t.id = d.task",
        )
        .bind(super::record::to_json(downloads))
        .fetch_all(&self.readers)
        .await?;
        let named = rows.iter().map(|row| {
            Ok(FileName {
                download: row.try_get("id")?,
                task_id: row.try_get("task_id")?,
                source: row.try_get("source")?,
                name: row.try_get("name")?,
            })
        });
        named.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(seq: i64, task: i64) -> Change {
        Change {
            seq,
            task,
            file: None,
        }
    }

    #[test]
    fn what_is_gone_and_what_is_to_come_are_not_known() {
        let changes = Changes::keeping(2);
        changes.begin_after(10);
        assert_eq!(changes.after(10, 9), Some(vec![]), "nothing was missed");
        assert_eq!((changes.after(9, 9), changes.after(11, 9)), (None, None));
        for seq in [11, 13] {
            let mut noted = Noted::default();
            noted.task(seq, seq);
            changes.append(&mut noted);
        }
        assert_eq!(changes.after(10, 9), Some(vec![change(11, 11), change(13, 13)]));
        assert_eq!(changes.after(12, 9), Some(vec![change(13, 13)]));
        assert_eq!(changes.after(10, 1), Some(vec![change(11, 11)]));
        let mut noted = Noted::default();
        noted.task(14, 11);
        changes.append(&mut noted);
        assert_eq!((changes.after(10, 9), changes.last()), (None, 14));
        assert_eq!(changes.after(11, 9).map(|changes| changes.len()), Some(2));
    }

    #[test]
    fn changes_of_one_task_in_a_row_are_one_and_those_of_its_files_are_not() {
        let mut noted = Noted::default();
        noted.task(1, 7);
        noted.task(2, 7);
        noted.file(3, (7, 70));
        noted.task(4, 7);
        noted.task(5, 8);
        let file = Change {
            file: Some(70),
            ..change(3, 7)
        };
        assert_eq!(noted.0, [change(2, 7), file, change(4, 7), change(5, 8)]);
    }
}
