//! An outcome's row: what stands, and how many deliveries are kept of it.

use rusqlite::{OptionalExtension, Row, params};

use super::{NewDelivery, ROWS_PER_VERDICT, state_from, to_json};
use crate::clock::Millis;
use crate::provider::rules::{Standing, Verdict};
use crate::provider::{Event, Kind};
use crate::store::ranges::{self, of_task};
use crate::store::writer::Tx;

/// An outcome, and whether it has a row yet.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) task: i64,
    pub(super) id: i64,
    is_new: bool,
    pub(super) standing: Option<Standing>,
    accepted_rows: i64,
    duplicate_rows: i64,
    conflict_rows: i64,
    /// Open ones.
    pub(super) conflicts: i64,
}

/// What of an outcome's text a delivery changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing: only the counts changed.
    Nothing,
    /// The text; what is believed is not newer for that.
    Text,
    /// What is believed.
    News,
}

macro_rules! select {
    () => {
        "SELECT id, state, digest, has_media, accepted_rows, duplicate_rows, conflict_rows, conflicts
         FROM outcomes WHERE "
    };
}

impl Outcome {
    /// The first of a task.
    pub(super) fn first(task: i64) -> rusqlite::Result<Self> {
        Ok(Self::fresh(task, ranges::nth(task, 0)?))
    }

    fn fresh(task: i64, id: i64) -> Self {
        Self {
            task,
            id,
            is_new: true,
            standing: None,
            accepted_rows: 0,
            duplicate_rows: 0,
            conflict_rows: 0,
            conflicts: 0,
        }
    }

    /// The outcome of that kind and index; a new one if there is none.
    pub(super) fn find(tx: &Tx<'_>, task: i64, (kind, index): (&Kind, u32)) -> rusqlite::Result<Self> {
        let found = tx
            .db
            .prepare_cached(concat!(select!(), of_task!("?1"), " AND kind = ?2 AND idx = ?3"))?
            .query_row(params![task, kind.as_str(), index], |row| Self::of(row, task))
            .optional()?;
        let Some(mut outcome) = found else {
            return Ok(Self::fresh(task, ranges::next(tx, task, LAST)?));
        };
        if let Some(standing) = &mut outcome.standing {
            standing.has_stored = tx
                .db
                .prepare_cached(concat!(
                    "SELECT EXISTS (SELECT 1 FROM downloads WHERE ",
                    of_task!("?1"),
                    " AND kind = ?2 AND idx = ?3 AND state = 'stored')"
                ))?
                .query_row(params![task, kind.as_str(), index], |row| row.get(0))?;
        }
        Ok(outcome)
    }

    /// The outcome that another delivery was counted on.
    pub(super) fn load(tx: &Tx<'_>, (task, id): (i64, i64)) -> rusqlite::Result<Self> {
        tx.db
            .prepare_cached(concat!(select!(), "id = ?1"))?
            .query_row(params![id], |row| Self::of(row, task))
    }

    fn of(row: &Row<'_>, task: i64) -> rusqlite::Result<Self> {
        // Only expected, nothing delivered yet: as if never heard of.
        let digest: Option<[u8; 32]> = row.get(2)?;
        let standing = match digest {
            Some(digest) => Some(Standing {
                state: state_from(row.get_ref(1)?.as_str()?),
                digest,
                has_media: row.get(3)?,
                has_stored: false,
            }),
            None => None,
        };
        Ok(Self {
            task,
            id: row.get(0)?,
            is_new: false,
            standing,
            accepted_rows: row.get(4)?,
            duplicate_rows: row.get(5)?,
            conflict_rows: row.get(6)?,
            conflicts: row.get(7)?,
        })
    }

    /// Counts a delivery; whether there is room for its row.
    pub(super) fn count(&mut self, verdict: Verdict) -> bool {
        let rows = match verdict {
            Verdict::Accepted => &mut self.accepted_rows,
            Verdict::Conflict => &mut self.conflict_rows,
            // Rejected deliveries never come to be counted on an outcome.
            Verdict::Duplicate | Verdict::Rejected => &mut self.duplicate_rows,
        };
        let room = *rows < ROWS_PER_VERDICT;
        *rows += i64::from(room);
        room
    }

    /// Takes a row beyond the bound: of a delivery that changed what is believed.
    pub(super) fn count_anyway(&mut self) {
        self.accepted_rows += 1;
    }

    /// Writes the row, or what changed of it.
    pub(super) fn write(
        &self,
        tx: &Tx<'_>,
        delivery: &NewDelivery,
        (kind, index, event): (&Kind, u32, &Event),
        said: Said,
    ) -> rusqlite::Result<()> {
        if said == Said::Nothing && !self.is_new {
            return self.write_counts(tx);
        }
        let standing = self.standing.expect("something is believed of it");
        let received_at: Option<Millis> = (said == Said::News).then_some(delivery.received_at);
        let sql = if self.is_new { INSERT } else { UPDATE };
        tx.execute(
            sql,
            params![
                self.id,
                kind.as_str(),
                index,
                standing.state.as_str(),
                event.code,
                event.msg,
                event.failure.as_ref().map(to_json),
                event.resolution,
                event.fallback,
                event.credits.filter(|credits| credits.is_finite()),
                delivery.via.as_str(),
                received_at,
                standing.digest,
                standing.has_media,
                self.accepted_rows,
                self.duplicate_rows,
                self.conflict_rows,
                self.conflicts,
            ],
        )?;
        Ok(())
    }

    fn write_counts(&self, tx: &Tx<'_>) -> rusqlite::Result<()> {
        tx.execute(
            "UPDATE outcomes SET accepted_rows = ?2, duplicate_rows = ?3, conflict_rows = ?4, conflicts = ?5 WHERE id = ?1",
            params![
                self.id,
                self.accepted_rows,
                self.duplicate_rows,
                self.conflict_rows,
                self.conflicts
            ],
        )?;
        Ok(())
    }
}

const INSERT: &str = "
    INSERT INTO outcomes (id, kind, idx, state, code, msg, failure, resolution, fallback, credits, via, received_at,
                          digest, has_media, accepted_rows, duplicate_rows, conflict_rows, conflicts)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";

const UPDATE: &str = "
    UPDATE outcomes SET state = ?4, code = ?5, msg = ?6, failure = ?7, resolution = COALESCE(?8, resolution),
        fallback = COALESCE(?9, fallback), credits = COALESCE(?10, credits), via = ?11,
        received_at = COALESCE(?12, received_at), digest = ?13, has_media = ?14, accepted_rows = ?15,
        duplicate_rows = ?16, conflict_rows = ?17, conflicts = ?18
    WHERE id = ?1 AND kind = ?2 AND idx = ?3";

/// The last outcome of a task.
pub(in crate::store) const LAST: &str = concat!(
    "SELECT id FROM outcomes WHERE ",
    of_task!("?1"),
    " ORDER BY id DESC LIMIT 1"
);
