//! What a verified delivery turns out to be, and what it changes.

use rusqlite::{OptionalExtension, params};

use super::binding::{self, Bound, Use};
use super::outcome::{Outcome, Said};
use super::row::{Body, DeliveryRow, owner_of_body};
use super::{Binding, NewDelivery, ROWS_PER_VERDICT, Recorded, Verified, Via};
use crate::provider::rules::{self, Claim, Effect, Ruling, Standing, State, Verdict};
use crate::provider::{Event, OutcomeClass, TaskId, family};
use crate::store::asks::{self, Reason};
use crate::store::downloads::{self, NewDownload};
use crate::store::overrule::{self, Overruling};
use crate::store::tasks;
use crate::store::writer::Tx;
use crate::store::{accept, bodies, keys, ranges, summary};

/// A verified delivery.
#[derive(Clone, Copy)]
struct Item<'d> {
    delivery: &'d NewDelivery,
    verified: &'d Verified,
}

/// How a delivery is counted.
#[derive(Clone, Copy)]
struct Count {
    verdict: Verdict,
    reason: Option<&'static str>,
}

const SAME_AGAIN: Count = Count {
    verdict: Verdict::Duplicate,
    reason: None,
};

const SIGNATURE_REUSED: Count = Count {
    verdict: Verdict::Conflict,
    reason: Some("signature_reused"),
};

const DELETED: Count = Count {
    verdict: Verdict::Duplicate,
    reason: Some("deleted"),
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

/// Decides one delivery, in the light of what is known, and writes what it changes.
pub(super) fn record(
    tx: &mut Tx<'_>,
    delivery: &NewDelivery,
    verified: &Verified,
) -> rusqlite::Result<Recorded> {
    let item = Item { delivery, verified };
    let hash = keys::hash_of(verified.task_id.as_str());
    let namesakes = tasks::namesakes(tx, (hash, verified.task_id.as_str()))?;
    let task = namesakes
        .iter()
        .find(|namesake| namesake.source == delivery.source)
        .map(|namesake| namesake.task);
    if task.is_none()
        && tx.rare.tombstones
        && let Some(late) = buried(tx, item)?
    {
        return bury(tx, item, late);
    }
    match binding::look_up(tx, delivery, verified, &namesakes)? {
        Use::First => match task {
            Some(task) => believe(tx, item, task),
            None => begin(tx, item, hash),
        },
        Use::Again => {
            let task = task.expect("its first use was about this task");
            let outcome = Outcome::find(tx, task, (&verified.kind, verified.index))?;
            recount(tx, item, outcome, SAME_AGAIN)
        }
        Use::Other(Bound {
            place: Some(first), ..
        }) => {
            let outcome = Outcome::load(tx, first)?;
            recount(tx, item, outcome, SIGNATURE_REUSED)
        }
        Use::Other(Bound { orphans, .. }) => orphan(tx, item, orphans),
    }
}

/// The first that is heard of a task: what it says is believed. The way of nearly every callback.
fn begin(tx: &mut Tx<'_>, item: Item<'_>, hash: i64) -> rusqlite::Result<Recorded> {
    let Item { delivery, verified } = item;
    let event = &verified.event;
    let claim = Claim::from(event);
    let ruling = rules::rule(None, &claim, delivery.via.authority());
    let state = State::from(event.class);
    let first = tasks::NewTask {
        source: &delivery.source,
        task_id: verified.task_id.as_str(),
        state,
        media: media_of(event),
        prompt: event.prompt.as_deref(),
        received_at: delivery.received_at,
    };
    let task = first.insert(tx, hash)?;
    let mut outcome = Outcome::first(task)?;
    outcome.standing = Some(standing(&claim, false));
    outcome.count(ruling.verdict);
    outcome.write(tx, delivery, (&verified.kind, verified.index, event), Said::News)?;
    for (n, file) in (0..).zip(announced(item, task)) {
        file.insert_at(tx, ranges::nth(task, n)?)?;
    }
    let count = Count {
        verdict: ruling.verdict,
        reason: reason_of(ruling, event),
    };
    let row = row_of(item, count, Some((task, outcome.id)), Body::Here);
    let id = row.insert(tx)?;
    let is_held = verified.hold && fetchable(event) > 0;
    let about = (&verified.kind, verified.index);
    if state == State::Pending || is_held {
        asks::review(tx, (task, about), None)?;
    }
    if delivery.via == Via::Callback {
        ask_for_more(tx, item, task, None)?;
    }
    Ok(Recorded {
        queued: if is_held { 0 } else { fetchable(event) },
        ..count.recorded(Some(id))
    })
}

/// Lets the rules decide about a task that is known, and carries out their effect.
fn believe(tx: &mut Tx<'_>, item: Item<'_>, task: i64) -> rusqlite::Result<Recorded> {
    let Item { delivery, verified } = item;
    let event = &verified.event;
    let about = (&verified.kind, verified.index);
    let mut outcome = Outcome::find(tx, task, about)?;
    let before = outcome.standing;
    let claim = Claim::from(event);
    let ruling = rules::rule(before.as_ref(), &claim, delivery.via.authority());
    let has_stored = before.is_some_and(|standing| standing.has_stored);
    let said = match ruling.effect {
        Effect::Keep => Said::Nothing,
        Effect::RefreshText => Said::Text,
        Effect::Adopt | Effect::Overrule => Said::News,
    };
    let adopted = said == Said::News;
    if adopted {
        outcome.standing = Some(standing(&claim, has_stored));
    }
    let settled = ruling.settles && outcome.conflicts > 0;
    if settled {
        outcome.conflicts = 0;
    }
    let disputed = ruling.verdict == Verdict::Conflict;
    outcome.conflicts += i64::from(disputed);
    let mut kept = outcome.count(ruling.verdict);
    if adopted && !kept {
        outcome.count_anyway();
        kept = true;
    }
    outcome.write(tx, delivery, (&verified.kind, verified.index, event), said)?;
    if settled {
        accept::mark_settled(tx, task, outcome.id)?;
    }
    let queued = fetch(tx, item, task, (ruling, has_stored))?;
    let prompt = event.prompt.as_deref().filter(|_| adopted);
    tasks::count_delivery(tx, task, delivery.received_at, prompt)?;
    let by_provider = delivery.via != Via::Callback;
    if adopted || settled || disputed || by_provider {
        summary::refresh(tx, task)?;
    }
    if delivery.via == Via::Poll && adopted && !before.is_some_and(|before| before.state.is_terminal()) {
        tasks::count_repaired(tx, task, outcome.id)?;
    }
    if adopted && delivery.via == Via::Callback {
        let family = tasks::family(tx, task)?;
        ask_for_more(tx, item, task, family.as_deref())?;
    }
    // A repeat, which is the usual one, opens and closes nothing.
    if adopted || settled || disputed || by_provider {
        asks::review(tx, (task, about), None)?;
    }
    let count = Count {
        verdict: ruling.verdict,
        reason: reason_of(ruling, event),
    };
    let delivery = keep_row(tx, item, (&outcome, kept), (count, verified.binding))?;
    Ok(Recorded {
        queued,
        ..count.recorded(delivery)
    })
}

/// Gives the outcome the files that a delivery about it brings, as the rules say; how many are fetched because of it.
fn fetch(
    tx: &mut Tx<'_>,
    item: Item<'_>,
    task: i64,
    (ruling, has_stored): (Ruling, bool),
) -> rusqlite::Result<usize> {
    let Item { delivery, verified } = item;
    let event = &verified.event;
    let about = (&verified.kind, verified.index);
    match ruling.effect {
        Effect::Adopt if !has_stored => {
            let present = downloads::present(tx, task, about)?;
            for file in announced(item, task) {
                file.insert(tx, &present)?;
            }
        }
        // A person had made it fail: what is stored keeps its place, and the new files get others.
        Effect::Adopt | Effect::Overrule => overrule::files(tx, task, &overruling(item))?,
        Effect::Keep | Effect::RefreshText => {
            return match event.class {
                _ if delivery.via == Via::Callback => Ok(0),
                OutcomeClass::Progress => Ok(0),
                OutcomeClass::Success => downloads::release_held(tx, (task, about)),
                OutcomeClass::Failure => {
                    let denied = ("unconfirmed", "the provider's record says that the task failed");
                    downloads::fail_waiting(tx, (task, about), "held", denied).map(|()| 0)
                }
            };
        }
    }
    Ok(if verified.hold { 0 } else { fetchable(event) })
}

/// Opens the questions that a callback raises although it ended its outcome: the rest of an extended film, and whether a
/// failure is true, where callbacks are to be confirmed.
fn ask_for_more(tx: &mut Tx<'_>, item: Item<'_>, task: i64, family: Option<&str>) -> rusqlite::Result<()> {
    let Item { verified, .. } = item;
    let place = (task, (&verified.kind, verified.index));
    match verified.event.class {
        OutcomeClass::Success if extends_another(&verified.task_id, family) => {
            asks::open(tx, place, Reason::Full)
        }
        OutcomeClass::Failure if verified.hold => asks::open(tx, place, Reason::Unconfirmed),
        _ => Ok(()),
    }
}

/// Whether a task extends the video of another: then the provider's record names the whole film, and the callback does
/// not. Known by the family that was announced, or by the documented form of its id.
fn extends_another(task_id: &TaskId, announced_as: Option<&str>) -> bool {
    announced_as == Some(family::EXTENSION) || task_id.as_str().starts_with("veo_extend")
}

/// Counts a delivery under a signature that was used before, on the outcome of that first use.
fn recount(
    tx: &mut Tx<'_>,
    item: Item<'_>,
    mut outcome: Outcome,
    count: Count,
) -> rusqlite::Result<Recorded> {
    let Item { delivery, verified } = item;
    let kept = outcome.count(count.verdict);
    let disputed = count.verdict == Verdict::Conflict;
    outcome.conflicts += i64::from(disputed);
    let about = (&verified.kind, verified.index, &verified.event);
    outcome.write(tx, delivery, about, Said::Nothing)?;
    tasks::count_delivery(tx, outcome.task, delivery.received_at, None)?;
    if disputed {
        summary::refresh(tx, outcome.task)?;
        asks::review_outcome(tx, (outcome.task, outcome.id))?;
    }
    let row = keep_row(tx, item, (&outcome, kept), (count, None))?;
    Ok(count.recorded(row))
}

/// Writes the row of a delivery that is counted on an outcome, if there is room for it; without one, a signature that it used
/// first is bound all the same.
fn keep_row(
    tx: &mut Tx<'_>,
    item: Item<'_>,
    (outcome, kept): (&Outcome, bool),
    (count, binding): (Count, Option<Binding>),
) -> rusqlite::Result<Option<i64>> {
    if !kept {
        if let Some(binding) = &binding {
            binding::insert(tx, binding, item.delivery, item.verified)?;
        }
        return Ok(None);
    }
    let owner = owner_of_body(tx, outcome.task, &item.delivery.body_digest)?;
    // The earliest has the body: one that was rejected first may come before its owner.
    let again = item.delivery.again.as_ref();
    let later = owner.filter(|owner| again.is_some_and(|again| again.id < *owner));
    let body = match owner {
        Some(owner) if later.is_none() => Body::Of(owner),
        _ => Body::Here,
    };
    let row = DeliveryRow {
        binding,
        ..row_of(item, count, Some((outcome.task, outcome.id)), body)
    };
    let id = row.insert(tx)?;
    if let Some(later) = later {
        bodies::pass(tx, outcome.task, (later, id))?;
    }
    Ok(Some(id))
}

/// A reused signature whose first task was deleted: a few rows are kept beside any task, without bodies.
fn orphan(tx: &mut Tx<'_>, item: Item<'_>, orphans: i64) -> rusqlite::Result<Recorded> {
    if orphans >= ROWS_PER_VERDICT {
        return Ok(SIGNATURE_REUSED.recorded(None));
    }
    let binding = item.verified.binding.as_ref();
    binding::count_orphan(tx, binding.expect("only a bound signature is reused"))?;
    let row = DeliveryRow {
        binding: None,
        ..row_of(item, SIGNATURE_REUSED, None, Body::Digest)
    };
    let id = row.insert(tx)?;
    Ok(SIGNATURE_REUSED.recorded(Some(id)))
}

/// How many deliveries came for a task after it was deleted; `None` if it was not.
fn buried(tx: &Tx<'_>, item: Item<'_>) -> rusqlite::Result<Option<i64>> {
    tx.db
        .prepare_cached("SELECT late FROM tombstones WHERE task_id = ?1 AND source = ?2")?
        .query_row(
            params![item.verified.task_id.as_str(), item.delivery.source],
            |row| row.get(0),
        )
        .optional()
}

/// A delivery for a deleted task: noted without its body, reviving nothing.
fn bury(tx: &mut Tx<'_>, item: Item<'_>, late: i64) -> rusqlite::Result<Recorded> {
    tx.execute(
        "UPDATE tombstones SET late = late + 1 WHERE task_id = ?1 AND source = ?2",
        params![item.verified.task_id.as_str(), item.delivery.source],
    )?;
    if late >= ROWS_PER_VERDICT {
        return Ok(DELETED.recorded(None));
    }
    let row = DeliveryRow {
        binding: None,
        ..row_of(item, DELETED, None, Body::Digest)
    };
    let id = row.insert(tx)?;
    Ok(DELETED.recorded(Some(id)))
}

/// The announced files, as downloads.
fn announced(item: Item<'_>, task: i64) -> impl Iterator<Item = NewDownload> {
    let Item { delivery, verified } = item;
    let outcome = (&verified.kind, verified.index);
    let media = verified.event.media.iter();
    media.map(move |media| {
        let mut file = NewDownload::announced(task, outcome, media, delivery.received_at);
        if verified.hold {
            file.hold();
        }
        file
    })
}

/// The row of a verified delivery that uses its signature for the first time.
fn row_of(item: Item<'_>, count: Count, place: Option<(i64, i64)>, body: Body) -> DeliveryRow<'_> {
    let Item { delivery, verified } = item;
    DeliveryRow {
        delivery,
        verdict: count.verdict,
        reason: count.reason,
        task: place.map(|(task, _)| task),
        outcome: place.map(|(_, outcome)| outcome),
        task_id: Some(verified.task_id.as_str()),
        kind: Some(verified.kind.as_str()),
        idx: Some(verified.index),
        binding: verified.binding,
        body,
        share: None,
    }
}

fn standing(claim: &Claim, has_stored: bool) -> Standing {
    Standing {
        state: claim.class.into(),
        digest: claim.digest,
        has_media: claim.has_media,
        has_stored,
    }
}

fn overruling(item: Item<'_>) -> Overruling<'_> {
    let Item { delivery, verified } = item;
    Overruling {
        kind: &verified.kind,
        index: verified.index,
        media: &verified.event.media,
        received_at: delivery.received_at,
        hold: verified.hold,
    }
}

fn reason_of(ruling: Ruling, event: &Event) -> Option<&'static str> {
    let too_many = || event.media.iter().any(downloads::stands_for_too_many);
    match ruling.verdict {
        Verdict::Conflict if State::from(event.class) == State::Failed => Some("failure_after_success"),
        Verdict::Conflict => Some("different_media"),
        Verdict::Accepted if ruling.contradicts_stored => Some("contradicts_stored"),
        Verdict::Accepted if too_many() => Some("too_many_files"),
        _ => None,
    }
}

/// How many of the announced files can be fetched.
fn fetchable(event: &Event) -> usize {
    event.media.iter().filter(|media| media.fault.is_none()).count()
}

/// The media summary of a task with just these files; the rule over any files is `summary::refresh`'s.
fn media_of(event: &Event) -> &'static str {
    match event.media.as_slice() {
        [] => "none",
        files if files.iter().all(|file| file.fault.is_some()) => "failed",
        _ => "queued",
    }
}
