//! What each delivery of a batch turns out to be, and what it changes.

use super::known::{BindingEntry, BodyEntry, Known, OutcomeEntry, OutcomeKey, TaskEntry, TaskKey};
use super::rows::DeliveryRow;
use super::{Content, NewDelivery, ROWS_PER_VERDICT, Recorded, Verified};
use crate::provider::rules::{self, Claim, Effect, Ruling, Standing, State, Verdict};
use crate::provider::{Event, TaskId};
use crate::store::downloads::{self, NewDownload};
use crate::store::rejected::{self, RejectedRow};
use crate::store::writer::{Tx, next};

/// A verified delivery of the batch and the outcome it is about.
struct Item<'d> {
    /// Its place in the batch.
    at: usize,
    delivery: &'d NewDelivery,
    verified: &'d Verified,
    key: OutcomeKey,
}

/// What a signature's use is.
enum Use {
    First,
    Again,
    Other(OutcomeKey),
}

/// How a delivery is counted.
#[derive(Clone, Copy)]
struct Count {
    verdict: Verdict,
    reason: Option<&'static str>,
    /// Whether its row is kept however many there are.
    keep: bool,
}

const SAME_AGAIN: Count = Count {
    verdict: Verdict::Duplicate,
    reason: None,
    keep: false,
};

const SIGNATURE_REUSED: Count = Count {
    verdict: Verdict::Conflict,
    reason: Some("signature_reused"),
    keep: false,
};

const DELETED: Count = Count {
    verdict: Verdict::Duplicate,
    reason: Some("deleted"),
    keep: false,
};

impl Count {
    /// The answer to the sender's side, with the row if one was kept.
    fn recorded(self, delivery: Option<i64>) -> Recorded {
        Recorded {
            delivery,
            verdict: self.verdict,
            reason: self.reason,
            queued: 0,
        }
    }
}

impl Known {
    /// Decides one delivery, in the light of the database and of those before it in the batch.
    pub(super) fn judge(&mut self, tx: &mut Tx<'_>, at: usize, delivery: &NewDelivery) -> Recorded {
        let verified = match &delivery.content {
            Content::Rejected { reason, task_id } => {
                return self.reject(tx, at, delivery, (reason, task_id.as_ref()));
            }
            Content::Verified(verified) => &**verified,
        };
        let key = OutcomeKey {
            task: TaskKey {
                source: delivery.source.clone(),
                task_id: verified.task_id.to_string(),
            },
            kind: verified.kind.to_string(),
            index: verified.index,
        };
        let item = Item {
            at,
            delivery,
            verified,
            key,
        };
        if self.tombstones.contains_key(&item.key.task) {
            return self.bury(tx, &item);
        }
        match self.bind(&item) {
            Use::First => self.believe(tx, &item),
            Use::Again => self.count(tx, &item, &item.key, SAME_AGAIN),
            Use::Other(first) if self.outcomes.contains_key(&first) => {
                self.count(tx, &item, &first, SIGNATURE_REUSED)
            }
            Use::Other(_) => self.orphan(tx, &item),
        }
    }

    /// Binds a signature to this use, or tells what it is bound to.
    fn bind(&mut self, item: &Item<'_>) -> Use {
        let Some(binding) = item.verified.binding else {
            return Use::First;
        };
        match self.bindings.get(&binding.key) {
            None => {
                let entry = BindingEntry {
                    to: item.key.clone(),
                    body: item.delivery.body_digest,
                    made: Some(binding),
                    orphans: 0,
                    added_orphans: 0,
                };
                self.bindings.insert(binding.key, entry);
                Use::First
            }
            Some(bound) if bound.to == item.key && bound.body == item.delivery.body_digest => {
                let outcome = self.outcomes.get(&item.key);
                // Deleted and expected again meanwhile: the very same delivery is then news.
                let known = outcome.is_some_and(|outcome| outcome.standing.is_some());
                if known { Use::Again } else { Use::First }
            }
            Some(bound) => Use::Other(bound.to.clone()),
        }
    }

    /// Lets the rules decide and carries out their effect.
    fn believe(&mut self, tx: &mut Tx<'_>, item: &Item<'_>) -> Recorded {
        let event = &item.verified.event;
        let (task, outcome) = self.entries(tx, item);
        let claim = Claim::from(event);
        let authority = item.delivery.via.authority();
        let ruling = rules::rule(outcome.standing.as_ref(), &claim, authority);
        let adopted = matches!(ruling.effect, Effect::Adopt | Effect::Overrule);
        let has_stored = outcome.standing.is_some_and(|standing| standing.has_stored);
        if adopted {
            task.turns += 1;
            if task.prompt.is_none() {
                task.prompt.clone_from(&event.prompt);
            }
            outcome.adopted = true;
            outcome.standing = Some(Standing {
                state: claim.class.into(),
                digest: claim.digest,
                has_media: claim.has_media,
                has_stored,
            });
        }
        if ruling.effect != Effect::Keep {
            outcome.said_by = Some(item.at);
        }
        if ruling.settles && outcome.conflicts > 0 {
            task.turns += 1;
            outcome.conflicts = 0;
            outcome.counted = true;
        }
        let task = task.id;
        match ruling.effect {
            Effect::Adopt if !has_stored => self.queue_files(tx, item, task),
            // A person had made it fail: what is stored keeps its place, and the new files get others.
            Effect::Adopt | Effect::Overrule => self.overruled.push((item.key.clone(), item.at)),
            Effect::Keep | Effect::RefreshText => {}
        }
        let count = Count {
            verdict: ruling.verdict,
            reason: reason_of(ruling, item.verified),
            keep: adopted,
        };
        let queued = event.media.iter().filter(|media| media.fault.is_none()).count();
        Recorded {
            queued: if adopted { queued } else { 0 },
            ..self.count(tx, item, &item.key, count)
        }
    }

    /// The task and the outcome that the delivery is about, made if it is the first of them.
    fn entries(&mut self, tx: &mut Tx<'_>, item: &Item<'_>) -> (&mut TaskEntry, &mut OutcomeEntry) {
        let event = &item.verified.event;
        let task = self.tasks.entry(item.key.task.clone()).or_insert_with(|| {
            let state = event.class.into();
            TaskEntry::new(next(&mut tx.ids.task), Some((state, media_of(event))))
        });
        let outcome = self
            .outcomes
            .entry(item.key.clone())
            .or_insert_with(|| OutcomeEntry {
                id: next(&mut tx.ids.outcome),
                made: true,
                ..OutcomeEntry::default()
            });
        (task, outcome)
    }

    /// The announced files become downloads.
    fn queue_files(&mut self, tx: &mut Tx<'_>, item: &Item<'_>, task: i64) {
        let Item {
            delivery, verified, ..
        } = item;
        for media in &verified.event.media {
            let id = next(&mut tx.ids.download);
            let outcome = (&verified.kind, verified.index);
            let file = NewDownload::announced(id, task, outcome, media, delivery.received_at);
            self.files.push(file);
        }
    }

    /// Counts the delivery on the task and outcome of `on`, and keeps its row unless there are enough of its kind.
    fn count(&mut self, tx: &mut Tx<'_>, item: &Item<'_>, on: &OutcomeKey, count: Count) -> Recorded {
        let task = self
            .tasks
            .get_mut(&on.task)
            .expect("outcomes come with their tasks");
        let outcome = self.outcomes.get_mut(on).expect("the caller made it or found it");
        task.deliveries += 1;
        task.received_at.get_or_insert(item.delivery.received_at);
        outcome.counted = true;
        if count.verdict == Verdict::Conflict {
            task.turns += 1;
            outcome.conflicts += 1;
        }
        let rows = outcome.rows(count.verdict);
        if *rows >= ROWS_PER_VERDICT && !count.keep {
            return count.recorded(None);
        }
        *rows += 1;
        let (task, outcome) = (task.id, outcome.id);
        let body = self.keep_body(tx, item.at, item.delivery);
        let row = DeliveryRow {
            task: Some(task),
            outcome: Some(outcome),
            body: Some(body),
            ..row_of(tx, item, count)
        };
        self.push(row, count)
    }

    /// A reused signature whose first task was deleted: a few rows are kept beside any task, without bodies.
    fn orphan(&mut self, tx: &mut Tx<'_>, item: &Item<'_>) -> Recorded {
        let binding = item.verified.binding.expect("only a bound signature is reused");
        let bound = self.bindings.get_mut(&binding.key).expect("found a moment ago");
        if bound.orphans >= ROWS_PER_VERDICT {
            return SIGNATURE_REUSED.recorded(None);
        }
        bound.orphans += 1;
        bound.added_orphans += 1;
        self.push(row_without_body(tx, item, SIGNATURE_REUSED), SIGNATURE_REUSED)
    }

    /// A delivery for a deleted task: noted without its body, reviving nothing.
    fn bury(&mut self, tx: &mut Tx<'_>, item: &Item<'_>) -> Recorded {
        let tombstone = self
            .tombstones
            .get_mut(&item.key.task)
            .expect("the caller looked");
        tombstone.added += 1;
        if tombstone.late + tombstone.added > ROWS_PER_VERDICT {
            return DELETED.recorded(None);
        }
        self.push(row_without_body(tx, item, DELETED), DELETED)
    }

    fn push(&mut self, row: DeliveryRow, count: Count) -> Recorded {
        let id = row.id;
        self.rows.push(row);
        count.recorded(Some(id))
    }

    /// Keeps a refused delivery in the ring.
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
        let kept = delivery.body_length <= rejected::MAX_KEPT_BODY;
        let body = kept.then(|| self.keep_body(tx, at, delivery));
        let share = RejectedRow {
            reason,
            net: delivery.remote_addr.map(rejected::net_of),
            size: rejected::size_of(delivery, kept),
        };
        tx.ring().add(&share);
        let count = Count {
            verdict: Verdict::Rejected,
            reason: Some(reason),
            keep: true,
        };
        let row = DeliveryRow {
            task,
            task_id: task_id.map(ToString::to_string),
            body,
            body_sha256: (!kept).then(|| hex::encode(delivery.body_digest)),
            net: share.net,
            known: Some(task.is_some()),
            size: Some(share.size),
            ..DeliveryRow::of(next(&mut tx.ids.delivery), delivery, count.verdict, count.reason)
        };
        self.push(row, count)
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

/// The row of a verified delivery, without task and body.
fn row_of(tx: &mut Tx<'_>, item: &Item<'_>, count: Count) -> DeliveryRow {
    DeliveryRow {
        task_id: Some(item.key.task.task_id.clone()),
        kind: Some(item.key.kind.clone()),
        idx: Some(item.key.index),
        ..DeliveryRow::of(
            next(&mut tx.ids.delivery),
            item.delivery,
            count.verdict,
            count.reason,
        )
    }
}

/// Such a row as long as only the digest of its body is kept.
fn row_without_body(tx: &mut Tx<'_>, item: &Item<'_>, count: Count) -> DeliveryRow {
    DeliveryRow {
        body_sha256: Some(hex::encode(item.delivery.body_digest)),
        ..row_of(tx, item, count)
    }
}

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

/// The media summary of a task with just these files; the rule over any files is `summary::refresh`'s.
fn media_of(event: &Event) -> &'static str {
    match event.media.as_slice() {
        [] => "none",
        files if files.iter().all(|file| file.fault.is_some()) => "failed",
        _ => "queued",
    }
}
