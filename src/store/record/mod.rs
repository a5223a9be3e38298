//! Recording deliveries: one batch, one look at what is known, a decision each, few large statements.

use std::collections::HashMap;
use std::net::IpAddr;

use bytes::Bytes;
use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::rejected::{self, RejectedRow};
use super::writer::{Command, Reply, Tx, next};
use super::{Store, StoreError, downloads};
use crate::clock::Millis;
use crate::provider::rules::{self, Authority, Claim, Effect, Ruling, Standing, State, Verdict};
use crate::provider::{Event, Kind, TaskId};

mod rows;

use rows::DeliveryRow;

/// Delivery rows kept per outcome and verdict; later ones are counted only. Those that change an outcome are
/// always kept.
pub const ROWS_PER_VERDICT: i64 = 20;

/// How a delivery reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The provider called.
    Callback,
    /// We asked for the record.
    Poll,
    /// An answer of the provider's API that passed through us.
    Api,
}

impl Via {
    /// The word in JSON and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::Poll => "poll",
            Self::Api => "api",
        }
    }

    fn authority(self) -> Authority {
        match self {
            Self::Callback => Authority::Callback,
            Self::Poll | Self::Api => Authority::Provider,
        }
    }
}

/// One arrival, ready to be recorded.
#[derive(Debug)]
pub struct NewDelivery {
    /// The source's name.
    pub source: String,
    /// How it reached us.
    pub via: Via,
    /// When it was read completely.
    pub received_at: Millis,
    /// Who sent it.
    pub remote_addr: Option<IpAddr>,
    /// The kept headers as a JSON object.
    pub headers: String,
    /// The raw body as it came.
    pub body: Bytes,
    /// SHA-256 of `body`.
    pub body_digest: [u8; 32],
    /// What it is.
    pub content: Content,
}

/// What a delivery carries.
#[derive(Debug)]
pub enum Content {
    /// It passed every check.
    Verified(Verified),
    /// It was refused.
    Rejected {
        /// The stable reason of the refusal.
        reason: &'static str,
        /// The task it claimed to be about, as far as it could be read.
        task_id: Option<TaskId>,
    },
}

/// A delivery that passed every check.
#[derive(Debug)]
pub struct Verified {
    /// The verified id.
    pub task_id: TaskId,
    /// Which result it is about.
    pub kind: Kind,
    /// Which of several.
    pub index: u32,
    /// What it says.
    pub event: Event,
    /// The signature's binding; `None` if the source is not signed.
    pub binding: Option<Binding>,
}

/// A verified `(task id, timestamp, signature)`; bound to its first use until it expires.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// SHA-256 over the three.
    pub key: [u8; 32],
    /// When no tolerance would accept it any more.
    pub expires_at: Millis,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its row; `None` if it was counted only.
    pub delivery: Option<i64>,
    /// What it turned out to be.
    pub verdict: Verdict,
    /// Why, where the verdict does not say it all.
    pub reason: Option<&'static str>,
    /// How many downloads it queued.
    pub queued: usize,
}

impl Store {
    /// Records a delivery; returns once its commit is on disk. [`StoreError::Busy`] at once if the writer cannot
    /// keep up. A dropped future does not cancel the commit.
    pub async fn record_delivery(&self, delivery: NewDelivery) -> Result<Recorded, StoreError> {
        match self.write(Command::Record(Box::new(delivery))).await? {
            Reply::Recorded(recorded) => Ok(recorded),
            other => unreachable!("a delivery was answered with {other:?}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TaskKey {
    source: String,
    task_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OutcomeKey {
    task: TaskKey,
    kind: String,
    index: u32,
}

#[derive(Debug)]
struct TaskEntry {
    id: i64,
    state: State,
    media: String,
    has_main: bool,
    created_at: Millis,
    received_at: Option<Millis>,
    prompt: Option<String>,
    deliveries: i64,
    conflicts: i64,
    changed: bool,
}

#[derive(Debug, Default)]
struct OutcomeEntry {
    id: i64,
    standing: Option<Standing>,
    accepted_rows: i64,
    duplicate_rows: i64,
    conflict_rows: i64,
    conflicts: i64,
    /// The delivery in the batch whose text it now shows.
    said_by: Option<usize>,
    counted: bool,
}

impl OutcomeEntry {
    fn rows(&mut self, verdict: Verdict) -> &mut i64 {
        match verdict {
            Verdict::Accepted => &mut self.accepted_rows,
            Verdict::Duplicate | Verdict::Rejected => &mut self.duplicate_rows,
            Verdict::Conflict => &mut self.conflict_rows,
        }
    }
}

#[derive(Debug, Clone)]
struct BindingEntry {
    to: OutcomeKey,
    body: [u8; 32],
    /// Set if this batch made it.
    made: Option<Binding>,
}

#[derive(Debug)]
struct BodyEntry {
    id: i64,
    /// The delivery in the batch that brought it; `None` if it was there.
    brought_by: Option<usize>,
    added_refs: i64,
}

#[derive(Debug, Default)]
struct Tombstone {
    late: i64,
    added: i64,
}

/// What is known of everything a batch touches; members of the batch see each other's changes here.
#[derive(Debug, Default)]
struct Known {
    tasks: HashMap<TaskKey, TaskEntry>,
    outcomes: HashMap<OutcomeKey, OutcomeEntry>,
    bindings: HashMap<[u8; 32], BindingEntry>,
    bodies: HashMap<[u8; 32], BodyEntry>,
    tombstones: HashMap<TaskKey, Tombstone>,
    rows: Vec<DeliveryRow>,
    files: Vec<downloads::NewDownload>,
}

/// Records a batch inside the writer's transaction; the answers are in the order of the deliveries.
pub(super) async fn record(
    tx: &mut Tx<'_>,
    deliveries: &[&NewDelivery],
) -> Result<Vec<Recorded>, sqlx::Error> {
    if deliveries.is_empty() {
        return Ok(Vec::new());
    }
    let mut known = Known::default();
    known.load(tx, &slots(deliveries)).await?;
    let elsewhere = known.bound_elsewhere(deliveries);
    if !elsewhere.is_empty() {
        known.load(tx, &elsewhere).await?;
    }
    let recorded = deliveries
        .iter()
        .enumerate()
        .map(|(at, delivery)| known.judge(tx, at, delivery))
        .collect();
    known.write(tx, deliveries).await?;
    rejected::enforce_bounds(tx).await?;
    Ok(recorded)
}

/// One question to the database: what do you know of these keys?
#[derive(Debug, Serialize)]
struct Slot {
    source: String,
    task_id: Option<String>,
    kind: Option<String>,
    idx: Option<u32>,
    binding: Option<String>,
    body: Option<String>,
}

fn slots(deliveries: &[&NewDelivery]) -> Vec<Slot> {
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
    async fn load(&mut self, tx: &mut Tx<'_>, slots: &[Slot]) -> Result<(), sqlx::Error> {
        let rows = sqlx::query(
            "SELECT s.value->>'source', s.value->>'task_id', s.value->>'kind', s.value->>'idx',
                    t.id, t.state, t.media, t.created_at, t.received_at, t.deliveries, t.conflicts,
                    EXISTS (SELECT 1 FROM outcomes m WHERE m.task = t.id AND m.kind = 'video' AND m.idx = 0),
                    o.id, o.state, o.digest, o.has_media, o.accepted_rows, o.duplicate_rows, o.conflict_rows,
                    o.conflicts, EXISTS (SELECT 1 FROM downloads f WHERE f.task = o.task AND f.kind = o.kind AND f.idx = o.idx
                            AND f.state = 'stored'),
                    x.late, b.source, b.kind, b.idx, b.body, b.key, d.id, d.digest
             FROM json_each($1) s
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
    fn bound_elsewhere(&self, deliveries: &[&NewDelivery]) -> Vec<Slot> {
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

    fn judge(&mut self, tx: &mut Tx<'_>, at: usize, delivery: &NewDelivery) -> Recorded {
        match &delivery.content {
            Content::Rejected { reason, task_id } => {
                self.reject(tx, at, delivery, (reason, task_id.as_ref()))
            }
            Content::Verified(verified) => {
                let key = OutcomeKey {
                    task: TaskKey {
                        source: delivery.source.clone(),
                        task_id: verified.task_id.to_string(),
                    },
                    kind: verified.kind.to_string(),
                    index: verified.index,
                };
                if self.tombstones.contains_key(&key.task) {
                    return self.bury(tx, at, delivery, &key);
                }
                match self.bind(&key, delivery, verified) {
                    Use::First => self.believe(tx, at, (delivery, verified), &key),
                    Use::Again => self.count(tx, (at, delivery), &key, &key, SAME_AGAIN),
                    Use::Other(first) => self.count(tx, (at, delivery), &key, &first, SIGNATURE_REUSED),
                }
            }
        }
    }

    /// Binds a signature to this use, or tells what it is bound to.
    fn bind(&mut self, key: &OutcomeKey, delivery: &NewDelivery, verified: &Verified) -> Use {
        let Some(binding) = verified.binding else {
            return Use::First;
        };
        match self.bindings.get(&binding.key) {
            None => {
                self.bindings.insert(
                    binding.key,
                    BindingEntry {
                        to: key.clone(),
                        body: delivery.body_digest,
                        made: Some(binding),
                    },
                );
                Use::First
            }
            Some(bound) if bound.to == *key && bound.body == delivery.body_digest => Use::Again,
            Some(bound) => Use::Other(bound.to.clone()),
        }
    }

    /// Lets the rules decide and carries out their effect.
    fn believe(
        &mut self,
        tx: &mut Tx<'_>,
        at: usize,
        (delivery, verified): (&NewDelivery, &Verified),
        key: &OutcomeKey,
    ) -> Recorded {
        self.ensure(tx, delivery, key);
        let outcome = self.outcomes.get_mut(key).expect("just ensured");
        let claim = Claim::from(&verified.event);
        let ruling = rules::rule(outcome.standing.as_ref(), &claim, delivery.via.authority());
        match ruling.effect {
            Effect::Keep => {}
            Effect::RefreshText => outcome.said_by = Some(at),
            Effect::Adopt | Effect::Overrule => {
                outcome.said_by = Some(at);
                outcome.standing = Some(Standing {
                    state: claim.class.into(),
                    digest: claim.digest,
                    has_media: claim.has_media,
                    has_stored: outcome.standing.is_some_and(|standing| standing.has_stored),
                });
            }
        }
        if ruling.settles {
            let task = self.tasks.get_mut(&key.task).expect("ensured before");
            task.conflicts -= std::mem::take(&mut outcome.conflicts);
            outcome.counted = true;
        }
        let adopted = matches!(ruling.effect, Effect::Adopt | Effect::Overrule);
        let queued = if adopted {
            self.adopt(tx, (delivery, verified), key)
        } else {
            0
        };
        let reason = reason_of(ruling, verified);
        let recorded = self.count(
            tx,
            (at, delivery),
            key,
            key,
            Count {
                verdict: ruling.verdict,
                reason,
                always: adopted,
            },
        );
        Recorded { queued, ..recorded }
    }

    /// Makes sure that the task and the outcome exist in memory.
    fn ensure(&mut self, tx: &mut Tx<'_>, delivery: &NewDelivery, key: &OutcomeKey) {
        self.tasks.entry(key.task.clone()).or_insert_with(|| TaskEntry {
            id: next(&mut tx.ids.task),
            state: State::Pending,
            media: "none".to_owned(),
            has_main: false,
            created_at: delivery.received_at,
            received_at: None,
            prompt: None,
            deliveries: 0,
            conflicts: 0,
            changed: true,
        });
        self.outcomes.entry(key.clone()).or_insert_with(|| OutcomeEntry {
            id: next(&mut tx.ids.outcome),
            ..OutcomeEntry::default()
        });
    }

    /// The outcome became what the delivery says: the task's summary follows and its files are queued.
    fn adopt(
        &mut self,
        tx: &mut Tx<'_>,
        (delivery, verified): (&NewDelivery, &Verified),
        key: &OutcomeKey,
    ) -> usize {
        let task = self.tasks.get_mut(&key.task).expect("ensured before");
        let is_main = key.kind == "video" && key.index == 0;
        if is_main || !task.has_main {
            task.state = verified.event.class.into();
        }
        task.has_main |= is_main;
        if task.prompt.is_none() {
            task.prompt.clone_from(&verified.event.prompt);
        }
        for media in &verified.event.media {
            self.files.push(downloads::NewDownload::announced(
                next(&mut tx.ids.download),
                task.id,
                (&verified.kind, verified.index),
                media,
                delivery.received_at,
            ));
        }
        let faulty = verified
            .event
            .media
            .iter()
            .filter(|media| media.fault.is_some())
            .count();
        let queued = verified.event.media.len() - faulty;
        task.media = media_after(&task.media, queued, faulty).to_owned();
        queued
    }

    /// Counts the delivery on the task and outcome of `on`, and keeps its row unless there are enough of its kind.
    fn count(
        &mut self,
        tx: &mut Tx<'_>,
        (at, delivery): (usize, &NewDelivery),
        key: &OutcomeKey,
        on: &OutcomeKey,
        count: Count,
    ) -> Recorded {
        let Count {
            verdict,
            reason,
            always,
        } = count;
        let (Some(task), Some(outcome)) = (self.tasks.get_mut(&on.task), self.outcomes.get_mut(on)) else {
            // Bound to a task that was deleted meanwhile.
            return Recorded {
                delivery: None,
                verdict,
                reason,
                queued: 0,
            };
        };
        task.changed = true;
        task.deliveries += 1;
        if verdict == Verdict::Conflict {
            task.conflicts += 1;
            outcome.conflicts += 1;
            outcome.counted = true;
        }
        task.received_at.get_or_insert(delivery.received_at);
        let rows = outcome.rows(verdict);
        if *rows >= ROWS_PER_VERDICT && !always {
            return Recorded {
                delivery: None,
                verdict,
                reason,
                queued: 0,
            };
        }
        *rows += 1;
        outcome.counted = true;
        let task = task.id;
        let body = self.keep_body(tx, at, delivery);
        let id = next(&mut tx.ids.delivery);
        self.rows.push(DeliveryRow {
            task: Some(task),
            task_id: Some(key.task.task_id.clone()),
            kind: Some(key.kind.clone()),
            idx: Some(key.index),
            body: Some(body),
            ..DeliveryRow::of(id, delivery, verdict, reason)
        });
        Recorded {
            delivery: Some(id),
            verdict,
            reason,
            queued: 0,
        }
    }

    /// A delivery for a deleted task: noted without its body, reviving nothing.
    fn bury(&mut self, tx: &mut Tx<'_>, _at: usize, delivery: &NewDelivery, key: &OutcomeKey) -> Recorded {
        let tombstone = self.tombstones.get_mut(&key.task).expect("checked by the caller");
        tombstone.added += 1;
        let (verdict, reason) = (Verdict::Duplicate, Some("deleted"));
        if tombstone.late + tombstone.added > ROWS_PER_VERDICT {
            return Recorded {
                delivery: None,
                verdict,
                reason,
                queued: 0,
            };
        }
        let id = next(&mut tx.ids.delivery);
        self.rows.push(DeliveryRow {
            task_id: Some(key.task.task_id.clone()),
            kind: Some(key.kind.clone()),
            idx: Some(key.index),
            body_sha256: Some(hex::encode(delivery.body_digest)),
            ..DeliveryRow::of(id, delivery, verdict, reason)
        });
        Recorded {
            delivery: Some(id),
            verdict,
            reason,
            queued: 0,
        }
    }

    fn reject(
        &mut self,
        tx: &mut Tx<'_>,
        at: usize,
        delivery: &NewDelivery,
        (reason, task_id): (&'static str, Option<&TaskId>),
    ) -> Recorded {
        let task = task_id.and_then(|task_id| {
            let key = TaskKey {
                source: delivery.source.clone(),
                task_id: task_id.to_string(),
            };
            self.tasks.get(&key).map(|task| task.id)
        });
        let kept = delivery.body.len() <= rejected::MAX_KEPT_BODY;
        let body = kept.then(|| self.keep_body(tx, at, delivery));
        let id = next(&mut tx.ids.delivery);
        let row = RejectedRow {
            reason,
            net: delivery.remote_addr.map(rejected::net_of),
            size: rejected::size_of(delivery, kept),
        };
        tx.ring.add(&row);
        self.rows.push(DeliveryRow {
            task,
            task_id: task_id.map(ToString::to_string),
            body,
            body_sha256: (!kept).then(|| hex::encode(delivery.body_digest)),
            net: row.net,
            known: Some(task.is_some()),
            size: Some(row.size),
            ..DeliveryRow::of(id, delivery, Verdict::Rejected, Some(reason))
        });
        Recorded {
            delivery: Some(id),
            verdict: Verdict::Rejected,
            reason: Some(reason),
            queued: 0,
        }
    }

    fn keep_body(&mut self, tx: &mut Tx<'_>, at: usize, delivery: &NewDelivery) -> i64 {
        let entry = self
            .bodies
            .entry(delivery.body_digest)
            .or_insert_with(|| BodyEntry {
                id: next(&mut tx.ids.body),
                brought_by: Some(at),
                added_refs: 0,
            });
        entry.added_refs += 1;
        entry.id
    }
}

/// What a signature's use is.
enum Use {
    First,
    Again,
    Other(OutcomeKey),
}

struct Count {
    verdict: Verdict,
    reason: Option<&'static str>,
    always: bool,
}

const SAME_AGAIN: Count = Count {
    verdict: Verdict::Duplicate,
    reason: None,
    always: false,
};

const SIGNATURE_REUSED: Count = Count {
    verdict: Verdict::Conflict,
    reason: Some("signature_reused"),
    always: false,
};

fn reason_of(ruling: Ruling, verified: &Verified) -> Option<&'static str> {
    let too_many = || verified.event.media.iter().any(downloads::stands_for_too_many);
    match ruling.verdict {
        Verdict::Conflict if State::from(verified.event.class) == State::Failed => {
            Some("failure_after_success")
        }
        Verdict::Conflict => Some("different_media"),
        Verdict::Accepted if too_many() => Some("too_many_files"),
        _ => None,
    }
}

/// The summary of a task's media after files were added; the rule over all files is `downloads::media_summary`.
fn media_after(before: &str, queued: usize, failed: usize) -> &str {
    match (before, queued, failed) {
        ("downloading", ..) => "downloading",
        (_, 1.., _) => "queued",
        ("none", 0, 1..) => "failed",
        ("stored", 0, 1..) => "partial",
        (before, ..) => before,
    }
}

fn task_entry(row: &SqliteRow, id: i64) -> Result<TaskEntry, sqlx::Error> {
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

fn outcome_entry(row: &SqliteRow, id: i64) -> Result<OutcomeEntry, sqlx::Error> {
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

/// Reads a state as [`State::as_str`] wrote it.
pub(super) fn state_from(text: &str) -> State {
    match text {
        "succeeded" => State::Succeeded,
        "failed" => State::Failed,
        _ => State::Pending,
    }
}

/// A 32-byte column; anything else is a damaged database and equals nothing.
fn array(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or_default()
}

pub(super) fn to_json<T: Serialize + ?Sized>(rows: &T) -> String {
    serde_json::to_string(rows).expect("rows are plain data")
}
