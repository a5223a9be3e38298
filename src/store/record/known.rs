//! What is known of everything a batch touches, read in one query.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::rows::DeliveryRow;
use super::{Binding, Content, NewDelivery, state_from, to_json};
use crate::clock::Millis;
use crate::provider::rules::{Standing, State, Verdict};
use crate::store::downloads;
use crate::store::writer::Tx;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TaskKey {
    pub(super) source: String,
    pub(super) task_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct OutcomeKey {
    pub(super) task: TaskKey,
    pub(super) kind: String,
    pub(super) index: u32,
}

/// A task and what the batch adds to it. What its outcomes and files make of it is computed by `summary::refresh`.
#[derive(Debug)]
pub(super) struct TaskEntry {
    pub(super) id: i64,
    /// Set if the batch makes it: the state and the media that its first delivery gives it.
    pub(super) made: Option<(State, &'static str)>,
    /// The first delivery of the batch.
    pub(super) received_at: Option<Millis>,
    pub(super) prompt: Option<String>,
    pub(super) deliveries: i64,
    /// Changes of what is believed, and conflicts.
    pub(super) turns: u32,
}

impl TaskEntry {
    pub(super) fn new(id: i64, made: Option<(State, &'static str)>) -> Self {
        Self {
            id,
            made,
            received_at: None,
            prompt: None,
            deliveries: 0,
            turns: 0,
        }
    }

    /// Whether its summary has to be computed anew: not for the one delivery that made it.
    pub(super) fn is_stale(&self) -> bool {
        self.turns > u32::from(self.made.is_some())
    }
}

#[derive(Debug, Default)]
pub(super) struct OutcomeEntry {
    pub(super) id: i64,
    /// Whether the batch makes it.
    pub(super) made: bool,
    pub(super) standing: Option<Standing>,
    pub(super) accepted_rows: i64,
    pub(super) duplicate_rows: i64,
    pub(super) conflict_rows: i64,
    pub(super) conflicts: i64,
    /// The delivery in the batch whose text it now shows.
    pub(super) said_by: Option<usize>,
    /// Whether that delivery also changed what is believed.
    pub(super) adopted: bool,
    pub(super) counted: bool,
}

impl OutcomeEntry {
    pub(super) fn rows(&mut self, verdict: Verdict) -> &mut i64 {
        match verdict {
            Verdict::Accepted => &mut self.accepted_rows,
            Verdict::Conflict => &mut self.conflict_rows,
            // Rejected deliveries never come to be counted on an outcome.
            Verdict::Duplicate | Verdict::Rejected => &mut self.duplicate_rows,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct BindingEntry {
    pub(super) to: OutcomeKey,
    pub(super) body: [u8; 32],
    /// Set if this batch made it.
    pub(super) made: Option<Binding>,
    /// Conflict rows kept of it although its task is gone, before and in this batch.
    pub(super) orphans: i64,
    pub(super) added_orphans: i64,
}

#[derive(Debug)]
pub(super) struct BodyEntry {
    pub(super) id: i64,
    /// The delivery in the batch that brought it; `None` if it was there.
    pub(super) brought_by: Option<usize>,
    pub(super) added_refs: i64,
}

#[derive(Debug, Default)]
pub(super) struct Tombstone {
    pub(super) late: i64,
    pub(super) added: i64,
}

/// What is known of everything a batch touches; members of the batch see each other's changes here.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) tasks: HashMap<TaskKey, TaskEntry>,
    pub(super) outcomes: HashMap<OutcomeKey, OutcomeEntry>,
    pub(super) bindings: HashMap<[u8; 32], BindingEntry>,
    pub(super) bodies: HashMap<[u8; 32], BodyEntry>,
    pub(super) tombstones: HashMap<TaskKey, Tombstone>,
    pub(super) rows: Vec<DeliveryRow>,
    pub(super) files: Vec<downloads::NewDownload>,
    /// Outcomes that were overruled, each by a delivery of the batch.
    pub(super) overruled: Vec<(OutcomeKey, usize)>,
}

/// One question to the database: what do you know of these keys?
#[derive(Debug, Serialize)]
pub(super) struct Slot {
    pub(super) source: String,
    pub(super) task_id: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) idx: Option<u32>,
    pub(super) binding: Option<String>,
    pub(super) body: Option<String>,
}

pub(super) fn slots(deliveries: &[&NewDelivery]) -> Vec<Slot> {
    deliveries
        .iter()
        .map(|delivery| {
            let (task_id, verified) = match &delivery.content {
                Content::Verified(verified) => (Some(&verified.task_id), Some(verified)),
                Content::Rejected { task_id, .. } => (task_id.as_ref(), None),
            };
            Slot {
                source: delivery.source.clone(),
                task_id: task_id.map(ToString::to_string),
                kind: verified.map(|verified| verified.kind.to_string()),
                idx: verified.map(|verified| verified.index),
                binding: verified
                    .and_then(|verified| verified.binding)
                    .map(|binding| hex::encode(binding.key)),
                body: Some(hex::encode(delivery.body_digest)),
            }
        })
        .collect()
}

impl Known {
    pub(super) async fn load(&mut self, tx: &mut Tx<'_>, slots: &[Slot]) -> Result<(), sqlx::Error> {
        let rows = sqlx::query(
            "SELECT s.value->>'source' AS source, s.value->>'task_id' AS task_id, s.value->>'kind' AS kind,
                    s.value->>'idx' AS idx, t.id AS task, o.id AS outcome, o.state, o.digest, o.has_media,
                    o.accepted_rows, o.duplicate_rows, o.conflict_rows, o.conflicts,
                    EXISTS (SELECT 1 FROM downloads f WHERE f.task = o.task AND f.kind = o.kind AND f.idx = o.idx
                            AND f.state = 'stored') AS has_stored,
                    x.late, b.key AS binding, b.source AS bound_source, b.kind AS bound_kind, b.idx AS bound_idx,
                    b.body AS bound_body, b.orphans, d.id AS body, d.digest AS body_digest
             FROM jsonb_each($1) s
             LEFT JOIN tasks t ON t.task_id = s.value->>'task_id' AND t.source = s.value->>'source'
             LEFT JOIN outcomes o ON o.task = t.id AND o.kind = s.value->>'kind' AND o.idx = s.value->>'idx'
             LEFT JOIN tombstones x ON x.task_id = s.value->>'task_id' AND x.source = s.value->>'source'
             LEFT JOIN bindings b ON b.key = unhex(s.value->>'binding')
             LEFT JOIN bodies d ON d.digest = unhex(s.value->>'body')",
        )
        .bind(to_json(slots))
        .fetch_all(&mut *tx.connection)
        .await?;
        for row in &rows {
            self.note(row)?;
        }
        Ok(())
    }

    fn note(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        if let Some(id) = row.try_get("body")? {
            let body = BodyEntry {
                id,
                brought_by: None,
                added_refs: 0,
            };
            self.bodies.insert(digest_in(row, "body_digest")?, body);
        }
        let Some(task_id) = row.try_get("task_id")? else {
            return Ok(());
        };
        let task = TaskKey {
            source: row.try_get("source")?,
            task_id,
        };
        if let Some(binding) = binding_entry(row, &task)? {
            self.bindings.insert(digest_in(row, "binding")?, binding);
        }
        if let Some(id) = row.try_get("outcome")? {
            let key = OutcomeKey {
                task: task.clone(),
                kind: row.try_get("kind")?,
                index: row.try_get("idx")?,
            };
            self.outcomes.insert(key, outcome_entry(row, id)?);
        }
        if let Some(late) = row.try_get("late")? {
            self.tombstones.insert(task.clone(), Tombstone { late, added: 0 });
        }
        if let Some(id) = row.try_get("task")? {
            self.tasks.insert(task, TaskEntry::new(id, None));
        }
        Ok(())
    }

    /// The outcomes that signatures of the batch are bound to and that the first look did not cover.
    pub(super) fn bound_elsewhere(&self, deliveries: &[&NewDelivery]) -> Vec<Slot> {
        deliveries
            .iter()
            .filter_map(|delivery| match &delivery.content {
                Content::Verified(verified) => verified.binding,
                Content::Rejected { .. } => None,
            })
            .filter_map(|binding| self.bindings.get(&binding.key))
            .filter(|bound| !self.outcomes.contains_key(&bound.to))
            .map(|bound| Slot {
                source: bound.to.task.source.clone(),
                task_id: Some(bound.to.task.task_id.clone()),
                kind: Some(bound.to.kind.clone()),
                idx: Some(bound.to.index),
                binding: None,
                body: None,
            })
            .collect()
    }
}

fn outcome_entry(row: &SqliteRow, id: i64) -> Result<OutcomeEntry, sqlx::Error> {
    // Only expected, nothing delivered yet: as if never heard of.
    let delivered = row.try_get::<Option<&[u8]>, _>("digest")?.is_some();
    let standing = Standing {
        state: state_from(row.try_get("state")?),
        digest: digest_in(row, "digest")?,
        has_media: row.try_get("has_media")?,
        has_stored: row.try_get("has_stored")?,
    };
    Ok(OutcomeEntry {
        id,
        standing: delivered.then_some(standing),
        accepted_rows: row.try_get("accepted_rows")?,
        duplicate_rows: row.try_get("duplicate_rows")?,
        conflict_rows: row.try_get("conflict_rows")?,
        conflicts: row.try_get("conflicts")?,
        ..OutcomeEntry::default()
    })
}

fn binding_entry(row: &SqliteRow, task: &TaskKey) -> Result<Option<BindingEntry>, sqlx::Error> {
    let Some(source) = row.try_get("bound_source")? else {
        return Ok(None);
    };
    let to = OutcomeKey {
        // The signature covers the task id: only the source can differ.
        task: TaskKey {
            source,
            task_id: task.task_id.clone(),
        },
        kind: row.try_get("bound_kind")?,
        index: row.try_get("bound_idx")?,
    };
    Ok(Some(BindingEntry {
        to,
        body: digest_in(row, "bound_body")?,
        made: None,
        orphans: row.try_get("orphans")?,
        added_orphans: 0,
    }))
}

/// A column of 32 bytes; anything else is NULL or a damaged database, and equals nothing.
fn digest_in(row: &SqliteRow, column: &str) -> Result<[u8; 32], sqlx::Error> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default())
}
