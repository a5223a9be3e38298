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

#[derive(Debug)]
pub(super) struct TaskEntry {
    pub(super) id: i64,
    pub(super) state: State,
    pub(super) media: String,
    pub(super) has_main: bool,
    pub(super) created_at: Millis,
    pub(super) received_at: Option<Millis>,
    pub(super) prompt: Option<String>,
    pub(super) deliveries: i64,
    pub(super) conflicts: i64,
    pub(super) changed: bool,
}

impl TaskEntry {
    /// A task that nobody announced.
    pub(super) fn first_heard_of(id: i64, at: Millis) -> Self {
        Self {
            id,
            state: State::Pending,
            media: "none".to_owned(),
            has_main: false,
            created_at: at,
            received_at: None,
            prompt: None,
            deliveries: 0,
            conflicts: 0,
            changed: true,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct OutcomeEntry {
    pub(super) id: i64,
    pub(super) standing: Option<Standing>,
    pub(super) accepted_rows: i64,
    pub(super) duplicate_rows: i64,
    pub(super) conflict_rows: i64,
    pub(super) conflicts: i64,
    /// The delivery in the batch whose text it now shows.
    pub(super) said_by: Option<usize>,
    pub(super) counted: bool,
}

impl OutcomeEntry {
    pub(super) fn rows(&mut self, verdict: Verdict) -> &mut i64 {
        match verdict {
            Verdict::Accepted => &mut self.accepted_rows,
            Verdict::Duplicate | Verdict::Rejected => &mut self.duplicate_rows,
            Verdict::Conflict => &mut self.conflict_rows,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct BindingEntry {
    pub(super) to: OutcomeKey,
    pub(super) body: [u8; 32],
    /// Set if this batch made it.
    pub(super) made: Option<Binding>,
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
            "SELECT s.value->>'source', s.value->>'task_id', s.value->>'kind', s.value->>'idx',
                    t.id, t.state, t.media, t.created_at, t.received_at, t.deliveries, t.conflicts,
                    EXISTS (SELECT 1 FROM outcomes m WHERE m.task = t.id AND m.kind = 'video' AND m.idx = 0),
                    o.id, o.state, o.digest, o.has_media, o.accepted_rows, o.duplicate_rows, o.conflict_rows,
                    o.conflicts, EXISTS (SELECT 1 FROM downloads f WHERE f.task = o.task AND f.kind = o.kind AND f.idx = o.idx
                            AND f.state = 'stored'),
                    x.late, b.source, b.kind, b.idx, b.body, b.key, d.id, d.digest
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

    pub(super) fn note(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        if let (Some(id), Some(digest)) = (row.try_get(27)?, row.try_get::<Option<Vec<u8>>, _>(28)?) {
            self.bodies.insert(
                array(&digest),
                BodyEntry {
                    id,
                    brought_by: None,
                    added_refs: 0,
                },
            );
        }
        let Some(task_id) = row.try_get::<Option<String>, _>(1)? else {
            return Ok(());
        };
        let task = TaskKey {
            source: row.try_get(0)?,
            task_id,
        };
        if let Some(id) = row.try_get(4)? {
            self.tasks.insert(task.clone(), task_entry(row, id)?);
        }
        if let (Some(id), Some(kind), Some(index)) = (row.try_get(12)?, row.try_get(2)?, row.try_get(3)?) {
            let key = OutcomeKey {
                task: task.clone(),
                kind,
                index,
            };
            self.outcomes.insert(key, outcome_entry(row, id)?);
        }
        if let Some(late) = row.try_get(21)? {
            self.tombstones.insert(task.clone(), Tombstone { late, added: 0 });
        }
        if let Some(key) = row.try_get::<Option<Vec<u8>>, _>(26)? {
            let to = OutcomeKey {
                // The signature covers the task id: only the source can differ.
                task: TaskKey {
                    source: row.try_get(22)?,
                    task_id: task.task_id,
                },
                kind: row.try_get(23)?,
                index: row.try_get(24)?,
            };
            self.bindings.insert(
                array(&key),
                BindingEntry {
                    to,
                    body: array(&row.try_get::<Vec<u8>, _>(25)?),
                    made: None,
                },
            );
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

pub(super) fn task_entry(row: &SqliteRow, id: i64) -> Result<TaskEntry, sqlx::Error> {
    Ok(TaskEntry {
        id,
        state: state_from(row.try_get(5)?),
        media: row.try_get(6)?,
        created_at: row.try_get(7)?,
        received_at: row.try_get(8)?,
        deliveries: row.try_get(9)?,
        conflicts: row.try_get(10)?,
        has_main: row.try_get(11)?,
        prompt: None,
        changed: false,
    })
}

pub(super) fn outcome_entry(row: &SqliteRow, id: i64) -> Result<OutcomeEntry, sqlx::Error> {
    let digest: Option<Vec<u8>> = row.try_get(14)?;
    let state = state_from(row.try_get(13)?);
    let (has_media, has_stored) = (row.try_get(15)?, row.try_get(20)?);
    Ok(OutcomeEntry {
        id,
        // Only expected, nothing delivered yet: as if never heard of.
        standing: digest.map(|digest| Standing {
            state,
            digest: array(&digest),
            has_media,
            has_stored,
        }),
        accepted_rows: row.try_get(16)?,
        duplicate_rows: row.try_get(17)?,
        conflict_rows: row.try_get(18)?,
        conflicts: row.try_get(19)?,
        said_by: None,
        counted: false,
    })
}

/// A 32-byte column; anything else is a damaged database and equals nothing.
pub(super) fn array(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or_default()
}
